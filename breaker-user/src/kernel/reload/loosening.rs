//! Finds what the next policy loosens, compared with the policy in force as the kernel has it. Pure.
//!
//! A change is a loosening if it may let a message pass that is withheld today. In doubt, a change is listed:
//! a listed change is refused only while a scope is tripped.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use breaker_common::abi::{
    self, IdentityKey, Label, Limit, Rules, Session, Target, flag, label, undeclared, while_tripped,
};
use breaker_common::class;
use breaker_common::fix::MsgType;
use breaker_common::message::{Class, LimitClass};

use super::diff::{Change, Deadman, Loosening, PolicyDiff, RemoteRange};
use super::endpoints::Trie;
use super::in_force::{InForce, limits, scope_name};
use crate::config::{OnDesync, Undeclared, WhileTripped};
use crate::kernel::sessions::scopes;
use crate::kernel::tables::Tables;
use crate::kernel::tables::limits::same_window;

/// Compares the next policy with the one in force.
pub fn diff(now: &InForce, next: &Tables) -> PolicyDiff {
    let (added, removed) = added_and_removed(now, next);
    PolicyDiff { loosened: loosened(now, next), added, removed }
}

/// Returns every loosening, scope by scope.
pub fn loosened(now: &InForce, next: &Tables) -> Vec<Loosening> {
    let in_scope = |scope: &str, changes: Vec<Change>| {
        let scope = scope.to_owned();
        changes.into_iter().map(move |change| Loosening { scope: scope.clone(), change })
    };
    let mut found: Vec<_> = in_scope("host", host_changes(now, next)).collect();
    let lost = lost_endpoints(now, next);
    for (scope, known) in now.labels.iter().enumerate().filter(|(scope, _)| now.declares(*scope)) {
        let mut changes = Vec::new();
        if next.declares(scope) {
            changes.extend(limit_changes(now, next, scope));
            if now.scopes[scope].armed != 0 && !armed(now, next, scope) {
                changes.push(Change::Disarmed);
            }
            if known.kind == label::SESSION {
                changes.extend(session_changes(now, next, known));
                changes
                    .extend(lost.get(&known.session).into_iter().flatten().map(|(_, change)| change.clone()));
            }
        } else {
            changes.push(Change::ScopeRemoved);
        }
        found.extend(in_scope(&scope_name(known), changes));
    }
    found
}

/// Returns true if a scope is armed once the next policy is in force. A scope keeps its state in the kernel,
/// unless the two policies differ on it.
pub fn armed(now: &InForce, next: &Tables, scope: usize) -> bool {
    let wanted = next.armed.get(scope).copied().flatten() == Some(true);
    let configured = now.rules(scope).0.positions & Rules::ARMED != 0;
    if now.declares(scope) && configured == wanted { now.scopes[scope].armed != 0 } else { wanted }
}

/// Returns the scopes that only the next policy declares, and those that only the policy in force declares.
pub fn added_and_removed(now: &InForce, next: &Tables) -> (Vec<String>, Vec<String>) {
    let names = |wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
        let scopes = (0..next.labels.len()).filter(|scope| wanted(*scope));
        scopes.map(|scope| scope_name(&next.labels[scope])).collect()
    };
    let added = names(&|scope| next.declares(scope) && !now.declares(scope));
    let removed = names(&|scope| !next.declares(scope) && now.declares(scope));
    (added, removed)
}

fn host_changes(now: &InForce, next: &Tables) -> Vec<Change> {
    let (old, new) = (&now.policy, &next.policy);
    let mut found = Vec::new();
    if new.undeclared < old.undeclared {
        let setting = |code: u32| match code {
            undeclared::IGNORE => Undeclared::Ignore,
            undeclared::WATCH => Undeclared::Watch,
            _ => Undeclared::Block,
        };
        found.push(Change::Undeclared { old: setting(old.undeclared), new: setting(new.undeclared) });
    }
    if is_added(old.flags, new.flags, flag::PASS_WHEN_FULL) {
        found.push(Change::TableFullPasses);
    }
    let deadman = |policy: &abi::Policy| Deadman {
        after_ns: policy.deadman_ns,
        trips: policy.flags & flag::HEARTBEAT_LOSS_TRIPS != 0,
    };
    let is_weaker = new.deadman_ns == 0
        || new.deadman_ns > old.deadman_ns
        || is_added(new.flags, old.flags, flag::HEARTBEAT_LOSS_TRIPS);
    if old.deadman_ns != 0 && is_weaker {
        found.push(Change::Deadman { old: deadman(old), new: deadman(new) });
    }
    found
}

