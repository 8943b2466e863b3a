//! Checks that need the whole file: sessions that claim the same connection, and what has no effect.

use std::collections::HashMap;
use std::net::IpAddr;

use breaker_common::class::LimitClass;

use super::diagnostics::{Problem, Problems};
use super::endpoint::Endpoint;
use super::policy::Session;
use super::read::Read;
use super::read_session::Declared;
use super::words::{Undeclared, Wire};

/// What a session says of the connections it takes, but for the Logon: remote, and local address.
type Claim = (Endpoint, Option<IpAddr>);

/// Checks the file as a whole.
pub(super) fn check(read: &Read, problems: &mut Problems) {
    overlaps(&read.sessions, problems);
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
    for Declared { session, span, .. } in &read.sessions {
        if session.wire == Wire::Opaque && session.limits.iter().any(|limit| limit.class == LimitClass::Cancel) {
            let what = format!("session/{} limits", session.name);
            let found = "a limit of class cancel on wire = \"opaque\", where every segment is an order";
            problems.warnings.push(Problem::new(span.clone(), &what, found, "limit class order"));
        }
    }
    if read.sessions.is_empty() && read.host.as_ref().is_some_and(|host| host.undeclared == Undeclared::Ignore) {
        let found = "no session, and undeclared = \"ignore\"";
        let remedy = "declare a [[session]], or nothing is counted and nothing is withheld";
        problems.warnings.push(Problem::new(0..0, "configuration", found, remedy));
    }
}
