//! The tests on other kernels than this machine's: Debian's cloud kernels, emulated, with nothing but our own static programs. On one of
//! them also what each kind of packet costs, in instructions.

mod binaries;
mod cpio;
mod found;
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
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{object, packages, workspace};
use found::Found;
use image::Image;
pub use image::series;
use machine::Outcome;
use plan::Task;

/// The kernels that are tested unless others are asked for: the one before the first that is supported, that one, and on from there.
const USUAL: [&str; 5] = ["5.10", "6.1", COUNTED, "6.18", image::NEWEST];
/// The kernel whose packets are counted.
const COUNTED: &str = "6.12";

/// Runs what [`plan`] has on these kernels, or on the usual ones; with `counts` it only counts. With `renew` what is found is the
/// record from then on.
pub fn run(wanted: &[String], counts: bool, renew: bool) -> Result<ExitCode> {
    let start = Instant::now();
    packages::ensure(packages::KERNELS)?;
    object::build()?;
    let cache = workspace::root().join("target/kernels");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let usual = if counts { &[COUNTED][..] } else { &USUAL };
    let wanted =
        if wanted.is_empty() { usual.iter().map(ToString::to_string).collect() } else { wanted.to_vec() };
    // The network and the compiler do not wait for each other.
    let (images, programs) = thread::scope(|scope| {
        let images = scope.spawn(|| image::fetch(&wanted, &cache));
        let programs = binaries::build(&cache, if counts { &[] } else { plan::SUITES });
        (joined(images), programs)
    });
    let (images, programs) = (images?, programs?);
    println!("kernels and programs are there after {} s", start.elapsed().as_secs());
    let mut found = Found::new(renew)?;
    let mut failed = Vec::new();
    let mut boots = Vec::new();
    for (kernel, image) in wanted.iter().zip(&images) {
        boots.extend(plan::tasks(counts, kernel == COUNTED).iter().map(|&task| Boot { kernel, image, task }));
    }
    // Each takes a CPU.
    for boots in boots.chunks(thread::available_parallelism()?.get()) {
        for (boot, outcome) in boots.iter().zip(at_once(boots, &programs, &cache)) {
            if let Err(error) = outcome.and_then(|outcome| found.take(boot, &outcome)) {
                eprintln!("xtask: kernel {} ({}), {}: {error:#}", boot.kernel, boot.image.release, boot.task);
                failed.push(format!("{} ({})", boot.kernel, boot.task));
            }
        }
    }
    println!("\n{}", found.tables());
    println!("{} failed, in {} s", failed.len(), start.elapsed().as_secs());
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    if renew {
        found.write(counts)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A machine that is to run: the kernel as it is asked for, and what for.
struct Boot<'a> {
    kernel: &'a str,
    image: &'a Image,
    task: Task,
}

/// Runs machines at the same time.
fn at_once(boots: &[Boot<'_>], programs: &BTreeMap<String, Vec<u8>>, cache: &Path) -> Vec<Result<Outcome>> {
    thread::scope(|scope| {
        let mut running = Vec::new();
        for Boot { kernel, image, task } in boots {
            let log = cache.join(format!("{kernel}-{task}.log"));
            running.push(scope.spawn(move || machine::run(image, *task, programs, &log)));
        }
        running.into_iter().map(joined).collect()
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
