//! `[[session]]`: names, remotes, CompIDs, groups, classes.

use super::{HOST, accepted, refused, refused_in_session, session, warnings};
use crate::config::{COMP_IDS, Class, CompId, MsgType};

#[test]
fn names() {
    let long = "x".repeat(63);
    for good in ["a", "0", "xnys-1", "a_b.c-d", &long] {
        accepted(&format!("{HOST}{}", session(good, "remote = \"10.0.0.1:1\"")));
    }
    let longer = "x".repeat(64);
    let shown = format!("{:?}…", "x".repeat(60));
    let bad = [
        ("", "\"\""),
        ("A", "\"A\""),
        ("-a", "\"-a\""),
        (".a", "\".a\""),
        ("a b", "\"a b\""),
        ("a/b", "\"a/b\""),
        (&longer, &shown),
    ];
    for (bad, shown) in bad {
        let what = format!(
            "session name: {shown} is not a name: write 1 to 63 of a-z, 0-9, '_', '.' and '-', a letter or \
             digit first"
        );
        refused(&format!("{HOST}[[session]]\nname = ¦\"{bad}\"\nremote = \"10.0.0.1:1\"\n"), &[&what]);
    }
    let what = "session name: \"undeclared\" is reserved: choose another name: this one counts connections \
                that no session declares";
    refused(&format!("{HOST}[[session]]\nname = ¦\"undeclared\"\nremote = \"10.0.0.1:1\"\n"), &[what]);
    let two = [
        session("a", "remote = \"10.0.0.1:1\""),
        "[[session]]\nname = ¦\"a\"\nremote = \"10.0.0.1:2\"\n".to_owned(),
    ];
    let what = "session name: \"a\" is the name of another session: use different names";
    refused(&format!("{HOST}{}", two.concat()), &[what]);
    // A group may have the name of a session.
    accepted(&format!("{HOST}[[group]]\nname = \"a\"\n{}", two[0]));
    let what = "session/a remote: is missing: add the session's remote address and port, like \
                remote = \"10.9.0.2:9001\"";
    refused(&format!("{HOST}¦[[session]]\nname = \"a\"\n"), &[what]);
}

#[test]
fn valid_remotes() {
    for (text, written) in [
        ("10.9.0.2:9001", "10.9.0.2:9001"),
        ("10.9.0.0/24:9001", "10.9.0.0/24:9001"),
        ("10.9.0.2/32:9001", "10.9.0.2:9001"),
        ("0.0.0.0/0:65535", "0.0.0.0/0:65535"),
        ("[2001:db8::2]:9001", "[2001:db8::2]:9001"),
        ("[2001:DB8:0::/48]:1", "[2001:db8::/48]:1"),
        ("[2000::/3]:1", "[2000::/3]:1"),
    ] {
        let policy = accepted(&format!("{HOST}{}", session("x", &format!("remote = \"{text}\""))));
        assert_eq!(policy.sessions()[0].remotes[0].to_string(), written);
    }
    let policy =
        accepted(&format!("{HOST}{}", session("x", "remote = [\"10.9.0.0/24:9001\", \"[fd00::/8]:9002\"]")));
    let [v4, v6] = policy.sessions()[0].remotes[..] else { panic!("two remotes") };
    assert_eq!((v4.prefix().length(), v4.port(), v6.prefix().length(), v6.port()), (24, 9001, 8, 9002));
    assert!(v4.prefix().contains([10, 9, 0, 255].into()) && !v4.prefix().contains([10, 9, 1, 0].into()));
    assert!(
        v6.prefix().contains("fd12::1".parse().unwrap()) && !v6.prefix().contains("fe00::".parse().unwrap())
    );
    assert!(!v4.prefix().contains("::ffff:10.9.0.1".parse().unwrap()));
}

