//! `cargo xtask bench`: what breaker costs and what it does, beside what else one could put in its place. Each section prints its
//! tables and is measured interleaved in one run, for machines change their speed: only ratios of one run hold.

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

/// A part of the benchmark that can be run alone.
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
];

/// Runs the sections of these names, or all; writes what they found into the results and documents of a repository where there is one.
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
