//! An initramfs with this machine's systemd, breaker with its packaged units, and the units of the boot test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Cpio;
use super::image::Image;
use crate::process;
use crate::workspace;

/// Programs of this machine, which are copied with their libraries.
const PROGRAMS: [&str; 18] = [
    "/usr/lib/systemd/systemd",
    "/usr/lib/systemd/systemd-journald",
    "/usr/lib/systemd/systemd-shutdown",
    "/usr/bin/systemctl",
    "/usr/bin/systemd-sysusers",
    "/usr/bin/systemd-tmpfiles",
    "/usr/bin/mount",
    "/usr/bin/umount",
    "/usr/bin/chown",
    "/usr/bin/ip",
    "/usr/bin/kill",
    "/usr/bin/journalctl",
    // The scripts of the package run these.
    "/usr/bin/dash",
    "/usr/bin/find",
    "/usr/bin/getent",
    "/usr/bin/mountpoint",
    "/usr/bin/rm",
    "/usr/sbin/userdel",
];
/// Units of systemd that a boot needs.
const UNITS: [&str; 22] = [
    "basic.target",
    "final.target",
    "local-fs-pre.target",
    "local-fs.target",
    "multi-user.target",
    "network-pre.target",
    "network.target",
    "paths.target",
    "poweroff.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
    "time-set.target",
    "timers.target",
    "umount.target",
];
const UNIT_DIRECTORY: &str = "usr/lib/systemd/system";
/// Units by the target that wants them.
const WANTED: [(&str, &str); 9] = [
    ("sysinit.target", "systemd-journald.service"),
    ("sysinit.target", "systemd-sysusers.service"),
    ("sysinit.target", "systemd-tmpfiles-setup.service"),
    ("sysinit.target", "rig.service"),
    ("sockets.target", "breaker-control.socket"),
    ("multi-user.target", "breaker-load.service"),
    ("multi-user.target", "breaker-agent.service"),
    ("multi-user.target", "network-card.service"),
    ("multi-user.target", "check.service"),
];
/// The units of the test. The rig starts before every other unit. A network manager brings the card up after
/// network-pre.target, see systemd.special(7).
const TEST_UNITS: [(&str, &str); 3] = [
    (
        "rig.service",
        "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target local-fs-pre.target\n\
         [Service]\nExecStart=/usr/bin/boot rig\n",
    ),
    (
        "network-card.service",
        "[Unit]\nDefaultDependencies=no\nAfter=rig.service network-pre.target\nBefore=network.target\n\
         Wants=network-pre.target network.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/usr/bin/boot card\n",
    ),
    (
        "check.service",
        "[Unit]\nAfter=network-card.service breaker-load.service breaker-agent.service\n\
         [Service]\nType=oneshot\nExecStart=/usr/bin/boot check\nStandardOutput=tty\n",
    ),
];
const POLICY: &str = "schema = 1\n[host]\ninterfaces = [\"eth1\"]\n\
    [[session]]\nname = \"tripped\"\nremote = \"10.9.0.2:9001\"\n\
    [[session]]\nname = \"live\"\nremote = \"10.9.0.2:9002\"\n";
/// Gives the files of an earlier boot to their owner.
const OWNERS: &str = "Z /var/lib/breaker - breaker breaker\nZ /var/log/breaker - breaker breaker\n";

