//! The tags of data lengths against the FIX dictionaries, as QuickFIX's headers list them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::{env, fs};

use breaker_common::fields::LENGTHS;

/// Length fields, one per line: tag and name, then tag and name of the data field, or `-` if there is none.
const LIST: &str = include_str!("../lengths.txt");
/// Headers of Debian's libquickfix-dev.
const HEADERS: &str = "/usr/include/quickfix";
/// Environment variable: if set, the test rewrites `lengths.txt`.
const RENEW: &str = "BREAKER_RENEW_LENGTHS";

/// Returns the tags of the length fields, each with the tag of its data field.
fn list() -> BTreeMap<u32, Option<u32>> {
    let line = |line: &'static str| {
        let [number, _, data, _] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("no four words: {line}")
        };
        (number.parse().expect("a number"), data.parse().ok())
    };
    LIST.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// Returns the tag of the data field that belongs to a length field.
pub fn data_of(length: u32) -> u32 {
    list().get(&length).copied().flatten().expect("a length of data")
}

#[test]
fn lengths_of_data_are_those_of_the_dictionaries() {
    let listed: BTreeSet<_> = list().into_iter().filter_map(|(number, data)| data.map(|_| number)).collect();
    assert_eq!(LENGTHS.iter().copied().collect::<BTreeSet<_>>(), listed);
    assert_eq!(LENGTHS.len(), listed.len(), "a tag is listed twice");
    // No data field follows these fields, so `LENGTHS` must not contain them.
    let others: Vec<_> =
        list().into_iter().filter_map(|(number, data)| data.is_none().then_some(number)).collect();
    assert_eq!(others, [9, 383]);
}

/// Returns the field names that a macro defines in a header.
fn defined<'a>(header: &'a str, name: &str) -> BTreeSet<&'a str> {
    let name_in = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix('(')?.strip_suffix(");");
    header.lines().filter_map(name_in).collect()
}

#[test]
fn the_list_of_lengths_is_that_of_the_headers() {
    if !Path::new(HEADERS).exists() {
        // Bypasses the output capture of the test, so that a skip is visible.
        writeln!(std::io::stderr(), "skipped: no FIX dictionaries in {HEADERS} (Debian: libquickfix-dev)")
            .expect("stderr");
        return;
    }
    let read = |name: &str| fs::read_to_string(Path::new(HEADERS).join(name)).expect("a header");
    let (kinds, numbers) = (read("FixFields.h"), read("FixFieldNumbers.h"));
    let number = |name: &str| -> u32 {
        let start = format!("const int {name} = ");
        let found = numbers.lines().find_map(|line| line.trim().strip_prefix(&start)?.strip_suffix(';'));
        found.expect("a number").parse().expect("digits")
    };
    let mut unpaired = &defined(&kinds, "DEFINE_DATA") | &defined(&kinds, "DEFINE_XMLDATA");
    let mut lengths: Vec<_> =
        defined(&kinds, "DEFINE_LENGTH").into_iter().map(|name| (number(name), name)).collect();
    lengths.sort_unstable();
    let mut list = format!(
        "# Lengths in the FIX dictionaries and the data they are of, by the headers in {HEADERS}: \
         {RENEW}=1 cargo test -p breaker-common --test fields\n"
    );
    for (tag, name) in lengths {
        // The name of the data field is that of the length field without the suffix.
        let data = ["Length", "Len"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|data| unpaired.remove(data));
        match data {
            Some(data) => writeln!(list, "{tag} {name} {} {data}", number(data)),
            None => writeln!(list, "{tag} {name} - -"),
        }
        .expect("a string takes all");
    }
    assert!(unpaired.is_empty(), "data fields without a length field: {unpaired:?}");
    if env::var_os(RENEW).is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lengths.txt");
        fs::write(&path, list).expect("writing the list");
    } else {
        assert_eq!(LIST, list, "run it with {RENEW}=1 to renew the list");
    }
}
