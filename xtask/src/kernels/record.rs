//! Two counts of instructions that are kept in bench/, by kernel: how many the verifier went through for each program, and how many a
//! packet of each kind takes. Both repeat exactly, so what grows is noticed long before a kernel refuses it or a clock shows it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{COUNTED, USUAL};
use crate::workspace;

/// Half of what the verifier goes through before it gives up (`BPF_COMPLEXITY_LIMIT_INSNS`).
const LIMIT: u64 = 500_000;
/// Percent over the record that are growth.
const GROWTH: u64 = 5;

/// Numbers by what they are of: a program, or a hook and a kind of packet.
pub type Counts = BTreeMap<String, u64>;

/// What a record is of.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The numbers in words.
    what: &'static str,
    /// Their key in the record, and of what the guest found.
    pub key: &'static str,
    file: &'static str,
    /// What writes it anew.
    command: &'static str,
    /// On which kernels it is kept: others have nothing to be compared with.
    kernels: &'static [&'static str],
}

/// How many instructions the verifier went through for each program.
pub const VERIFIED: Kind = Kind {
    what: "verified instructions",
    key: "verified",
    file: "bench/verified.json",
    command: "cargo xtask kernels --renew",
    kernels: &USUAL,
};
/// How many instructions a packet of each kind takes, above an empty program.
pub const INSTRUCTIONS: Kind = Kind {
    what: "instructions a packet",
    key: "instructions",
    file: "bench/instructions.json",
    command: "cargo xtask kernels --counts --renew",
    kernels: &[COUNTED],
};

/// The record: by kernel as it is asked for.
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
    /// One with nothing in it.
    pub fn new(kind: &'static Kind) -> Self {
        Self { kind, kernels: BTreeMap::new() }
    }

    /// Reads the committed record. There is none before the first renewal.
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

    /// Takes in what was found on a kernel.
    pub fn keep(&mut self, kernel: &str, release: &str, counts: &Counts) {
        self.kernels.insert(kernel.to_owned(), Entry { release: release.to_owned(), counts: counts.clone() });
    }

    /// Writes it anew.
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

    /// What has changed for the worse on a kernel since the record.
    pub fn complaints(&self, kernel: &str, found: &Counts) -> Vec<String> {
        let Kind { what, file, command, kernels, .. } = self.kind;
        if !kernels.contains(&kernel) {
            return Vec::new();
        }
        let Some(Entry { release, counts: recorded }) = self.kernels.get(kernel) else {
            return vec![format!("it is not in {file}: `{command}`")];
        };
        let mut complaints = Vec::new();
        for (name, &count) in found {
            match recorded.get(name) {
                None => complaints.push(format!("{name} is not in {file}: `{command}`")),
                Some(&old) if count * 100 > old * (100 + GROWTH) => complaints.push(format!(
                    "{name} has grown by more than {GROWTH} %: {old} {what} on {release}, now {count}: make it smaller, or `{command}`"
                )),
                Some(_) => {}
            }
        }
        let gone = recorded.keys().filter(|name| !found.contains_key(*name));
        complaints.extend(gone.map(|name| format!("{name} of {file} is no more: `{command}`")));
        complaints
    }
}

impl Kind {
    /// Its numbers, of a kernel in the record or of what a guest found.
    pub fn counts(&self, found: &Value) -> Counts {
        let numbers = found[self.key].as_object().into_iter().flatten();
        numbers.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()
    }

    fn path(&self) -> PathBuf {
        workspace::root().join(self.file)
    }
}

/// The programs that are too near to where the verifier gives up.
pub fn too_large(verified: &Counts) -> Vec<String> {
    let large = verified.iter().filter(|(_, count)| **count > LIMIT);
    large
        .map(|(program, count)| format!("{program} takes {count} verified instructions, more than {LIMIT}"))
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
        record.keep(COUNTED, "6.12.1", &counts(found));
        record
    }

    #[test]
    fn growth_is_over_five_percent() {
        for kind in BOTH {
            let record = record(kind, &[("egress", 1000)]);
            for (count, complaints) in [(1, 0), (1050, 0), (1051, 1)] {
                assert_eq!(
                    record.complaints(COUNTED, &counts(&[("egress", count)])).len(),
                    complaints,
                    "{count}"
                );
            }
        }
        assert_eq!(too_large(&counts(&[("egress", 500_000), ("inline", 500_001)])).len(), 1);
    }

    #[test]
    fn what_is_not_recorded_and_what_is_gone_is_told() {
        for kind in BOTH {
            assert_eq!(record(kind, &[("gone", 1)]).complaints(COUNTED, &counts(&[("new", 1)])).len(), 2);
            assert_eq!(Record::new(kind).complaints(COUNTED, &counts(&[("gone", 1)])).len(), 1);
        }
    }

    #[test]
    fn a_kernel_without_a_record_by_design_is_compared_with_nothing() {
        let found = counts(&[("new", 1)]);
        assert_eq!(Record::new(&VERIFIED).complaints("6.1", &found).len(), 1);
        assert!(Record::new(&INSTRUCTIONS).complaints("6.1", &found).is_empty());
        assert!(Record::new(&VERIFIED).complaints("6.16", &found).is_empty());
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for kind in BOTH {
            let record = record(kind, &[("egress", 1000), ("inline", 7)]);
            assert_eq!(Record::parse(kind, &record.text().expect("JSON")).expect("a record"), record);
        }
    }
}
