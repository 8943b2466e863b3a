//! The results as tables, and the pages that have them: docs/kernels.md and docs/instructions.md.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::record::Counts;
use crate::{process, workspace};

/// What a kernel came to.
pub struct Row {
    pub release: String,
    pub hook: String,
    pub verified: Counts,
    pub passed: u64,
    pub seconds: u64,
    /// What `breaker load` said where the kernel is too old.
    pub refusal: Option<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, hook, passed, seconds, .. } = self;
        match &self.refusal {
            Some(said) => write!(f, "{release}, {seconds} s, refused: {said}"),
            None => {
                write!(f, "{release}, {seconds} s, {hook}, {passed} tests passed; verified instructions:")?;
                self.verified.iter().try_for_each(|(program, count)| write!(f, " {program} {count}"))
            }
        }
    }
}

/// What came of the tests, in Markdown: a column for each program of the object.
pub fn tests(rows: &[Row]) -> String {
    let programs: BTreeSet<&String> = rows.iter().flat_map(|row| row.verified.keys()).collect();
    let mut lines =
        vec![line("kernel", "hook", programs.iter().map(|name| format!("`{name}`, verified")), "tests", "s")];
    lines.push(line("---", "---", programs.iter().map(|_| "---:".to_owned()), "---:", "---:"));
    for row in rows {
        let counts =
            programs.iter().map(|name| row.verified.get(*name).map_or("–".to_owned(), u64::to_string));
        let (hook, passed) = match row.refusal {
            Some(_) => ("refused", "–".to_owned()),
            None => (row.hook.as_str(), row.passed.to_string()),
        };
        lines.push(line(&row.release, hook, counts, &passed, &row.seconds.to_string()));
    }
    lines.join("\n")
}

fn line(
    kernel: &str,
    hook: &str,
    counts: impl Iterator<Item = String>,
    tests: &str,
    seconds: &str,
) -> String {
    let counts: String = counts.map(|count| format!(" {count} |")).collect();
    format!("| {kernel} | {hook} |{counts} {tests} | {seconds} |")
}

/// Instructions by kind of packet, in Markdown: a column for each hook.
pub fn counts(counts: &Counts) -> String {
    let of = |name: &str| {
        name.split_once(": ")
            .map_or((name.to_owned(), String::new()), |(hook, kind)| (hook.to_owned(), kind.to_owned()))
    };
    let (hooks, kinds): (BTreeSet<String>, BTreeSet<String>) = counts.keys().map(|name| of(name)).unzip();
    let row = |kind: &str, cells: Vec<String>| format!("| {kind} | {} |", cells.join(" | "));
    let mut lines = vec![row("packet", hooks.iter().map(|hook| format!("`{hook}`")).collect())];
    lines.push(row("---", hooks.iter().map(|_| "---:".to_owned()).collect()));
    for kind in &kinds {
        let count = |hook| counts.get(&format!("{hook}: {kind}")).map_or("–".to_owned(), u64::to_string);
        lines.push(row(kind, hooks.iter().map(count).collect()));
    }
    lines.join("\n")
}

/// Writes docs/kernels.md.
pub fn write_tests(rows: &[Row]) -> Result<()> {
    write("kernels.md", |today| tests_text(rows, today))
}

/// Writes docs/instructions.md.
pub fn write_counts(release: &str, found: &Counts) -> Result<()> {
    write("instructions.md", |today| counts_text(release, found, today))
}

fn write(name: &str, text: impl Fn(&str) -> String) -> Result<()> {
    let today = process::answer(Command::new("date").args(["-u", "+%F"])).context("asking for the date")?;
    let docs = workspace::root().join("docs");
    fs::create_dir_all(&docs).with_context(|| format!("creating {}", docs.display()))?;
    let path = docs.join(name);
    fs::write(&path, text(&today)).with_context(|| format!("writing {}", path.display()))
}

