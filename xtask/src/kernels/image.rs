//! Debian's cloud kernels: found through the package index, verified by apt, and of each only the files that booting it takes.
//!
//! apt is configured anew for each suite in a directory of its own: nothing of the machine's package management is changed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use super::modules;
use crate::process;

/// The series that is asked for by no number.
pub const NEWEST: &str = "newest";
/// Where Debian's archive is, unless apt is told of another place for it.
const ARCHIVE: &str = "http://deb.debian.org/";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Series of kernels and the suite that has them, with their fixes; all others are where the newest is.
const SUITES: [(&str, Suite); 3] = [
    ("5.10", Suite { name: "bullseye-security", label: "Debian-Security", directory: "debian-security" }),
    ("6.1", Suite { name: "bookworm-security", label: "Debian-Security", directory: "debian-security" }),
    ("6.12", Suite { name: "trixie-security", label: "Debian-Security", directory: "debian-security" }),
];
const NEWEST_SUITE: Suite = Suite { name: "trixie-backports", label: "Debian", directory: "debian" };

/// A suite, and which archive it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suite {
    name: &'static str,
    label: &'static str,
    directory: &'static str,
}

/// A kernel that can be booted.
pub struct Image {
    /// Its `uname -r`.
    pub release: String,
    /// What QEMU starts.
    pub kernel: PathBuf,
    /// Modules in the order in which they can be loaded.
    pub modules: Vec<PathBuf>,
}

/// Finds kernels in their suites. Asks each suite once, however many of its kernels are wanted.
pub fn fetch(wanted: &[String], cache: &Path) -> Result<Vec<Image>> {
    let mut indexes = BTreeMap::new();
    let mut image = |series: &String| {
        let suite = suite_of(series);
        let index = match indexes.entry(suite) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Index::update(suite, cache)?),
        };
        index.image(series, cache)
    };
    let named = |series| {
        image(series).with_context(|| format!("kernel {series} of Debian's {}", suite_of(series).name))
    };
    wanted.iter().map(named).collect()
}

fn suite_of(series: &str) -> Suite {
    SUITES.iter().find(|(of, _)| *of == series).map_or(NEWEST_SUITE, |(_, suite)| *suite)
}

/// What a suite has.
struct Index {
    apt: Apt,
    packages: Vec<String>,
}

impl Index {
    fn update(suite: Suite, cache: &Path) -> Result<Self> {
        let apt = Apt::new(suite, &cache.join("suites").join(suite.name))?;
        process::run(apt.command("apt-get", "update").arg("-qq"))?;
        let names =
            apt.command("apt-cache", "pkgnames").arg("linux-").output().context("starting apt-cache")?;
        let packages: Vec<String> =
            String::from_utf8_lossy(&names.stdout).lines().map(str::to_owned).collect();
        if packages.is_empty() {
            bail!("its index has no packages of a kernel: could it be fetched?");
        }
        Ok(Self { apt, packages })
    }

    /// The newest kernel of a series, from the cache where it is there.
    fn image(&self, series: &str, cache: &Path) -> Result<Image> {
        let release = newest(&self.packages, series).ok_or_else(|| anyhow!("there is none"))?;
        let done = cache.join("images").join(&release);
        if !done.is_dir() {
            let work = done.with_extension("new");
            let _ = fs::remove_dir_all(&work);
            fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
            self.unpack(&release, &work).with_context(|| format!("linux {release}"))?;
            fs::rename(&work, &done).with_context(|| format!("renaming {}", work.display()))?;
        }
        let modules = modules::in_order(&done)?;
        Ok(Image { kernel: done.join("vmlinuz"), modules, release })
    }

    /// Downloads what a kernel consists of: one package, or from 6.19 on an empty one and two with the files.
    fn unpack(&self, release: &str, into: &Path) -> Result<()> {
        let parts = ["image", "binary", "modules"].map(|part| format!("linux-{part}-{release}"));
        let there: Vec<&String> = parts.iter().filter(|name| self.packages.contains(name)).collect();
        eprintln!("fetching linux {release}");
        process::run(self.apt.command("apt-get", "download").arg("-qq").args(there).current_dir(into))?;
        for file in files(into)? {
            extract(&file, into)?;
        }
        if !into.join("vmlinuz").is_file() {
            bail!("no vmlinuz is in its packages");
        }
        let missing = modules::missing(into)?;
        if !missing.is_empty() {
            bail!("its packages lack {}", missing.join(", "));
        }
        Ok(())
    }
}

