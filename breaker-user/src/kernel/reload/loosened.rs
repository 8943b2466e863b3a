//! What a new policy loosens, in words, compared with the one in force as the kernel has it. Pure.
//!
//! Loosened is what may let something cross that would not have: where in doubt it is listed, for what is listed is only refused
//! while something is tripped.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use breaker_common::abi::{
    Endpoint, IdentityKey, Label, Limit, Rules, Session, Target, flag, label, undeclared, while_tripped,
};
use breaker_common::class::{self};
use breaker_common::fix::MsgType;
use breaker_common::message::{Class, LimitClass};

use super::endpoints::Trie;
use super::in_force::{InForce, limits, named};
use crate::display::{duration, limit as limit_text};
use crate::kernel::tables::{Tables, ip, same};

/// Every loosening, scope by scope.
pub fn loosened(now: &InForce, next: &Tables) -> Vec<String> {
    let mut found = host(now, next);
    let lost = lost(now, next);
    for (scope, known) in now.labels.iter().enumerate().filter(|(scope, _)| now.declares(*scope)) {
        let name = named(known);
        if next.armed.get(scope).copied().flatten().is_none() {
            found.push(format!("{name}: no longer there"));
            continue;
        }
        let mut told = limits_of(now, next, scope);
        if now.scopes[scope].armed != 0 && !armed(now, next, scope) {
            told.push("disarmed".to_owned());
        }
        if known.kind == label::SESSION {
            told.extend(session(now, next, known));
            let places = lost.get(&known.session).into_iter().flatten();
            told.extend(places.map(|(place, then)| format!("connections to {place} are {then}")));
        }
        found.extend(told.into_iter().map(|what| format!("{name}: {what}")));
    }
    found
}

/// Whether a scope is armed once the new policy is in force: as the kernel has it, unless the two policies differ on it.
pub fn armed(now: &InForce, next: &Tables, scope: usize) -> bool {
    let wanted = next.armed.get(scope).copied().flatten() == Some(true);
    let configured = now.rules(scope).0.positions & Rules::ARMED != 0;
    if now.declares(scope) && configured == wanted { now.scopes[scope].armed != 0 } else { wanted }
}

/// The scopes that only one of the two has: added, removed.
pub fn added_and_removed(now: &InForce, next: &Tables) -> (Vec<String>, Vec<String>) {
    let is_new = |scope: &usize| next.armed[*scope].is_some() && !now.declares(*scope);
    let is_gone = |scope: &usize| next.armed[*scope].is_none() && now.declares(*scope);
    let names = |which: &dyn Fn(&usize) -> bool| -> Vec<String> {
        (0..next.labels.len()).filter(|scope| which(scope)).map(|scope| named(&next.labels[scope])).collect()
    };
    (names(&is_new), names(&is_gone))
}

fn host(now: &InForce, next: &Tables) -> Vec<String> {
    const WORDS: [&str; 3] = ["ignore", "watch", "block"];
    let (old, new) = (&now.policy, &next.policy);
    let mut found = Vec::new();
    if new.undeclared < old.undeclared {
        let word = |code: u32| WORDS[code.min(undeclared::BLOCK) as usize];
        found.push(format!("undeclared: {} becomes {}", word(old.undeclared), word(new.undeclared)));
    }
    if gains(old.flags, new.flags, flag::PASS_WHEN_FULL) {
        found.push("on_table_full: block becomes pass".to_owned());
    }
    let silence = |policy: &breaker_common::abi::Policy| match (
        policy.deadman_ns,
        policy.flags & flag::HEARTBEAT_LOSS_TRIPS != 0,
    ) {
        (0, _) => "nothing".to_owned(),
        (after, true) => format!("trip after {}", duration(after)),
        (after, false) => format!("warn after {}", duration(after)),
    };
    let weaker = new.deadman_ns == 0
        || new.deadman_ns > old.deadman_ns
        || gains(new.flags, old.flags, flag::HEARTBEAT_LOSS_TRIPS);
    if old.deadman_ns != 0 && weaker {
        found.push(format!("deadman: {} becomes {}", silence(old), silence(new)));
    }
    found.into_iter().map(|what| format!("host: {what}")).collect()
}

