//! BPF file systems: which there are, whether one outlives this process's mount namespace, and mounting the ones that a host lacks.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{major, minor, statfs};
use rustix::mount::{MountFlags, mount};

use super::pins;
use crate::cli_error::{CliError, Code};

/// `BPF_FS_MAGIC` (kernel `magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where a host usually has one.
const USUAL: &str = "/sys/fs/bpf";
/// The directory of breaker's own files while the host runs.
const RUN: &str = "/run/breaker";
/// What to do about a mount namespace of one's own.
pub const IN_PRIVATE_MOUNTS: &str = "run breaker in the mount namespace of the host, with `nsenter --net=/run/netns/NAME breaker` in place of \
     `ip netns exec`; where the load is to end with this mount namespace, say --private-pins";

/// True where a path lies, or would lie, in a BPF file system.
pub fn holds(path: &Path) -> bool {
    path.ancestors()
        .find(|place| place.exists())
        .is_some_and(|place| statfs(place).is_ok_and(|found| found.f_type == BPF_FS_MAGIC))
}

/// True where the file system at a path is not one of the mounts of process 1, and so ends with this mount namespace. Whoever may not
/// look at those mounts is not told.
pub fn is_private(path: &Path) -> bool {
    let Some(found) = path.ancestors().find_map(|place| fs::metadata(place).ok()) else { return false };
    let device = format!("{}:{}", major(found.dev()), minor(found.dev()));
    let Ok(mounts) = fs::read_to_string("/proc/1/mountinfo") else { return false };
    // The third word of a line is the device: proc_pid_mountinfo(5).
    !mounts.lines().any(|line| line.split(' ').nth(2) == Some(&device))
}

/// Mounts a BPF file system where one belongs and is missing: at the usual place, and at breaker's own. Refuses to do so in a mount
/// namespace other than that of process 1, unless that is allowed.
pub fn mount_missing(place: &Path, private: bool) -> Result<()> {
    let is_own = place == Path::new(pins::DEFAULT);
    if holds(place) || !(is_own || place == Path::new(USUAL)) {
        return Ok(());
    }
    if !private && in_private_mounts() {
        let text = format!(
            "mounting a BPF file system at {}: this process has a mount namespace of its own, and what is pinned would end with that: \
             {IN_PRIVATE_MOUNTS}",
            place.display()
        );
        return Err(CliError::new(Code::Interface, text).into());
    }
    if is_own {
        directory(Path::new(RUN), 0o755)?;
        directory(place, 0o700)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", place, "bpf", flags, Some(c"mode=0700"))
        .with_context(|| format!("mounting the BPF file system at {}", place.display()))
}

/// Makes a directory that may be there.
fn directory(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("creating {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// True where this process has another mount namespace than process 1, whose file in /proc not even root may look at everywhere: no
/// mount of the one is a mount of the other.
fn in_private_mounts() -> bool {
    // The thread's: another one of the process may be elsewhere. The first word of a line is the number of the mount.
    let mounts = |process: &str| fs::read_to_string(format!("/proc/{process}/mountinfo"));
    let (Ok(first), Ok(own)) = (mounts("1"), mounts("thread-self")) else { return false };
    let numbers = |text: &str| {
        text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect::<HashSet<u64>>()
    };
    numbers(&first).is_disjoint(&numbers(&own))
}
