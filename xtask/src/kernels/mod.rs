//! The tests on other kernels than this machine's: Debian's cloud kernels, emulated, with nothing but our own static programs.

mod binaries;
mod cpio;
mod image;
mod machine;
mod modules;
mod plan;
mod record;
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{object, packages, workspace};
use image::Image;
pub use image::series;
use machine::Outcome;
use plan::Expected;
use record::{Entry, Record};
use report::Row;

/// The kernels that are tested unless others are asked for: the one before the first that is supported, that one, and on from there.
pub const USUAL: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", image::NEWEST];

/// Runs what [`plan`] has on each kernel. With `renew` what is found is the record from then on.
pub fn run(wanted: &[String], renew: bool, counts: bool) -> Result<ExitCode> {
    let start = Instant::now();
    packages::ensure(packages::KERNELS)?;
    object::build()?;
    let cache = workspace::root().join("target/kernels");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    // The network and the compiler do not wait for each other.
    let (images, programs) = std::thread::scope(|scope| {
        let images = scope.spawn(|| image::fetch(wanted, &cache));
        let programs = binaries::build(&cache, if counts { &[] } else { plan::SUITES });
        (images.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), programs)
    });
    let (images, programs) = (images?, programs?);
    println!("kernels and programs are there after {} s", start.elapsed().as_secs());
    if counts {
        let Outcome { found, took, .. } =
            machine::run(&images[0], plan::Task::Counts, &programs, &cache, &cache.join("counts.log"))?;
        println!("{}\n{} s", serde_json::to_string_pretty(&found)?, took.as_secs());
        return Ok(ExitCode::SUCCESS);
    }
    // A renewal compares with nothing.
    let recorded = if renew { None } else { Some(Record::read()?) };
    let mut found = Record::default();
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for (kernel, image) in wanted.iter().zip(&images) {
        match one(kernel, image, &programs, &cache, recorded.as_ref()) {
            Ok(row) => {
                println!("{kernel}: {row}");
                if row.refusal.is_none() {
                    let entry = Entry { release: row.release.clone(), verified: row.verified.clone() };
                    found.0.insert(kernel.clone(), entry);
                }
                rows.push(row);
            }
            Err(error) => {
                eprintln!("xtask: kernel {kernel} ({}): {error:#}", image.release);
                failed.push(kernel.as_str());
            }
        }
    }
    println!("\n{}", report::table(&rows));
    println!("{} kernels passed, {} failed, in {} s", rows.len(), failed.len(), start.elapsed().as_secs());
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    if renew {
        found.write()?;
        report::write(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Boots a kernel and judges what comes of it.
fn one(
    kernel: &str,
    image: &Image,
    programs: &BTreeMap<String, Vec<u8>>,
    cache: &Path,
    recorded: Option<&Record>,
) -> Result<Row> {
    let log = cache.join(format!("{kernel}.log"));
    let Outcome { found, tally, took } = machine::run(image, plan::Task::Tests, programs, cache, &log)?;
    if found["release"] != image.release.as_str() {
        bail!("{} ran instead", found["release"]);
    }
    let mut row = Row {
        release: image.release.clone(),
        hook: "none".to_owned(),
        verified: record::verified(&found["verified"]),
        passed: tally.passed,
        seconds: took.as_secs(),
        refusal: found["refusal"].as_str().map(str::to_owned),
    };
    let Expected::Hook(hook) = plan::expected(&image.release) else { return Ok(row) };
    row.hook = found["hook"].as_str().unwrap_or_default().to_owned();
    let mut complaints = record::too_large(&row.verified);
    // Kernels that are not tested as a rule have no record.
    if let Some(recorded) = recorded.filter(|_| USUAL.contains(&kernel)) {
        complaints.extend(recorded.complaints(kernel, &row.verified));
    }
    if row.hook != hook {
        complaints.push(format!("attached by {:?} and not by {hook}", row.hook));
    }
    if tally.passed != plan::tests() || tally.failed + tally.skipped > 0 {
        complaints.push(format!("{tally}, where {} were to pass", plan::tests()));
    }
    if row.verified.is_empty() {
        complaints.push("no program was loaded".to_owned());
    }
    if !complaints.is_empty() {
        bail!("{}", complaints.join("; "));
    }
    Ok(row)
}
