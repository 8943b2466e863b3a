//! Checks across the file: sessions that claim the same connections, limits that need inbound messages,
//! unused settings.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use breaker_common::abi::identity;
use breaker_common::message::LimitClass;

use super::diagnostics::{Problem, Problems, Span};
use super::endpoint::Endpoint;
use super::limit::{Limit, Limits};
use super::policy::COMP_IDS;
use super::read::Read;
use super::read_session::Declared;
use super::text::CompId;
use super::words::{Inbound, Undeclared, WireFormat};

/// Checks the file as a whole.
pub(super) fn check(read: &mut Read, problems: &mut Problems) {
    shared_endpoints(&read.sessions, problems);
    inbound(read, problems);
    without_effect(read, problems);
}

/// Checks that sessions which share an endpoint (a remote and a local address) differ in their CompIDs.
///
/// The longest prefix wins, and an endpoint with a local address wins over one without. Two prefixes of equal
/// length that overlap are equal. Equality therefore finds every pair of sessions that share an endpoint.
fn shared_endpoints(sessions: &[Declared], problems: &mut Problems) {
    let mut endpoints: HashMap<(Endpoint, Option<IpAddr>), Sharers<'_>> = HashMap::new();
    // An invalid CompID cannot be compared with others.
    for declared in sessions.iter().filter(|declared| declared.comp_ids_valid) {
        let mut reported = HashSet::new();
        for (at, remote) in declared.session.remotes.iter().enumerate() {
            let sharers = endpoints.entry((*remote, declared.session.local)).or_default();
            let Err(Clash { with: (other, other_at), found, remedy }) = sharers.add((declared, at)) else {
                continue;
            };
            let name = &other.session.name;
            // Two sessions that share several endpoints clash at each of them, for one reason.
            if reported.insert(name) {
                let what = format!("session/{} remote", declared.session.name);
                let found = format!("{remote} is also claimed by session/{name}{found}");
                problems.errors.push(
                    Problem::new(declared.remotes[at].clone(), &what, &found, remedy)
                        .related(other.remotes[other_at].clone(), "claimed here"),
                );
            }
        }
    }
}

/// A session and the position of the shared endpoint among its remotes.
type Sharer<'a> = (&'a Declared, usize);

/// The sessions of an endpoint, which the CompIDs in their Logons distinguish.
#[derive(Default)]
struct Sharers<'a> {
    first: Option<Sharer<'a>>,
    by_ids: HashMap<[Option<&'a CompId>; COMP_IDS.len()], Sharer<'a>>,
}

/// Why a session cannot share an endpoint with another session.
struct Clash<'a> {
    with: Sharer<'a>,
    found: String,
    remedy: &'static str,
}

