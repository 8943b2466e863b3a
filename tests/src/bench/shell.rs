//! Programs of the machine, run in a namespace.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use breaker_user::testbed::Namespace;

/// Runs a command line whose words are separated by spaces. Returns its output, or the reason of its failure.
pub fn run_in(namespace: &Namespace, line: &str) -> Result<String, String> {
    run_with_input(namespace, line, "")
}

/// Runs a command line with an input.
pub fn run_with_input(namespace: &Namespace, line: &str, input: &str) -> Result<String, String> {
    namespace.run(|| run_here(line, input))
}

/// Runs a command line in the namespace of this thread.
pub fn run_here(line: &str, input: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    // With a path, the standard library uses vfork(2). Otherwise it forks, and a fork takes longer the more
    // memory this process has.
    let mut command = Command::new(find_program(program).ok_or_else(|| format!("there is no {program}"))?);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let mut stdin = child.stdin.take().expect("its input");
    // A program that has ended without reading its input reports why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ran = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    let (said, complaint) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    if ran.status.success() { Ok(said.into_owned()) } else { Err(reason(&complaint, line)) }
}

/// Path of a program: on PATH, or in the directories that the PATH of a user often lacks.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The line of an error output that gives the reason, for a table cell.
fn reason(complaint: &str, line: &str) -> String {
    let mut lines = complaint.lines().filter(|line| !line.starts_with("Warning") && !line.trim().is_empty());
    lines.next().unwrap_or(line).replace('|', "/")
}
