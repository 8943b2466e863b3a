//! Memory with many sessions and connections, and the time of `status`.

use std::fs;
use std::time::Instant;

use crate::agent::{Agent, metrics};
use crate::command::binary;

use super::figures::Row;
use super::hook::POLICY;
use super::report::Table;
use super::scale::Scale;
use crate::many_sessions::ManySessions;

const MIB: f64 = (1 << 20) as f64;
/// Numbers of sessions, groups and connections.
const SIZES: [[usize; 3]; 3] = [[1, 1, 1], [1_000, 64, 0], [1_000, 64, 60_000]];

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let sizes = SIZES.map(|[sessions, groups, connections]| {
        let name = format!("sessions: {sessions}, groups: {groups}, connections: {connections}");
        (name, ManySessions::new(sessions, groups, connections))
    });
    let plain = ManySessions::with_policy(POLICY, 1, 0);
    let usual = ("the defaults, sessions: 1, groups: 1, limits: 4", &plain);
    let all = std::iter::once(usual).chain(sizes.iter().map(|(name, many)| (name.as_str(), many)));
    vec![kernel(all), status_times(scale, &sizes), agents(&sizes), file()]
}

fn row(what: String, unit: &str, figures: Vec<f64>) -> Row {
    Row { rounds: figures, ..Row::new(what, unit) }
}

/// Kernel memory of the maps.
fn kernel<'a>(all: impl Iterator<Item = (&'a str, &'a ManySessions)>) -> Table {
    let title = "kernel memory of the maps in MiB, with a table for 65536 connections. All configurations \
                 but the first have four limits a scope, one of them inbound, which has a separate table";
    let mut table =
        Table::new(title, &["with", "`breaker check` reports", "the kernel reports", "largest maps"]);
    for (name, many) in all {
        let config = many.testbed.config().display().to_string();
        let ran = many.testbed.cli_args(&["check", "--json", "--config", &config]);
        let said = ran.json()["kernel_memory_bytes"].as_u64().expect("a number") as f64 / MIB;
        let mut maps = many.memory();
        maps.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let taken = maps.iter().map(|(_, bytes)| bytes).sum::<u64>() as f64 / MIB;
        let most: Vec<_> =
            maps.iter().take(3).map(|(name, bytes)| format!("{name} {:.1}", *bytes as f64 / MIB)).collect();
        table.line([name.to_owned(), format!("{said:.1}"), format!("{taken:.1}"), most.join(", ")]);
        table.keep(&[
            row(format!("{name}: said"), "MiB", vec![said]),
            row(format!("{name}: taken"), "MiB", vec![taken]),
        ]);
    }
    table
}

/// Time of `status`.
fn status_times(scale: &Scale, all: &[(String, ManySessions)]) -> Table {
    const VERBS: [(&str, &[&str]); 3] =
        [("--version", &["--version"]), ("status", &["status"]), ("status --json", &["status", "--json"])];
    let title = format!(
        "duration of a command in ms, from the start of the program to its end, with its output read from a \
         pipe, {} runs each in turns",
        scale.looks
    );
    let mut table = Table::new(title, &["with", "`breaker`", "p50", "p99", "bytes printed"]);
    let mut rows: Vec<(Row, usize)> = all
        .iter()
        .flat_map(|(name, _)| VERBS.map(|(verb, _)| (Row::new(format!("{verb}: {name}"), "ms"), 0)))
        .collect();
    for _ in 0..scale.looks {
        let turns = all.iter().flat_map(|(_, many)| VERBS.map(|(_, args)| (many, args)));
        for ((row, printed), (many, args)) in rows.iter_mut().zip(turns) {
            let start = Instant::now();
            let ran = many.testbed.cli_args(args);
            row.rounds.push(start.elapsed().as_secs_f64() * 1e3);
            assert_eq!(ran.exit_code, Some(0), "{ran:?}");
            *printed = ran.stdout.len();
        }
    }
    for (row, printed) in &rows {
        let (verb, name) = row.what.split_once(": ").expect("as it was made");
        let [p50, p99] = [0.5, 0.99].map(|share| format!("{:.1}", row.quantile(share)));
        table.line([name.to_owned(), verb.to_owned(), p50, p99, printed.to_string()]);
    }
    table.keep(rows.iter().map(|(row, _)| row));
    table
}

/// Memory of agents, after each of their functions was used once.
fn agents(all: &[(String, ManySessions)]) -> Table {
    let title = "memory of the agent in MiB, after three answers to /metrics";
    let mut table = Table::new(title, &["with", "resident", "peak", "/metrics, KiB"]);
    for (name, many) in all {
        let agent = Agent::start(&many.testbed);
        let scraped = (0..3).map(|_| scrape(many)).max().unwrap_or_default();
        let [resident, most] = ["VmRSS:", "VmHWM:"].map(|word| memory(&agent, word));
        agent.stop();
        table.line([
            name.clone(),
            format!("{resident:.1}"),
            format!("{most:.1}"),
            format!("{:.0}", scraped as f64 / 1024.0),
        ]);
        table.keep(&[row(format!("agent: {name}"), "MiB", vec![resident])]);
    }
    table
}

/// Size of the binary.
fn file() -> Table {
    let mut table = Table::new("installed files", &["file", "MiB"]);
    let bytes = fs::metadata(binary()).expect("reading the size of the binary").len() as f64 / MIB;
    table.line(["`breaker`, with the kernel program inside".to_owned(), format!("{bytes:.1}")]);
    table.keep(&[row("breaker".to_owned(), "MiB", vec![bytes])]);
    table
}

/// A field of proc_pid_status(5), MiB.
fn memory(agent: &Agent, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).expect("reading its status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// Size of the metrics, bytes.
fn scrape(many: &ManySessions) -> usize {
    let answer = metrics(&many.testbed);
    assert!(answer.contains("breaker_connection_table_used"), "{answer:.300}");
    answer.len()
}
