//! Entries of the audit log: what happened, who did it, and its line in the log.

use std::fs;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

/// The author of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Real user id.
    pub uid: u32,
    /// Login name of the person, or the uid if the name is unknown.
    pub user: String,
    /// Process id.
    pub pid: u32,
    /// `cli`, `control`, `agent` or `kernel`.
    pub via: String,
}

impl Actor {
    /// The person who runs this process, or for whom [`act_for`] lets it act.
    pub fn this_process(via: &str) -> Self {
        if let Some(person) = ACTS_FOR.get() {
            return person.clone();
        }
        let uid = rustix::process::getuid().as_raw();
        Self { uid, user: login_name(uid), pid: std::process::id(), via: via.to_owned() }
    }

    /// A user at the other end of the control socket.
    pub fn at_control(uid: u32, pid: u32) -> Self {
        Self { uid, user: user_name(uid), pid, via: "control".to_owned() }
    }

    /// The kernel program.
    pub fn kernel() -> Self {
        Self { uid: 0, user: "kernel".to_owned(), pid: 0, via: "kernel".to_owned() }
    }
}

/// The person for whom this process acts, if it is not the person who started it.
static ACTS_FOR: OnceLock<Actor> = OnceLock::new();

/// Makes a person the author of all later entries of this process. Only the first call has an effect.
pub fn act_for(person: Actor) {
    let _ = ACTS_FOR.set(person);
}

/// Name of the person who logged in, also after su and sudo; without a login, the caller of sudo.
///
/// The source is the kernel's login uid. `SUDO_USER` counts only for root, because any user can set a
/// variable.
fn login_name(uid: u32) -> String {
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    match login.filter(|login| *login != u32::MAX) {
        Some(login) => user_name(login),
        None if uid == 0 => std::env::var("SUDO_USER").unwrap_or_else(|_| user_name(uid)),
        None => user_name(uid),
    }
}

/// Name of a user in `/etc/passwd`; the uid for a user from elsewhere, such as LDAP.
fn user_name(uid: u32) -> String {
    let matching_name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().find_map(matching_name).unwrap_or_else(|| uid.to_string())
}

/// An event, without its position in the log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Time of the event.
    pub time: Timestamp,
    /// Kind of the event, such as `tripped` or `reset`.
    pub kind: String,
    /// Scope of the event; `None` if it concerns the whole load.
    pub scope: Option<String>,
    /// Names of the causes, separated by commas.
    pub cause: Option<String>,
    /// Author of the event.
    pub actor: Actor,
    /// Reason that the person gave.
    pub reason: Option<String>,
    /// Figures, as a JSON object.
    pub counts: serde_json::Value,
    /// Name of the policy in force.
    pub policy: String,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// Number of the line, from 1.
    pub seq: u64,
    /// The event.
    #[serde(flatten)]
    pub entry: Entry,
    /// SHA-256 of the line before in hex, or of no bytes for the first line. The line's own `hash` follows in
    /// the text.
    pub prev: String,
}

impl Serialize for Line {
    /// Writes one flat object. Its members keep their order, so that logs of all versions look the same.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { seq, entry, prev } = self;
        let Entry { time, kind, scope, cause, actor, reason, counts, policy } = entry;
        let mut line = serializer.serialize_struct("Line", 10)?;
        line.serialize_field("time", time)?;
        line.serialize_field("seq", seq)?;
        line.serialize_field("kind", kind)?;
        line.serialize_field("scope", scope)?;
        line.serialize_field("cause", cause)?;
        line.serialize_field("actor", actor)?;
        line.serialize_field("reason", reason)?;
        line.serialize_field("counts", counts)?;
        line.serialize_field("policy", policy)?;
        line.serialize_field("prev", prev)?;
        line.end()
    }
}