#[test]
fn invalid_remotes() {
    let form = "write \"10.9.0.2:9001\", \"10.9.0.0/24:9001\" or \"[2001:db8::2]:9001\"";
    let numbers = "write it in numbers: names are not resolved, IPv6 needs brackets";
    for (bad, found) in [
        ("", format!("\"\" has no port: {form}")),
        ("10.9.0.2", format!("\"10.9.0.2\" has no port: {form}")),
        ("[::1]", format!("\"[::1]\" has no \"]:\" and port: {form}")),
        (
            "2001:db8::2:9001",
            "\"2001:db8::2:9001\" looks like IPv6 without brackets: write \"[2001:db8::2]:9001\"".into(),
        ),
        ("venue.example:9001", format!("\"venue.example\" is not an IPv4 address: {numbers}")),
        ("10.9.0.256:9001", format!("\"10.9.0.256\" is not an IPv4 address: {numbers}")),
        ("[10.9.0.2]:9001", format!("\"10.9.0.2\" is not an IPv6 address: {numbers}")),
        ("[fe80::1%eth0]:1", format!("\"fe80::1%eth0\" is not an IPv6 address: {numbers}")),
        ("10.9.0.2:0", "port \"0\" is out of range: write a number from 1 to 65535".into()),
        ("10.9.0.2:65536", "port \"65536\" is out of range: write a number from 1 to 65535".into()),
        ("10.9.0.2:+1", "port \"+1\" is out of range: write a number from 1 to 65535".into()),
        ("10.9.0.2:", "port \"\" is out of range: write a number from 1 to 65535".into()),
        ("10.9.0.0/33:1", "prefix length \"33\" is out of range: write a number from 0 to 32".into()),
        ("[2001:db8::/129]:1", "prefix length \"129\" is out of range: write a number from 0 to 128".into()),
        ("10.9.0.0/:1", "prefix length \"\" is out of range: write a number from 0 to 32".into()),
        (
            "10.9.0.2/24:9001",
            "10.9.0.2/24 has bits set beyond its prefix: write 10.9.0.0/24, or 10.9.0.2 for a single \
             address"
                .into(),
        ),
        (
            "[2001:db8::2/64]:1",
            "2001:db8::2/64 has bits set beyond its prefix: write 2001:db8::/64, or 2001:db8::2 for a \
             single address"
                .into(),
        ),
        ("0.0.0.0:1", "0.0.0.0 is not the address of a venue: for any address write 0.0.0.0/0".into()),
        ("[::]:1", ":: is not the address of a venue: for any address write 2000::/3".into()),
        (
            "[::/0]:1",
            "::/0 would include IPv4 too: write the venue's prefix, or 2000::/3 for all global IPv6 \
             addresses"
                .into(),
        ),
        ("[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1 is an IPv4 address: write 10.0.0.1".into()),
    ] {
        let text = format!("{HOST}{}", session("x", &format!("remote = ¦\"{bad}\"")));
        refused(&text, &[&format!("session/x remote: {found}")]);
    }
}

