//! Network namespaces that have no name, so that nothing of them can be left behind.

use std::fs::File;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::thread::{self, Builder, JoinHandle};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::error::{Error, Result};

/// A network namespace with a mount namespace of its own: a private BPF file system at `/sys/fs/bpf`, and a `/sys`
/// whose `class/net` shows the interfaces of this namespace. Its loopback is up.
///
/// It has no name in `/run/netns`, and no thread of its own: it lasts as long as this value, or a thread, process or
/// socket inside it. With those it is gone, after `kill -9` too. See `network_namespaces(7)`, `mount_namespaces(7)`.
///
/// The new `/sys` covers what was mounted below the old one (cgroup, tracefs, debugfs). A thread inside finds the files
/// of `proc_pid_net(5)` in `/proc/thread-self/net`: `/proc/net` is that of the process, and so the host's.
#[derive(Debug)]
pub struct Namespace {
    network: File,
    mounts: File,
}

impl Namespace {
    /// Makes a namespace.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN (`found` is `PermissionDenied`), and where the kernel has no BPF file system.
    pub fn new() -> Result<Self> {
        // A namespace is a thread's: one that ends at once makes it, so that the caller's thread stays where it is.
        let maker = spawn_thread(unshare).map_err(thread_error)?;
        let namespace = maker.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        namespace.set_up("lo")?;
        Ok(namespace)
    }

    /// Runs `f` inside: sockets that it opens, and processes and threads that it starts, are and stay in the namespace.
    /// Several calls may run at the same time, also one inside the other.
    ///
    /// # Panics
    /// As `f` does; and where the process has given up CAP_SYS_ADMIN since [`Namespace::new`].
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
    /// As [`Namespace::run`] does.
    pub fn spawn<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        // A thread starts in the namespaces of the thread that starts it.
        self.run(|| spawn_thread(f)).unwrap_or_else(|found| panic!("{}", thread_error(found)))
    }

    /// Sets what `sysctl(8)` sets: `net/ipv4/ip_forward` to 1 makes a router of the namespace.
    ///
    /// # Errors
    /// Where the kernel knows no such name, or not such a value.
    pub fn set_sysctl(&self, name: &str, value: u32) -> Result<()> {
        // Below /proc/sys/net each thread finds the values of its own network namespace.
        self.run(|| std::fs::write(format!("/proc/sys/{name}"), value.to_string())).map_err(|found| {
            Error::of_kernel(format!("setting {name} to {value}"), found, "look at what is in /proc/sys/net")
        })
    }

    /// The descriptor of the network namespace, for a netlink request that names one.
    pub(super) fn network(&self) -> &File {
        &self.network
    }

    /// Moves the calling thread into the namespace, for good.
    fn enter(&self) -> Result<()> {
        let enter = || {
            // SAFETY: the file descriptor table stays shared; only the root, working directory and umask become the
            // thread's own, which setns(2) demands for a mount namespace.
            unsafe { unshare_unsafe(UnshareFlags::FS) }?;
            move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
            move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))
        };
        enter().map_err(|found| {
            Error::of_kernel("entering a network namespace", found, "close some threads or files")
        })
    }
}

/// The name that the threads of the laboratory have in `ps` and `top`.
const THREAD: &str = "breaker-testbed";

/// Starts a thread of the laboratory in the namespaces of the caller.
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

/// Makes the namespaces for the calling thread.
fn unshare() -> Result<Namespace> {
    let new = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: the file descriptor table stays shared.
    unsafe { unshare_unsafe(new) }.map_err(|found| {
        Error::of_kernel("making a network namespace", found, "build the kernel with CONFIG_NET_NS")
    })?;
    // Without this the mounts below would show, and stay, on the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|found| {
        Error::of_kernel("making the mounts private", found, "look at /proc/self/mountinfo")
    })?;
    // A sysfs shows the network of the thread that mounts it.
    mount_at("/sys", "sysfs")?;
    mount_at("/sys/fs/bpf", "bpf")?;
    Ok(Namespace { network: open("/proc/thread-self/ns/net")?, mounts: open("/proc/thread-self/ns/mnt")? })
}

fn mount_at(path: &str, kind: &str) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(kind, path, kind, flags, None).map_err(|found: Errno| {
        Error::of_kernel(
            format!("mounting {kind} at {path}"),
            found,
            "build the kernel with CONFIG_SYSFS and CONFIG_BPF_SYSCALL",
        )
    })
}

fn open(path: &str) -> Result<File> {
    File::open(path).map_err(|found| Error::of_kernel(format!("opening {path}"), found, "mount /proc"))
}
