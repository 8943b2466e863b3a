//! Permissions: the role of a user, and the verbs that each role may run.

use serde::{Deserialize, Serialize};

use crate::config::{People, Person};

/// A role of a user at the control socket. Each user has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In no list.
    Nobody,
    /// In `operators`.
    Operator,
    /// In `risk`.
    Risk,
    /// In `barred`; the other lists do not count.
    Barred,
    /// Uid 0.
    Root,
}

/// A verb at the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlVerb {
    /// `breaker trip`.
    Trip,
    /// `breaker arm`.
    Arm,
    /// `breaker ack`.
    Ack,
    /// `breaker disarm`.
    Disarm,
    /// `breaker reset`.
    Reset,
    /// `breaker status`.
    Status,
    /// `breaker load`.
    Load,
    /// `breaker reload`.
    Reload,
    /// `breaker upgrade`.
    Upgrade,
    /// `breaker attach`.
    Attach,
    /// `breaker unload`.
    Unload,
}

/// Returns true if a role may run a verb.
pub fn allows(role: Role, verb: ControlVerb) -> bool {
    match (role, verb) {
        (Role::Root, _)
        | (Role::Barred | Role::Operator | Role::Risk, ControlVerb::Trip)
        | (Role::Operator | Role::Risk, ControlVerb::Ack | ControlVerb::Arm | ControlVerb::Status)
        | (
            Role::Risk,
            ControlVerb::Disarm
            | ControlVerb::Reset
            | ControlVerb::Load
            | ControlVerb::Reload
            | ControlVerb::Upgrade
            | ControlVerb::Attach,
        ) => true,
        // Deny by default.
        _ => false,
    }
}

/// The user at the other end of the control socket, with the ids from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Process id.
    pub pid: u32,
    /// Effective group id and supplementary groups.
    pub gids: Vec<u32>,
}

/// Returns the role of a user under the people of a policy.
pub fn role(people: &People, peer: &Peer) -> Role {
    let is_in = |list: &[Person]| list.iter().any(|person| is_person(person, peer));
    if peer.uid == 0 {
        Role::Root
    } else if people.barred.iter().any(|person| is_barred(person, peer)) {
        Role::Barred
    } else if is_in(&people.risk) {
        Role::Risk
    } else if is_in(&people.operators) {
        Role::Operator
    } else {
        Role::Nobody
    }
}

/// Returns true if a user is this person, or a member of this group.
fn is_person(person: &Person, peer: &Peer) -> bool {
    person.id().is_some_and(|id| match person {
        Person::User(_) => peer.uid == id,
        Person::Group(_) => peer.gids.contains(&id),
    })
}

/// Returns true if a user is barred by this entry.
///
/// An entry with a name that the host no longer knows bars every user. A process may drop its groups in a
/// user namespace, so membership in `/etc/group` counts too.
fn is_barred(person: &Person, peer: &Peer) -> bool {
    person.id().is_none_or(|id| {
        is_person(person, peer) || (matches!(person, Person::Group(_)) && is_listed(id, peer.uid))
    })
}

/// Returns true if `/etc/passwd` or `/etc/group` makes a user a member of a group.
fn is_listed(gid: u32, uid: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (users, groups) = (read("/etc/passwd"), read("/etc/group"));
    let users = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let own = users.filter(|fields| fields.get(2).is_some_and(|found| found.parse() == Ok(uid)));
    let own: Vec<_> = own.collect();
    let is_primary = own.iter().any(|fields| fields.get(3).is_some_and(|found| found.parse() == Ok(gid)));
    let group = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut group = group.filter(|fields| fields.get(2).is_some_and(|found| found.parse() == Ok(gid)));
    is_primary
        || group.any(|fields| {
            let members = fields.get(3).copied().unwrap_or_default();
            members.split(',').any(|member| own.iter().any(|fields| fields[0] == member))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 5] = [Role::Nobody, Role::Operator, Role::Risk, Role::Barred, Role::Root];

    #[test]
    fn each_role_may_run_only_its_verbs() {
        for (verb, allowed) in [
            (ControlVerb::Trip, [false, true, true, true, true]),
            (ControlVerb::Arm, [false, true, true, false, true]),
            (ControlVerb::Ack, [false, true, true, false, true]),
            (ControlVerb::Disarm, [false, false, true, false, true]),
            (ControlVerb::Reset, [false, false, true, false, true]),
            (ControlVerb::Status, [false, true, true, false, true]),
            (ControlVerb::Load, [false, false, true, false, true]),
            (ControlVerb::Reload, [false, false, true, false, true]),
            (ControlVerb::Upgrade, [false, false, true, false, true]),
            (ControlVerb::Attach, [false, false, true, false, true]),
            (ControlVerb::Unload, [false, false, false, false, true]),
        ] {
            assert_eq!(ROLES.map(|role| allows(role, verb)), allowed, "{verb:?}");
        }
    }

    fn people(operators: &str, risk: &str, barred: &str) -> People {
        let list = |text: &str| text.split_whitespace().map(|name| name.parse().expect("a person")).collect();
        People { operators: list(operators), risk: list(risk), barred: list(barred), two_person: false }
    }

    fn peer(uid: u32, gids: &[u32]) -> Peer {
        Peer { uid, pid: 1, gids: gids.to_vec() }
    }

    #[test]
    fn barred_precedes_risk_which_precedes_operators() {
        let people = people("70001 %70101", "70002 %70102", "70003 %70103");
        for (uid, gids, expected) in [
            (70_001, &[][..], Role::Operator),
            (70_002, &[], Role::Risk),
            (70_003, &[], Role::Barred),
            (70_009, &[], Role::Nobody),
            (70_009, &[70_101], Role::Operator),
            (70_009, &[5, 70_102], Role::Risk),
            (70_009, &[70_103], Role::Barred),
            (70_001, &[70_102], Role::Risk),
            (70_002, &[70_103], Role::Barred),
            (70_003, &[70_101, 70_102], Role::Barred),
            (70_101, &[70_001], Role::Nobody),
            (0, &[70_103], Role::Root),
        ] {
            assert_eq!(role(&people, &peer(uid, gids)), expected, "{uid} {gids:?}");
        }
    }

    #[test]
    fn an_unknown_name_grants_nothing_and_bars_every_user() {
        let unknown = "no-such-user-here %no-such-group-here";
        assert_eq!(role(&people(unknown, unknown, ""), &peer(70_001, &[70_101])), Role::Nobody);
        for name in unknown.split(' ') {
            assert_eq!(role(&people("", "70001", name), &peer(70_001, &[])), Role::Barred);
            assert_eq!(role(&people("", "", name), &peer(0, &[])), Role::Root);
        }
    }

    #[test]
    fn a_barred_group_includes_members_that_dropped_it() {
        // The primary group of uid 65534 is 65534 on every Linux distribution.
        assert_eq!(role(&people("", "65534", "%65534"), &peer(65_534, &[])), Role::Barred);
    }
}
