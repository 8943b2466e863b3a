//! Contents of the state file, and their encoding: JSON, followed by the SHA-256 of the JSON. Does no I/O.

use std::collections::BTreeMap;

use breaker_common::abi::cause;
use breaker_common::message::LimitClass;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::durable::{ScopeState, Total};

/// Number of the format. A new member does not change the number; a file with another number is not read.
const FORMAT: u32 = 1;
/// Largest number that a file may hold. Above it, the sum of the epochs of a session's scopes could reach the
/// reserved values of `Connection::epoch`.
const MAX_NUMBER: u64 = 1 << 48;
/// Text before the hash in the last line.
const SEAL: &str = "sha256 ";
/// Bytes of the last line: [`SEAL`], 64 digits and a newline.
const SEAL_BYTES: usize = SEAL.len() + 64 + 1;

/// The state that outlives a load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Number of the format of the file.
    pub format: u32,
    /// Number of the write. Each write raises it.
    pub generation: u64,
    /// Time of the write. It is only shown: no decision depends on it.
    pub written_at: Timestamp,
    /// Version of breaker that wrote the file.
    pub version: String,
    /// Pin root of the load.
    pub pin_root: String,
    /// The kernel's boot id at the time of the write.
    pub boot_id: String,
    /// Whether a policy was loaded at the time of the write. False from an `unload` to the next load.
    pub loaded: bool,
    /// Whether an agent runs, or how the last agent ended.
    pub agent: AgentRun,
    /// `[host].unclean_boot` of the policy in force.
    pub unclean_boot: String,
    /// Name of the last policy in force.
    pub policy: String,
    /// SHA-256 of the policy file in hex. A copy of the policy file is kept beside the state file.
    pub policy_sha256: String,
    /// The last line of the audit log.
    pub audit: Option<AuditEnd>,
    /// Scopes by name, including scopes that the policy in force does not have.
    pub scopes: BTreeMap<String, Scope>,
}

/// How the last agent ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentRun {
    /// No agent has run on this host.
    #[default]
    Never,
    /// An agent runs, or has ended without a last write.
    Running,
    /// The last agent wrote the file when it ended.
    Ended,
}

/// Number and hash of a line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEnd {
    /// Number of the line.
    pub seq: u64,
    /// SHA-256 of the line in hex.
    pub hash: String,
}

/// The kept state of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Names of the causes of its trips.
    pub causes: Vec<String>,
    /// Number of trips and resets.
    pub epoch: u64,
    /// Number of resets.
    pub resets: u64,
    /// Whether an exceeded limit trips the scope.
    pub armed: bool,
    /// Whether the policy file arms the scope.
    pub armed_by_policy: bool,
    /// Use of the limits that count since the last reset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub totals: Vec<TotalUse>,
    /// For a session whose replays are withheld: the day of the last trip or reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_guard: Option<Date>,
}

/// Use of a limit that counts since the last reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalUse {
    /// Name of the class of the limit.
    pub class: String,
    /// Whether the limit is a ratio to the fills.
    pub per_fill: bool,
    /// Messages since the last reset.
    pub used: u64,
    /// Fills since the last reset.
    pub fills: u64,
}

impl Contents {
    /// Returns the contents of a file before its first write.
    pub fn empty(pin_root: String, boot_id: String) -> Self {
        Self {
            format: FORMAT,
            generation: 0,
            written_at: Timestamp::now(),
            version: crate::VERSION.to_owned(),
            pin_root,
            boot_id,
            loaded: false,
            agent: AgentRun::Never,
            unclean_boot: String::new(),
            policy: String::new(),
            policy_sha256: String::new(),
            audit: None,
            scopes: BTreeMap::new(),
        }
    }

    /// Encodes the contents as the bytes of a file.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        let seal = seal(&bytes);
        bytes.extend(seal.as_bytes());
        Ok(bytes)
    }

    /// Decodes bytes that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Returns a description of the defect for a person.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let at = bytes.len().checked_sub(SEAL_BYTES).ok_or("it is cut short")?;
        let (content, last) = bytes.split_at(at);
        if last != seal(content).as_bytes() {
            return Err("its hash is not that of its content: it is cut short or was changed".to_owned());
        }
        let found: Self = serde_json::from_slice(content).map_err(|error| format!("no state: {error}"))?;
        if found.format != FORMAT {
            return Err(format!("it has format {}, where this version reads {FORMAT}", found.format));
        }
        let numbers = found.scopes.values().flat_map(|scope| {
            let totals = scope.totals.iter().flat_map(|total| [total.used, total.fills]);
            totals.chain([scope.epoch, scope.resets])
        });
        match numbers.chain([found.generation]).find(|number| *number > MAX_NUMBER) {
            Some(number) => Err(format!("it holds the number {number}, which no write gives")),
            None => Ok(found),
        }
    }
}

/// Returns the last line of a file with this content.
fn seal(content: &[u8]) -> String {
    let digits: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{SEAL}{digits}\n")
}

impl Scope {
    /// Makes the kept state from the state in the kernel and the day of the replay guard.
    pub fn of(state: &ScopeState, guard: Option<Date>) -> Self {
        let names = cause::NAMES.iter().filter(|(bit, _)| state.causes & bit != 0);
        Self {
            causes: names.map(|(_, name)| (*name).to_owned()).collect(),
            epoch: state.epoch,
            resets: state.resets,
            armed: state.armed,
            armed_by_policy: state.armed_by_policy,
            totals: state.totals.iter().map(TotalUse::of).collect(),
            replay_guard: guard,
        }
    }

    /// Returns the cause bits. A name that this version does not know counts as [`cause::STATE`], so the
    /// scope stays tripped.
    pub fn cause_bits(&self) -> u64 {
        let bit = |name: &String| cause::NAMES.iter().find(|(_, known)| known == name).map(|(bit, _)| *bit);
        self.causes.iter().fold(0, |all, name| all | bit(name).unwrap_or(cause::STATE))
    }

    /// Returns true if the scope differs from a scope that was never tripped, armed by a person or used.
    pub fn is_noteworthy(&self) -> bool {
        let untouched = Self { armed: self.armed, armed_by_policy: self.armed, ..Self::default() };
        let used = self.totals.iter().any(|total| total.used != 0 || total.fills != 0);
        used || Self { totals: Vec::new(), ..self.clone() } != untouched
    }

    /// Returns the state for the kernel's maps. `guarded` says whether the replay guard still holds.
    pub fn state(&self, (armed, armed_by_policy): (bool, bool), guarded: bool) -> ScopeState {
        ScopeState {
            causes: self.cause_bits(),
            epoch: self.epoch,
            resets: self.resets,
            armed,
            armed_by_policy,
            totals: self.totals.iter().filter_map(TotalUse::total).collect(),
            guarded,
        }
    }
}

impl TotalUse {
    fn of(total: &Total) -> Self {
        let class = LimitClass::ALL.get(total.class as usize).map_or("unknown", |class| class.name());
        Self { class: class.to_owned(), per_fill: total.per_fill, used: total.used, fills: total.fills }
    }

    /// Returns `None` for a class that this version does not know.
    fn total(&self) -> Option<Total> {
        let class = LimitClass::ALL.iter().position(|class| class.name() == self.class)? as u32;
        Some(Total { class, per_fill: self.per_fill, used: self.used, fills: self.fills })
    }
}