/// Returns the initramfs. `disk` has files of an earlier boot by path; the first boot has none.
pub fn initramfs(
    image: &Image,
    programs: &BTreeMap<String, Vec<u8>>,
    disk: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    for directory in
        ["dev", "proc", "sys", "run", "tmp", "root", "var/tmp", "etc/systemd/system", "usr/bin", "usr/sbin"]
    {
        tree.directory(directory);
    }
    for (link, target) in
        [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
    {
        tree.archive.symlink(link, target);
    }
    tree.archive.device("dev/console", (5, 1));
    tree.archive.symlink("usr/bin/sh", "dash");
    for program in PROGRAMS {
        tree.host_program(program)?;
    }
    for name in ["breaker", "boot"] {
        tree.file(&format!("usr/bin/{name}"), programs.get(name).with_context(|| name.to_owned())?, true);
    }
    add_modules(&mut tree, image)?;
    add_units(&mut tree)?;
    add_scripts(&mut tree)?;
    add_settings(&mut tree, !disk.is_empty())?;
    for (path, content) in disk {
        tree.file(path.trim_start_matches('/'), content, false);
    }
    Ok(tree.archive.finish())
}

fn add_modules(tree: &mut Tree, image: &Image) -> Result<()> {
    let mut list = String::new();
    for module in &image.modules {
        let path = format!("modules/{}", module.file_name().unwrap_or_default().to_string_lossy());
        tree.file(&path, &read(module)?, false);
        list.push_str(&format!("/{path}\n"));
    }
    tree.file("modules.list", list.as_bytes(), false);
    Ok(())
}

fn add_units(tree: &mut Tree) -> Result<()> {
    for unit in UNITS {
        tree.file(
            &format!("{UNIT_DIRECTORY}/{unit}"),
            &read(&Path::new("/usr/lib/systemd/system").join(unit))?,
            false,
        );
    }
    let packaged = workspace::root().join("packaging");
    for entry in fs::read_dir(packaged.join("systemd")).context("reading packaging/systemd")? {
        let path = entry?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tree.file(&format!("{UNIT_DIRECTORY}/{name}"), &read(&path)?, false);
        }
    }
    for (name, text) in TEST_UNITS {
        tree.file(&format!("{UNIT_DIRECTORY}/{name}"), text.as_bytes(), false);
    }
    for (target, unit) in WANTED {
        tree.directory(&format!("etc/systemd/system/{target}.wants"));
        let link = format!("etc/systemd/system/{target}.wants/{unit}");
        tree.archive.symlink(&link, &format!("/{UNIT_DIRECTORY}/{unit}"));
    }
    for name in ["sysusers.d", "tmpfiles.d"] {
        tree.file(
            &format!("usr/lib/{name}/breaker.conf"),
            &read(&packaged.join(name).join("breaker.conf"))?,
            false,
        );
    }
    tree.file("usr/lib/tmpfiles.d/owners.conf", OWNERS.as_bytes(), false);
    Ok(())
}

/// Adds the scripts of the package where dpkg keeps them.
fn add_scripts(tree: &mut Tree) -> Result<()> {
    let scripts = workspace::root().join("packaging/scripts");
    ["postinst", "prerm", "postrm"].iter().try_for_each(|name| {
        tree.file(&format!("var/lib/dpkg/info/breaker.{name}"), &read(&scripts.join(name))?, true);
        Ok(())
    })
}

fn add_settings(tree: &mut Tree, is_second: bool) -> Result<()> {
    tree.file("etc/breaker/breaker.toml", POLICY.as_bytes(), false);
    tree.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", false);
    tree.file("etc/group", b"root:x:0:\nutmp:x:43:\nsystemd-journal:x:101:\n", false);
    tree.file("etc/shadow", b"root:*:19000:0:99999:7:::\n", false);
    tree.file("etc/machine-id", b"0123456789abcdef0123456789abcdef\n", false);
    tree.file("etc/os-release", b"ID=test\n", false);
    if is_second {
        tree.file("etc/second", b"", false);
    }
    Ok(())
}

/// An archive whose directories are added before their files.
#[derive(Default)]
struct Tree {
    archive: Cpio,
    directories: BTreeSet<PathBuf>,
    files: BTreeSet<String>,
}

impl Tree {
    fn directory(&mut self, path: &str) {
        let path = Path::new(path);
        let mut parents: Vec<_> = path.ancestors().filter(|parent| !parent.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            if self.directories.insert(parent.to_owned()) {
                self.archive.directory(&parent.to_string_lossy());
            }
        }
    }

    fn file(&mut self, path: &str, content: &[u8], is_program: bool) {
        if !self.files.insert(path.to_owned()) {
            return;
        }
        if let Some(parent) = Path::new(path).parent() {
            self.directory(&parent.to_string_lossy());
        }
        if is_program { self.archive.file(path, content) } else { self.archive.data(path, content) }
    }

    /// Adds a program of this machine and its libraries.
    fn host_program(&mut self, path: &str) -> Result<()> {
        self.host_file(path)?;
        let output =
            process::stdout_of(Command::new("ldd").arg(path)).with_context(|| format!("ldd {path}"))?;
        for library in output.split_whitespace().filter(|word| word.starts_with('/')) {
            self.host_file(library)?;
        }
        Ok(())
    }

    /// Adds a file of this machine under its name in a merged /usr.
    fn host_file(&mut self, path: &str) -> Result<()> {
        let directory = Path::new(path).parent().context("a path")?;
        let directory = fs::canonicalize(directory).with_context(|| format!("looking at {path}"))?;
        let name = directory.join(Path::new(path).file_name().context("a name")?);
        self.file(name.to_string_lossy().trim_start_matches('/'), &read(Path::new(path))?, true);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
