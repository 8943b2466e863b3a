//! Serves one connection to the control socket, or waits for connections if systemd passed the socket.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::sockopt::socket_acceptconn;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::answer;
use super::request::Request;
use crate::agent::control::Control;
use crate::audit::{Actor, Entry, act_for};
use crate::cli::{Cli, ControlArgs};
use crate::cli_error::{CliError, Code};
use crate::command;
use crate::journal;
use crate::kernel::PinRoot;
use crate::people::Peer;
use crate::rules::Rules;
use crate::seqpacket::{Received, peer, receive, set_timeout};

/// Longest wait for the request, and for the user to read the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The first descriptor of sd_listen_fds(3).
const FIRST_PASSED: RawFd = 3;

/// Serves the connection that was passed. Waits for connections if a listening socket was passed.
pub fn run(root: &PinRoot, args: &ControlArgs) -> Result<ExitCode> {
    let connection = passed_socket();
    if socket_acceptconn(&connection).context("serving control: this is for systemd and the agent")? {
        return wait_for_requests(connection, root, &args.config.config);
    }
    let peer = peer(&connection).context("serving control: reading who is connected")?;
    set_timeout(&connection, TIMEOUT).context("serving control")?;
    // A connection without a request is closed without an entry in the log.
    let bytes = match receive(&connection) {
        Ok(Received::Message(bytes)) => Ok(bytes),
        Ok(Received::TooLong) => Err("it is longer than 4 KB"),
        Ok(Received::End) | Err(_) => return Ok(ExitCode::SUCCESS),
    };
    act_for(Actor::at_control(peer.uid, peer.pid));
    let output = Captured::begin().context("serving control")?;
    let mut log = DenialLog { omit: args.omit_denied, omitted: args.omitted, is_denied: false };
    let code = command::report(handle_request(bytes, root, (&args.config.config, &peer), &mut log));
    let (stdout, stderr) = output.end().context("serving control")?;
    // The result is ignored: the verb has run and is logged, even if the connection is closed.
    let _ = answer::send(&connection, &stdout, &stderr, exit_number(code));
    Ok(if log.is_denied { Code::Permission.into() } else { ExitCode::SUCCESS })
}

/// Waits for requests at a listening socket, and starts a process for each. Runs until a signal.
fn wait_for_requests(listener: OwnedFd, root: &PinRoot, config: &Path) -> Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build().context("serving control")?;
    runtime.block_on(async {
        let control = Control::new(listener, root, config).context("serving control")?;
        control.run(std::future::pending()).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Returns the passed socket: the first passed descriptor, or standard input.
fn passed_socket() -> OwnedFd {
    let env_is = |name, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let is_passed = env_is("LISTEN_FDS", "1") && env_is("LISTEN_PID", &std::process::id().to_string());
    // SAFETY: the starter of this process has passed the descriptor, and nothing else uses or closes it.
    unsafe { OwnedFd::from_raw_fd(if is_passed { FIRST_PASSED } else { libc::STDIN_FILENO }) }
}

/// Checks a request and runs its verb.
fn handle_request(
    bytes: Result<Vec<u8>, &str>,
    root: &PinRoot,
    (config, peer): (&Path, &Peer),
    log: &mut DenialLog,
) -> Result<ExitCode> {
    let rules = Rules::read(root, config);
    let mut invalid = |found: &str| {
        log.record(&rules, None, json!({ "found": found }));
        let text =
            format!("reading the request: {found}: nothing is changed: send one JSON object of at most 4 KB");
        CliError::new(Code::Usage, text)
    };
    let bytes = bytes.map_err(&mut invalid)?;
    let request: Request =
        serde_json::from_slice(&bytes).map_err(|error| invalid(&format!("it is no request ({error})")))?;
    let verb = request.to_verb(config).map_err(|found| invalid(&found))?;
    let doing = match &request.scope {
        Some(scope) => format!("{} {scope:?}", verb_name(&request)),
        None => verb_name(&request),
    };
    let served = root.path();
    if request.pin_root.as_deref().is_some_and(|asked| asked != served) {
        let text = format!(
            "{doing}: refused, nothing is changed: the control socket serves {}: choose this --pin-root, \
             or run as root",
            served.display()
        );
        return Err(CliError::new(Code::Permission, text).into());
    }
    if let Some(found) = rules.denial_reason(peer, request.verb) {
        log.record(&rules, Some(&request), json!({ "verb": verb_name(&request), "found": found }));
        let user = Actor::this_process("control").user;
        let text = format!(
            "{doing}: refused, nothing is changed: user {user}: {found}: ask a person of [people].risk, or \
             root"
        );
        return Err(CliError::new(Code::Permission, text).into());
    }
    command::run(Cli {
        pin_root: served.to_owned(),
        private_pins: root.is_private(),
        control: Path::new("").into(),
        verb,
    })
}

/// Returns the name of the verb of a request.
fn verb_name(request: &Request) -> String {
    serde_json::to_value(request.verb)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The log of a denied request.
struct DenialLog {
    /// True if the request is not logged if it is denied.
    omit: bool,
    /// Number of earlier requests that were not logged.
    omitted: u64,
    /// True if the request was denied.
    is_denied: bool,
}

impl DenialLog {
    /// Logs a denied request.
    fn record(&mut self, rules: &Rules, request: Option<&Request>, mut counts: Value) {
        self.is_denied = true;
        if self.omit {
            return;
        }
        if self.omitted != 0 {
            counts["omitted"] = self.omitted.into();
        }
        let cut = |text: &String| text[..text.floor_char_boundary(1000)].to_owned();
        let entry = Entry {
            time: Timestamp::now(),
            kind: "denied".to_owned(),
            scope: request.and_then(|request| request.scope.as_ref()).map(cut),
            cause: None,
            actor: Actor::this_process("control"),
            reason: request.and_then(|request| request.reason.as_ref()).map(cut),
            counts,
            policy: rules.policy.clone(),
        };
        journal::append_or_warn(rules.log.as_ref(), entry);
    }
}

/// Returns the number of an exit code. `ExitCode` has no conversion to a number.
fn exit_number(code: ExitCode) -> u8 {
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(Code::Unexpected as u8)
}

/// Standard output and standard error of this process, redirected to memory.
struct Captured {
    stdout: File,
    stderr: File,
}

impl Captured {
    fn begin() -> io::Result<Self> {
        let file = |name: &str| Ok::<_, io::Error>(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?));
        let (stdout, stderr) = (file("stdout")?, file("stderr")?);
        dup2_stdout(stdout.as_fd())?;
        dup2_stderr(stderr.as_fd())?;
        Ok(Self { stdout, stderr })
    }

    fn end(mut self) -> io::Result<(String, String)> {
        io::stdout().flush()?;
        let read = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok((read(&mut self.stdout)?, read(&mut self.stderr)?))
    }
}