/// apt with a list of one suite.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(suite: Suite, home: &Path) -> Result<Self> {
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(directory))
                .with_context(|| format!("creating {}", home.display()))?;
        }
        let archive = archive(suite);
        let list = format!("deb [arch=amd64 signed-by={KEYS}] {archive} {} main\n", suite.name);
        fs::write(home.join("sources.list"), list).and_then(|()| fs::write(home.join("status"), ""))?;
        let at = |name: &str| home.join(name).display().to_string();
        let options = vec![
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::State::Status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Architecture=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            // Else an index that could not be fetched is no error, and an old one is used.
            "APT::Update::Error-Mode=any".to_owned(),
            // As who it runs: the directories are ours, and not of the user that apt would become.
            "APT::Sandbox::User=".to_owned(),
            "Debug::NoLocking=1".to_owned(),
        ];
        Ok(Self { options })
    }

    fn command(&self, program: &str, verb: &str) -> Command {
        let mut command = Command::new(program);
        command.arg(verb).args(self.options.iter().flat_map(|option| ["-o", option]));
        command
    }
}

/// The archive that this machine's apt knows under the suite's label: a mirror, it may be.
fn archive(suite: Suite) -> String {
    let format = "$(ORIGIN) $(LABEL) $(REPO_URI)";
    let known = process::answer(Command::new("apt-get").args(["indextargets", "--format", format]));
    mirror(&known.unwrap_or_default(), suite).unwrap_or_else(|| format!("{ARCHIVE}{}", suite.directory))
}

fn mirror(known: &str, suite: Suite) -> Option<String> {
    let start = format!("Debian {} ", suite.label);
    known.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
}

/// The release with the highest version in a series, of those that have a package.
fn newest(packages: &[String], series: &str) -> Option<String> {
    let of = if series == NEWEST { Vec::new() } else { numbers(series) };
    let releases = packages.iter().filter_map(|name| name.strip_prefix("linux-image-"));
    releases
        .filter(|release| {
            release.ends_with("-cloud-amd64") && release.starts_with(|first: char| first.is_ascii_digit())
        })
        .map(|release| (numbers(release.trim_end_matches("-cloud-amd64")), release))
        // A name with only two numbers is of a package that leads on to another.
        .filter(|(version, _)| version.len() > 2 && version.starts_with(&of))
        .max()
        .map(|(_, release)| release.to_owned())
}

/// Reads a series of kernels: two numbers with a dot, or `newest`.
pub fn series(text: &str) -> Result<String> {
    let numbers: Vec<&str> = text.split('.').collect();
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text != NEWEST && (numbers.len() != 2 || !numbers.iter().all(is_number)) {
        bail!("a series of kernels is two numbers, as in 6.1, or `{NEWEST}`");
    }
    Ok(text.to_owned())
}

/// The numbers in a text, in order.
pub fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Takes the kernel and the modules that we know out of a package, and removes it.
fn extract(package: &Path, into: &Path) -> Result<()> {
    let archive = into.join("data.tar");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(package).stdout(File::create(&archive)?);
    process::run(&mut unpack)?;
    let list = Command::new("tar").arg("-tf").arg(&archive).output().context("starting tar")?;
    for member in String::from_utf8_lossy(&list.stdout).lines() {
        let file = member.rsplit('/').next().unwrap_or_default();
        // In /boot up to 6.18, among the modules after.
        let name = if file.starts_with("vmlinuz") { "vmlinuz" } else { file };
        if name == "vmlinuz" || modules::may_be_needed(name) {
            take(&archive, member, &into.join(name))?;
        }
    }
    fs::remove_file(&archive)?;
    fs::remove_file(package)?;
    Ok(())
}

/// Takes one member out of an archive; a compressed module is decompressed, which not every kernel can.
fn take(archive: &Path, member: &str, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-xOf").arg(archive).arg(member).stdout(File::create(to)?).stdin(Stdio::null());
    process::run(&mut tar)?;
    if to.extension().is_some_and(|extension| extension == "xz") {
        process::run(Command::new("xz").args(["--decompress", "--force"]).arg(to))?;
    }
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        files.push(entry?.path());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_by_number_and_never_a_leading_package() {
        let packages: Vec<String> = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.101+deb12-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-image-unsigned-7.9.9-cloud-amd64",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(newest(&packages, "6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&packages, NEWEST).as_deref(), Some("6.12.101+deb12-cloud-amd64"));
        assert_eq!(newest(&packages, "6.18"), None);
    }

    #[test]
    fn a_series_is_two_numbers_or_the_newest() {
        assert!(series("6.1").is_ok() && series(NEWEST).is_ok());
        for wrong in ["", "6", "6.", "6.1.2", "6.x", "../6.1", "Newest"] {
            assert!(series(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mirror_is_the_one_of_the_same_label() {
        let known = "Google cloud http://g/\nDebian Debian http://m/debian/\nDebian Debian-Security http://m/security/";
        assert_eq!(mirror(known, NEWEST_SUITE).as_deref(), Some("http://m/debian/"));
        assert_eq!(mirror(known, suite_of("6.1")).as_deref(), Some("http://m/security/"));
        assert_eq!(mirror("Ubuntu Ubuntu http://u/", NEWEST_SUITE), None);
    }
}
