//! Renders the results as tables and writes docs/kernels.md and docs/instructions.md.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::record::Counts;
use crate::{process, workspace};

/// The results of one kernel.
pub struct Row {
    pub release: String,
    pub hook: String,
    pub verified: Counts,
    pub passed: u64,
    pub seconds: u64,
    /// The error of `breaker load` if the kernel is too old.
    pub refusal: Option<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, hook, passed, seconds, .. } = self;
        match &self.refusal {
            Some(error) => write!(f, "{release}, {seconds} s, refused: {error}"),
            None => {
                write!(f, "{release}, {seconds} s, {hook}, {passed} tests passed; verified instructions:")?;
                self.verified.iter().try_for_each(|(program, count)| write!(f, " {program} {count}"))
            }
        }
    }
}

/// Returns the results of the tests in Markdown, with one column per program of the object.
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

/// Returns the instructions by kind of packet in Markdown, with one column per hook.
pub fn counts(counts: &Counts) -> String {
    let hook_and_kind = |name: &str| {
        name.split_once(": ")
            .map_or((name.to_owned(), String::new()), |(hook, kind)| (hook.to_owned(), kind.to_owned()))
    };
    let (hooks, kinds): (BTreeSet<String>, BTreeSet<String>) =
        counts.keys().map(|name| hook_and_kind(name)).unzip();
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
    let today =
        process::stdout_of(Command::new("date").args(["-u", "+%F"])).context("asking for the date")?;
    let docs = workspace::root().join("docs");
    fs::create_dir_all(&docs).with_context(|| format!("creating {}", docs.display()))?;
    let path = docs.join(name);
    fs::write(&path, text(&today)).with_context(|| format!("writing {}", path.display()))
}

fn counts_text(release: &str, found: &Counts, today: &str) -> String {
    format!(
        "# Instructions a packet\n\n\
         `cargo xtask kernels --counts --renew` wrote this file and `bench/instructions.json` \
         on {today} on {release}.\n\n\
         {}\n\n{INSTRUCTIONS_NOTES}",
        counts(found)
    )
}

fn tests_text(rows: &[Row], today: &str) -> String {
    let refusals = rows.iter().filter_map(|row| Some((&row.release, row.refusal.as_ref()?)));
    let refusals: String = refusals
        .map(|(release, error)| format!("\n`breaker load` on {release}, exit code 7:\n\n```\n{error}\n```\n"))
        .collect();
    format!(
        "# Kernels\n\n\
         `cargo xtask kernels --renew` wrote this file and `bench/verified.json` on {today}.\n\n\
         {}\n{refusals}\n{KERNELS_NOTES}",
        tests(rows)
    )
}

/// The explanations below the table in docs/instructions.md.
const INSTRUCTIONS_NOTES: &str = include_str!("instructions.md");

/// The explanations below the table in docs/kernels.md.
const KERNELS_NOTES: &str = include_str!("kernels.md");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_has_a_column_and_an_absent_count_is_a_dash() {
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
    fn each_hook_has_a_column_and_an_uncounted_packet_is_a_dash() {
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
