//! Unnamed network namespaces, which the kernel removes with their last user.

use std::fs::File;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::thread::{self, Builder, JoinHandle};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::error::{Error, Result};

/// A network namespace with a mount namespace of its own. Its loopback interface is up.
///
/// The mount namespace has a private BPF file system at `/sys/fs/bpf`, and a `/sys` whose `class/net` shows
/// the interfaces of this network namespace. The new `/sys` hides the mounts below the old one: cgroup,
/// tracefs, debugfs.
///
/// The namespace has no name in `/run/netns` and no thread. It lasts as long as this value, or as a thread,
/// process or socket inside it, and ends with them after `kill -9` too. See `network_namespaces(7)`,
/// `mount_namespaces(7)`.
///
/// A thread inside finds the files of `proc_pid_net(5)` in `/proc/thread-self/net`. `/proc/net` is a link to
/// the files of the process, and so of the host.
#[derive(Debug)]
pub struct Namespace {
    network: File,
    mounts: File,
}

impl Namespace {
    /// Creates a namespace.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN (`found` is `PermissionDenied`), or if the kernel has no BPF file system.
    pub fn new() -> Result<Self> {
        // unshare(2) moves the calling thread: a short-lived thread creates the namespace, and the caller
        // stays.
        let maker = spawn_thread(unshare).map_err(thread_error)?;
        let namespace = maker.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        namespace.set_up("lo")?;
        Ok(namespace)
    }

    /// Runs `f` inside. Its sockets, processes and threads are in the namespace and stay there.
    /// Calls may run at the same time and may be nested.
    ///
    /// # Panics
    /// If `f` panics, or if the process has lost CAP_SYS_ADMIN since [`Namespace::new`].
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let inside = || self.enter().map(|()| f());
        let result = thread::scope(|scope| {
            let thread =
                Builder::new().name(THREAD.to_owned()).spawn_scoped(scope, inside).map_err(thread_error)?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        });
        result.unwrap_or_else(|error: Error| panic!("{error}"))
    }

    /// Starts a thread inside that outlives this call. The namespace lasts at least as long as the thread.
    ///
    /// # Panics
    /// As [`Namespace::run`].
    pub fn spawn<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        // A thread starts in the namespaces of its creator.
        self.run(|| spawn_thread(f)).unwrap_or_else(|found| panic!("{}", thread_error(found)))
    }

    /// Sets a kernel parameter, as `sysctl(8)` does: `net/ipv4/ip_forward` = 1 enables forwarding.
    ///
    /// # Errors
    /// If the kernel does not know the name or does not accept the value.
    pub fn set_sysctl(&self, name: &str, value: u32) -> Result<()> {
        // Below /proc/sys/net each thread sees the values of its own network namespace.
        self.run(|| std::fs::write(format!("/proc/sys/{name}"), value.to_string())).map_err(|found| {
            Error::from_kernel(format!("setting {name} to {value}"), found, "see /proc/sys/net")
        })
    }

    /// The file descriptor of the network namespace, for a netlink request that names it.
    pub(super) fn network(&self) -> &File {
        &self.network
    }

    /// Moves the calling thread into the namespace permanently.
    fn enter(&self) -> Result<()> {
        let enter = || {
            // SAFETY: the file descriptor table stays shared. Only the root, the working directory and the
            // umask become the thread's own, which setns(2) requires for a mount namespace.
            unsafe { unshare_unsafe(UnshareFlags::FS) }?;
            move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
            move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))
        };
        enter().map_err(|found| {
            Error::from_kernel("entering a network namespace", found, "close some threads or files")
        })
    }
}

/// Name of the testbed's threads in `ps` and `top`.
const THREAD: &str = "breaker-testbed";

/// Starts a thread in the namespaces of the caller.
pub(super) fn spawn_thread<R: Send + 'static>(
    f: impl FnOnce() -> R + Send + 'static,
) -> std::io::Result<JoinHandle<R>> {
    Builder::new().name(THREAD.to_owned()).spawn(f)
}

fn thread_error(found: std::io::Error) -> Error {
    Error::new(
        "starting a thread",
        found,
        "raise the limits on threads and memory (ulimit -u, cgroup pids.max)",
    )
}

/// Creates both namespaces and moves the calling thread into them.
fn unshare() -> Result<Namespace> {
    let new = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: the file descriptor table stays shared.
    unsafe { unshare_unsafe(new) }.map_err(|found| {
        Error::from_kernel("creating a network namespace", found, "build the kernel with CONFIG_NET_NS")
    })?;
    // Without this the mounts below would propagate to the host and stay there.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|found| {
        Error::from_kernel("making the mounts private", found, "see /proc/self/mountinfo")
    })?;
    // sysfs shows the network namespace of the thread that mounts it.
    mount_at("/sys", "sysfs")?;
    mount_at("/sys/fs/bpf", "bpf")?;
    Ok(Namespace { network: open("/proc/thread-self/ns/net")?, mounts: open("/proc/thread-self/ns/mnt")? })
}

fn mount_at(path: &str, kind: &str) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(kind, path, kind, flags, None).map_err(|found: Errno| {
        Error::from_kernel(
            format!("mounting {kind} at {path}"),
            found,
            "build the kernel with CONFIG_SYSFS and CONFIG_BPF_SYSCALL",
        )
    })
}

fn open(path: &str) -> Result<File> {
    File::open(path).map_err(|found| Error::from_kernel(format!("opening {path}"), found, "mount /proc"))
}
