//! Compares policies: which numbers stay, which changes are loosenings, which epoch sums stay.

use breaker_common::abi::{Label, Scope, Session, Target, label};
use bytemuck::Zeroable;

use super::in_force::{InForce, scope_name};
use super::loosening::{self, added_and_removed, armed};
use super::{epoch_sums, unchangeable};
use crate::config;
use crate::kernel::tables::Tables;
use crate::kernel::tables::capacity::Capacity;
use crate::kernel::tables::numbers::Allocated;
use crate::view::policy_diff;

/// Replacements in the text of the policy, and the loosenings that they make.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

const POLICY: &str = r#"
[host]
interfaces = ["eth1"]
undeclared = "block"
deadman = { after = "3s", action = "trip" }
limits = [{ class = "order", max = 5000, per = "1s" }]
[[group]]
name = "desk"
limits = [{ class = "order", max = 2000, per = "1s" }]
[[group]]
name = "venue"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "10.9.0.3:9001"]
groups = ["desk", "venue"]
while_tripped = "admin-only"
on_desync = "trip"
classes = { H = "order" }
limits = [{ class = "order", max = 500, per = "3s" }, { class = "cancel", max = 1000, per = "3s" }]
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
groups = ["desk"]
"#;

fn tables(text: &str, taken: Allocated) -> Tables {
    let policy = config::parse("test", text).unwrap_or_else(|errors| panic!("{errors}"));
    Tables::new(&policy, taken).unwrap()
}

/// The content of the maps once these tables are in force on a side.
fn in_force(tables: &Tables, side: usize, scopes: &[Scope]) -> InForce {
    let scope = |number: usize| {
        let mut scope = scopes.get(number).copied().unwrap_or_default();
        (scope.rules[side], scope.limits[side]) = tables.rules[number];
        scope.armed = tables.armed[number].map_or(scope.armed, u32::from);
        scope
    };
    let on_side = |word: u32| {
        let mut words = [0; 2];
        words[side] = word;
        words
    };
    InForce {
        side,
        policy: tables.policy,
        labels: tables.labels.clone(),
        scopes: (0..tables.labels.len()).map(scope).collect(),
        sessions: tables.sessions.clone(),
        endpoints: tables
            .endpoints
            .iter()
            .map(|(endpoint, bits, word)| (*endpoint, *bits, on_side(*word)))
            .collect(),
        comp_ids: tables.comp_ids.clone(),
        identities: tables.identities.iter().map(|(key, session)| (*key, on_side(*session))).collect(),
    }
}

fn first() -> InForce {
    in_force(&tables(POLICY, Allocated::default()), 0, &[])
}

fn next(now: &InForce, text: &str) -> Tables {
    tables(text, now.allocated())
}

/// The loosenings of a policy, a line each.
fn loosened(now: &InForce, next: &Tables) -> Vec<String> {
    loosening::loosened(now, next).iter().map(policy_diff::line).collect()
}

fn number(labels: &[Label], name: &str) -> usize {
    labels.iter().position(|label| scope_name(label) == name).unwrap()
}

fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(POLICY.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

#[test]
fn a_scope_that_stays_keeps_its_number_and_a_new_one_gets_the_next() {
    let now = first();
    let text =
        POLICY.replace("[[group]]\nname = \"desk\"", "[[group]]\nname = \"new\"\n[[group]]\nname = \"desk\"");
    let text = text.replace(
        "[[session]]\nname = \"x2\"",
        "[[session]]\nname = \"x0\"\nremote = \"10.9.0.9:9009\"\n[[session]]\nname = \"x2\"",
    );
    let made = next(&now, &text);
    let names: Vec<_> = made.labels.iter().map(scope_name).collect();
    let before: Vec<_> = now.labels.iter().map(scope_name).collect();
    assert_eq!(names[..before.len()], before[..]);
    assert_eq!(names[before.len()..], ["group/new", "session/x0"]);
    assert_eq!((made.policy.scopes, made.policy.sessions), (8, 4));
    assert_eq!(made.labels[7].session, 3);
    assert_eq!(made.sessions[1].scopes[..4], now.sessions[1].scopes[..4]);
    let (added, removed) = added_and_removed(&now, &made);
    assert_eq!((added, removed), (vec!["group/new".to_owned(), "session/x0".to_owned()], vec![]));
    assert!(loosened(&now, &made).is_empty());
    // After a reload back, the numbers stay assigned.
    let then = in_force(&made, 1, &now.scopes);
    let back = next(&then, POLICY);
    assert_eq!(back.labels.len(), 8);
    assert_eq!((back.armed[6], back.sessions[3].scope_count), (None, 0));
    assert_eq!(added_and_removed(&then, &back).1, ["group/new", "session/x0"]);
}

#[test]
fn limits_keep_their_position_and_their_ring_where_it_is_large_enough() {
    let now = first();
    let x1 = number(&now.labels, "session/x1");
    let limit =
        |class: &str, max: u32, per: &str| format!("{{ class = \"{class}\", max = {max}, per = \"{per}\" }}");
    let limits = |all: &[String]| format!("limits = [{}]", all.join(", "));
    let text = changed(&[(
        &limits(&[limit("order", 500, "3s"), limit("cancel", 1000, "3s")]),
        &limits(&[limit("cancel", 900, "3s"), limit("message", 7, "1s"), limit("order", 600, "3s")]),
    )]);
    let made = next(&now, &text);
    let (old, new) = (now.rules(x1).1, made.rules[x1].1);
    assert_eq!((new[0].class, new[1].class, new[2].class), (old[0].class, old[1].class, 2));
    assert_eq!(new[1].ring, old[1].ring);
    assert!(new[0].ring.base != old[0].ring.base, "600 need a larger ring than 500");
    // Rings overlap neither each other nor rings in force. Rings of a replaced policy are free again.
    let mut state = in_force(&made, 1, &now.scopes);
    for round in 0..50 {
        let text =
            if round % 2 == 0 { POLICY.replace("max = 5000", "max = 1000") } else { POLICY.to_owned() };
        let made = next(&state, &text);
        let after = in_force(&made, round % 2, &state.scopes);
        let kept = state.allocated().rings;
        let mut rings = after.allocated().rings;
        rings.sort_by_key(|ring| ring.start);
        assert!(rings.windows(2).all(|pair| pair[0].end <= pair[1].start), "{rings:?}");
        let fresh = rings.iter().filter(|ring| !kept.contains(ring));
        fresh.for_each(|ring| {
            assert!(kept.iter().all(|other| ring.end <= other.start || other.end <= ring.start))
        });
        assert!(
            made.ring_slots <= tables(POLICY, Allocated::default()).capacity().ring_slots,
            "{}",
            made.ring_slots
        );
        state = after;
    }
}

#[test]
fn every_loosening_is_listed_and_nothing_else() {
    let cases: &[Case] = &[
        (&[("max = 500,", "max = 501,")], &["session/x1: 500 order per 3s becomes 501 order per 3s"]),
        (&[("max = 500,", "max = 499,")], &[]),
        (&[("max = 2000, per = \"1s\"", "max = 2000, per = \"2s\"")], &[]),
        (&[("max = 2000, per = \"1s\"", "max = 2000, per = \"total\"")], &[]),
        (&[("order\", max = 2000", "message\", max = 2000")], &[]),
        (
            &[("max = 2000, per = \"1s\"", "max = 2001, per = \"2s\"")],
            &["group/desk: 2000 order per 1s is removed"],
        ),
        (
            &[("max = 2000, per = \"1s\"", "max = 2000, per = \"999ms\"")],
            &["group/desk: 2000 order per 1s is removed"],
        ),
        (
            &[("limits = [{ class = \"order\", max = 2000, per = \"1s\" }]\n", "")],
            &["group/desk: 2000 order per 1s is removed"],
        ),
        (&[("name = \"desk\"\n", "name = \"desk\"\narmed = false\n")], &["group/desk: disarmed"]),
        (&[("undeclared = \"block\"", "undeclared = \"watch\"")], &["host: undeclared: block becomes watch"]),
        (
            &[("undeclared = \"block\"", "on_table_full = \"pass\"\nundeclared = \"block\"")],
            &["host: on_table_full: block becomes pass"],
        ),
        (
            &[("action = \"trip\"", "action = \"warn\"")],
            &["host: deadman: trip after 3s becomes warn after 3s"],
        ),
        (&[("after = \"3s\"", "after = \"4s\"")], &["host: deadman: trip after 3s becomes trip after 4s"]),
        (&[("after = \"3s\"", "after = \"2s\"")], &[]),
        (
            &[("groups = [\"desk\", \"venue\"]", "groups = [\"venue\"]")],
            &["session/x1: no longer in group/desk"],
        ),
        (
            &[
                ("[[group]]\nname = \"venue\"\n", ""),
                ("groups = [\"desk\", \"venue\"]", "groups = [\"desk\"]"),
            ],
            &["group/venue: no longer declared"],
        ),
        (
            &[("while_tripped = \"admin-only\"\n", "")],
            &["session/x1: while_tripped: admin-only becomes reduce-only"],
        ),
        (&[("while_tripped = \"admin-only\"", "while_tripped = \"isolate\"")], &[]),
        (
            &[("on_desync = \"trip\"\n", "possdup = \"pass\"\n")],
            &["session/x1: on_desync: trip becomes count", "session/x1: possdup: block becomes pass"],
        ),
        (&[("classes = { H = \"order\" }\n", "")], &["session/x1: MsgType H: order becomes query"]),
        (
            &[("H = \"order\"", "H = \"order\", D = \"cancel\"")],
            &["session/x1: MsgType D: order becomes cancel"],
        ),
        (&[("H = \"order\"", "H = \"order\", F = \"order\"")], &[]),
        (
            &[("\"10.9.0.2:9001\", \"10.9.0.3:9001\"", "\"10.9.0.2:9001\"")],
            &["session/x1: connections to 10.9.0.3:9001 are undeclared"],
        ),
        (
            &[
                ("\"10.9.0.2:9001\", \"10.9.0.3:9001\"", "\"10.9.0.2:9001\""),
                ("remote = \"10.9.0.2:9002\"", "remote = [\"10.9.0.2:9002\", \"10.9.0.3:9001\"]"),
            ],
            &["session/x1: connections to 10.9.0.3:9001 are another session's"],
        ),
        (&[("\"10.9.0.3:9001\"", "\"10.9.0.0/24:9001\"")], &[]),
        (
            &[("name = \"x2\"\n", "name = \"x2\"\nwire = \"opaque\"\n")],
            &["session/x2: wire: fix becomes opaque"],
        ),
        (&[("name = \"x2\"", "name = \"x3\"")], &["session/x2: no longer declared"]),
    ];
    for (changes, expected) in cases {
        let now = first();
        let made = next(&now, &changed(changes));
        assert_eq!(loosened(&now, &made), *expected, "{changes:?}");
        // The reverse change is a tightening, unless it is a change of kind.
        let there = in_force(&made, 1, &now.scopes);
        if expected.is_empty() && !changes.is_empty() {
            continue;
        }
        let back = loosened(&there, &next(&there, POLICY));
        let kind = expected.iter().any(|line| {
            line.contains("wire:")
                || line.contains("another")
                || line.ends_with("is removed")
                || line.contains("x2: no")
        });
        assert!(back.is_empty() || kind, "{changes:?}: {back:?}");
    }
}

#[test]
fn a_scope_keeps_its_armed_state_unless_the_policies_differ() {
    let mut now = first();
    let desk = number(&now.labels, "group/desk");
    assert!(armed(&now, &next(&now, POLICY), desk));
    now.scopes[desk].armed = 0;
    assert!(!armed(&now, &next(&now, POLICY), desk));
    assert!(loosened(&now, &next(&now, POLICY)).is_empty(), "it was disarmed before");
    let disarmed = changed(&[("name = \"desk\"\n", "name = \"desk\"\narmed = false\n")]);
    now.scopes[desk].armed = 1;
    assert!(!armed(&now, &next(&now, &disarmed), desk));
    let mut then = in_force(&next(&now, &disarmed), 1, &now.scopes);
    assert_eq!(then.scopes[desk].armed, 0);
    assert!(armed(&then, &next(&then, POLICY), desk));
    then.scopes[desk].armed = 1;
    assert!(armed(&then, &next(&then, &disarmed), desk), "armed by hand");
}

#[test]
fn a_session_keeps_its_sums_when_it_changes_its_groups() {
    let mut now = first();
    let (desk, venue) = (number(&now.labels, "group/desk"), number(&now.labels, "group/venue"));
    now.scopes[desk].switch.epoch = 4;
    now.scopes[desk].switch.resets = 2;
    now.scopes[venue].switch.epoch = 2;
    now.sessions[1].day_epoch = 3;
    let sum = |sessions: &[Session], scopes: &[Scope], number: usize| {
        let of = &sessions[number].scopes[..sessions[number].scope_count as usize];
        of.iter().fold((0u64, 0u64), |(epoch, resets), scope| {
            let switch = scopes[*scope as usize].switch;
            (epoch.wrapping_add(switch.epoch), resets.wrapping_add(switch.resets))
        })
    };
    let texts = [
        changed(&[("groups = [\"desk\", \"venue\"]", "groups = [\"venue\"]")]),
        changed(&[("groups = [\"desk\"]", "groups = [\"desk\", \"venue\"]")]),
        changed(&[("groups = [\"desk\", \"venue\"]\n", ""), ("groups = [\"desk\"]", "groups = [\"venue\"]")]),
        POLICY.to_owned(),
    ];
    for round in 0..24usize {
        let before = [1, 2].map(|session| sum(&now.sessions, &now.scopes, session));
        let mut made = next(&now, &texts[(round * 3 + round / 4) % texts.len()]);
        let sums = epoch_sums::preserve(&now, &mut made).unwrap();
        let mut scopes = now.scopes.clone();
        scopes.resize(made.labels.len(), Scope::zeroed());
        for (scope, found) in sums {
            assert_eq!(made.labels[scope as usize].kind, label::FREE);
            assert!(
                !now.sessions
                    .iter()
                    .any(|session| session.scopes[..session.scope_count as usize].contains(&scope))
            );
            scopes[scope as usize] = found;
        }
        let side = 1 - now.side;
        now = in_force(&made, side, &scopes);
        assert_eq!([1, 2].map(|session| sum(&now.sessions, &now.scopes, session)), before, "round {round}");
        assert_eq!(now.sessions[1].day_epoch, 3);
        assert!(now.labels.len() <= 6 + 4, "{}", now.labels.len());
        // A trip of a group of the session raises the sum.
        now.scopes[venue].switch.epoch += 1;
    }
}

#[test]
fn a_shared_endpoint_keeps_its_number_and_a_new_one_gets_another() {
    let shared = |port: u16, names: [&str; 2]| {
        let session = |name: &str| {
            format!("[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:{port}\"\nsender = \"{name}\"\n")
        };
        names.map(session).concat()
    };
    let host = "[host]\ninterfaces = [\"eth1\"]\n[[session]]\nname = \"alone\"\nremote = \"10.9.0.2:8000\"\n";
    let now = in_force(&tables(&format!("{host}{}", shared(9001, ["a", "b"])), Allocated::default()), 0, &[]);
    let text = format!("{host}{}{}", shared(9002, ["c", "d"]), shared(9001, ["b", "a"]));
    let made = next(&now, &text);
    let number = |tables: &[(breaker_common::abi::Endpoint, u32, u32)], port: u16| {
        let found = tables.iter().find(|(endpoint, ..)| endpoint.port == port.to_be()).unwrap();
        let Target::Shared { endpoint: number, .. } = Target::unpack(found.2) else { panic!("shared") };
        number
    };
    let before: Vec<_> =
        now.endpoints.iter().map(|(endpoint, bits, words)| (*endpoint, *bits, words[0])).collect();
    assert_eq!(number(&made.endpoints, 9001), number(&before, 9001));
    assert_ne!(number(&made.endpoints, 9002), number(&made.endpoints, 9001));
    assert!(now.comp_ids.iter().all(|(id, number)| made.comp_ids[id] == *number));
    assert_eq!(made.comp_ids.len(), 4);
    assert!(loosened(&now, &made).is_empty());
}

#[test]
fn each_lack_of_room_is_reported_with_both_numbers() {
    let there =
        Capacity { scopes: 10, sessions: 10, endpoints: 10, identities: 10, comp_ids: 10, ring_slots: 10 };
    assert!(unchangeable::lacking(&there, &there).is_empty());
    let found = unchangeable::lacking(&Capacity { scopes: 11, ring_slots: 99, ..there }, &there);
    assert_eq!(
        found,
        [
            "11 scopes where there is room for 10",
            "99 slots for the limits' windows where there is room for 10"
        ]
    );
}