impl<'a> Sharers<'a> {
    /// Adds a session if its CompIDs distinguish it from the others: the same keys with different values.
    ///
    /// With different keys, one Logon could match two sessions.
    fn add(&mut self, sharer: Sharer<'a>) -> Result<(), Clash<'a>> {
        let session = &sharer.0.session;
        let ids = session.comp_ids();
        let Some(first) = self.first else {
            self.first = Some(sharer);
            self.by_ids.insert(ids, sharer);
            return Ok(());
        };
        let opaque =
            [session, &first.0.session].into_iter().find(|session| session.wire == WireFormat::Opaque);
        if let Some(opaque) = opaque {
            let found = format!(", but session/{} has wire = \"opaque\" and is not read", opaque.name);
            return Err(Clash {
                with: first,
                found,
                remedy: "give them different remotes or local addresses",
            });
        }
        let (keys, others) = (declared_keys(&ids), declared_keys(&first.0.session.comp_ids()));
        if keys != others {
            let found = format!(", with {others} where this one has {keys}");
            let remedy = "give both the same keys among sender, target, sender_sub and target_sub, with \
                          different values";
            return Err(Clash { with: first, found, remedy });
        }
        if self.by_ids.len() >= identity::MAX_SESSIONS_PER_ENDPOINT as usize {
            let found = format!(", and {} sessions already share it", identity::MAX_SESSIONS_PER_ENDPOINT);
            return Err(Clash { with: first, found, remedy: TOO_MANY });
        }
        match self.by_ids.entry(ids) {
            Entry::Occupied(same) => {
                let found = if keys == NO_KEYS { String::new() } else { format!(", with the same {keys}") };
                let remedy = "give both a sender, target, sender_sub or target_sub with different values, \
                              or different local addresses";
                Err(Clash { with: *same.get(), found, remedy })
            }
            Entry::Vacant(place) => {
                place.insert(sharer);
                Ok(())
            }
        }
    }
}

/// Remedy for more sessions at an endpoint than the kernel program can distinguish.
const TOO_MANY: &str = "let at most 128 share a remote: give the others different local addresses";
const _: () = assert!(identity::MAX_SESSIONS_PER_ENDPOINT == 128);

/// The keys of the declared CompIDs as text.
fn declared_keys(ids: &[Option<&CompId>]) -> String {
    let keys: Vec<_> =
        COMP_IDS.iter().zip(ids).filter(|(_, id)| id.is_some()).map(|((key, _), _)| *key).collect();
    if keys.is_empty() { NO_KEYS.to_owned() } else { keys.join(" and ") }
}

/// Result of [`declared_keys`] without any key.
const NO_KEYS: &str = "no CompID";

/// Turns on inbound counting if a limit needs it. Refuses a file that turns it off and has such a limit.
fn inbound(read: &mut Read, problems: &mut Problems) {
    let Some((scope, limit, place)) = first_inbound(read) else { return };
    match &read.inbound {
        Some((Inbound::Ignore, span)) => {
            let what = match limit.per_fill {
                Some(_) => "a limit per_fill".to_owned(),
                None => format!("a limit of class {}", limit.class.name()),
            };
            let found = format!("\"ignore\" is not possible with {what} in {scope}");
            let problem =
                Problem::new(span.clone(), "host inbound", &found, "write \"watch\", or remove the limit");
            problems.errors.push(match place {
                Some(place) => problem.related(place, "the limit is here"),
                None => problem,
            });
        }
        _ => {
            if let Some(host) = &mut read.host {
                host.inbound = Inbound::Watch;
            }
        }
    }
}

/// The first limit that needs inbound messages, its scope, and the span of the scope's table unless it is the
/// host.
fn first_inbound(read: &Read) -> Option<(String, Limit, Option<Span>)> {
    let first = |limits: &Limits| limits.iter().find(|limit| limit.needs_inbound()).copied();
    let host = read.host.iter().map(|host| ("host".to_owned(), &host.limits, None));
    let groups = read.groups.iter();
    let groups = groups.map(|(group, span)| (format!("group/{}", group.name), &group.limits, Some(span)));
    let sessions = read.sessions.iter();
    let sessions =
        sessions.map(|one| (format!("session/{}", one.session.name), &one.session.limits, Some(&one.span)));
    host.chain(groups)
        .chain(sessions)
        .find_map(|(scope, limits, span)| first(limits).map(|limit| (scope, limit, span.cloned())))
}

/// Warns of valid settings that have no effect, which usually means that something was forgotten.
fn without_effect(read: &Read, problems: &mut Problems) {
    for (at, (group, span)) in read.groups.iter().enumerate() {
        let used = |one: &Declared| one.session.groups.iter().any(|group| group.get() as usize == at);
        if !read.sessions.iter().any(used) {
            let what = format!("group/{}", group.name);
            let remedy = "name it in the groups of a session, or remove it";
            problems.warnings.push(Problem::new(span.clone(), &what, "no session is in it", remedy));
        }
    }
    let opaque = read.sessions.iter().filter(|declared| declared.session.wire == WireFormat::Opaque);
    for Declared { session, span, .. } in opaque {
        // The set removes the repeated warning of several limits of one class.
        for (found, remedy) in session.limits.iter().filter_map(misleading_on_opaque).collect::<BTreeSet<_>>()
        {
            let what = format!("session/{} limits", session.name);
            problems.warnings.push(Problem::new(span.clone(), &what, found, remedy));
        }
    }
    if read.sessions.is_empty()
        && read.host.as_ref().is_some_and(|host| host.undeclared == Undeclared::Ignore)
    {
        let found = "no session, and undeclared = \"ignore\"";
        let remedy = "declare a [[session]], or nothing is counted and nothing is withheld";
        problems.warnings.push(Problem::new(0..0, "configuration", found, remedy));
    }
}

/// Why a limit of an opaque session does not count what it names, and the remedy.
fn misleading_on_opaque(limit: &Limit) -> Option<(&'static str, &'static str)> {
    if limit.per_fill.is_some() {
        let found = "a limit per_fill on wire = \"opaque\", where no fill is seen";
        return Some((found, "write max and per = \"total\" instead"));
    }
    let found = match limit.class {
        LimitClass::Order | LimitClass::Message => return None,
        LimitClass::Cancel => "a limit of class cancel on wire = \"opaque\", where every segment is an order",
        LimitClass::Fill => "a limit of class fill on wire = \"opaque\", where inbound messages are not read",
        LimitClass::Reject => {
            "a limit of class reject on wire = \"opaque\", where inbound messages are not read"
        }
    };
    Some((found, "limit class order instead"))
}
