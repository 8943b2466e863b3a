//! Settings that only a load can change: how the programs are attached, and how large the maps are. Pure.

use breaker_common::abi::{Meta, mode};

use crate::config::{Hook, Inbound, Mode, Policy, Word};
use crate::kernel::attach_point;
use crate::kernel::tables::capacity::Capacity;
use crate::kernel::text::trim_padding;

/// Returns each key that differs, with the loaded value and the one in the file.
pub fn differences(meta: &Meta, policy: &Policy) -> Vec<String> {
    let host = policy.host();
    let attached = &meta.interfaces[..(meta.interface_count as usize).min(meta.interfaces.len())];
    let interfaces = |names: Vec<String>| names.join(", ");
    let mode = if meta.mode == mode::INLINE { Mode::Inline } else { Mode::Egress };
    let audit = policy.agent().audit.as_path().to_string_lossy().into_owned();
    let mut found = Vec::new();
    let mut compare = |key: &str, loaded: String, wanted: String| {
        if loaded != wanted {
            found.push(format!("{key} is {loaded:?}, and the file says {wanted:?}"));
        }
    };
    compare(
        "[host].interfaces",
        interfaces(attached.iter().map(|interface| trim_padding(&interface.name)).collect()),
        interfaces(host.interfaces.iter().map(|interface| interface.as_str().to_owned()).collect()),
    );
    compare("[host].mode", mode.word().to_owned(), host.mode.word().to_owned());
    // `auto` matches any loaded hook. The comparison of the mode covers a hook of another mode.
    if let Some(interface) = attached.first().filter(|_| host.hook != Hook::Auto && host.mode == mode) {
        compare(
            "[host].hook",
            attach_point::hook_name(interface.hook).to_owned(),
            host.hook.word().to_owned(),
        );
    }
    if host.inbound == Inbound::Watch && meta.inbound == 0 {
        compare("[host].inbound", Inbound::Ignore.word().to_owned(), host.inbound.word().to_owned());
    }
    compare("[host].connections", meta.connections.to_string(), host.connections.to_string());
    compare("[agent].audit", trim_padding(&meta.audit), audit);
    let state = policy.agent().state.as_path().to_string_lossy().into_owned();
    compare("[agent].state", trim_padding(&meta.state), state);
    found
}

/// Returns the kinds of entries for which the maps have no room, with the number needed and the number
/// available.
pub fn lacking(needed: &Capacity, available: &Capacity) -> Vec<String> {
    let kinds = [
        ("scopes", needed.scopes, available.scopes),
        ("sessions", needed.sessions, available.sessions),
        ("endpoints", needed.endpoints, available.endpoints),
        ("sessions at shared endpoints", needed.identities, available.identities),
        ("CompIDs", needed.comp_ids, available.comp_ids),
        ("slots for the limits' windows", needed.ring_slots, available.ring_slots),
    ];
    let lacking = kinds.into_iter().filter(|(_, needed, available)| needed > available);
    lacking
        .map(|(kind, needed, available)| format!("{needed} {kind} where there is room for {available}"))
        .collect()
}
