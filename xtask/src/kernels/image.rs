//! Fetches Debian cloud kernels: apt verifies the packages, and only the files for booting are kept.
//!
//! Each suite has its own apt configuration in its own directory. The package management of the machine is
//! not changed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use super::modules;
use crate::process;

/// The name that selects the newest series.
pub const NEWEST: &str = "newest";
/// The archive of Debian, unless apt on this machine has a mirror.
const ARCHIVE: &str = "http://deb.debian.org/";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Kernel series with the suite of their security updates. All other series are in the suite of the newest
/// kernel.
const SUITES: [(&str, Suite); 3] = [
    ("5.10", Suite { name: "bullseye-security", label: "Debian-Security", directory: "debian-security" }),
    ("6.1", Suite { name: "bookworm-security", label: "Debian-Security", directory: "debian-security" }),
    ("6.12", Suite { name: "trixie-security", label: "Debian-Security", directory: "debian-security" }),
];
const NEWEST_SUITE: Suite = Suite { name: "trixie-backports", label: "Debian", directory: "debian" };

/// A suite and its archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suite {
    name: &'static str,
    label: &'static str,
    directory: &'static str,
}

/// A kernel that QEMU can boot.
pub struct Image {
    /// The release, as in `uname -r`.
    pub release: String,
    /// The path of the kernel image.
    pub kernel: PathBuf,
    /// The paths of the modules in load order.
    pub modules: Vec<PathBuf>,
}

/// Fetches the newest kernel of each series. The index of a suite is updated once for all its kernels.
pub fn fetch(wanted: &[String], cache: &Path) -> Result<Vec<Image>> {
    let mut indexes = BTreeMap::new();
    let mut fetch_image = |series: &String| {
        let suite = suite_of(series);
        let index = match indexes.entry(suite) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Index::update(suite, cache)?),
        };
        index.image(series, cache)
    };
    let with_name = |series| {
        fetch_image(series).with_context(|| format!("kernel {series} of Debian's {}", suite_of(series).name))
    };
    wanted.iter().map(with_name).collect()
}

fn suite_of(series: &str) -> Suite {
    SUITES.iter().find(|(name, _)| *name == series).map_or(NEWEST_SUITE, |(_, suite)| *suite)
}

/// The package index of a suite.
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
            bail!("the index has no kernel packages: check the network access to the archive");
        }
        Ok(Self { apt, packages })
    }

    /// Returns the newest kernel of a series, from the cache if the cache has the kernel.
    fn image(&self, series: &str, cache: &Path) -> Result<Image> {
        let release = newest(&self.packages, series)
            .ok_or_else(|| anyhow!("the suite has no kernel of this series"))?;
        let done = cache.join("images").join(&release);
        if !done.is_dir() {
            let work = done.with_extension("new");
            let _ = fs::remove_dir_all(&work);
            fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
            self.unpack(&release, &work).with_context(|| format!("linux {release}"))?;
            fs::rename(&work, &done).with_context(|| format!("renaming {}", work.display()))?;
        }
        let modules = modules::load_order(&done)?;
        Ok(Image { kernel: done.join("vmlinuz"), modules, release })
    }

    /// Downloads and unpacks the packages of a kernel. From 6.19 on the image package is empty, and two more
    /// packages have the files.
    fn unpack(&self, release: &str, into: &Path) -> Result<()> {
        let parts = ["image", "binary", "modules"].map(|part| format!("linux-{part}-{release}"));
        let available: Vec<&String> = parts.iter().filter(|name| self.packages.contains(name)).collect();
        eprintln!("fetching linux {release}");
        process::run(self.apt.command("apt-get", "download").arg("-qq").args(available).current_dir(into))?;
        for file in files(into)? {
            extract(&file, into)?;
        }
        if !into.join("vmlinuz").is_file() {
            bail!("its packages contain no vmlinuz");
        }
        let missing = modules::missing(into)?;
        if !missing.is_empty() {
            bail!("its packages lack {}", missing.join(", "));
        }
        Ok(())
    }
}

/// An apt configuration with one suite as its only source.
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
            // Without this option a failed download is no error, and apt uses an old index.
            "APT::Update::Error-Mode=any".to_owned(),
            // apt keeps the user of xtask: the sandbox user could not write to the directories.
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

/// Returns the archive that apt on this machine has for the label of the suite, which may be a mirror.
fn archive(suite: Suite) -> String {
    let format = "$(ORIGIN) $(LABEL) $(REPO_URI)";
    let known = process::stdout_of(Command::new("apt-get").args(["indextargets", "--format", format]));
    mirror(&known.unwrap_or_default(), suite).unwrap_or_else(|| format!("{ARCHIVE}{}", suite.directory))
}

fn mirror(known: &str, suite: Suite) -> Option<String> {
    let start = format!("Debian {} ", suite.label);
    known.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
}

/// Returns the release with the highest version in a series.
fn newest(packages: &[String], series: &str) -> Option<String> {
    let prefix = if series == NEWEST { Vec::new() } else { numbers(series) };
    let releases = packages.iter().filter_map(|name| name.strip_prefix("linux-image-"));
    releases
        .filter(|release| {
            release.ends_with("-cloud-amd64") && release.starts_with(|first: char| first.is_ascii_digit())
        })
        .map(|release| (numbers(release.trim_end_matches("-cloud-amd64")), release))
        // A name with only two numbers belongs to a metapackage.
        .filter(|(version, _)| version.len() > 2 && version.starts_with(&prefix))
        .max()
        .map(|(_, release)| release.to_owned())
}

/// Parses a kernel series: two numbers with a dot, or `newest`.
pub fn series(text: &str) -> Result<String> {
    let numbers: Vec<&str> = text.split('.').collect();
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text != NEWEST && (numbers.len() != 2 || !numbers.iter().all(is_number)) {
        bail!("a kernel series is two numbers such as 6.1, or `{NEWEST}`");
    }
    Ok(text.to_owned())
}

/// Returns the numbers in a text, in order.
pub fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Extracts the kernel and the known modules from a package, and removes the package.
fn extract(package: &Path, into: &Path) -> Result<()> {
    let archive = into.join("data.tar");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(package).stdout(File::create(&archive)?);
    process::run(&mut unpack)?;
    let list = Command::new("tar").arg("-tf").arg(&archive).output().context("starting tar")?;
    for member in String::from_utf8_lossy(&list.stdout).lines() {
        let file = member.rsplit('/').next().unwrap_or_default();
        // The kernel image is in /boot up to 6.18, and beside the modules from 6.19 on.
        let name = if file.starts_with("vmlinuz") { "vmlinuz" } else { file };
        if name == "vmlinuz" || modules::is_used(name) {
            extract_member(&archive, member, &into.join(name))?;
        }
    }
    fs::remove_file(&archive)?;
    fs::remove_file(package)?;
    Ok(())
}

/// Extracts one member of an archive. A compressed module is decompressed, because not every kernel can do
/// so.
fn extract_member(archive: &Path, member: &str, to: &Path) -> Result<()> {
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
    fn the_newest_of_a_series_is_found_by_number_and_is_never_a_metapackage() {
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
    fn a_mirror_is_found_by_the_label_of_the_suite() {
        let known = "Google cloud http://g/\nDebian Debian http://m/debian/\n\
                     Debian Debian-Security http://m/security/";
        assert_eq!(mirror(known, NEWEST_SUITE).as_deref(), Some("http://m/debian/"));
        assert_eq!(mirror(known, suite_of("6.1")).as_deref(), Some("http://m/security/"));
        assert_eq!(mirror("Ubuntu Ubuntu http://u/", NEWEST_SUITE), None);
    }
}
