//! Tests of the rules of the configuration, each with valid and invalid texts.

mod fleet;
mod hosts;
mod mutated;
mod people;
mod sample;
mod scopes;
mod sessions;
mod shared_endpoints;
mod whole;

use super::{Diagnostic, Policy, parse};

const HOST: &str = "[host]\ninterfaces = [\"eth1\"]\n";

fn accepted(text: &str) -> Policy {
    parse("breaker.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Asserts that these are all the errors of the text. A `¦` marks the position of each error.
#[track_caller]
fn refused(marked: &str, messages: &[&str]) {
    let text = marked.replace('¦', "");
    let errors = parse("breaker.toml", &text).expect_err("the text should be refused");
    let found: Vec<_> = errors.diagnostics().iter().map(Diagnostic::message).collect();
    assert_eq!(found, messages, "\n{errors}");
    let places: Vec<_> = errors.diagnostics().iter().map(|error| (error.line(), error.column())).collect();
    assert_eq!(places, marks(marked), "\n{errors}");
    let shown = errors.to_string();
    for (line, column) in places {
        assert!(
            shown.contains(&format!("breaker.toml:{line}:{column}\n")),
            "{line}:{column} is not in\n{shown}"
        );
    }
}

fn marks(marked: &str) -> Vec<(usize, usize)> {
    let in_line = |(index, line): (usize, &str)| {
        let mut before = 0;
        let mut pieces: Vec<_> = line.split('¦').collect();
        pieces.pop();
        let columns = pieces.into_iter().map(move |piece| {
            before += piece.chars().count();
            (index + 1, before + 1)
        });
        columns.collect::<Vec<_>>()
    };
    marked.split('\n').enumerate().flat_map(in_line).collect()
}

/// [`refused`] for a line in `[host]`.
#[track_caller]
fn refused_in_host(line: &str, message: &str) {
    refused(&format!("{HOST}{line}\n"), &[message]);
}

/// [`refused`] for a line in a session `x` with a remote.
#[track_caller]
fn refused_in_session(line: &str, message: &str) {
    let session = "[[session]]\nname = \"x\"\nremote = \"10.9.0.2:9001\"\n";
    refused(&format!("{HOST}{session}{line}\n"), &[message]);
}

/// A session with these lines, besides its name.
fn session(name: &str, lines: &str) -> String {
    format!("[[session]]\nname = \"{name}\"\n{lines}\n")
}

fn warnings(text: &str) -> Vec<(usize, usize, String)> {
    let policy = accepted(text);
    policy.warnings().iter().map(|one| (one.line(), one.column(), one.message().to_owned())).collect()
}
