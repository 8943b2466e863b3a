//! One run of the program: in a process group of its own, with the event as its standard input, for at most
//! some seconds. There is no shell.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::time::Timespec;

use crate::config::OnEvent;

/// The program's search path. It gets no other variable, so that the agent's own do not reach it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program that runs now.
#[derive(Default)]
pub struct Running(Mutex<Option<Pid>>);

impl Running {
    /// Returns true while the program runs.
    pub fn is_busy(&self) -> bool {
        self.group().is_some()
    }

    /// Kills the program and its process group.
    pub fn kill(&self) {
        if let Some(group) = *self.group() {
            // The result is ignored: the group may have ended in this moment.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn group(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the program with an event until it ends, for at most `limit`. Kills its process group then, so
    /// that nothing of it is left when the next run starts.
    ///
    /// # Errors
    /// Fails if the program cannot be started, ends without success, or is killed.
    pub fn run(&self, on_event: &OnEvent, event: &str, limit: Duration) -> Result<()> {
        let mut command = Command::new(on_event.program.as_path());
        command.args(&on_event.arguments).env_clear().env("PATH", PATH).current_dir("/");
        command.stdin(input(event)?).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().context("it cannot be started")?;
        let group = Pid::from_child(&child);
        *self.group() = Some(group);
        let ended = wait(&child, limit);
        // Before the process is reaped, its number cannot be another group's.
        {
            let mut running = self.group();
            let _ = kill_process_group(group, Signal::KILL);
            *running = None;
        }
        let status = child.wait().context("waiting for its end")?;
        ensure!(ended?, "it was killed after {} s", limit.as_secs_f64());
        if !status.success() {
            bail!("it ended with {status}");
        }
        Ok(())
    }
}

/// A file in memory with the event: the program may read it or not, and the agent never waits.
fn input(event: &str) -> Result<Stdio> {
    let mut file = File::from(memfd_create("event", MemfdFlags::CLOEXEC).context("writing the event")?);
    file.write_all(event.as_bytes()).and_then(|()| file.write_all(b"\n")).context("writing the event")?;
    file.rewind().context("writing the event")?;
    Ok(file.into())
}

/// Waits for the end of a process, without reaping it. Returns false if it runs longer than `limit`.
fn wait(child: &Child, limit: Duration) -> Result<bool> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("watching the program")?;
    let deadline = Instant::now() + limit;
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if rest.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error).context("watching the program"),
        }
    }
}
