//! Fills the maps of a new load.

use anyhow::{Context, Result};
use aya::maps::lpm_trie::Key;
use breaker_common::abi::{Label, Scope, Session};
use bytemuck::{Pod, Zeroable};

use super::clock;
use super::maps::{self, PodEndpoint, PodIdentity};
use super::memory::Mapped;
use super::pins::PinRoot;
use super::tables::Tables;
use super::tables::limits::ScopeLimits;

/// Fills all maps but META, whose facts depend on the attaching.
pub fn fill_maps(tables: &Tables, root: &PinRoot) -> Result<()> {
    write_array::<Label>(root, "LABELS", &tables.labels)?;
    let scopes: Vec<_> = tables.rules.iter().zip(&tables.armed).map(scope).collect();
    write_array::<Scope>(root, "SCOPES", &scopes)?;
    let declared_ns = clock::now_ns();
    let both_sides = |session: &Session| [Session { declared_ns, ..*session }, Session::zeroed()];
    let sessions: Vec<_> = tables.sessions.iter().flat_map(both_sides).collect();
    write_array::<Session>(root, "SESSIONS", &sessions)?;
    let ports = Mapped::<u64>::open(&root.map("PORTS"))?;
    for (word, bits) in &tables.ports {
        ports.set(*word, *bits)?;
    }
    let mut endpoints = maps::endpoints(root)?;
    for (endpoint, bits, word) in &tables.endpoints {
        endpoints
            .insert(&Key::new(*bits, PodEndpoint(*endpoint)), [*word, 0], 0)
            .context("filling map ENDPOINTS")?;
    }
    let mut comp_ids = maps::comp_ids(root)?;
    for (id, number) in &tables.comp_ids {
        comp_ids.insert(id, number, 0).context("filling map COMP_IDS")?;
    }
    let mut identities = maps::identities(root)?;
    for (key, session) in &tables.identities {
        identities.insert(PodIdentity(*key), [*session, 0], 0).context("filling map IDENTITIES")?;
    }
    Ok(())
}

fn scope(((rules, limits), armed): (&ScopeLimits, &Option<bool>)) -> Scope {
    let mut scope = Scope { armed: (*armed == Some(true)) as u32, ..Scope::zeroed() };
    (scope.rules[0], scope.limits[0]) = (*rules, *limits);
    scope
}

/// Writes the first values of an array map.
pub fn write_array<T: Pod>(root: &PinRoot, name: &str, values: &[T]) -> Result<()> {
    let map = Mapped::<T>::open(&root.map(name))?;
    for (index, value) in values.iter().enumerate() {
        map.set(index as u32, *value)?;
    }
    Ok(())
}
