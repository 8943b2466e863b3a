//! Random texts: none makes the parser panic, and an accepted text obeys the rules.

use std::collections::HashSet;

use proptest::prelude::*;

use super::sample::SAMPLE;
use crate::config::{Policy, parse};

/// A change of the sample: position, number of removed bytes, inserted bytes.
type Change = (prop::sample::Index, usize, Vec<u8>);

/// Pieces with a meaning in the configuration: random bytes seldom get past the TOML parser.
const PIECES: &[&str] = &[
    "[host]",
    "[[group]]",
    "[[session]]",
    "limits = [",
    "{ class = \"order\", max = 1, per = \"1ms\" },",
    "{ class = \"order\", per_fill = 1, after = 1 },",
    "\"reject\"",
    "\"total\"",
    "inbound = \"ignore\"",
    "preset = \"cme\"",
    "[2001:db8::/32]:1",
    "/33",
    "0.0.0.0/0:1",
    "::ffff:1.2.3.4",
    "[::]:1",
    "\"\"\"",
    "\r\n",
    "\t",
    "é",
    "\u{feff}",
    "-1",
    "0x7f",
    "1e400",
    "nan",
    "1979-05-27",
    "99999999999999999999",
    "classes.U1 = \"order\"",
    "\\u0001",
    "[[session]]\nname = \"two\"\nremote = \"10.9.0.2:9001\"\nlocal = \"10.9.0.1\"\nsender = \"A\"\n",
    "target = \"B\"",
    "undeclared",
    "\u{202e}",
];

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        "[\\[\\]{}=\"'#.,\n /:a-z0-9]{0,8}".prop_map(String::into_bytes),
        prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    (any::<prop::sample::Index>(), 0usize..12, piece())
}

fn changed(changes: &[Change]) -> String {
    let mut bytes = SAMPLE.as_bytes().to_vec();
    for (place, out, piece) in changes {
        let at = place.index(bytes.len() + 1);
        let end = (at + out).min(bytes.len());
        bytes.splice(at..end, piece.iter().copied());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn assert_rules(policy: &Policy) {
    for scope in policy.scopes().iter() {
        assert!(policy.limits(scope).len() <= 4);
        assert_eq!(policy.find(&policy.scopes().name(scope).to_string()), Ok(scope));
    }
    for session in policy.sessions() {
        assert!((1..=16).contains(&session.remotes.len()) && session.groups.len() <= 4);
        assert!(session.groups.iter().all(|group| (group.get() as usize) < policy.groups().len()));
    }
    let places = policy.endpoints();
    let claims = policy.sessions().iter().map(|session| session.remotes.len()).sum::<usize>();
    assert_eq!(places.iter().map(|place| place.sessions.len()).sum::<usize>(), claims);
    for place in places.iter().filter(|place| place.sessions.len() > 1) {
        let ids: Vec<_> = place.sessions.iter().map(|at| policy.session(*at).unwrap().comp_ids()).collect();
        let keys = ids[0].map(|id| id.is_some());
        assert!(keys.contains(&true) && ids.iter().all(|one| one.map(|id| id.is_some()) == keys));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}

fn check(text: &str) {
    match parse("f", text) {
        Ok(policy) => {
            assert_rules(&policy);
            assert_eq!(policy.warnings().is_empty(), policy.warnings().render(true).is_empty());
        }
        Err(errors) => {
            let lines = text.split('\n').count();
            assert!(!errors.diagnostics().is_empty());
            assert!(
                errors
                    .diagnostics()
                    .iter()
                    .all(|error| (1..=lines).contains(&error.line()) && error.column() > 0)
            );
            assert!(!errors.to_string().contains('\u{1b}') && !errors.diagnostics().render(true).is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn mutations_of_the_sample_never_panic(changes in prop::collection::vec(change(), 1..4)) {
        check(&changed(&changes));
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn cuts_of_the_sample_never_panic(at in any::<prop::sample::Index>()) {
        check(&SAMPLE[..at.index(SAMPLE.len() + 1)]);
    }
}
