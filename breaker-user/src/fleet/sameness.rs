//! Sameness: whether every host of the inventory enforces the active policy with the same kernel object.

use std::collections::BTreeMap;
use std::fmt;

use semver::Version;
use serde::Serialize;

use super::record::{ActivePolicy, HostState};

/// What etcd says of a host at one revision.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Whether the host's agent answers: its lease lives.
    pub is_live: bool,
    /// The state, or why its record cannot be read; `None` if there is none.
    pub state: Option<Result<HostState, String>>,
}

/// A host in the comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostCheck {
    /// Name of the host.
    pub host: String,
    /// Each difference with both sides; empty if the host is the same.
    pub differences: Vec<Difference>,
}

/// A difference between a host and the active policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What differs.
    pub what: String,
    /// What must be.
    pub wanted: String,
    /// What was found.
    pub found: String,
}

impl Difference {
    fn new(what: &str, wanted: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), wanted: wanted.into(), found: found.into() }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, wanted, found } = self;
        write!(f, "{what}: wanted {wanted}, found {found}")
    }
}

/// Compares each host of the inventory with the active policy. Hosts that report and are not in the inventory
/// differ too.
pub fn compare(
    active: Option<&ActivePolicy>,
    inventory: &[String],
    reports: &BTreeMap<String, Report>,
) -> Vec<HostCheck> {
    let absent = Report::default();
    let listed = inventory.iter().map(|host| {
        let report = reports.get(host).unwrap_or(&absent);
        HostCheck { host: host.clone(), differences: differences(active, report) }
    });
    let unlisted = reports.iter().filter(|(host, report)| report.is_live && !inventory.contains(host));
    let unlisted = unlisted.map(|(host, _)| {
        let found = Difference::new("inventory", "an entry of the inventory", "a host without one");
        HostCheck { host: host.clone(), differences: vec![found] }
    });
    listed.chain(unlisted).collect()
}

/// Returns every difference between a host and the active policy.
pub fn differences(active: Option<&ActivePolicy>, report: &Report) -> Vec<Difference> {
    let mut found = Vec::new();
    if !report.is_live {
        found.push(Difference::new("agent", "an answer within 5s", "no answer"));
    }
    match (&report.state, active) {
        (None, _) => found.push(Difference::new("state", "a report", "none")),
        (Some(Err(error)), _) => found.push(Difference::new("state", "a report", error)),
        (Some(Ok(state)), active) => {
            match active {
                Some(active) => found.extend(from_active(active, state)),
                None => found.push(Difference::new("policy", "an active one", "none is activated")),
            }
            found.extend(from_kernel(state));
        }
    }
    found
}

/// Returns the differences between a host's state and the active policy.
fn from_active(active: &ActivePolicy, state: &HostState) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |what, wanted: &str, is: &str| {
        if wanted != is {
            found.push(Difference::new(what, wanted, is));
        }
    };
    compare("policy", &active.sha256, &state.policy_sha256);
    compare("kernel object", &active.object_sha256, &state.object_sha256);
    compare("layout", &active.layout.to_string(), &state.layout.to_string());
    let is_old = match (Version::parse(&active.min_version), Version::parse(&state.version)) {
        (Ok(least), Ok(version)) => version < least,
        _ => true,
    };
    if is_old {
        let wanted = format!("{} or newer", active.min_version);
        found.push(Difference::new("agent version", wanted, &state.version));
    }
    found
}

/// Returns what is wrong with a host whatever the policy.
fn from_kernel(state: &HostState) -> Vec<Difference> {
    let mut found = Vec::new();
    if !state.tag_is_recorded {
        found.push(Difference::new(
            "program",
            "the program that was loaded",
            format!("tag {}", state.program_tag),
        ));
    }
    for (name, interface) in &state.interfaces {
        if !interface.attached {
            found.push(Difference::new(name, "attached", "not attached"));
        } else if !interface.first {
            found.push(Difference::new(name, "first in its chain", "behind another program"));
        }
    }
    // A disarmed scope is what `fleet arm` changes.
    let is_disarmed = |problem: &&String| problem.starts_with("DISARMED");
    let problems: Vec<_> = state.problems.iter().filter(|problem| !is_disarmed(problem)).cloned().collect();
    if !problems.is_empty() && found.is_empty() {
        found.push(Difference::new("breaker", "in force", problems.join("; ")));
    }
    found
}
