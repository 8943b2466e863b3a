//! journald, which takes over where the audit log cannot be written, and keeps its last line each minute.
//!
//! A message is one datagram in the native protocol (systemd, JOURNAL_NATIVE_PROTOCOL). No call waits, and a
//! host without journald loses nothing but this copy.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::audit::{Entry, LogEnd};

/// Socket of journald.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Name of this program in the journal.
const IDENTIFIER: &str = "breaker";
/// Priority of an event that the audit log does not have: warning.
const WARNING: &str = "4";
/// Priority of the last line of a log: informational.
const INFO: &str = "6";
/// Most records of a last line that are read: those of a day.
const MAX_RECORDS: &str = "1440";

/// Sends an event that the audit log does not contain yet.
pub fn send_entry(log: &Path, entry: &Entry) -> io::Result<()> {
    let scope = entry.scope.as_deref().unwrap_or("-");
    let reason = entry.reason.as_deref().unwrap_or("-");
    let (time, kind, counts) = (entry.time.to_string(), &entry.kind, entry.counts.to_string());
    let user = &entry.actor.user;
    let message = format!("not in the audit log yet: {time} {kind} {scope} by {user} {reason:?} {counts}");
    send(&[
        ("MESSAGE", &message),
        ("PRIORITY", WARNING),
        ("BREAKER_AUDIT_FILE", &log.to_string_lossy()),
        ("BREAKER_TIME", &time),
        ("BREAKER_KIND", kind),
        ("BREAKER_SCOPE", scope),
        ("BREAKER_CAUSE", entry.cause.as_deref().unwrap_or_default()),
        ("BREAKER_USER", user),
        ("BREAKER_UID", &entry.actor.uid.to_string()),
        ("BREAKER_REASON", reason),
        ("BREAKER_COUNTS", &counts),
        ("BREAKER_POLICY", &entry.policy),
    ])
}

/// Sends number and hash of the last line of a log.
pub fn send_end(log: &Path, end: &LogEnd) -> io::Result<()> {
    let (log, seq) = (log.to_string_lossy(), end.seq.to_string());
    let message = format!("audit log {log}: line number {seq} has SHA-256 {}", end.hash);
    send(&[
        ("MESSAGE", &message),
        ("PRIORITY", INFO),
        ("BREAKER_AUDIT_LOG", &log),
        ("BREAKER_AUDIT_SEQ", &seq),
        ("BREAKER_AUDIT_HASH", &end.hash),
    ])
}

/// Last lines of a log that the journal has, of root, of this user and of the owner of the log, as whom the
/// agent of a package runs; none if the journal cannot be read.
pub fn read_ends(log: &Path) -> Vec<LogEnd> {
    let owner = std::fs::metadata(log).map_or(0, |found| found.uid());
    let users = [0, rustix::process::getuid().as_raw(), owner].map(|uid| format!("_UID={uid}"));
    let ran = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=json", "--lines", MAX_RECORDS])
        .arg(format!("BREAKER_AUDIT_LOG={}", log.display()))
        .args(users)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(output) = ran else { return Vec::new() };
    let end = |line: &[u8]| {
        let record: serde_json::Value = serde_json::from_slice(line).ok()?;
        let hash = record.get("BREAKER_AUDIT_HASH")?.as_str()?.to_owned();
        Some(LogEnd { seq: record.get("BREAKER_AUDIT_SEQ")?.as_str()?.parse().ok()?, hash })
    };
    output.stdout.split(|byte| *byte == b'\n').filter_map(end).collect()
}

fn send(fields: &[(&str, &str)]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(&datagram(fields), SOCKET).map(drop)
}

/// The fields as a datagram. A value with a newline has its length before it.
fn datagram(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields.iter().chain(&[("SYSLOG_IDENTIFIER", IDENTIFIER)]) {
        bytes.extend(name.as_bytes());
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend((value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::datagram;

    #[test]
    fn a_value_with_a_newline_has_its_length_before_it() {
        let found = datagram(&[("MESSAGE", "plain=x"), ("BREAKER_REASON", "a\nb")]);
        let expected =
            b"MESSAGE=plain=x\nBREAKER_REASON\n\x03\0\0\0\0\0\0\0a\nb\nSYSLOG_IDENTIFIER=breaker\n";
        assert_eq!(found, expected);
    }
}
