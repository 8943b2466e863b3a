//! The layout of the map values against its record. A change of the layout must raise `ABI_VERSION`.
//!
//! `layout.txt` has the hash of the layout of each number, and the full layout of the current number.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::{env, fs};

use breaker_common::abi::{
    ABI_VERSION, Connection, ConnectionKey, Counters, Endpoint, Event, Fences, Framing, Gap, IdentityKey,
    Inbound, Interface, Label, Limit, LimitRef, Meta, Override, Policy, RingLayout, Rules, Scope, Session,
    Stream, Switch, Trip, UnseenKey, Window,
};

/// Environment variable: if set, the test adds the current number to the record.
const RENEW: &str = "BREAKER_RENEW_LAYOUT";
/// Separator between the hashes and the current layout.
const CURRENT: &str = "\nthe current one:\n";

/// Returns the size of a field.
fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Defines a function that writes the layout of each listed struct.
///
/// The layout is the size and the alignment of the struct, and the offset, the size and the name of each
/// field.
macro_rules! layout {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {
        fn layout() -> String {
            let mut text = String::new();
            $(
                // A missing field does not compile. Add it to the list, raise ABI_VERSION and renew the
                // record.
                let _ = |this: $name| $name { $($field: this.$field),+ };
                let (size, align) = (size_of::<$name>(), align_of::<$name>());
                writeln!(text, "{} {size} align {align}", stringify!($name)).unwrap();
                $(
                    let offset = offset_of!($name, $field);
                    let size = size_of_field(|this: &$name| &this.$field);
                    writeln!(text, "  {offset} {size} {}", stringify!($field)).unwrap();
                )+
            )+
            text
        }
    };
}

layout! {
    Meta {
        magic, abi, side, mode, connections, capacity, ring_slots, loaded_at, version, git, program_tag,
        inbound, interface_count, interfaces, netns, shared_pages, wired, audit, state, generation,
        audit_seq, audit_hash, hold, unloading, policies,
    }
    Policy { sha256, name, flags, undeclared, deadman_ns, scopes, sessions }
    Interface { name, ifindex, hook, link_header, pad }
    Label { kind, session, name }
    Endpoint { port, pad, local, remote }
    IdentityKey { endpoint, comp_ids }
    Override { msg_type, class }
    Session {
        scopes, scope_count, flags, while_tripped, override_count, comp_ids, day_epoch, declared_ns,
        longest, uid, overrides, limit_refs,
    }
    RingLayout { base, granule_bits, ring_bits, pad }
    LimitRef { scope, position, counter, ring }
    Limit { max, per_ns, warn, class, per_fill, ring }
    Rules { positions, pad }
    Switch { causes, epoch, raised_ns, resets }
    Window { issued, recheck_at, tail, peak, level, fills, floor, fill_floor }
    Trip { at_ns, cause, limit, session, used }
    Fences { before_ns, last_ns, epoch, generation }
    Scope {
        switch, armed, armed_changes, rules, heartbeat_reported, limits, windows, withheld_ns, trip, fences
    }
    ConnectionKey { local, remote, local_port, remote_port }
    Connection {
        epoch, closed_ns, opened_ns, session, isn, opened, shared_endpoint, pending, peer_notified,
        withheld, withheld_seq, contested, blind, event_count, uid, message_seen, hops, comp_ids,
        stream,
    }
    UnseenKey { ifindex, kind }
    Inbound { framing, gap, next_seq, pad }
    Framing {
        partial, partial_bytes, body_remaining, sync, field_state, data_remaining, field_values,
        message_bytes, message_class,
    }
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

/// Returns the FNV-1a hash. It detects an edit, not an attack.
fn hash(text: &str) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// Parses the record: hashes by number, and the layout of the highest number.
fn read(record: &str) -> (BTreeMap<u32, String>, &str) {
    let (numbers, current) = record.split_once(CURRENT).unwrap_or((record, ""));
    let numbers = numbers.lines().filter_map(|line| {
        let (number, hash) = line.strip_prefix("abi ")?.split_once(' ')?;
        Some((number.parse().expect("a recorded number"), hash.to_owned()))
    });
    (numbers.collect(), current)
}

/// Adds a number to the record. `Err` if the number is recorded with another layout, or is below a recorded
/// one.
fn renew(record: &str, number: u32, layout: &str) -> Result<String, String> {
    let (mut numbers, current) = read(record);
    let hash = hash(layout);
    match numbers.last_key_value() {
        Some((last, recorded)) if *last == number && *recorded == hash && current == layout => {
            return Ok(record.to_owned());
        }
        Some((last, _)) if *last >= number => {
            return Err(format!(
                "number {last} is recorded with another layout. Raise ABI_VERSION above {last}"
            ));
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
        let renewed = renew(&record, ABI_VERSION, &layout).unwrap_or_else(|error| panic!("{error}"));
        fs::write(path(), renewed).expect("writing the record");
        return;
    }
    let (numbers, current) = read(&record);
    let how = format!("{RENEW}=1 cargo test -p breaker-common --test layout");
    let last = numbers.last_key_value().map(|(number, _)| *number);
    assert_eq!(
        last,
        Some(ABI_VERSION),
        "ABI_VERSION {ABI_VERSION} is not the last recorded number. Run `{how}`"
    );
    assert_eq!(
        current, layout,
        "the layout changed. Raise ABI_VERSION above {ABI_VERSION}, then run `{how}`"
    );
    assert_eq!(numbers[&ABI_VERSION], hash(&layout), "the recorded hash of number {ABI_VERSION} is wrong");
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
fn every_byte_of_a_struct_belongs_to_a_field() {
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
