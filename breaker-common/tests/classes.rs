//! The table of classes against the FIX dictionaries, as QuickFIX's headers list them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use breaker_common::class::{TABLE, default_class, single_char_class};
use breaker_common::fix::MsgType;
use breaker_common::message::Class;

/// Version, MsgType and name of every message of every dictionary, one per line.
const DICTIONARIES: &str = include_str!("dictionaries.txt");
const VERSIONS: [&str; 9] =
    ["fix40", "fix41", "fix42", "fix43", "fix44", "fix50", "fix50sp1", "fix50sp2", "fixt11"];
/// Headers of Debian's libquickfix-dev.
const HEADERS: &str = "/usr/include/quickfix";
/// Environment variable: if set, the test rewrites `dictionaries.txt`.
const RENEW: &str = "BREAKER_RENEW_DICTIONARIES";

/// Returns each MsgType with its names.
fn dictionaries() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut types: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in DICTIONARIES.lines().filter(|line| !line.starts_with('#')) {
        let [version, msg_type, name] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("no three words: {line}")
        };
        assert!(VERSIONS.contains(&version), "{line}");
        types.entry(msg_type).or_default().insert(name);
    }
    types
}

fn class(msg_type: &str) -> Class {
    default_class(MsgType::new(msg_type).expect("a MsgType of 1 to 8 bytes"))
}

fn listed(class: Class) -> BTreeSet<&'static str> {
    TABLE.iter().filter(|(_, listed)| *listed == class).map(|(msg_type, _)| *msg_type).collect()
}

