//! `cargo xtask bench`: see [`breaker_tests::bench`]. Arguments: `--smoke`, `--results FILE`, and names of sections.

use std::path::PathBuf;

use breaker_tests::{bench, privileged};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut names, mut smoke, mut results) = (Vec::new(), false, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // What the kill of a process kills.
            "--blast" => return bench::blast(&arguments.next().expect("a flood behind --blast")),
            "--smoke" => smoke = true,
            "--results" => results = Some(PathBuf::from(arguments.next().expect("a path behind --results"))),
            _ => names.push(argument),
        }
    }
    if privileged() {
        bench::run(&names, smoke, results.as_deref());
    }
}
