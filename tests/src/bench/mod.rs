//! `cargo xtask bench`: what breaker costs and does, compared with alternatives. Each section prints its
//! tables. A section is measured in turns within one run, because the speed of a machine changes: only ratios
//! within a run hold.

mod aims;
mod alternative;
mod count;
mod counting_server;
mod docs;
mod draw;
mod figures;
mod gateway;
mod growth;
mod hook;
mod inline;
mod kill;
mod latency;
mod limit;
pub(crate) mod order;
mod people;
mod report;
mod scale;
mod shell;
mod size;
mod throughput;

use std::path::Path;

pub use docs::renew;
pub use kill::blast;
use report::Table;
use scale::Scale;

/// A part of the benchmark that can run alone.
struct Section {
    name: &'static str,
    run: fn(&Scale) -> Vec<Table>,
}

const fn section(name: &'static str, run: fn(&Scale) -> Vec<Table>) -> Section {
    Section { name, run }
}

const SECTIONS: &[Section] = &[
    section("hook", hook::tables),
    section("inline", inline::tables),
    section("gateway", gateway::tables),
    section("latency", latency::tables),
    section("throughput", throughput::tables),
    section("count", count::tables),
    section("limit", limit::tables),
    section("kill", kill::tables),
    section("growth", growth::tables),
    section("size", size::tables),
    section("people", people::tables),
];

/// Runs the named sections, or all of them. Writes the results into the results file and the documents of a
/// repository, if one is given.
pub fn run(names: &[String], smoke: bool, repository: Option<&Path>) {
    let scale = if smoke { Scale::SMOKE } else { Scale::FULL };
    let unknown: Vec<_> =
        names.iter().filter(|name| SECTIONS.iter().all(|section| section.name != **name)).collect();
    let known: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
    assert!(unknown.is_empty(), "no such section: {unknown:?}: there are {known:?}");
    for section in
        SECTIONS.iter().filter(|section| names.is_empty() || names.iter().any(|name| name == section.name))
    {
        let start = std::time::Instant::now();
        let tables = (section.run)(&scale);
        report::print(&tables);
        eprintln!("{}: {:.1} s", section.name, start.elapsed().as_secs_f64());
        if let Some(repository) = repository {
            report::write(&repository.join("bench/results.json"), section.name, &tables);
        }
    }
    repository.into_iter().for_each(renew);
}
