//! The machine's own programs, run in a namespace.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use breaker_user::testbed::Namespace;

/// Runs a command line, its words parted by blanks. What it prints, or why it failed.
pub fn sh(namespace: &Namespace, line: &str) -> Result<String, String> {
    fed(namespace, line, "")
}

/// The same, with something on its input.
pub fn fed(namespace: &Namespace, line: &str, input: &str) -> Result<String, String> {
    namespace.run(|| here(line, input))
}

/// The same, in this thread's namespace.
pub fn here(line: &str, input: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    // With a path of its own it is started by vfork(2). Else the standard library forks, which takes the longer the more memory we
    // have: a difference that is not of the programs.
    let mut command = Command::new(find(program).ok_or_else(|| format!("there is no {program}"))?);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let mut stdin = child.stdin.take().expect("its input");
    // A program that does not read its input has ended, and says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ran = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    let (said, complaint) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    if ran.status.success() { Ok(said.into_owned()) } else { Err(reason(&complaint, line)) }
}

/// Where a program is: on PATH, or where a user who is not root does not look.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The line of a complaint that says what is wrong, for a cell of a table.
fn reason(complaint: &str, line: &str) -> String {
    let mut lines = complaint.lines().filter(|line| !line.starts_with("Warning") && !line.trim().is_empty());
    lines.next().unwrap_or(line).replace('|', "/")
}
