//! Checks that need the whole file: sessions that claim the same connection, what comes in, and what has no effect.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use breaker_common::class::LimitClass;

use super::diagnostics::{Problem, Problems, Span};
use super::endpoint::Endpoint;
use super::limit::{Limit, Limits};
use super::policy::Session;
use super::read::Read;
use super::read_session::Declared;
use super::words::{Inbound, Undeclared, Wire};

/// What a session says of the connections it takes, but for the Logon: remote, and local address.
type Claim = (Endpoint, Option<IpAddr>);

/// Checks the file as a whole.
pub(super) fn check(read: &mut Read, problems: &mut Problems) {
    overlaps(&read.sessions, problems);
    inbound(read, problems);
    idle(read, problems);
}

/// Two sessions claim the same connection when they share port, prefix and local address, and the Logon does not tell them
/// apart. Of prefixes of different length the longer one wins, and a given local address wins over none; two prefixes of
/// equal length that overlap are the same prefix. So ties are found by equality, and never missed.
fn overlaps(sessions: &[Declared], problems: &mut Problems) {
    let mut claims: HashMap<Claim, Vec<(&Declared, usize)>> = HashMap::new();
    for declared in sessions {
        for (at, remote) in declared.session.remotes.iter().enumerate() {
            let others = claims.entry((*remote, declared.session.local)).or_default();
            let tie = others.iter().find(|(other, _)| !told_apart(&declared.session, &other.session));
            if let Some((other, other_at)) = tie {
                let what = format!("session/{} remote", declared.session.name);
                let found = format!("{remote} is claimed by session/{} too", other.session.name);
                let remedy = "give both a sender, or both a target, that differ, or each a local address";
                problems.errors.push(
                    Problem::new(declared.remotes[at].clone(), &what, &found, remedy)
                        .related(other.remotes[*other_at].clone(), "claimed here"),
                );
                // One error for a session is enough: the others would say the same.
                break;
            }
            others.push((declared, at));
        }
    }
}

/// A session without a CompID takes any, so only two that are given and differ tell sessions apart.
fn told_apart(a: &Session, b: &Session) -> bool {
    let differ = |a: &Option<_>, b: &Option<_>| a.is_some() && b.is_some() && a != b;
    differ(&a.sender, &b.sender) || differ(&a.target, &b.target)
}

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
            let problem = Problem::new(span.clone(), "host inbound", &found, "write \"watch\", or remove that limit");
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
    let sessions = sessions.map(|one| (format!("session/{}", one.session.name), &one.session.limits, Some(&one.span)));
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
    let opaque = read.sessions.iter().filter(|declared| declared.session.wire == Wire::Opaque);
    for Declared { session, span, .. } in opaque {
        // Of several limits of one class the same would be said.
        for (found, remedy) in session.limits.iter().filter_map(idle_on_opaque).collect::<BTreeSet<_>>() {
            let what = format!("session/{} limits", session.name);
            problems.warnings.push(Problem::new(span.clone(), &what, found, remedy));
        }
    }
    if read.sessions.is_empty() && read.host.as_ref().is_some_and(|host| host.undeclared == Undeclared::Ignore) {
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
        LimitClass::Reject => "a limit of class reject on wire = \"opaque\", where nothing that comes in is read",
    };
    Some((found, "limit class order"))
}
