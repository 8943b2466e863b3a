//! The part of the layout that never changes, read from maps that a breaker of layout 4 filled.
//!
//! Its policy had the group `desk` and the session `x1`. `session/x1` was tripped. `group/desk` was tripped
//! and reset.

use breaker_common::abi::frozen::Head;
use breaker_common::abi::{Label, MAGIC, Switch, cause, label};
use bytemuck::{Pod, pod_read_unaligned};

const META: &[u8] = include_bytes!("layouts/4/meta.bin");
const SCOPES: &[u8] = include_bytes!("layouts/4/scopes.bin");
const LABELS: &[u8] = include_bytes!("layouts/4/labels.bin");
/// Number of recorded scopes. The last one is not in use.
const COUNT: usize = 5;

/// Reads a `T` from the start of each value of a map.
fn prefixes<T: Pod>(map: &[u8]) -> Vec<T> {
    let stride = map.len() / COUNT;
    map.chunks_exact(stride).map(|value| pod_read_unaligned(&value[..size_of::<T>()])).collect()
}

#[test]
fn meta_begins_with_the_magic_and_the_number_of_the_layout() {
    let head: Head = pod_read_unaligned(&META[..size_of::<Head>()]);
    assert_eq!((head.magic, head.abi), (MAGIC, 4));
}

#[test]
fn a_label_is_the_kind_the_session_and_the_name() {
    let labels: Vec<_> = prefixes::<Label>(LABELS)
        .into_iter()
        .map(|found| {
            let name = String::from_utf8(found.name.to_vec()).expect("UTF-8");
            (found.kind, found.session, name.trim_end_matches('\0').to_owned())
        })
        .collect();
    let expected = [
        (label::HOST, 0, ""),
        (label::GROUP, 0, "desk"),
        (label::SESSION, 0, "undeclared"),
        (label::SESSION, 1, "x1"),
        (label::FREE, 0, ""),
    ];
    assert_eq!(labels, expected.map(|(kind, session, name)| (kind, session, name.to_owned())));
}

#[test]
fn a_scope_begins_with_its_switch() {
    let switches: Vec<Switch> = prefixes(SCOPES);
    let words: Vec<_> = switches.iter().map(|found| (found.causes, found.epoch, found.resets)).collect();
    assert_eq!(words, [(0, 0, 0), (0, 2, 1), (0, 0, 0), (cause::MANUAL, 1, 0), (0, 0, 0)]);
    let is_raised: Vec<_> = switches.iter().map(|found| found.raised_ns != 0).collect();
    assert_eq!(is_raised, [false, true, false, true, false]);
}
