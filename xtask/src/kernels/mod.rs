//! The tests on other kernels than this machine's: Debian's cloud kernels, emulated, with nothing but our own static programs. On one of
//! them also what each kind of packet costs, in instructions.

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
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{object, packages, workspace};
use image::Image;
pub use image::series;
use machine::Outcome;
use plan::{Expected, Task};
use record::{Counts, INSTRUCTIONS, Record, VERIFIED};
use report::Row;

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
    let wanted = if wanted.is_empty() { usual.iter().map(ToString::to_string).collect() } else { wanted.to_vec() };
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

/// What all kernels came to so far, and what it is compared with: a renewal with nothing.
struct Found {
    recorded: Option<[Record; 2]>,
    verified: Record,
    instructions: Record,
    rows: Vec<Row>,
    counted: Vec<(String, Counts)>,
}

impl Found {
    fn new(renew: bool) -> Result<Self> {
        let recorded = if renew { None } else { Some([Record::read(&VERIFIED)?, Record::read(&INSTRUCTIONS)?]) };
        let (verified, instructions) = (Record::new(&VERIFIED), Record::new(&INSTRUCTIONS));
        Ok(Self { recorded, verified, instructions, rows: Vec::new(), counted: Vec::new() })
    }

    /// Keeps what came of a machine, and judges it.
    fn take(&mut self, &Boot { kernel, image, task }: &Boot<'_>, outcome: &Outcome) -> Result<()> {
        let release = &image.release;
        ensure!(outcome.found["release"] == release.as_str(), "{} ran instead", outcome.found["release"]);
        let [verified, instructions] = match &self.recorded {
            Some([verified, instructions]) => [Some(verified), Some(instructions)],
            None => [None, None],
        };
        match task {
            Task::Tests => {
                let row = tested(kernel, image, outcome, verified)?;
                println!("{kernel}: {row}");
                if row.refusal.is_none() {
                    self.verified.keep(kernel, release, &row.verified);
                }
                self.rows.push(row);
            }
            Task::Counts => {
                let counts = INSTRUCTIONS.counts(&outcome.found);
                println!("{kernel}: {} kinds of packet counted, {} s", counts.len(), outcome.took.as_secs());
                let complaints = instructions.map(|record| record.complaints(kernel, &counts)).unwrap_or_default();
                self.instructions.keep(kernel, release, &counts);
                // Shown whatever is to be said of it.
                self.counted.push((release.clone(), counts));
                judged(complaints)?;
            }
        }
        Ok(())
    }

    fn tables(&self) -> String {
        let tests = (!self.rows.is_empty()).then(|| report::tests(&self.rows));
        let counts = self.counted.iter().map(|(release, counts)| format!("{release}:\n{}", report::counts(counts)));
        tests.into_iter().chain(counts).collect::<Vec<_>>().join("\n\n")
    }

    fn write(&self, counts: bool) -> Result<()> {
        self.instructions.write()?;
        for (release, counts) in &self.counted {
            report::write_counts(release, counts)?;
        }
        if counts {
            return Ok(());
        }
        self.verified.write()?;
        report::write_tests(&self.rows)
    }
}

/// Judges what came of the tests on a kernel.
fn tested(kernel: &str, image: &Image, outcome: &Outcome, recorded: Option<&Record>) -> Result<Row> {
    let Outcome { found, tally, took } = outcome;
    let mut row = Row {
        release: image.release.clone(),
        hook: "none".to_owned(),
        verified: VERIFIED.counts(found),
        passed: tally.passed,
        seconds: took.as_secs(),
        refusal: found["refusal"].as_str().map(str::to_owned),
    };
    let Expected::Hook(hook) = plan::expected(&image.release) else { return Ok(row) };
    row.hook = found["hook"].as_str().unwrap_or_default().to_owned();
    let mut complaints = record::too_large(&row.verified);
    complaints.extend(recorded.into_iter().flat_map(|record| record.complaints(kernel, &row.verified)));
    if row.hook != hook {
        complaints.push(format!("attached by {:?} and not by {hook}", row.hook));
    }
    if tally.passed != plan::tests() || tally.failed + tally.skipped > 0 {
        complaints.push(format!("{tally}, where {} were to pass", plan::tests()));
    }
    if row.verified.is_empty() {
        complaints.push("no program was loaded".to_owned());
    }
    judged(complaints)?;
    Ok(row)
}

fn judged(complaints: Vec<String>) -> Result<()> {
    if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("; ")) }
}
