//! How many instructions the verifier went through for each program on each kernel, in bench/verified.json: what grows is noticed
//! long before a kernel refuses it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::workspace;

/// Half of what the verifier goes through before it gives up (`BPF_COMPLEXITY_LIMIT_INSNS`).
const LIMIT: u64 = 500_000;
/// Percent over the record that are growth.
const GROWTH: u64 = 5;
const COMMAND: &str = "cargo xtask kernels --renew";

/// Verified instructions by program.
pub type Verified = BTreeMap<String, u64>;

/// The record: by kernel as it is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record(pub BTreeMap<String, Entry>);

/// What was found on a kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub release: String,
    pub verified: Verified,
}

fn path() -> PathBuf {
    workspace::root().join("bench/verified.json")
}

impl Record {
    /// Reads the committed record. There is none before the first renewal.
    pub fn read() -> Result<Self> {
        let path = path();
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("reading {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let kernels = value["kernels"].as_object().into_iter().flatten();
        let entry = |found: &Value| Entry {
            release: found["release"].as_str().unwrap_or_default().to_owned(),
            verified: verified(&found["verified"]),
        };
        Ok(Self(kernels.map(|(kernel, found)| (kernel.clone(), entry(found))).collect()))
    }

    /// Writes it anew.
    pub fn write(&self) -> Result<()> {
        let path = path();
        fs::write(&path, self.text()?).with_context(|| format!("writing {}", path.display()))
    }

    fn text(&self) -> Result<String> {
        let entry = |entry: &Entry| json!({ "release": entry.release, "verified": entry.verified });
        let kernels: BTreeMap<_, _> = self.0.iter().map(|(kernel, found)| (kernel, entry(found))).collect();
        Ok(serde_json::to_string_pretty(&json!({ "command": COMMAND, "kernels": kernels }))? + "\n")
    }

    /// What has changed for the worse on a kernel since the record.
    pub fn complaints(&self, kernel: &str, found: &Verified) -> Vec<String> {
        let Some(Entry { release, verified: recorded }) = self.0.get(kernel) else {
            return vec![format!("it is not in the record: `{COMMAND}`")];
        };
        let mut complaints = Vec::new();
        for (program, &count) in found {
            match recorded.get(program) {
                None => complaints.push(format!("{program} is not in the record: `{COMMAND}`")),
                Some(&old) if count * 100 > old * (100 + GROWTH) => complaints.push(format!(
                    "{program} has grown by more than {GROWTH} %: {old} verified instructions on {release}, now {count}: make it \
                     smaller, or `{COMMAND}`"
                )),
                Some(_) => {}
            }
        }
        let gone = recorded.keys().filter(|program| !found.contains_key(*program));
        complaints.extend(gone.map(|program| format!("{program} of the record is not in the object: `{COMMAND}`")));
        complaints
    }
}

/// The programs that are too near to where the verifier gives up.
pub fn too_large(found: &Verified) -> Vec<String> {
    let large = found.iter().filter(|(_, count)| **count > LIMIT);
    large.map(|(program, count)| format!("{program} takes {count} verified instructions, more than {LIMIT}")).collect()
}

/// Numbers by program.
pub fn verified(programs: &Value) -> Verified {
    let programs = programs.as_object().into_iter().flatten();
    programs.filter_map(|(program, count)| Some((program.clone(), count.as_u64()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(programs: &[(&str, u64)]) -> Verified {
        programs.iter().map(|(program, count)| (program.to_string(), *count)).collect()
    }

    fn record(programs: &[(&str, u64)]) -> Record {
        let entry = Entry { release: "6.1.0-56".to_owned(), verified: counts(programs) };
        Record([("6.1".to_owned(), entry)].into())
    }

    #[test]
    fn growth_is_over_five_percent() {
        let record = record(&[("egress", 1000)]);
        for (count, complaints) in [(1, 0), (1050, 0), (1051, 1)] {
            assert_eq!(record.complaints("6.1", &counts(&[("egress", count)])).len(), complaints, "{count}");
        }
        assert_eq!(too_large(&counts(&[("egress", 500_000), ("inline", 500_001)])).len(), 1);
    }

    #[test]
    fn what_is_not_recorded_and_what_is_gone_is_told() {
        let record = record(&[("gone", 1)]);
        assert_eq!(record.complaints("6.1", &counts(&[("new", 1)])).len(), 2);
        assert_eq!(record.complaints("6.12", &counts(&[("gone", 1)])).len(), 1);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let record = record(&[("egress", 1000), ("inline", 7)]);
        assert_eq!(Record::parse(&record.text().expect("JSON")).expect("a record"), record);
    }
}