#[test]
fn lists_of_remotes() {
    let refused = |value: &str, messages: &[&str]| {
        refused(&format!("{HOST}{}", session("x", &format!("remote = {value}"))), messages);
    };
    let ports =
        |count: u32| (1..=count).map(|port| format!("\"10.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
    accepted(&format!("{HOST}{}", session("x", &format!("remote = [{}]", ports(16)))));
    refused(
        &format!("¦[{}]", ports(17)),
        &["session/x remote: 17 endpoints: write 1 to 16, each an address and port"],
    );
    refused("¦[]", &["session/x remote: 0 endpoints: write 1 to 16, each an address and port"]);
    refused("¦9001", &["session/x remote: 9001 is not a string: write a string in quotes"]);
    let twice = "session/x remote: 10.0.0.1:1 is listed twice: remove one of the two";
    refused("[\"10.0.0.1:1\", ¦\"10.0.0.1/32:1\"]", &[twice]);
}

#[test]
fn local() {
    let remedy = "write an address without port, prefix or brackets, like \"10.9.0.1\"";
    for bad in ["", "10.9.0.1:1", "10.9.0.0/24", "[::1]", "host"] {
        let what = format!("session/x local: {bad:?} is not an IP address: {remedy}");
        refused_in_session(&format!("local = ¦{bad:?}"), &what);
    }
    let what = "session/x local: fd00::1 and the remote 10.9.0.2:9001 are of different families: \
                write IPv4 for both or IPv6 for both, in separate sessions if needed";
    refused_in_session("local = ¦\"fd00::1\"", what);
    let what = "session/x local: 0.0.0.0 is not the address of a host: remove the key to allow any address";
    refused_in_session("local = ¦\"0.0.0.0\"", what);
    refused_in_session(
        "local = ¦\"::ffff:10.9.0.1\"",
        "session/x local: ::ffff:10.9.0.1 is an IPv4 address: write 10.9.0.1",
    );
}

#[test]
fn comp_ids() {
    let remedy = "write 1 to 28 printable ASCII characters";
    let long = "T".repeat(28);
    let longer = format!("{long}T");
    let bad =
        [("", "\"\""), ("a\\u0001b", "\"a\\u{1}b\""), ("é", "\"é\""), (&longer, &format!("{longer:?}"))];
    for (key, _) in COMP_IDS {
        for (text, shown) in &bad {
            let what = format!("session/x {key}: {shown} is not a CompID: {remedy}");
            refused_in_session(&format!("{key} = ¦\"{text}\""), &what);
        }
        for good in [long.as_str(), "a b", "a=b", "~", " "] {
            accepted(&format!(
                "{HOST}{}",
                session("x", &format!("remote = \"10.0.0.1:1\"\n{key} = \"{good}\""))
            ));
        }
    }
    let all = COMP_IDS.map(|(key, tag)| format!("\n{key} = \"{tag}\"")).concat();
    let policy = accepted(&format!("{HOST}{}", session("x", &format!("remote = \"10.0.0.1:1\"{all}"))));
    let ids = policy.sessions()[0].comp_ids().map(|id| id.map(CompId::to_string));
    assert_eq!(ids, COMP_IDS.map(|(_, tag)| Some(tag.to_string())));
}

#[test]
fn groups() {
    let five: String =
        ["a", "b", "c", "d", "e"].map(|name| format!("[[group]]\nname = \"{name}\"\n")).concat();
    let text = |groups: &str| {
        format!("{HOST}{five}{}", session("x", &format!("remote = \"10.0.0.1:1\"\ngroups = {groups}")))
    };
    let policy = accepted(&text("[\"d\", \"a\", \"c\", \"b\"]"));
    assert_eq!(policy.sessions()[0].groups.iter().map(|group| group.get()).collect::<Vec<_>>(), [3, 0, 2, 1]);
    let what = "session/x groups: 5 groups: keep at most 4";
    refused(&text("¦[\"a\", \"b\", \"c\", \"d\", \"e\"]"), &[what]);
    refused(&text("[\"a\", ¦\"a\"]"), &["session/x groups: \"a\" is listed twice: remove one of the two"]);
    refused(
        &text("[¦\"desk\"]"),
        &["session/x groups: there is no group \"desk\": declare it with [[group]]"],
    );
    refused(
        &text("¦\"a\""),
        &["session/x groups: \"a\" is not an array: write a list, like [\"us-equities\"]"],
    );
    let us = "[[group]]\nname = \"us-equities\"\n";
    let what = "session/x groups: there is no group \"us-equites\": did you mean \"us-equities\"?";
    refused(
        &format!("{HOST}{}{us}", session("x", "remote = \"10.0.0.1:1\"\ngroups = [¦\"us-equites\"]")),
        &[what],
    );
}

#[test]
fn choices() {
    refused_in_session(
        "wire = ¦\"fixt\"",
        "session/x wire: \"fixt\" is not a wire: write \"fix\" or \"opaque\"; did you mean \"fix\"?",
    );
    refused_in_session(
        "possdup = ¦true",
        "session/x possdup: true is not an action: write \"block\" or \"pass\"",
    );
    refused_in_session(
        "¦interfaces = []",
        "session/x: unknown key \"interfaces\": known keys are name, remote, local, wire, longest, user, \
         sender, target, sender_sub, target_sub, groups, armed, preset, limits, possdup, on_trip, \
         while_tripped, on_desync, cancel_on_disconnect, drill, classes",
    );
    refused_in_session(
        "on_trip = ¦\"dorp\"",
        "session/x on_trip: \"dorp\" is not an action: write \"reset\" or \"drop\"; did you mean \"drop\"?",
    );
}

#[test]
fn opaque_sessions_cannot_have_fix_keys() {
    let keys = ["sender = ¦\"A\"", "target = ¦\"A\"", "sender_sub = ¦\"A\"", "target_sub = ¦\"A\""];
    for key in keys.into_iter().chain(["classes = ¦{ U1 = \"query\" }"]) {
        let name = key.split(' ').next().unwrap();
        let what = format!(
            "session/x {name}: a session with wire = \"opaque\" is not read: \
             remove this key, or write wire = \"fix\""
        );
        refused_in_session(&format!("wire = \"opaque\"\n{key}"), &what);
    }
}

#[test]
fn classes() {
    let text = |classes: &str| {
        format!("{HOST}{}", session("x", &format!("remote = \"10.0.0.1:1\"\nclasses = {classes}")))
    };
    let policy = accepted(&text("{ U1 = \"cancel\", \"8BYTES!!\" = \"admin\", D = \"order\" }"));
    let mut classes: Vec<_> =
        policy.sessions()[0].classes.iter().map(|(name, class)| (name.as_str(), *class)).collect();
    classes.sort();
    assert_eq!(classes, [("8BYTES!!", Class::Admin), ("D", Class::Order), ("U1", Class::Cancel)]);
    assert_eq!("AB".parse::<MsgType>().unwrap().packed().0, u64::from(u16::from_le_bytes(*b"AB")));
    let remedy = "write 1 to 8 printable ASCII characters without space and '='";
    refused(
        &text("{ ¦\"\" = \"order\" }"),
        &[&format!("session/x classes: \"\" is not a MsgType: {remedy}")],
    );
    refused(
        &text("{ ¦\"9BYTES!!!\" = \"order\" }"),
        &[&format!("session/x classes: \"9BYTES!!!\" is not a MsgType: {remedy}")],
    );
    refused(
        &text("{ ¦\"U 1\" = \"order\" }"),
        &[&format!("session/x classes: \"U 1\" is not a MsgType: {remedy}")],
    );
    let what = "session/x classes U1: \"message\" is not a message class: \
                write \"order\" or \"cancel\" or \"interest\" or \"query\" or \"admin\"";
    refused(&text("{ U1 = ¦\"message\" }"), &[what]);
    let entries =
        |count: u32| (0..count).map(|at| format!("U{at} = \"query\"")).collect::<Vec<_>>().join(", ");
    accepted(&text(&format!("{{ {} }}", entries(16))));
    let what = "session/x classes: 17 MsgTypes: keep at most 16";
    refused(&text(&format!("¦{{ {} }}", entries(17))), &[what]);
    // Also as a separate table.
    accepted(&format!(
        "{HOST}{}[session.classes]\nU1 = \"query\"\n",
        session("x", "remote = \"10.0.0.1:1\"")
    ));
    let what = "session/x classes D: MsgType D of class order counts as query here: \
                it passes while the session is tripped: check that this is intended";
    assert_eq!(warnings(&text("{ D = \"query\", 8 = \"admin\" }")), [(6, 17, what.to_owned())]);
}

#[test]
fn settings_without_effect_cause_a_warning() {
    let text = format!("{HOST}[[group]]\nname = \"g\"\n");
    let what = "group/g: no session is in it: name it in the groups of a session, or remove it";
    assert_eq!(warnings(&text), [(3, 1, what.to_owned())]);
    let text =
        format!("{HOST}{}", session("x", "remote = \"10.0.0.1:1\"\nwire = \"opaque\"\npreset = \"cme\""));
    let what = "session/x limits: a limit of class cancel on wire = \"opaque\", where every segment is an \
                order: limit class order instead";
    assert_eq!(warnings(&text), [(3, 1, what.to_owned())]);
    let limits = [
        "{ class = \"reject\", max = 1, per = \"1s\" }",
        "{ class = \"fill\", max = 1, per = \"1s\" }",
        "{ class = \"fill\", max = 9, per = \"1m\" }",
        "{ class = \"order\", per_fill = 5, after = 7 }",
    ];
    let lines = format!("remote = \"10.0.0.1:1\"\nwire = \"opaque\"\nlimits = [{}]", limits.join(", "));
    let nothing = "on wire = \"opaque\", where inbound messages are not read: limit class order instead";
    let found = [
        format!("session/x limits: a limit of class fill {nothing}"),
        format!("session/x limits: a limit of class reject {nothing}"),
        "session/x limits: a limit per_fill on wire = \"opaque\", where no fill is seen: \
         write max and per = \"total\" instead"
            .to_owned(),
    ];
    assert_eq!(warnings(&format!("{HOST}{}", session("x", &lines))), found.map(|what| (3, 1, what)));
    let what = "configuration: no session, and undeclared = \"ignore\": \
                declare a [[session]], or nothing is counted and nothing is withheld";
    assert_eq!(warnings(&format!("{HOST}undeclared = \"ignore\"\n")), [(1, 1, what.to_owned())]);
}
