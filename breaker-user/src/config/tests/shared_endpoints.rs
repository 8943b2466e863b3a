//! Endpoints: sessions with endpoints of their own, shared endpoints, and clashes.

use std::collections::BTreeSet;

use super::{HOST, accepted, refused, session};
use crate::config::{CompId, EndpointSessions};

#[test]
fn sessions_with_different_endpoints_share_none() {
    for (a, b) in [
        // Different ports, addresses or prefixes; the longest prefix wins.
        ("remote = \"10.0.0.1:1\"", "remote = \"10.0.0.1:2\""),
        ("remote = \"10.0.0.1:1\"", "remote = \"10.0.0.2:1\""),
        ("remote = \"10.0.0.0/24:1\"", "remote = \"10.0.0.1:1\""),
        // Different local addresses, or one and none.
        ("remote = \"10.0.0.1:1\"\nlocal = \"10.0.0.8\"", "remote = \"10.0.0.1:1\"\nlocal = \"10.0.0.9\""),
        ("remote = \"10.0.0.1:1\"\nlocal = \"10.0.0.8\"", "remote = \"10.0.0.1:1\""),
        // Their CompIDs do not matter then.
        ("remote = \"10.0.0.1:1\"\nsender = \"A\"", "remote = \"10.0.0.1:2\"\nsender = \"A\""),
        ("remote = \"10.0.0.1:1\"\nwire = \"opaque\"", "remote = \"10.0.0.0/8:1\"\nsender_sub = \"A\""),
    ] {
        let policy = accepted(&format!("{HOST}{}{}", session("a", a), session("b", b)));
        let endpoints = policy.endpoints();
        assert_eq!(endpoints.len(), 2);
        for ((endpoint, number), declared) in endpoints.iter().zip(1..).zip(policy.sessions()) {
            assert_eq!((endpoint.remote, endpoint.local), (declared.remotes[0], declared.local));
            assert_eq!(endpoint.sessions, [policy.scopes().session(number).unwrap()]);
        }
    }
}

/// Lines of a session with the remote 10.0.0.1:1 and these CompIDs.
fn sharing(ids: &[(&str, &str)]) -> String {
    let ids: String = ids.iter().map(|(key, value)| format!("\n{key} = \"{value}\"")).collect();
    format!("remote = \"10.0.0.1:1\"{ids}")
}

#[test]
fn sessions_with_different_comp_ids_share_an_endpoint() {
    for (a, b) in [
        (&[("sender", "A")][..], &[("sender", "B")][..]),
        (&[("target", "A")], &[("target", "B")]),
        (&[("sender_sub", "A")], &[("sender_sub", "B")]),
        (&[("target_sub", "A")], &[("target_sub", "B")]),
        // One difference is enough, and case counts.
        (&[("sender", "A"), ("target", "T")], &[("sender", "A"), ("target", "t")]),
        (&[("sender_sub", "1"), ("sender", "A")], &[("sender", "A"), ("sender_sub", "2")]),
        (&[("sender", "A"), ("target", "B")], &[("sender", "B"), ("target", "A")]),
    ] {
        let policy = accepted(&format!("{HOST}{}{}", session("a", &sharing(a)), session("b", &sharing(b))));
        let [endpoint] = &policy.endpoints()[..] else { panic!("one endpoint") };
        assert_eq!(endpoint.sessions.iter().map(|session| session.get()).collect::<Vec<_>>(), [1, 2]);
        let given =
            |one: &[(&str, &str)]| one.iter().map(|(_, id)| (*id).to_owned()).collect::<BTreeSet<_>>();
        for (ids, session) in [a, b].into_iter().zip(policy.sessions()) {
            let kept =
                session.comp_ids().into_iter().flatten().map(CompId::to_string).collect::<BTreeSet<_>>();
            assert_eq!(kept, given(ids));
        }
    }
}