#[test]
fn every_type_of_the_dictionaries_has_a_class_of_its_own() {
    let known: BTreeSet<_> = TABLE.iter().map(|(msg_type, _)| *msg_type).collect();
    let missing: Vec<_> =
        dictionaries().into_iter().filter(|(msg_type, _)| !known.contains(msg_type)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_table_has_only_two_types_that_are_in_no_dictionary() {
    let dictionaries = dictionaries();
    let others: Vec<_> =
        TABLE.iter().map(|(msg_type, _)| *msg_type).filter(|name| !dictionaries.contains_key(name)).collect();
    // MassOrder and CrossRequest, from extension packs after 5.0SP2.
    assert_eq!(others, ["DJ", "DS"]);
}

#[test]
fn each_class_has_its_documented_types() {
    let set = |types: &'static str| types.split(' ').collect::<BTreeSet<_>>();
    assert_eq!(listed(Class::Order), set("D E G L S i s t n AB AC AJ CA DJ"));
    assert_eq!(listed(Class::Cancel), set("F K Z q u"));
    assert_eq!(listed(Class::Interest), set("R AH DS k 6 AE"));
    assert_eq!(listed(Class::Admin), set("0 1 2 3 4 5 A"));
    assert!(listed(Class::Query).is_superset(&set("H AF a c V e g x AD AN BE Q 8 9 j")));
    let names = dictionaries();
    let spelt = [
        ("D", "NewOrderSingle"),
        ("AB", "NewOrderMultileg"),
        ("F", "OrderCancelRequest"),
        ("Q", "DontKnowTrade"),
        ("A", "Logon"),
    ];
    for (msg_type, name) in spelt {
        assert!(names[msg_type].contains(name), "{msg_type} is {:?}", names[msg_type]);
    }
}

#[test]
fn no_type_is_listed_twice() {
    let mut seen = BTreeSet::new();
    for (msg_type, _) in TABLE {
        assert!(seen.insert(msg_type), "{msg_type} is listed twice");
    }
}

#[test]
fn the_lookup_agrees_with_the_table() {
    for (msg_type, listed) in TABLE {
        assert_eq!(class(msg_type), *listed, "{msg_type}");
    }
    for class in Class::ALL {
        assert_eq!(Class::from_code(class as u64), class);
        assert_eq!(Class::ALL[class as usize], class);
    }
    assert_eq!((Class::from_code(5), Class::from_code(u64::MAX)), (Class::Order, Class::Order));
}

#[test]
fn every_type_that_is_in_no_dictionary_is_an_order() {
    for msg_type in [
        "U", "U1", "UA", "Uxyz", "UABCDEFG", "D8", "A8", "AA8", "00", "0A", "aa", "ab", "CF", "ZZ", "@", " ",
        "LongType",
    ] {
        assert_eq!(class(msg_type), Class::Order, "{msg_type}");
    }
    let known: BTreeSet<_> = TABLE.iter().map(|(msg_type, _)| *msg_type).collect();
    // All types of one byte, and all printable types of two bytes.
    let one = (0..=255u8).filter(|byte| !known.contains(&*(*byte as char).to_string())).map(u64::from);
    let printable = || b' '..=b'~';
    let two = printable().flat_map(|low| printable().map(move |high| (low, high)));
    let two = two.filter(|(low, high)| !known.contains(&*format!("{}{}", *low as char, *high as char)));
    for packed in one.chain(two.map(|(low, high)| u64::from_le_bytes([low, high, 0, 0, 0, 0, 0, 0]))) {
        assert_eq!(default_class(MsgType(packed)), Class::Order, "{packed:#x}");
    }
    // A longer type is cut to eight bytes, so no listed type may be that long.
    assert!(TABLE.iter().all(|(msg_type, _)| msg_type.len() < 8));
}

#[test]
fn a_type_packs_its_first_byte_lowest() {
    assert_eq!(MsgType::new("AB"), Some(MsgType(u64::from(b'A') | u64::from(b'B') << 8)));
    assert_eq!(MsgType::new("12345678"), Some(MsgType(u64::from_le_bytes(*b"12345678"))));
    assert_eq!((MsgType::new(""), MsgType::new("123456789")), (None, None));
}

/// Returns the MsgType in a header, if the header defines a message.
fn msg_type(header: &str) -> Option<&str> {
    Some(header.split_once("return FIX::MsgType(\"")?.1.split_once('"')?.0)
}

fn headers(version: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(version).unwrap_or_else(|error| panic!("{}: {error}", version.display()));
    entries.map(|entry| entry.expect("a directory entry").path()).collect()
}

#[test]
fn the_list_of_messages_is_that_of_the_headers() {
    if !Path::new(HEADERS).exists() {
        // Bypasses the output capture of the test, so that a skip is visible.
        writeln!(std::io::stderr(), "skipped: no FIX dictionaries in {HEADERS} (Debian: libquickfix-dev)")
            .expect("stderr");
        return;
    }
    let mut list = format!(
        "# Every message of the FIX dictionaries, by the headers in {HEADERS}: \
         {RENEW}=1 cargo test -p breaker-common --test classes\n"
    );
    for version in VERSIONS {
        for path in headers(&Path::new(HEADERS).join(version)) {
            let text = fs::read_to_string(&path).expect("a header");
            let name = path.file_stem().expect("a name").display();
            if let Some(msg_type) = msg_type(&text) {
                writeln!(list, "{version} {msg_type} {name}").expect("a string takes all");
            }
        }
    }
    if env::var_os(RENEW).is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dictionaries.txt");
        fs::write(&path, list).expect("writing the list");
    } else {
        assert_eq!(DICTIONARIES, list, "run it with {RENEW}=1 to renew the list");
    }
}

#[test]
fn the_array_of_single_character_types_agrees_with_the_comparisons() {
    let differing = |byte: &u64| single_char_class(MsgType(*byte)) != default_class(MsgType(*byte));
    assert_eq!((1..=255).find(differing), None);
    assert_eq!(
        ["D", "F", "8", "0", "U"].map(|name| single_char_class(MsgType(name.as_bytes()[0].into()))),
        [Class::Order, Class::Cancel, Class::Query, Class::Admin, Class::Order,]
    );
}
