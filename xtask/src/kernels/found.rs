//! What the machines came to, and whether it is as it must be.

use anyhow::{Result, bail, ensure};

use super::Boot;
use super::image::Image;
use super::machine::Outcome;
use super::plan::{self, Expected, Task};
use super::record::{self, Counts, INSTRUCTIONS, Record, VERIFIED};
use super::report::{self, Row};

/// What all kernels came to so far, and what it is compared with: a renewal with nothing.
pub struct Found {
    recorded: Option<[Record; 2]>,
    verified: Record,
    instructions: Record,
    rows: Vec<Row>,
    counted: Vec<(String, Counts)>,
}

impl Found {
    /// Of nothing yet.
    pub fn new(renew: bool) -> Result<Self> {
        let recorded =
            if renew { None } else { Some([Record::read(&VERIFIED)?, Record::read(&INSTRUCTIONS)?]) };
        let (verified, instructions) = (Record::new(&VERIFIED), Record::new(&INSTRUCTIONS));
        Ok(Self { recorded, verified, instructions, rows: Vec::new(), counted: Vec::new() })
    }

    /// Keeps what came of a machine, and judges it.
    pub fn take(&mut self, &Boot { kernel, image, task }: &Boot<'_>, outcome: &Outcome) -> Result<()> {
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
                ensure!(!counts.is_empty(), "no packet was counted");
                println!("{kernel}: {} kinds of packet counted, {} s", counts.len(), outcome.took.as_secs());
                let complaints =
                    instructions.map(|record| record.complaints(kernel, &counts)).unwrap_or_default();
                self.instructions.keep(kernel, release, &counts);
                // Shown whatever is to be said of it.
                self.counted.push((release.clone(), counts));
                judged(complaints)?;
            }
        }
        Ok(())
    }

    /// All of it, in Markdown.
    pub fn tables(&self) -> String {
        let tests = (!self.rows.is_empty()).then(|| report::tests(&self.rows));
        let counts =
            self.counted.iter().map(|(release, counts)| format!("{release}:\n{}", report::counts(counts)));
        tests.into_iter().chain(counts).collect::<Vec<_>>().join("\n\n")
    }

    /// Makes it the record, and the pages; of what was counted alone, that record and that page.
    pub fn write(&self, counts: bool) -> Result<()> {
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
