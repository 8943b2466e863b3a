//! BPF file systems: whether a path is in one, whether it ends with this process's mount namespace, and
//! mounting a missing one.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{major, minor, statfs};
use rustix::mount::{MountFlags, mount};

use crate::cli_error::{CliError, Code};

/// `BPF_FS_MAGIC` (kernel `magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// The usual mount point of a host.
const USUAL_MOUNT: &str = "/sys/fs/bpf";
/// The mount point of breaker alone.
pub const OWN_MOUNT: &str = "/run/breaker/bpf";
/// The directory of breaker's runtime files.
const RUN_DIRECTORY: &str = "/run/breaker";
/// Advice for a mount namespace other than the host's.
pub const PRIVATE_MOUNT_ADVICE: &str = "run breaker in the mount namespace of the host, with `nsenter \
                                        --net=/run/netns/NAME breaker` in place of `ip netns exec`; if the \
                                        load is to end with this mount namespace, use --private-pins";

/// Returns true if a path is, or would be, in a BPF file system.
pub fn holds(path: &Path) -> bool {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .is_some_and(|ancestor| statfs(ancestor).is_ok_and(|found| found.f_type == BPF_FS_MAGIC))
}

/// Returns true if the file system at a path is not mounted for process 1. Then it ends with this mount
/// namespace. Returns false if this process may not read those mounts.
pub fn is_private(path: &Path) -> bool {
    let Some(found) = path.ancestors().find_map(|ancestor| fs::metadata(ancestor).ok()) else { return false };
    let device = format!("{}:{}", major(found.dev()), minor(found.dev()));
    let Ok(mounts) = fs::read_to_string("/proc/1/mountinfo") else { return false };
    // The third field of a line is the device (proc_pid_mountinfo(5)).
    !mounts.lines().any(|line| line.split(' ').nth(2) == Some(&device))
}

/// Mounts a BPF file system at the usual mount point or at breaker's own, if it is missing. Refuses this in a
/// mount namespace other than that of process 1, unless `private` allows it.
pub fn mount_missing(directory: &Path, private: bool) -> Result<()> {
    let is_own = directory == Path::new(OWN_MOUNT);
    if holds(directory) || !(is_own || directory == Path::new(USUAL_MOUNT)) {
        return Ok(());
    }
    if !private && in_private_mounts() {
        let text = format!(
            "mounting a BPF file system at {}: this process has a mount namespace of its own, and pins would \
             end with it: {PRIVATE_MOUNT_ADVICE}",
            directory.display()
        );
        return Err(CliError::new(Code::Interface, text).into());
    }
    if is_own {
        make_directory(Path::new(RUN_DIRECTORY), 0o755)?;
        make_directory(directory, 0o700)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", directory, "bpf", flags, Some(c"mode=0700"))
        .with_context(|| format!("mounting the BPF file system at {}", directory.display()))
}

/// Makes a directory, unless it exists.
fn make_directory(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("creating {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Returns true if this process has another mount namespace than process 1: the two have no mount in common.
/// Even root may not read the namespace file of process 1 on every host.
fn in_private_mounts() -> bool {
    // Other threads may be in another namespace. The first field of a line is the number of the mount.
    let mounts = |process: &str| fs::read_to_string(format!("/proc/{process}/mountinfo"));
    let (Ok(first), Ok(own)) = (mounts("1"), mounts("thread-self")) else { return false };
    let mount_ids = |text: &str| {
        text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect::<HashSet<u64>>()
    };
    mount_ids(&first).is_disjoint(&mount_ids(&own))
}
