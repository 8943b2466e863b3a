//! The records in bench/: per kernel, the instructions that the verifier processed for each program, and the
//! instructions that each kind of packet takes.
//!
//! Both counts are reproducible. Growth is therefore visible long before a kernel refuses the program or a
//! clock shows a difference.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::plan::{COUNTED_KERNEL, DEFAULT_KERNELS};
use crate::workspace;

/// Half of the number of instructions after which the verifier gives up (`BPF_COMPLEXITY_LIMIT_INSNS`,
/// 1,000,000).
const LIMIT: u64 = 500_000;
/// The accepted growth against the record, in percent.
const MAX_GROWTH: u64 = 5;

/// Counts by name: the name of a program, or a hook and a kind of packet.
pub type Counts = BTreeMap<String, u64>;

/// The kind of a record.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The unit of the counts, for messages.
    unit: &'static str,
    /// The JSON key of the counts in the record and in the guest's results.
    pub key: &'static str,
    file: &'static str,
    /// The command that renews the record.
    command: &'static str,
    /// The kernels that the record contains. Other kernels are not compared.
    kernels: &'static [&'static str],
}

/// The number of instructions that the verifier processed for each program.
pub const VERIFIED: Kind = Kind {
    unit: "verified instructions",
    key: "verified",
    file: "bench/verified.json",
    command: "cargo xtask kernels --renew",
    kernels: &DEFAULT_KERNELS,
};
/// The number of instructions per packet of each kind, minus the instructions of an empty program.
pub const INSTRUCTIONS: Kind = Kind {
    unit: "instructions a packet",
    key: "instructions",
    file: "bench/instructions.json",
    command: "cargo xtask kernels --counts --renew",
    kernels: &[COUNTED_KERNEL],
};

/// A record: the counts by kernel, as named on the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    kind: &'static Kind,
    kernels: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    release: String,
    counts: Counts,
}

impl Record {
    /// Returns an empty record.
    pub fn new(kind: &'static Kind) -> Self {
        Self { kind, kernels: BTreeMap::new() }
    }

    /// Reads the committed record. Before the first renewal the file is absent and the record is empty.
    pub fn read(kind: &'static Kind) -> Result<Self> {
        let path = kind.path();
        if !path.exists() {
            return Ok(Self::new(kind));
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(kind, &text).with_context(|| format!("reading {}", path.display()))
    }

    fn parse(kind: &'static Kind, text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let kernels = value["kernels"].as_object().into_iter().flatten();
        let entry = |found: &Value| Entry {
            release: found["release"].as_str().unwrap_or_default().to_owned(),
            counts: kind.counts(found),
        };
        Ok(Self { kind, kernels: kernels.map(|(kernel, found)| (kernel.clone(), entry(found))).collect() })
    }

    /// Sets the counts of a kernel.
    pub fn set(&mut self, kernel: &str, release: &str, counts: &Counts) {
        self.kernels.insert(kernel.to_owned(), Entry { release: release.to_owned(), counts: counts.clone() });
    }

    /// Writes the record to its file.
    pub fn write(&self) -> Result<()> {
        let path = self.kind.path();
        fs::write(&path, self.text()?).with_context(|| format!("writing {}", path.display()))
    }

    fn text(&self) -> Result<String> {
        let Kind { key, command, .. } = self.kind;
        let entry = |entry: &Entry| json!({ "release": entry.release, *key: entry.counts });
        let kernels: BTreeMap<_, _> =
            self.kernels.iter().map(|(kernel, found)| (kernel, entry(found))).collect();
        Ok(serde_json::to_string_pretty(&json!({ "command": command, "kernels": kernels }))? + "\n")
    }

    /// Describes each growth and each missing entry of a kernel against the record.
    pub fn problems(&self, kernel: &str, found: &Counts) -> Vec<String> {
        let Kind { unit, file, command, kernels, .. } = self.kind;
        if !kernels.contains(&kernel) {
            return Vec::new();
        }
        let Some(Entry { release, counts: recorded }) = self.kernels.get(kernel) else {
            return vec![format!("{file} has no entry for this kernel: run `{command}`")];
        };
        let mut problems = Vec::new();
        for (name, &count) in found {
            match recorded.get(name) {
                None => problems.push(format!("{file} has no entry {name:?}: run `{command}`")),
                Some(&old) if count * 100 > old * (100 + MAX_GROWTH) => problems.push(format!(
                    "{name} has grown by more than {MAX_GROWTH} %: {old} {unit} on {release}, now {count}: \
                     reduce the program, or run `{command}`"
                )),
                Some(_) => {}
            }
        }
        let absent = recorded.keys().filter(|name| !found.contains_key(*name));
        problems
            .extend(absent.map(|name| format!("{name:?} is in {file} but was not found: run `{command}`")));
        problems
    }
}

impl Kind {
    /// Reads the counts from a record entry or from the results of a guest.
    pub fn counts(&self, found: &Value) -> Counts {
        let numbers = found[self.key].as_object().into_iter().flatten();
        numbers.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()
    }

    fn path(&self) -> PathBuf {
        workspace::root().join(self.file)
    }
}

/// Describes each program that is too close to the limit of the verifier.
pub fn too_large(verified: &Counts) -> Vec<String> {
    let large = verified.iter().filter(|(_, count)| **count > LIMIT);
    large
        .map(|(program, count)| {
            format!("{program} takes {count} verified instructions, more than the allowed {LIMIT}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [&Kind; 2] = [&VERIFIED, &INSTRUCTIONS];

    fn counts(counts: &[(&str, u64)]) -> Counts {
        counts.iter().map(|(name, count)| (name.to_string(), *count)).collect()
    }

    fn record(kind: &'static Kind, found: &[(&str, u64)]) -> Record {
        let mut record = Record::new(kind);
        record.set(COUNTED_KERNEL, "6.12.1", &counts(found));
        record
    }

    #[test]
    fn only_growth_of_more_than_five_percent_is_a_problem() {
        for kind in BOTH {
            let record = record(kind, &[("egress", 1000)]);
            for (count, problems) in [(1, 0), (1050, 0), (1051, 1)] {
                assert_eq!(
                    record.problems(COUNTED_KERNEL, &counts(&[("egress", count)])).len(),
                    problems,
                    "{count}"
                );
            }
        }
        assert_eq!(too_large(&counts(&[("egress", 500_000), ("inline", 500_001)])).len(), 1);
    }

    #[test]
    fn new_and_absent_entries_are_reported() {
        for kind in BOTH {
            assert_eq!(
                record(kind, &[("gone", 1)]).problems(COUNTED_KERNEL, &counts(&[("new", 1)])).len(),
                2
            );
            assert_eq!(Record::new(kind).problems(COUNTED_KERNEL, &counts(&[("gone", 1)])).len(), 1);
        }
    }

    #[test]
    fn a_kernel_that_the_record_leaves_out_is_not_compared() {
        let found = counts(&[("new", 1)]);
        assert_eq!(Record::new(&VERIFIED).problems("6.1", &found).len(), 1);
        assert!(Record::new(&INSTRUCTIONS).problems("6.1", &found).is_empty());
        assert!(Record::new(&VERIFIED).problems("6.16", &found).is_empty());
    }

    #[test]
    fn a_written_record_is_read_back_equal() {
        for kind in BOTH {
            let record = record(kind, &[("egress", 1000), ("inline", 7)]);
            assert_eq!(Record::parse(kind, &record.text().expect("JSON")).expect("a record"), record);
        }
    }
}