/// Returns true if a flag is set in `new` and not in `old`.
fn is_added(old: u32, new: u32, flag: u32) -> bool {
    new & flag != 0 && old & flag == 0
}

fn limit_changes(now: &InForce, next: &Tables, scope: usize) -> Vec<Change> {
    let after: Vec<Limit> = limits(&next.rules[scope]).into_iter().map(|(_, limit)| limit).collect();
    let change = |old: Limit| match after.iter().find(|new| same_window(&old, new)) {
        Some(new) if new.max <= old.max && new.per_fill <= old.per_fill => None,
        Some(new) => Some(Change::LimitRaised { old, new: *new }),
        None if after.iter().any(|new| covers(new, &old)) => None,
        None => Some(Change::LimitRemoved(old)),
    };
    now.limits(scope).into_iter().filter_map(|(_, limit)| change(limit)).collect()
}

/// Returns true if no sequence of messages can keep the new limit and exceed the old one.
fn covers(new: &Limit, old: &Limit) -> bool {
    let is_outbound = |class: u32| class == LimitClass::Order as u32 || class == LimitClass::Cancel as u32;
    let counts = new.class == old.class || new.class == LimitClass::Message as u32 && is_outbound(old.class);
    // A window of 0 ns is a total since the last reset: longer than any window.
    let is_longer = new.per_ns == 0 || old.per_ns != 0 && new.per_ns >= old.per_ns;
    counts && is_longer && new.max <= old.max && new.per_fill == 0 && old.per_fill == 0
}

fn session_changes(now: &InForce, next: &Tables, known: &Label) -> Vec<Change> {
    let number = known.session as usize;
    let (Some(old), Some(new)) = (now.sessions.get(number), next.sessions.get(number)) else {
        return Vec::new();
    };
    let mut found = groups_left(now, next, old, new);
    if new.while_tripped < old.while_tripped {
        let setting = |code: u32| match code {
            while_tripped::REDUCE_ONLY => WhileTripped::ReduceOnly,
            while_tripped::ADMIN_ONLY => WhileTripped::AdminOnly,
            _ => WhileTripped::Isolate,
        };
        found.push(Change::WhileTripped { old: setting(old.while_tripped), new: setting(new.while_tripped) });
    }
    let (old_desync, new_desync) = (on_desync(old.flags), on_desync(new.flags));
    if strictness(new_desync) < strictness(old_desync) {
        found.push(Change::OnDesync { old: old_desync, new: new_desync });
    }
    if new.longest > old.longest {
        found.push(Change::LongestMessage { old: old.longest, new: new.longest });
    }
    let user = |session: &Session| (session.flags & flag::MATCH_UID != 0).then_some(session.uid);
    if user(new).is_some() && user(new) != user(old) {
        found.push(Change::RestrictedToUser(new.uid));
    }
    if is_added(old.flags, new.flags, flag::REPLAYS_PASS) {
        found.push(Change::PossDupPasses);
    }
    if (old.flags ^ new.flags) & flag::OPAQUE != 0 {
        found.push(Change::Wire { becomes_opaque: new.flags & flag::OPAQUE != 0 });
    }
    found.extend(class_changes(old, new));
    found
}

/// The groups that a session leaves. A group that the next policy does not declare is listed as a scope.
fn groups_left(now: &InForce, next: &Tables, old: &Session, new: &Session) -> Vec<Change> {
    let left = scopes(old).iter().filter(|scope| !scopes(new).contains(scope));
    let group = |scope: &u32| {
        let label = now.labels.get(*scope as usize).filter(|found| found.kind == label::GROUP)?;
        next.declares(*scope as usize).then(|| Change::GroupLeft(scope_name(label)))
    };
    left.filter_map(group).collect()
}

fn on_desync(flags: u32) -> OnDesync {
    match (flags & flag::DESYNC_TRIPS != 0, flags & flag::BLIND_UNCOUNTED != 0) {
        (true, _) => OnDesync::Trip,
        (false, false) => OnDesync::Count,
        (false, true) => OnDesync::Warn,
    }
}

