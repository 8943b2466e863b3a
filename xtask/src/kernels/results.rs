//! Collects the results of all kernels and compares them with the expected values and the records.

use anyhow::{Result, bail, ensure};

use super::image::Image;
use super::machine::Outcome;
use super::plan::{self, Boot, Expected, Task};
use super::record::{self, Counts, INSTRUCTIONS, Record, VERIFIED};
use super::report::{self, Row};

/// The results of all kernels so far, and the records to compare them with. A renewal has no records.
pub struct Results {
    recorded: Option<[Record; 2]>,
    verified: Record,
    instructions: Record,
    rows: Vec<Row>,
    counted: Vec<(String, Counts)>,
}

impl Results {
    /// Reads the records unless they are renewed.
    pub fn new(renew: bool) -> Result<Self> {
        let recorded =
            if renew { None } else { Some([Record::read(&VERIFIED)?, Record::read(&INSTRUCTIONS)?]) };
        let (verified, instructions) = (Record::new(&VERIFIED), Record::new(&INSTRUCTIONS));
        Ok(Self { recorded, verified, instructions, rows: Vec::new(), counted: Vec::new() })
    }

    /// Stores and checks the outcome of one guest.
    pub fn add(&mut self, &Boot { kernel, image, task }: &Boot<'_>, outcome: &Outcome) -> Result<()> {
        let release = &image.release;
        ensure!(
            outcome.found["release"] == release.as_str(),
            "the guest ran {} instead",
            outcome.found["release"]
        );
        let [verified, instructions] = match &self.recorded {
            Some([verified, instructions]) => [Some(verified), Some(instructions)],
            None => [None, None],
        };
        match task {
            Task::Tests => {
                let row = check_tests(kernel, image, outcome, verified)?;
                println!("{kernel}: {row}");
                if row.refusal.is_none() {
                    self.verified.set(kernel, release, &row.verified);
                }
                self.rows.push(row);
            }
            Task::CountInstructions => {
                let counts = INSTRUCTIONS.counts(&outcome.found);
                ensure!(!counts.is_empty(), "no packet was counted");
                println!("{kernel}: {} kinds of packet counted, {} s", counts.len(), outcome.took.as_secs());
                let problems =
                    instructions.map(|record| record.problems(kernel, &counts)).unwrap_or_default();
                self.instructions.set(kernel, release, &counts);
                // The counts are stored before the check, so that a failure shows them too.
                self.counted.push((release.clone(), counts));
                fail_if_any(problems)?;
            }
        }
        Ok(())
    }

    /// Returns all tables in Markdown.
    pub fn tables(&self) -> String {
        let tests = (!self.rows.is_empty()).then(|| report::tests(&self.rows));
        let counts =
            self.counted.iter().map(|(release, counts)| format!("{release}:\n{}", report::counts(counts)));
        tests.into_iter().chain(counts).collect::<Vec<_>>().join("\n\n")
    }

    /// Writes the records and the pages; with `counts_only` only those of the instruction counts.
    pub fn write(&self, counts_only: bool) -> Result<()> {
        self.instructions.write()?;
        for (release, counts) in &self.counted {
            report::write_counts(release, counts)?;
        }
        if counts_only {
            return Ok(());
        }
        self.verified.write()?;
        report::write_tests(&self.rows)
    }
}

/// Checks the test results of a kernel and returns its table row.
fn check_tests(kernel: &str, image: &Image, outcome: &Outcome, recorded: Option<&Record>) -> Result<Row> {
    let Outcome { found, counts, took } = outcome;
    let mut row = Row {
        release: image.release.clone(),
        hook: "none".to_owned(),
        verified: VERIFIED.counts(found),
        passed: counts.passed,
        seconds: took.as_secs(),
        refusal: found["refusal"].as_str().map(str::to_owned),
    };
    let Expected::Hook(hook) = plan::expected(&image.release) else { return Ok(row) };
    row.hook = found["hook"].as_str().unwrap_or_default().to_owned();
    let mut problems = record::too_large(&row.verified);
    problems.extend(recorded.into_iter().flat_map(|record| record.problems(kernel, &row.verified)));
    if row.hook != hook {
        problems.push(format!("attached by {:?} instead of {hook}", row.hook));
    }
    if counts.passed != plan::test_count() || counts.failed + counts.skipped > 0 {
        problems.push(format!("{counts}, but {} tests must pass", plan::test_count()));
    }
    if row.verified.is_empty() {
        problems.push("no program was loaded".to_owned());
    }
    fail_if_any(problems)?;
    Ok(row)
}

fn fail_if_any(problems: Vec<String>) -> Result<()> {
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("; ")) }
}