fn counts_text(release: &str, found: &Counts, today: &str) -> String {
    format!(
        "# Instructions a packet\n\n\
         Seen on {today} on {release}, by `cargo xtask kernels --counts --renew`, which writes this file and `bench/instructions.json`.\n\n\
         {}\n\n\
         How many instructions of the processor breaker takes for a packet: those of a test run (BPF_PROG_TEST_RUN) less those of one\n\
         of an empty program over the same packet, the least of 12. The kernel is Debian's cloud kernel, booted in QEMU on one emulated\n\
         CPU whose clock goes on by a nanosecond with each instruction (`-icount shift=0,sleep=off`), so the time that the kernel gives\n\
         for a run is their number. It is the same in each run and after each boot, but for under 1 % where a search depends on the time.\n\n\
         - An instruction is not a time: what waits for memory costs more than it shows here, and the kernel's own work counts too.\n\
         - Scopes are the session's own, its groups and the host; limits are those of all of them that an order counts under. An order has\n  \
         200 bytes, a heartbeat 100.\n\
         - At tc a packet of a test run lies in one piece; the payload of a socket's does not, and each copy of it costs more.\n\n\
         `cargo xtask kernels` counts them again: 5 % more than in `bench/instructions.json` is a failure, and so is a kind of packet that\n\
         only one of the two has. `cargo xtask kernels --counts` does only that.\n",
        counts(found)
    )
}

fn tests_text(rows: &[Row], today: &str) -> String {
    let refusals = rows.iter().filter_map(|row| Some((&row.release, row.refusal.as_ref()?)));
    let refusals: String = refusals
        .map(|(release, said)| format!("\n`breaker load` on {release}, exit code 7:\n\n```\n{said}\n```\n"))
        .collect();
    format!(
        "# Kernels\n\n\
         Seen on {today}, by `cargo xtask kernels --renew`, which writes this file and `bench/verified.json`.\n\n\
         {}\n{refusals}\n\
         Each kernel is Debian's cloud kernel of that series, booted in QEMU without hardware acceleration (about 20 times slower\n\
         than a processor) on two emulated CPUs, with others at the same time. On each that is supported:\n\n\
         - every program of the object loads. *Verified* is how many instructions the verifier went through; it gives up at\n  \
         1,000,000. More than half of that, or 5 % more than in `bench/verified.json`, is a failure.\n\
         - `breaker load` ends and what it loaded goes on enforcing; another process trips it and unloads it.\n\
         - the program in the kernel agrees with `decide` on random packets (a twentieth of those of `cargo xtask test`).\n\
         - limits, switches and resets hold between two namespaces, judged by what the receiver gets; on a gateway between them too\n  \
         (`inline`), and what comes in is counted as what it is (`inbound`).\n\n\
         A warning of the kernel in any of it is a failure. `cargo xtask kernels --kernel 6.1,newest` runs some of them; any series\n\
         that Debian's backports have can be named.\n",
        tests(rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_for_each_program_and_a_dash_for_what_is_not() {
        let row = |release: &str, verified: &[(&str, u64)], refusal: Option<&str>| Row {
            release: release.to_owned(),
            hook: "tcx".to_owned(),
            verified: verified.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            passed: 11,
            seconds: 20,
            refusal: refusal.map(str::to_owned),
        };
        let rows = [row("5.10", &[], Some("too old")), row("6.12", &[("egress", 7), ("inline", 8)], None)];
        assert_eq!(
            super::tests(&rows),
            "| kernel | hook | `egress`, verified | `inline`, verified | tests | s |\n\
             | --- | --- | ---: | ---: | ---: | ---: |\n\
             | 5.10 | refused | – | – | – | 20 |\n\
             | 6.12 | tcx | 7 | 8 | 11 | 20 |"
        );
        assert!(tests_text(&rows, "2026-01-01").contains("on 5.10, exit code 7:\n\n```\ntoo old\n```"));
    }

    #[test]
    fn a_column_for_each_hook_and_a_dash_where_a_packet_is_not_counted() {
        let found = [("egress: order, 1 limit", 900), ("inbound: fill", 70), ("egress: fill", 8)];
        assert_eq!(
            counts(&found.map(|(name, count)| (name.to_owned(), count)).into()),
            "| packet | `egress` | `inbound` |\n\
             | --- | ---: | ---: |\n\
             | fill | 8 | 70 |\n\
             | order, 1 limit | 900 | – |"
        );
    }
}
