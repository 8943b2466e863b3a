//! Root, which most tests need: they make network namespaces and load BPF programs.

use std::io::Write;

/// The variable that allows tests to be skipped without root.
const SKIP: &str = "BREAKER_SKIP_ROOT";

/// Returns from a test that needs root, if it may be skipped; see [`allows`].
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::root::allows() {
            return;
        }
    };
}

/// Returns true with root, and false if the test is to be skipped.
///
/// A skipped test has the result `ok` from the test harness, which has no skip at run time. The line that
/// begins with `skipped: ` lets `cargo xtask test` count the test as skipped. The line goes around the output
/// capture of the harness.
///
/// # Panics
/// Without root, unless `BREAKER_SKIP_ROOT=1` is set.
#[track_caller]
pub fn allows() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os(SKIP).is_some_and(|value| value == "1"),
        "this test needs root: run `sudo -E cargo test`, or set {SKIP}=1 to skip it"
    );
    skip("needs root");
    false
}

/// Marks the current test as skipped. The test must return.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    // With one test thread the harness has begun the line with the name of the test.
    let line = format!("\nskipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    std::io::stdout().write_all(line.as_bytes()).expect("writing to standard output");
}