const fn strictness(setting: OnDesync) -> u32 {
    match setting {
        OnDesync::Warn => 0,
        OnDesync::Count => 1,
        OnDesync::Trip => 2,
    }
}

/// The MsgTypes whose new class is withheld less than the old one.
fn class_changes(old: &Session, new: &Session) -> Vec<Change> {
    let types: BTreeSet<u64> =
        [old, new].into_iter().flat_map(overrides).map(|(msg_type, _)| msg_type).collect();
    let class_in = |session: &Session, msg_type: u64| {
        let overridden = overrides(session).find(|(found, _)| *found == msg_type);
        overridden
            .map_or_else(|| class::default_class(MsgType(msg_type)), |(_, class)| Class::from_code(class))
    };
    let change = |msg_type: u64| {
        let (old, new) = (class_in(old, msg_type), class_in(new, msg_type));
        let is_looser = risk(new) < risk(old);
        is_looser.then_some(Change::MsgType { msg_type: MsgType(msg_type), old, new })
    };
    types.into_iter().filter_map(change).collect()
}

/// The MsgTypes that a session classifies by itself, with the code of the class.
fn overrides(session: &Session) -> impl Iterator<Item = (u64, u64)> + '_ {
    let count = (session.override_count as usize).min(session.overrides.len());
    session.overrides[..count].iter().map(|found| (found.msg_type, found.class))
}

/// Rank of a class by how much of it is withheld: a higher class is withheld in more situations.
const fn risk(class: Class) -> u32 {
    match class {
        Class::Order => 4,
        Class::Interest => 3,
        Class::Cancel => 2,
        Class::Query => 1,
        Class::Admin => 0,
    }
}

/// A lost endpoint in text, by which the changes are sorted, and the change.
type Lost = (String, Change);

/// The endpoints whose connections a session loses, by session number.
fn lost_endpoints(now: &InForce, next: &Tables) -> BTreeMap<u32, Vec<Lost>> {
    let (side, old) = (now.side, Trie::new(now.endpoints.iter().copied()));
    let new = Trie::new(next.endpoints.iter().copied());
    let shared_now = by_endpoint(now.identities.iter().map(|(key, words)| (key, words[side])));
    let shared_next = by_endpoint(next.identities.iter().map(|(key, session)| (key, *session)));
    let keys = now.endpoints.iter().map(|(endpoint, bits, _)| (endpoint, *bits));
    let keys = keys.chain(next.endpoints.iter().map(|(endpoint, bits, _)| (endpoint, *bits)));
    let mut found: BTreeMap<u32, Vec<Lost>> = BTreeMap::new();
    // An endpoint with port 0 stands for an address alone.
    for (endpoint, bits) in keys.filter(|(endpoint, _)| endpoint.port != 0) {
        let before = owners(old.lookup(endpoint, bits, |words| words[side]), &shared_now);
        let target = new.lookup(endpoint, bits, |word| word);
        let range = RemoteRange::new(endpoint, bits);
        let change = Change::EndpointLost { endpoint: range, to_another_session: target != 0 };
        for session in before.difference(&owners(target, &shared_next)) {
            found.entry(*session).or_default().push((range.to_string(), change.clone()));
        }
    }
    let is_other = |change: &Change| matches!(change, Change::EndpointLost { to_another_session: true, .. });
    for lost in found.values_mut() {
        lost.sort_by_key(|(text, change)| (text.clone(), !is_other(change)));
        lost.dedup();
    }
    found
}

/// The sessions of each shared endpoint, by its number.
fn by_endpoint<'a>(identities: impl Iterator<Item = (&'a IdentityKey, u32)>) -> HashMap<u32, BTreeSet<u32>> {
    let mut found: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for (key, session) in identities.filter(|(_, session)| *session != 0) {
        found.entry(key.endpoint).or_default().insert(session);
    }
    found
}

/// The sessions that the word of an endpoint stands for.
fn owners(word: u32, shared: &HashMap<u32, BTreeSet<u32>>) -> BTreeSet<u32> {
    match Target::unpack(word) {
        Target::None => BTreeSet::new(),
        Target::Session(session) => BTreeSet::from([session]),
        Target::Shared { endpoint, .. } => shared.get(&endpoint).cloned().unwrap_or_default(),
    }
}
