//! The values of a fleet's keys: JSON with the number of its schema, of at most [`MAX_BYTES`].

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Name;

/// Schema of the values that this version writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;
/// Longest value in bytes, policies excepted.
pub const MAX_BYTES: usize = 64 << 10;

/// An entry of the inventory: a host that must exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Destination of `ssh`, as `USER@ADDRESS`; `None` for no second way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
}

/// The policy that every host must enforce, and the kernel object with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivePolicy {
    /// SHA-256 of the policy's text, in hexadecimal.
    pub sha256: String,
    /// Name of the policy.
    pub name: String,
    /// Oldest version of the agent that may enforce the policy.
    pub min_version: String,
    /// SHA-256 of the kernel object at the activation.
    pub object_sha256: String,
    /// Number of the layout of the maps at the activation.
    pub layout: u32,
    /// Command that activated the policy.
    pub id: String,
}

/// A trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// Identifies the trip, and the command that made it.
    pub id: String,
    /// Who tripped.
    pub by: String,
    /// The reason.
    pub why: String,
    /// When, by the clock of the host where the command ran.
    pub at: Timestamp,
}

/// The reset of one trip, whose id is in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Command that made the reset.
    pub id: String,
    /// Who reset.
    pub by: String,
    /// The second person, where two are required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
    /// The reason.
    pub why: String,
    /// When, by the clock of the host where the command ran.
    pub at: Timestamp,
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Tripped a scope.
    Trip,
    /// Reset a scope.
    Reset,
    /// Armed a scope.
    Arm,
    /// Disarmed a scope.
    Disarm,
    /// Published a policy.
    Publish,
    /// Activated a policy.
    Activate,
    /// Added a host to the inventory.
    InventoryAdd,
    /// Removed a host from the inventory.
    InventoryRemove,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Trip => "trip",
            Self::Reset => "reset",
            Self::Arm => "arm",
            Self::Disarm => "disarm",
            Self::Publish => "publish",
            Self::Activate => "activate",
            Self::InventoryAdd => "inventory add",
            Self::InventoryRemove => "inventory remove",
        })
    }
}

/// A command, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The verb.
    pub verb: Verb,
    /// Scope, policy or host that the command is about.
    pub subject: String,
    /// Who gave the command.
    pub by: String,
    /// Host where the command ran.
    pub from: String,
    /// The reason.
    pub why: String,
    /// When, by the clock of that host.
    pub at: Timestamp,
}

/// That an agent runs. The key has a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Version of the agent.
    pub version: String,
    /// Boot of the host, as `/proc/sys/kernel/random/boot_id` has it.
    pub boot_id: String,
}

/// The attachment to an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceState {
    /// Whether the program is attached.
    pub attached: bool,
    /// Whether the program is first in its chain.
    pub first: bool,
}

/// What a host's kernel enforces, as its agent read it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Version of the agent.
    pub version: String,
    /// SHA-256 of the kernel object in the agent's binary, in hexadecimal.
    pub object_sha256: String,
    /// Tag of the deciding program, as the kernel computes it.
    pub program_tag: String,
    /// Whether this tag is that of the program that was loaded.
    pub tag_is_recorded: bool,
    /// Number of the layout of the maps.
    pub layout: u32,
    /// SHA-256 of the policy's text, in hexadecimal.
    pub policy_sha256: String,
    /// Name of the policy.
    pub policy: String,
    /// Interfaces, by name.
    pub interfaces: BTreeMap<String, InterfaceState>,
    /// Whether the breaker is in force, see [`crate::enforced`].
    pub enforced: bool,
    /// The problems, if it is not.
    pub problems: Vec<String>,
    /// Tripped scopes with the names of their causes.
    pub tripped: BTreeMap<String, Vec<String>>,
    /// Disarmed scopes.
    pub disarmed: Vec<String>,
    /// Declared groups and sessions, as names of scopes.
    pub scopes: Vec<String>,
    /// Revision of etcd up to which the agent has applied the records.
    pub revision: i64,
}

/// A host's acknowledgement of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// When the host saw the command, by its clock.
    pub seen_at: Timestamp,
    /// When its kernel enforced the command, by its clock.
    pub done_at: Timestamp,
    /// Whether the kernel enforces the command.
    pub done: bool,
    /// What was found if not, or what else is to be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// A value with the number of its schema.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    schema: u32,
    #[serde(flatten)]
    value: T,
}

/// Encodes a value.
///
/// # Errors
/// If the value is longer than [`MAX_BYTES`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let bytes =
        serde_json::to_vec(&Versioned { schema: SCHEMA, value }).map_err(|error| error.to_string())?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("{} bytes are too many for a record: {MAX_BYTES} are allowed", bytes.len()));
    }
    Ok(bytes)
}

/// Decodes a value of any content.
///
/// # Errors
/// If the value is too long, is not such a record, or has a schema newer than [`SCHEMA`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("{} bytes are too many for a record", bytes.len()));
    }
    let Versioned { schema, value } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if schema == 0 || schema > SCHEMA {
        return Err(format!("schema {schema} is not known to this version: upgrade breaker"));
    }
    Ok(value)
}

/// Makes an id for a command: the time, so that ids are in order, and random letters.
pub fn new_id() -> String {
    let letters: String = (0..8).map(|_| fastrand::lowercase()).collect();
    format!("{}-{letters}", Timestamp::now().strftime("%Y%m%dT%H%M%S.%3f"))
}

/// Returns true for a text that may identify a command: 1 to 64 of `A-Z`, `a-z`, `0-9`, `-`, `.`.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// Returns the name of a host that fits into a key, made from the name of a machine.
pub fn host_name(node: &str) -> Option<Name> {
    node.to_ascii_lowercase().parse().ok()
}
