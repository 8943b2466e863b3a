//! The program of `cargo xtask bench`: see [`breaker_tests::bench`]. Arguments: `--smoke`, `--into
//! DIRECTORY`, and names of sections; or `--draw DIRECTORY`, which measures nothing. Both directories are the
//! repository.

use std::path::PathBuf;

use breaker_tests::{bench, root};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut names, mut smoke, mut repository) = (Vec::new(), false, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // The sender of the method that kills a process.
            "--blast" => return bench::blast(&arguments.next().expect("a load behind --blast")),
            "--smoke" => smoke = true,
            "--into" => repository = arguments.next().map(PathBuf::from),
            "--draw" => return bench::renew(arguments.next().expect("a directory behind --draw").as_ref()),
            _ => names.push(argument),
        }
    }
    if root::allows() {
        bench::run(&names, smoke, repository.as_deref());
    }
}
