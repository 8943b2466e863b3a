//! What only a load can change: where and how the programs are attached, how large the maps are.

use breaker_common::abi::{Meta, mode};

use crate::config::{Hook, Inbound, Mode, Policy, Word};
use crate::kernel::hook;
use crate::kernel::tables::{Room, trim_padding};

/// Each key that differs, with what is loaded and what the file says.
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
    // `auto` is content with what it got, and a hook of another mode has been told of.
    if let Some(interface) = attached.first().filter(|_| host.hook != Hook::Auto && host.mode == mode) {
        compare("[host].hook", hook::name(interface.hook).to_owned(), host.hook.word().to_owned());
    }
    if host.inbound == Inbound::Watch && meta.inbound == 0 {
        compare("[host].inbound", Inbound::Ignore.word().to_owned(), host.inbound.word().to_owned());
    }
    compare("[host].connections", meta.connections.to_string(), host.connections.to_string());
    compare("[agent].audit", trim_padding(&meta.audit), audit);
    found
}

/// What there is no room for: what is needed and what there is.
pub fn lacking(needed: &Room, there: &Room) -> Vec<String> {
    let kinds = [
        ("scopes", needed.scopes, there.scopes),
        ("sessions", needed.sessions, there.sessions),
        ("endpoints", needed.endpoints, there.endpoints),
        ("sessions at shared places", needed.identities, there.identities),
        ("CompIDs", needed.comp_ids, there.comp_ids),
        ("slots for the limits' windows", needed.slots, there.slots),
    ];
    let lacking = kinds.into_iter().filter(|(_, needed, there)| needed > there);
    lacking.map(|(what, needed, there)| format!("{needed} {what} where there is room for {there}")).collect()
}
