//! Work that a verb leaves to a process of its own, so that neither a lock nor a disk delays the verb.

use std::fs::OpenOptions;
use std::io;

/// Starts a process that does the work and ends. The process has no terminal, and no output: a reader of the
/// verb's output waits until the output is closed, and must not wait for this process.
///
/// The caller must have one thread only, as the verbs have.
///
/// # Errors
/// If no process can be started.
pub fn run(work: impl FnOnce()) -> io::Result<()> {
    // SAFETY: the caller has no other thread, so no lock is held in the child.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        _ => return Ok(()),
    }
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
        let _ = rustix::process::setsid();
        work();
    }
    // SAFETY: ends this process without the exit handlers of the parent.
    unsafe { libc::_exit(0) };
}