/// A flag that is set in `new` and not in `old`.
fn gains(old: u32, new: u32, flag: u32) -> bool {
    new & flag != 0 && old & flag == 0
}

fn limits_of(now: &InForce, next: &Tables, scope: usize) -> Vec<String> {
    let after: Vec<Limit> = limits(&next.rules[scope]).into_iter().map(|(_, limit)| limit).collect();
    let told = |old: Limit| match after.iter().find(|new| same(&old, new)) {
        Some(new) if new.max <= old.max && new.per_fill <= old.per_fill => None,
        Some(new) => Some(format!("{} becomes {}", limit_text(&old), limit_text(new))),
        None if after.iter().any(|new| covers(new, &old)) => None,
        None => Some(format!("{} is gone", limit_text(&old))),
    };
    now.limits(scope).into_iter().filter_map(|(_, limit)| told(limit)).collect()
}

/// Whether whoever keeps the new limit keeps the old one too.
fn covers(new: &Limit, old: &Limit) -> bool {
    let goes_out = |class: u32| class == LimitClass::Order as u32 || class == LimitClass::Cancel as u32;
    let counts = new.class == old.class || new.class == LimitClass::Message as u32 && goes_out(old.class);
    // A total is over a time without end.
    let longer = new.per_ns == 0 || old.per_ns != 0 && new.per_ns >= old.per_ns;
    counts && longer && new.max <= old.max && new.per_fill == 0 && old.per_fill == 0
}

fn session(now: &InForce, next: &Tables, known: &Label) -> Vec<String> {
    const TRIPPED: [&str; 3] = ["reduce-only", "admin-only", "isolate"];
    let number = known.session as usize;
    let (Some(old), Some(new)) = (now.sessions.get(number), next.sessions.get(number)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for scope in scopes(old).iter().filter(|scope| !scopes(new).contains(scope)) {
        if let Some(group) = now.labels.get(*scope as usize).filter(|found| found.kind == label::GROUP) {
            // A group that is gone is told of by itself.
            if next.armed.get(*scope as usize).copied().flatten().is_some() {
                found.push(format!("no longer in {}", named(group)));
            }
        }
    }
    if new.while_tripped < old.while_tripped {
        let word = |code: u32| TRIPPED[code.min(while_tripped::ISOLATE) as usize];
        found.push(format!("while_tripped: {} becomes {}", word(old.while_tripped), word(new.while_tripped)));
    }
    if desync(new.flags) < desync(old.flags) {
        let word = |flags: u32| ["warn", "count", "trip"][desync(flags)];
        found.push(format!("on_desync: {} becomes {}", word(old.flags), word(new.flags)));
    }
    if new.longest > old.longest {
        found.push(format!("longest: {} bytes become {}", old.longest, new.longest));
    }
    let of_user = |session: &Session| (session.flags & flag::MATCH_UID != 0).then_some(session.uid);
    if of_user(new).is_some() && of_user(new) != of_user(old) {
        found.push(format!("user: sockets of others than account {} become undeclared", new.uid));
    }
    if gains(old.flags, new.flags, flag::REPLAYS_PASS) {
        found.push("possdup: block becomes pass".to_owned());
    }
    // Either way something counts less: what is not FIX no more, or of the messages of a segment all but one.
    if (old.flags ^ new.flags) & flag::OPAQUE != 0 {
        let word = |flags: u32| if flags & flag::OPAQUE != 0 { "opaque" } else { "fix" };
        found.push(format!("wire: {} becomes {}", word(old.flags), word(new.flags)));
    }
    found.extend(classes(old, new));
    found
}

/// How much is made of a stream that is lost.
fn desync(flags: u32) -> usize {
    match (flags & flag::DESYNC_TRIPS != 0, flags & flag::BLIND_UNCOUNTED != 0) {
        (true, _) => 2,
        (false, false) => 1,
        (false, true) => 0,
    }
}

/// The scopes of a session.
fn scopes(session: &Session) -> &[u32] {
    &session.scopes[..(session.scope_count as usize).min(session.scopes.len())]
}

/// MsgTypes that count for less than before.
fn classes(old: &Session, new: &Session) -> Vec<String> {
    let types: BTreeSet<u64> =
        [old, new].into_iter().flat_map(|session| own(session).map(|own| own.0)).collect();
    let of = |session: &Session, msg_type: u64| {
        let own = own(session).find(|own| own.0 == msg_type).map(|own| Class::from_code(own.1));
        own.unwrap_or_else(|| class::default_class(MsgType(msg_type)))
    };
    let told = |msg_type: u64| {
        let (old, new) = (of(old, msg_type), of(new, msg_type));
        let text = String::from_utf8_lossy(&msg_type.to_le_bytes()).trim_matches('\0').to_owned();
        (weight(new) < weight(old)).then(|| format!("MsgType {text}: {} becomes {}", old.name(), new.name()))
    };
    types.into_iter().filter_map(told).collect()
}

fn own(session: &Session) -> impl Iterator<Item = (u64, u64)> + '_ {
    let count = (session.override_count as usize).min(session.overrides.len());
    session.overrides[..count].iter().map(|own| (own.msg_type, own.class))
}

