//! The BPF programs of this host, by id.

use aya::maps::loaded_maps;
use aya::programs::{ProgramInfo, loaded_programs};

/// Describes a program by its id, and by its name if this process may read it.
pub fn describe(id: u32) -> String {
    let found = loaded_programs().flatten().find(|info| info.id() == id);
    match found.as_ref().and_then(ProgramInfo::name_as_str).filter(|name| !name.is_empty()) {
        Some(name) => format!("program {name:?}, id {id}"),
        None => format!("program id {id}"),
    }
}

/// Returns the id of a program of any breaker on this host. The result is also `None` if this process may not
/// list programs.
pub fn any_breaker() -> Option<u32> {
    let has_name = |info: &ProgramInfo| matches!(info.name_as_str(), Some("egress" | "egress_ip" | "inline"));
    loaded_programs().flatten().filter(has_name).map(|info| info.id()).find(|id| is_breaker(*id))
}

/// Returns true if a program uses the maps SCOPES and HEARTBEAT, as every program of a breaker does.
pub fn is_breaker(id: u32) -> bool {
    let Some(info) = loaded_programs().flatten().find(|info| info.id() == id) else { return false };
    let maps = info.map_ids().ok().flatten().unwrap_or_default();
    let uses = |name: &str| {
        let named = loaded_maps().flatten().filter(|map| map.name_as_str() == Some(name));
        named.into_iter().any(|map| maps.contains(&map.id()))
    };
    uses("SCOPES") && uses("HEARTBEAT")
}