#[test]
fn an_endpoint_lists_its_sessions_in_the_order_of_the_file() {
    let text = [
        HOST,
        &session("a", "remote = [\"10.0.0.9:1\", \"10.0.0.1:1\"]\nsender = \"A\""),
        &session("b", "remote = [\"10.0.0.1:1\", \"10.0.0.1:2\"]\nsender = \"B\""),
        &session("c", "remote = [\"10.0.0.1:1\", \"10.0.0.9:1\"]\nlocal = \"10.0.0.8\""),
        &session("d", "remote = [\"10.0.0.1:2\", \"10.0.0.1:1\"]\nsender = \"D\""),
    ]
    .concat();
    let policy = accepted(&text);
    let shown = |endpoint: EndpointSessions| {
        let sessions: Vec<_> = endpoint.sessions.iter().map(|session| session.get()).collect();
        (endpoint.remote.to_string(), endpoint.local.is_some(), sessions)
    };
    let endpoints: Vec<_> = policy.endpoints().into_iter().map(shown).collect();
    let expected = [
        ("10.0.0.9:1", false, &[1][..]),
        ("10.0.0.1:1", false, &[1, 2, 4]),
        ("10.0.0.1:2", false, &[2, 4]),
        ("10.0.0.1:1", true, &[3]),
        ("10.0.0.9:1", true, &[3]),
    ];
    assert_eq!(
        endpoints,
        expected.map(|(remote, local, sessions)| (remote.to_owned(), local, sessions.to_vec()))
    );
    assert!(accepted(HOST).endpoints().is_empty());
}

#[test]
fn sessions_that_no_logon_distinguishes_cannot_share_an_endpoint() {
    let two = |a: &str, b: &str| format!("{HOST}{}{}", session("a", a), session("b", b));
    let marked = |ids: &[(&str, &str)]| sharing(ids).replace("= \"10", "= ¦\"10");
    let claimed = "session/b remote: 10.0.0.1:1 is also claimed by session/a";
    let differ = "give both a sender, target, sender_sub or target_sub with different values, or different \
                  local addresses";
    let same_keys =
        "give both the same keys among sender, target, sender_sub and target_sub, with different values";

    // No Logon distinguishes them.
    for (a, b) in [
        ("remote = \"10.0.0.1:1\"", "remote = ¦\"10.0.0.1:1\""),
        ("remote = \"10.0.0.1:1\"", "remote = [\"10.0.0.2:1\", ¦\"10.0.0.1/32:1\"]"),
        ("remote = \"10.0.0.1:1\"\nlocal = \"10.0.0.8\"", "remote = ¦\"10.0.0.1:1\"\nlocal = \"10.0.0.8\""),
        // The same two sessions clash twice, and are reported once.
        ("remote = [\"10.0.0.1:1\", \"10.0.0.1:2\"]", "remote = [¦\"10.0.0.1:1\", \"10.0.0.1:2\"]"),
    ] {
        refused(&two(a, b), &[&format!("{claimed}: {differ}")]);
    }
    let v6 = format!("session/b remote: [fd00::/8]:1 is also claimed by session/a: {differ}");
    refused(&two("remote = \"[fd00::/8]:1\"", "remote = ¦\"[fd00::/8]:1\""), &[&v6]);

    for (ids, same) in [
        (&[("sender", "A")][..], "sender"),
        (&[("target_sub", "A")], "target_sub"),
        (&[("sender", "A"), ("target", "B"), ("sender_sub", "C")], "sender and target and sender_sub"),
    ] {
        refused(&two(&sharing(ids), &marked(ids)), &[&format!("{claimed}, with the same {same}: {differ}")]);
    }
    for (a, b, keys) in [
        (&[("sender", "A")][..], &[][..], "sender where this one has no CompID"),
        (&[], &[("target", "A")], "no CompID where this one has target"),
        (&[("sender", "A")], &[("target", "B")], "sender where this one has target"),
        (
            &[("sender", "A")],
            &[("sender", "B"), ("target", "B")],
            "sender where this one has sender and target",
        ),
    ] {
        refused(&two(&sharing(a), &marked(b)), &[&format!("{claimed}, with {keys}: {same_keys}")]);
    }
}