/// How much is withheld of a class, where and when.
fn weight(class: Class) -> u32 {
    match class {
        Class::Order => 4,
        Class::Interest => 3,
        Class::Cancel => 2,
        Class::Query => 1,
        Class::Admin => 0,
    }
}

/// Places whose connections are a session's no more, by session, and whose they are then.
fn lost(now: &InForce, next: &Tables) -> BTreeMap<u32, BTreeSet<(String, &'static str)>> {
    let (side, old) = (now.side, Trie::of(now.endpoints.iter().copied()));
    let new = Trie::of(next.endpoints.iter().copied());
    let sharing_now = by_place(now.identities.iter().map(|(key, place)| (key, place[side])));
    let sharing_next = by_place(next.identities.iter().map(|(key, session)| (key, *session)));
    let keys = now.endpoints.iter().map(|(endpoint, bits, _)| (endpoint, *bits));
    let keys = keys.chain(next.endpoints.iter().map(|(endpoint, bits, _)| (endpoint, *bits)));
    let mut found: BTreeMap<u32, BTreeSet<_>> = BTreeMap::new();
    // One without a port stands for an address alone.
    for (endpoint, bits) in keys.filter(|(endpoint, _)| endpoint.port != 0) {
        let before = owners(old.whose(endpoint, bits, |place| place[side]), &sharing_now);
        let after = new.whose(endpoint, bits, |word| word);
        let then = if after == 0 { "undeclared" } else { "another session's" };
        let kept = owners(after, &sharing_next);
        for session in before.difference(&kept) {
            found.entry(*session).or_default().insert((place(endpoint, bits), then));
        }
    }
    found
}

/// The sessions of each shared place.
fn by_place<'a>(identities: impl Iterator<Item = (&'a IdentityKey, u32)>) -> HashMap<u32, BTreeSet<u32>> {
    let mut found: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for (key, session) in identities.filter(|(_, session)| *session != 0) {
        found.entry(key.endpoint).or_default().insert(session);
    }
    found
}

/// The sessions that a word of an endpoint stands for.
fn owners(word: u32, sharing: &HashMap<u32, BTreeSet<u32>>) -> BTreeSet<u32> {
    match Target::unpack(word) {
        Target::None => BTreeSet::new(),
        Target::Session(session) => BTreeSet::from([session]),
        Target::Shared { endpoint, .. } => sharing.get(&endpoint).cloned().unwrap_or_default(),
    }
}

/// An endpoint in words.
pub fn place(endpoint: &Endpoint, bits: u32) -> String {
    let (address, port) = (ip(endpoint.remote), u16::from_be(endpoint.port));
    let length = bits.saturating_sub(Endpoint::FIXED_BITS + if address.is_ipv4() { 96 } else { 0 });
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = if length == whole { String::new() } else { format!("/{length}") };
    if address.is_ipv4() {
        format!("{address}{length}:{port}")
    } else {
        format!("[{address}{length}]:{port}")
    }
}
