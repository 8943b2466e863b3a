//! The people of the policy in force.
//!
//! META has the hash of the policy in force, and the state directory has a copy of its text. A user of the
//! control socket can change neither. The configuration file counts if it has the same hash.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rustix::process::geteuid;
use sha2::{Digest, Sha256};

use crate::audit::AuditLog;
use crate::config::{self, People};
use crate::file;
use crate::kernel::text::trim_padding;
use crate::kernel::{PinRoot, Switchboard};
use crate::load_log::LoadLog;
use crate::people::{ControlVerb, Peer, Role, allows, role};
use crate::state;

/// Longest configuration in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The people who may run verbs on a load, and the log of their verbs.
pub struct Rules {
    people: Result<People, String>,
    /// True if the people come from the policy in force, or from the policy that a load would put in force.
    in_force: bool,
    /// Audit log of the load, or of the configuration file if nothing is loaded.
    pub log: Box<dyn AuditLog>,
    /// Name of the policy in force; empty if nothing is loaded.
    pub policy: String,
}

impl Rules {
    /// Reads the rules for the load under a root. `config` is the configuration file of this host.
    pub fn read(root: &PinRoot, config: &Path) -> Self {
        let file = read_trusted(config);
        match Switchboard::open(root) {
            Ok(board) => {
                let texts = [state::store(&board).policy_text(), file];
                let (people, in_force) = select_people(texts, &board.policy().sha256);
                let policy = trim_padding(&board.policy().name);
                Self { people, in_force, log: Box::new(LoadLog::open(&board)), policy }
            }
            Err(_) => {
                let loaded = config::load(config).map(|loaded| loaded.policy.agent().audit.as_path().into());
                let audit: PathBuf = loaded.unwrap_or_else(|_| config::DEFAULT_AUDIT.into());
                let (people, _) = select_people([file], &[0; 32]);
                // Without a load, the next load puts the file in force.
                Self { people, in_force: !root.exists(), log: Box::new(audit), policy: String::new() }
            }
        }
    }

    /// Returns the reason why a user may not run a verb; `None` if the user may.
    ///
    /// A trip adds no risk, so it needs no proof that the rules are in force.
    pub fn denial_reason(&self, peer: &Peer, verb: ControlVerb) -> Option<String> {
        if peer.uid == 0 {
            return None;
        }
        let people = match &self.people {
            Ok(people) => people,
            Err(found) => return Some(format!("the rules about people cannot be read ({found})")),
        };
        let role = role(people, peer);
        if !allows(role, verb) {
            return Some(match role {
                Role::Barred => "the account is barred, and may only trip".to_owned(),
                Role::Operator => "an operator may not do this".to_owned(),
                Role::Risk => "only root may do this".to_owned(),
                Role::Nobody | Role::Root => "[people] does not name the account".to_owned(),
            });
        }
        let is_proven = self.in_force || verb == ControlVerb::Trip;
        (!is_proven)
            .then(|| "no copy of the policy in force is left, so that [people] is unproven".to_owned())
    }
}

/// Returns the reason why a reset of a load needs two people; `None` if one person is enough. A copy of the
/// policy that is not the policy in force shows nothing, so the reset then needs two people. A load without a
/// copy, such as a load by the library, needs one person: [`Rules::denial_reason`] then refuses every user
/// except root.
pub fn two_people_reason(board: &Switchboard) -> Option<String> {
    let store = state::store(board);
    let unproven = |found: &str| {
        let path = store.policy_path();
        Some(format!(
            "{found} {}, the copy of the policy in force, so that two_person is unproven",
            path.display()
        ))
    };
    match store.policy_text() {
        Ok(text) if !is_text_of(&text, &board.policy().sha256) => unproven("someone changed"),
        Ok(text) => {
            let demands = config::parse_people(&text).is_ok_and(|people| people.two_person);
            demands.then(|| "the policy demands two people (two_person)".to_owned())
        }
        Err(_) if !store.policy_path().exists() => None,
        Err(_) => unproven("nobody can read"),
    }
}

/// Returns true if a text has this hash.
fn is_text_of(text: &str, sha256: &[u8; 32]) -> bool {
    Sha256::digest(text.as_bytes()).as_slice() == sha256
}

/// Returns the people of the first text with this hash, and true. If no text has the hash, returns the people
/// of the first text, and false.
fn select_people<const N: usize>(
    texts: [Result<String>; N],
    sha256: &[u8; 32],
) -> (Result<People, String>, bool) {
    let found = texts.iter().flatten().find(|text| is_text_of(text, sha256));
    let in_force = found.is_some();
    match found.or_else(|| texts.iter().flatten().next()) {
        Some(text) => (config::parse_people(text), in_force),
        None => {
            let errors = texts.iter().filter_map(|text| text.as_ref().err());
            let found: Vec<_> = errors.map(|error| format!("{error:#}")).collect();
            (Err(found.join("; ")), false)
        }
    }
}

/// Reads a file. Fails if a user other than root and the user of this process can change the file.
fn read_trusted(path: &Path) -> Result<String> {
    let file = file::open(OpenOptions::new().read(true), path)?;
    let found = file.metadata()?;
    let shown = path.display();
    let is_own = found.uid() == 0 || found.uid() == geteuid().as_raw();
    ensure!(is_own, "{shown}: user {} owns it", found.uid());
    ensure!(found.mode() & 0o022 == 0, "{shown}: other users may write to it");
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
