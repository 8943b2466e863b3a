//! A trading host on which a package is installed.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use breaker_user::testbed::TwoHosts;
use rustix::mount::{MountFlags, mount, mount_bind_recursive};
use tempfile::TempDir;

use crate::command::CliOutput;

/// A trading host whose file system is that of this machine. Every change is kept in memory, and ends with
/// the value. No systemd runs on the host.
pub struct PackagedHost {
    /// The namespaces of the host and of the venue.
    pub network: TwoHosts,
    directory: TempDir,
}

impl PackagedHost {
    /// Makes a host.
    ///
    /// # Panics
    /// If the kernel cannot mount an overlay over the root of this machine.
    pub fn new() -> Self {
        let network = TwoHosts::new().expect("making namespaces");
        let host = Self { network, directory: TempDir::new().expect("making a directory") };
        host.run_inside(|| host.mount()).expect("mounting the file system of the host");
        host
    }

    fn mount(&self) -> io::Result<()> {
        let (base, flags) = (self.directory.path(), MountFlags::empty());
        mount("tmpfs", base, "tmpfs", flags, None)?;
        let [upper, work, root] = ["upper", "work", "root"].map(|name| base.join(name));
        [&upper, &work, &root].into_iter().try_for_each(std::fs::create_dir)?;
        let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        mount("overlay", &root, "overlay", flags, Some(CString::new(options)?.as_c_str()))?;
        for name in ["proc", "sys", "dev"] {
            mount_bind_recursive(Path::new("/").join(name), root.join(name))?;
        }
        Ok(mount("tmpfs", root.join("run"), "tmpfs", flags, None)?)
    }

    /// Runs a function in the namespaces of the host, but with the root directory of this machine.
    pub fn run_inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.network.firm.run(f)
    }

    /// Returns the path of a file of the host, for [`PackagedHost::run_inside`].
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Reads a file of the host.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        let text = self.run_inside(|| std::fs::read_to_string(self.path(path)));
        text.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Returns a command that runs on the host, for [`PackagedHost::output`].
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LC_ALL", "C"),
            ("NO_COLOR", "1"),
            // The mounts of the host end with it.
            ("BREAKER_PRIVATE_PINS", "1"),
        ]);
        let root = self.path("/");
        let enter = move || {
            std::os::unix::fs::chroot(&root)?;
            std::env::set_current_dir("/")
        };
        // SAFETY: the child of fork(2) makes two system calls, and the C library allows it to allocate.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command and returns its output.
    #[track_caller]
    pub fn output(&self, mut command: Command) -> CliOutput {
        let ran = self.run_inside(|| command.output());
        CliOutput::new(ran.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Runs a program of the host as root.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> CliOutput {
        self.output(self.command(program, args))
    }

    /// Returns the paths that contain a word among those that were written since the host was made, except
    /// those of package managers and of the cache of rendered manual pages.
    pub fn written(&self, word: &str) -> Vec<String> {
        let upper = self.directory.path().join("upper");
        let mut find = Command::new("find");
        find.arg(&upper).args(["!", "-type", "c", "-path", &format!("{}/*{word}*", upper.display())]);
        let output = self.output(find).expect_exit(0).stdout;
        let paths = output.lines().filter_map(|line| line.strip_prefix(&*upper.to_string_lossy()));
        let others = ["/var/lib/dpkg/", "/var/lib/rpm/", "/var/cache/man/"];
        let is_other = |path: &str| others.iter().any(|directory| path.starts_with(directory));
        paths.filter(|path| !is_other(path)).map(str::to_owned).collect()
    }
}

impl Default for PackagedHost {
    fn default() -> Self {
        Self::new()
    }
}
