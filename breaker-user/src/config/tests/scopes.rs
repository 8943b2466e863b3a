//! Names and numbers of scopes.

use super::{HOST, accepted};
use crate::config::*;

fn policy() -> Policy {
    let groups =
        ["us-equities", "desk"].map(|name| format!("[[group]]\nname = \"{name}\"\narmed = false\n")).concat();
    let session = |(at, name): (usize, &str)| {
        format!("[[session]]\nname = \"{name}\"\nremote = \"10.0.0.1:{}\"\ngroups = [\"desk\"]\n", at + 1)
    };
    let sessions: String = ["xnys-1", "xnys-2", "desk"].into_iter().enumerate().map(session).collect();
    accepted(&format!("{HOST}limits = [{{ class = \"order\", max = 1, per = \"1s\" }}]\n{groups}{sessions}"))
}

#[test]
fn the_numbering_is_the_documented_one() {
    let policy = policy();
    let scopes = policy.scopes();
    let names: Vec<_> = scopes.iter().map(|scope| scopes.name(scope).to_string()).collect();
    let expected = [
        "host",
        "group/us-equities",
        "group/desk",
        "session/undeclared",
        "session/xnys-1",
        "session/xnys-2",
        "session/desk",
    ];
    assert_eq!(names, expected);
    assert_eq!((scopes.count(), scopes.session_count()), (7, 4));
    for (number, name) in (0..).zip(expected) {
        let scope = scopes.find(name).unwrap();
        assert_eq!((scope.get(), scopes.scope(number)), (number, Some(scope)));
        assert_eq!(name.parse::<ScopeName>().unwrap().to_string(), name);
    }
    assert_eq!((scopes.scope(7), scopes.session(4)), (None, None));
    let sessions: Vec<_> = scopes.sessions().map(|session| scopes.session_name(session).as_str()).collect();
    assert_eq!(sessions, ["undeclared", "xnys-1", "xnys-2", "desk"]);
    let undeclared = scopes.sessions().next().unwrap();
    assert_eq!((undeclared, undeclared.declared()), (SessionIndex::UNDECLARED, None));
    for session in scopes.sessions() {
        assert_eq!(scopes.what(scopes.of_session(session)), Scope::Session(session));
        assert_eq!(
            policy.session(session).map(|one| &one.name),
            (session.get() > 0).then(|| scopes.session_name(session))
        );
    }
}

#[test]
fn a_session_is_subject_to_itself_its_groups_and_the_host() {
    let policy = policy();
    let numbers = |number| {
        let session = policy.scopes().session(number).unwrap();
        policy.scopes_of(session).into_iter().map(ScopeIndex::get).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0), [3, 0]);
    assert_eq!(numbers(2), [5, 2, 0]);
    let armed: Vec<_> = policy.scopes().iter().map(|scope| policy.armed(scope)).collect();
    assert_eq!(armed, [true, false, false, true, true, true, true]);
    let limits: Vec<_> = policy.scopes().iter().map(|scope| policy.limits(scope).len()).collect();
    assert_eq!(limits, [1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn unknown_scopes_list_similar_ones() {
    let policy = policy();
    for (given, message) in [
        (
            "session/xnsy-1",
            "scope: \"session/xnsy-1\" is not in the policy: did you mean one of session/xnys-1, \
             session/xnys-2?",
        ),
        (
            "xnys-1",
            "scope: \"xnys-1\" is not in the policy: did you mean one of session/xnys-1, session/xnys-2?",
        ),
        ("desk", "scope: \"desk\" is not in the policy: did you mean one of group/desk, session/desk?"),
        (
            "group/us-equites",
            "scope: \"group/us-equites\" is not in the policy: did you mean group/us-equities?",
        ),
        ("xny", "scope: \"xny\" is not in the policy: did you mean one of session/xnys-1, session/xnys-2?"),
        ("Host", "scope: \"Host\" is not in the policy: did you mean host?"),
        (
            "session/other",
            "scope: \"session/other\" is not in the policy: \
             write host, group/NAME or session/NAME, with a name that `breaker status` lists",
        ),
        (
            "",
            "scope: \"\" is not in the policy: \
             write host, group/NAME or session/NAME, with a name that `breaker status` lists",
        ),
    ] {
        assert_eq!(policy.find(given).unwrap_err().to_string(), message);
    }
    policy.find(&"x".repeat(1 << 20)).unwrap_err();
}

#[test]
fn invalid_scope_names() {
    for (given, message) in [
        ("xnys", "\"xnys\" is not a scope: write host, group/NAME or session/NAME"),
        ("grup/x", "\"grup/x\" is not a scope: did you mean group/NAME?"),
        ("sessions/x", "\"sessions/x\" is not a scope: did you mean session/NAME?"),
        ("host/x", "\"host/x\" is not a scope: did you mean host?"),
        (
            "group/",
            "\"\" is not a name: write 1 to 63 of a-z, 0-9, '_', '.' and '-', a letter or digit first",
        ),
    ] {
        assert_eq!(given.parse::<ScopeName>().unwrap_err().to_string(), message);
    }
}
