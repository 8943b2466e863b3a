//! Checks that need the whole file: sessions that claim the same connection, what comes in, and what has no effect.

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
    shared(&read.sessions, problems);
    inbound(read, problems);
    idle(read, problems);
}

/// Several sessions may go to one place, a remote and a local address, if the Logon tells whose a connection is.
///
/// Of prefixes of different length the longer one wins, and a given local address wins over none; two prefixes of equal length
/// that overlap are the same prefix. So those that share a place are found by equality, and none is missed.
fn shared(sessions: &[Declared], problems: &mut Problems) {
    let mut places: HashMap<(Endpoint, Option<IpAddr>), Sharers<'_>> = HashMap::new();
    // Of a CompID that could not be read nothing is known of what it tells apart.
    for declared in sessions.iter().filter(|declared| declared.legible) {
        let mut blamed = HashSet::new();
        for (at, remote) in declared.session.remotes.iter().enumerate() {
            let place = places.entry((*remote, declared.session.local)).or_default();
            let Err(Clash { with: (other, other_at), found, remedy }) = place.add((declared, at)) else {
                continue;
            };
            let name = &other.session.name;
            // Two that go to several places together clash at each of them, for one reason.
            if blamed.insert(name) {
                let what = format!("session/{} remote", declared.session.name);
                let found = format!("{remote} is claimed by session/{name} too{found}");
                problems.errors.push(
                    Problem::new(declared.remotes[at].clone(), &what, &found, remedy)
                        .related(other.remotes[other_at].clone(), "claimed here"),
                );
            }
        }
    }
}

/// A session, and which of its remotes is the place.
type Sharer<'a> = (&'a Declared, usize);

/// The sessions of a place, while each can be told from the others.
#[derive(Default)]
struct Sharers<'a> {
    first: Option<Sharer<'a>>,
    by_ids: HashMap<[Option<&'a CompId>; COMP_IDS.len()], Sharer<'a>>,
}

/// Why a session cannot go to the place of another.
struct Clash<'a> {
    with: Sharer<'a>,
    found: String,
    remedy: &'static str,
}

impl<'a> Sharers<'a> {
    /// Adds a session, if it can be told from those that are there: by the same keys, with values of its own.
    ///
    /// With other keys one Logon could be that of two sessions.
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
            let found = format!(", and nothing is read of session/{} with wire = \"opaque\"", opaque.name);
            return Err(Clash {
                with: first,
                found,
                remedy: "give each a remote or a local address of its own",
            });
        }
        let (keys, others) = (declared_keys(&ids), declared_keys(&first.0.session.comp_ids()));
        if keys != others {
            let found = format!(", with {others} where this one has {keys}");
            let remedy = "give both the same of the keys sender, target, sender_sub and target_sub, one with values that differ";
            return Err(Clash { with: first, found, remedy });
        }
        if self.by_ids.len() >= identity::MAX_SESSIONS_PER_ENDPOINT as usize {
            let found = format!(", and {} sessions are there already", identity::MAX_SESSIONS_PER_ENDPOINT);
            return Err(Clash { with: first, found, remedy: TOO_MANY });
        }
        match self.by_ids.entry(ids) {
            Entry::Occupied(same) => {
                let found = if keys == NO_KEYS { String::new() } else { format!(", with the same {keys}") };
                let remedy = "give both a sender, target, sender_sub or target_sub, with values that differ, or each a local address";
                Err(Clash { with: *same.get(), found, remedy })
            }
            Entry::Vacant(place) => {
                place.insert(sharer);
                Ok(())
            }
        }
    }
}

/// What to do where one more session than can be told apart shares a place.
const TOO_MANY: &str = "let at most 128 share a remote: give the others a local address of their own";
const _: () = assert!(identity::MAX_SESSIONS_PER_ENDPOINT == 128);

/// The keys of the CompIDs that are there, in words.
fn declared_keys(ids: &[Option<&CompId>]) -> String {
    let keys: Vec<_> =
        COMP_IDS.iter().zip(ids).filter(|(_, id)| id.is_some()).map(|((key, _), _)| *key).collect();
    if keys.is_empty() { NO_KEYS.to_owned() } else { keys.join(" and ") }
}

/// What [`declared_keys`] says where there is none.
const NO_KEYS: &str = "no CompID";

/// What comes in is read where a limit needs it. A file that forbids what it needs elsewhere would have limits that never trip.
fn inbound(read: &mut Read, problems: &mut Problems) {
    let Some((scope, limit, place)) = first_inbound(read) else { return };
    match &read.inbound {
        Some((Inbound::Ignore, span)) => {
            let what = match limit.per_fill {
                Some(_) => "a limit per_fill".to_owned(),
                None => format!("a limit of class {}", limit.class.name()),
            };
            let found = format!("\"ignore\" does not go with {what} in {scope}");
            let problem =
                Problem::new(span.clone(), "host inbound", &found, "write \"watch\", or remove that limit");
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

/// The first limit in the file that cannot do without what comes in, its scope, and the scope's table if it is not the host's.
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

/// Warns of what is valid and does nothing: most often something was forgotten.
fn idle(read: &Read, problems: &mut Problems) {
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
        // Of several limits of one class the same would be said.
        for (found, remedy) in session.limits.iter().filter_map(idle_on_opaque).collect::<BTreeSet<_>>() {
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

/// Why a limit of an opaque session does not do what it says, and what to write.
fn idle_on_opaque(limit: &Limit) -> Option<(&'static str, &'static str)> {
    if limit.per_fill.is_some() {
        let found = "a limit per_fill on wire = \"opaque\", where no fill is seen";
        return Some((found, "write max and per = \"total\" instead"));
    }
    let found = match limit.class {
        LimitClass::Order | LimitClass::Message => return None,
        LimitClass::Cancel => "a limit of class cancel on wire = \"opaque\", where every segment is an order",
        LimitClass::Fill => "a limit of class fill on wire = \"opaque\", where nothing that comes in is read",
        LimitClass::Reject => {
            "a limit of class reject on wire = \"opaque\", where nothing that comes in is read"
        }
    };
    Some((found, "limit class order"))
}
