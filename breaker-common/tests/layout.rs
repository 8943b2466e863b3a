//! The layout of what lives in maps against its record: whoever changes it must raise `ABI_VERSION`.
//!
//! `layout.txt` holds, for each number there ever was, the hash of its layout, and below them the layout of the current one in full.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::{env, fs};

use breaker_common::abi::Framing;
use breaker_common::abi::Stream;
use breaker_common::abi::{
    ABI_VERSION, Connection, ConnectionKey, Counters, Endpoint, Event, Fences, IdentityKey, Interface, Label,
    Limit, LimitRef, Meta, Override, Policy, RingLayout, Rules, Scope, Session, Switch, Trip, UnseenKey,
    Window,
};
use breaker_common::abi::{Gap, Inbound};

/// Set to add the current number to the record.
const RENEW: &str = "BREAKER_RENEW_LAYOUT";
/// Between the hashes and the current layout.
const CURRENT: &str = "\nthe current one:\n";

/// Size of a field.
fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// One function that writes the layout of each struct listed: its size and alignment, and of each field offset, size and name.
macro_rules! layout {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {
        fn layout() -> String {
            let mut text = String::new();
            $(
                // A field that is missing below does not compile: add it, raise ABI_VERSION, renew the record.
                let _ = |this: $name| $name { $($field: this.$field),+ };
                writeln!(text, "{} {} align {}", stringify!($name), size_of::<$name>(), align_of::<$name>()).unwrap();
                $(
                    let (offset, size) = (offset_of!($name, $field), size_of_field(|this: &$name| &this.$field));
                    writeln!(text, "  {offset} {size} {}", stringify!($field)).unwrap();
                )+
            )+
            text
        }
    };
}

layout! {
    Meta {
        magic, abi, side, mode, connections, capacity, ring_slots, loaded_at, version, git, program_tag, inbound,
        interface_count, interfaces, netns, shared_pages, wired, audit, policies,
    }
    Policy { sha256, name, flags, undeclared, deadman_ns, scopes, sessions }
    Interface { name, ifindex, hook, link_header, pad }
    Label { kind, session, name }
    Endpoint { port, pad, local, remote }
    IdentityKey { endpoint, comp_ids }
    Override { msg_type, class }
    Session {
        scopes, scope_count, flags, while_tripped, override_count, comp_ids, day_epoch, declared_ns, longest, uid, overrides,
        limit_refs,
    }
    RingLayout { base, granule_bits, ring_bits, pad }
    LimitRef { scope, position, counter, ring }
    Limit { max, per_ns, warn, class, per_fill, ring }
    Rules { positions, pad }
    Switch { causes, epoch, raised_ns, resets }
    Window { issued, recheck_at, tail, peak, level, fills, floor, fill_floor }
    Trip { at_ns, cause, limit, session, used }
    Fences { before_ns, last_ns, epoch, generation }
    Scope { switch, armed, pad, rules, heartbeat_reported, limits, windows, withheld_ns, trip, fences }
    ConnectionKey { local, remote, local_port, remote_port }
    Connection { epoch, closed_ns, opened_ns, session, isn, opened, shared_endpoint, pending, peer_notified, withheld, withheld_seq, contested, blind, event_count, uid, message_seen, hops, comp_ids, stream }
    UnseenKey { ifindex, kind }
    Inbound { framing, gap, next_seq, pad }
    Framing { partial, partial_bytes, body_remaining, sync, field_state, data_remaining, field_values, message_bytes, message_class }
    Gap { framing, start, end }
    Stream { framing, next_seq, sent, gap_start, gap_end, ahead_seq, ahead }
    Counters {
        passed, packets_passed, retransmitted, desyncs, withheld, packets_withheld, inbound, inbound_desyncs,
        unread, blind_orders,
    }
    Event { at_ns, kind, scope, session, limit, cause, used, connection, level }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("layout.txt")
}

/// FNV-1a: it tells an edit, not an attack.
fn hash(text: &str) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// What the record says: hashes by number, and the layout of the highest.
fn read(record: &str) -> (BTreeMap<u32, String>, &str) {
    let (numbers, current) = record.split_once(CURRENT).unwrap_or((record, ""));
    let numbers = numbers.lines().filter_map(|line| {
        let (number, hash) = line.strip_prefix("abi ")?.split_once(' ')?;
        Some((number.parse().expect("a number of the record"), hash.to_owned()))
    });
    (numbers.collect(), current)
}

/// The record with this number added; `Err` where that would alter one that is there, or come before it.
fn renew(record: &str, number: u32, layout: &str) -> Result<String, String> {
    let (mut numbers, current) = read(record);
    let hash = hash(layout);
    match numbers.last_key_value() {
        Some((last, recorded)) if *last == number && *recorded == hash && current == layout => {
            return Ok(record.to_owned());
        }
        Some((last, _)) if *last >= number => {
            return Err(format!("number {last} is recorded with another layout: raise ABI_VERSION above it"));
        }
        _ => numbers.insert(number, hash),
    };
    let mut text = String::from(
        "Layouts of the maps, a hash for each ABI_VERSION. Lines are added and never altered.\n\n",
    );
    for (number, hash) in numbers {
        text.push_str(&format!("abi {number} {hash}\n"));
    }
    Ok(text + CURRENT + layout)
}

#[test]
fn the_layout_of_the_maps_is_the_recorded_one() {
    let record = fs::read_to_string(path()).unwrap_or_default();
    let layout = layout();
    if env::var_os(RENEW).is_some() {
        let renewed = renew(&record, ABI_VERSION, &layout).unwrap_or_else(|refusal| panic!("{refusal}"));
        fs::write(path(), renewed).expect("writing the record");
        return;
    }
    let (numbers, current) = read(&record);
    let how = format!("{RENEW}=1 cargo test -p breaker-common --test layout");
    let last = numbers.last_key_value().map(|(number, _)| *number);
    assert_eq!(last, Some(ABI_VERSION), "ABI_VERSION {ABI_VERSION} is not the last on record: {how}");
    assert_eq!(current, layout, "the layout changed: raise ABI_VERSION above {ABI_VERSION}, then {how}");
    assert_eq!(numbers[&ABI_VERSION], hash(&layout), "the hash of number {ABI_VERSION} was edited");
}

#[test]
fn a_recorded_number_is_never_altered() {
    let first = renew("", 3, "A 8 align 8\n").unwrap();
    assert_eq!(renew(&first, 3, "A 8 align 8\n"), Ok(first.clone()));
    assert!(renew(&first, 3, "A 16 align 8\n").is_err());
    assert!(renew(&first, 2, "A 16 align 8\n").is_err());
    let second = renew(&first, 4, "A 16 align 8\n").unwrap();
    let (numbers, current) = read(&second);
    assert_eq!(numbers, [(3, hash("A 8 align 8\n")), (4, hash("A 16 align 8\n"))].into());
    assert_eq!(current, "A 16 align 8\n");
}

#[test]
fn no_struct_has_bytes_that_no_field_names() {
    let layout = layout();
    let mut sizes: Vec<(&str, usize, usize)> = Vec::new();
    for line in layout.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (line.starts_with(' '), sizes.last_mut()) {
            (true, Some((_, _, fields))) => *fields += words[1].parse::<usize>().unwrap(),
            _ => sizes.push((words[0], words[1].parse().unwrap(), 0)),
        }
    }
    for (name, size, fields) in sizes {
        assert_eq!(size, fields, "{name}");
    }
}
