//! Runs tests on other kernels: Debian cloud kernels in QEMU, with only the static programs of this
//! repository.
//!
//! One of the kernels also counts the instructions that each kind of packet takes.

mod binaries;
pub mod boot;
mod cpio;
mod image;
mod machine;
mod modules;
mod plan;
mod record;
mod report;
mod results;
mod system;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{object, packages, workspace};
pub use image::series;
use machine::Outcome;
use plan::{Boot, COUNTED_KERNEL, DEFAULT_KERNELS};
use results::Results;

/// Runs the [`plan`] on the given kernels, or on the default kernels. With `counts_only` only instructions
/// are counted. With `renew` the results replace the records.
pub fn run(wanted: &[String], counts_only: bool, renew: bool) -> Result<ExitCode> {
    let start = Instant::now();
    packages::ensure(packages::KERNELS)?;
    object::build()?;
    let cache = workspace::root().join("target/kernels");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let defaults = if counts_only { &[COUNTED_KERNEL][..] } else { &DEFAULT_KERNELS };
    let wanted =
        if wanted.is_empty() { defaults.iter().map(ToString::to_string).collect() } else { wanted.to_vec() };
    // Downloading and compiling run at the same time.
    let (images, programs) = thread::scope(|scope| {
        let images = scope.spawn(|| image::fetch(&wanted, &cache));
        let programs = binaries::build(&cache, if counts_only { &[] } else { plan::SUITES });
        (join(images), programs)
    });
    let (images, programs) = (images?, programs?);
    println!("kernels and programs are ready after {} s", start.elapsed().as_secs());
    let mut results = Results::new(renew)?;
    let mut failed = Vec::new();
    let mut boots = Vec::new();
    for (kernel, image) in wanted.iter().zip(&images) {
        boots.extend(plan::tasks(counts_only, kernel == COUNTED_KERNEL).iter().map(|&task| Boot {
            kernel,
            image,
            task,
        }));
    }
    // Each machine takes one CPU.
    for boots in boots.chunks(thread::available_parallelism()?.get()) {
        for (boot, outcome) in boots.iter().zip(run_parallel(boots, &programs, &cache)) {
            if let Err(error) = outcome.and_then(|outcome| results.add(boot, &outcome)) {
                eprintln!("xtask: kernel {} ({}), {}: {error:#}", boot.kernel, boot.image.release, boot.task);
                failed.push(format!("{} ({})", boot.kernel, boot.task));
            }
        }
    }
    println!("\n{}", results.tables());
    println!("{} failed, in {} s", failed.len(), start.elapsed().as_secs());
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    if renew {
        results.write(counts_only)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Boots machines in parallel and returns the outcomes in the same order.
fn run_parallel(
    boots: &[Boot<'_>],
    programs: &BTreeMap<String, Vec<u8>>,
    cache: &Path,
) -> Vec<Result<Outcome>> {
    thread::scope(|scope| {
        let mut running = Vec::new();
        for Boot { kernel, image, task } in boots {
            let log = cache.join(format!("{kernel}-{task}.log"));
            running.push(scope.spawn(move || machine::run(image, *task, programs, &log)));
        }
        running.into_iter().map(join).collect()
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