#[test]
fn each_clash_names_both_sessions() {
    let of = |name: &str, ids: &[(&str, &str)], mark: &str| {
        session(name, &sharing(ids).replace("= \"10", &format!("= {mark}\"10")))
    };
    let text = [
        HOST,
        &of("a", &[("sender", "A")], ""),
        &of("b", &[("sender", "B")], ""),
        &of("c", &[("sender", "B")], "¦"),
        &of("d", &[("target", "D")], "¦"),
        &of("e", &[("sender", "E")], ""),
    ]
    .concat();
    let c = "session/c remote: 10.0.0.1:1 is also claimed by session/b, with the same sender: \
             give both a sender, target, sender_sub or target_sub with different values, or different local \
             addresses";
    let d = "session/d remote: 10.0.0.1:1 is also claimed by session/a, with sender where this one has \
             target: \
             give both the same keys among sender, target, sender_sub and target_sub, with different values";
    refused(&text, &[c, d]);
    // An invalid CompID is the only error.
    let text =
        [HOST, &of("a", &[("sender", "A")], ""), &session("b", "remote = \"10.0.0.1:1\"\nsender = ¦\"\"")];
    refused(
        &text.concat(),
        &["session/b sender: \"\" is not a CompID: write 1 to 28 printable ASCII characters"],
    );
}

#[test]
fn opaque_sessions_cannot_share_an_endpoint() {
    let opaque = |mark: &str| format!("remote = {mark}\"10.0.0.1:1\"\nwire = \"opaque\"");
    let two = |a: &str, b: &str| format!("{HOST}{}{}", session("a", a), session("b", b));
    let own = "give them different remotes or local addresses";
    let what = |name: &str| {
        format!(
            "session/b remote: 10.0.0.1:1 is also claimed by session/a, \
             but session/{name} has wire = \"opaque\" and is not read: {own}"
        )
    };
    refused(&two(&opaque(""), "remote = ¦\"10.0.0.1:1\"\nsender = \"A\""), &[&what("a")]);
    refused(&two("remote = \"10.0.0.1:1\"\nsender = \"A\"", &opaque("¦")), &[&what("b")]);
    refused(&two(&opaque(""), &opaque("¦")), &[&what("b")]);
}

#[test]
fn a_clash_shows_both_lines() {
    let text = format!(
        "{HOST}{}{}",
        session("a", "remote = \"10.0.0.1:1\""),
        session("b", "remote = \"10.0.0.1:1\"")
    );
    let errors = crate::config::parse("breaker.toml", &text).unwrap_err();
    let shown = "\
error: session/b remote: 10.0.0.1:1 is also claimed by session/a: give both a sender, target, sender_sub or \
target_sub with different values, or different local addresses
 --> breaker.toml:8:10
  |
8 | remote = \"10.0.0.1:1\"
  |          ^^^^^^^^^^^^
  |
 ::: breaker.toml:5:10
  |
5 | remote = \"10.0.0.1:1\"
  |          ------------ claimed here";
    assert_eq!(errors.to_string(), shown);
}

#[test]
fn at_most_128_sessions_share_a_remote() {
    let sessions = |count: u32| -> String {
        let one =
            |n: u32| format!("[[session]]\nname = \"x{n}\"\nremote = \"10.9.0.2:9001\"\nsender = \"S{n}\"\n");
        std::iter::once("[host]\ninterfaces = [\"eth1\"]\n".to_owned()).chain((0..count).map(one)).collect()
    };
    accepted(&sessions(128));
    let errors = crate::config::parse("f", &sessions(129)).unwrap_err();
    let [error] = errors.diagnostics().iter().collect::<Vec<_>>()[..] else { panic!("{errors}") };
    let found = "session/x128 remote: 10.9.0.2:9001 is also claimed by session/x0, and 128 sessions already \
                 share it: let at most 128 share";
    assert!(error.message().starts_with(found), "{}", error.message());
    assert_eq!(error.line(), 2 + 128 * 4 + 3);
}
