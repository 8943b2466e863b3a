//! Writes the next policy into the maps, on the side that is not in force.

use std::collections::HashSet;

use anyhow::{Context, Result};
use aya::maps::MapData;
use aya::maps::lpm_trie::Key;
use breaker_common::abi::{LIMITS_PER_SCOPE, Label, Meta, SIDES, Scope, Session};

use super::{PolicyChange, endpoints, loosening, requires_load, unchangeable};
use crate::kernel::armed::set_armed;
use crate::kernel::clock;
use crate::kernel::maps::{self, PodEndpoint, PodIdentity};
use crate::kernel::memory::{Mapped, ORDER, atomic_u64};
use crate::kernel::tables::capacity::Capacity;

impl PolicyChange {
    /// Refuses a policy for which the maps have no room.
    pub(super) fn require_room(&self) -> Result<()> {
        match unchangeable::lacking(&self.needed_capacity(), &self.loaded_capacity()?)[..] {
            [] => Ok(()),
            ref lacking => {
                let lacking = lacking.join(", ");
                Err(requires_load(&format!("the loaded maps are too small: the policy needs {lacking}")))
            }
        }
    }

    /// The entries that both policies need together. Removals come last, so entries that go still take room.
    fn needed_capacity(&self) -> Capacity {
        let (put, _) = endpoints::changes(&self.now.endpoints, &self.merged_endpoints());
        let known: HashSet<_> =
            self.now.endpoints.iter().map(|(endpoint, bits, _)| endpoints::masked(endpoint, *bits)).collect();
        let is_new =
            |(endpoint, bits, _): &&endpoints::Entry| !known.contains(&endpoints::masked(endpoint, *bits));
        let endpoints = self.now.endpoints.len() + put.iter().filter(is_new).count();
        let (put, _) = endpoints::identity_changes(&self.now.identities, &self.next.identities, self.side);
        let known: HashSet<_> =
            self.now.identities.iter().map(|(key, _)| (key.endpoint, key.comp_ids)).collect();
        let added = put.iter().filter(|(key, _)| !known.contains(&(key.endpoint, key.comp_ids))).count();
        Capacity {
            scopes: self.next.labels.len() as u32,
            sessions: self.next.sessions.len() as u32,
            endpoints: endpoints as u32,
            identities: (self.now.identities.len() + added) as u32,
            comp_ids: self.next.comp_ids.len() as u32,
            ring_slots: self.next.ring_slots,
        }
    }

    /// The entries that the loaded maps have.
    fn loaded_capacity(&self) -> Result<Capacity> {
        let entries = |name: &str| -> Result<u32> {
            let path = self.breaker.root().map(name);
            let info = MapData::from_pin(&path).and_then(|data| data.info());
            Ok(info.with_context(|| format!("reading the size of {}", path.display()))?.max_entries())
        };
        Ok(Capacity {
            scopes: entries("SCOPES")?.min(entries("LABELS")?),
            sessions: entries("COUNTERS")?.min(entries("SESSIONS")? / SIDES as u32),
            endpoints: entries("ENDPOINTS")?,
            identities: entries("IDENTITIES")?,
            comp_ids: entries("COMP_IDS")?,
            ring_slots: entries("TIMES")?,
        })
    }

    /// The endpoints of both policies in one map.
    fn merged_endpoints(&self) -> Vec<endpoints::Entry> {
        endpoints::merged(&self.now.endpoints, &self.next.endpoints, self.side)
    }

    /// Lays the next policy out. `sums`: see [`super::epoch_sums::preserve`].
    pub(super) fn lay_out(&self, sums: &[(u32, Scope)]) -> Result<()> {
        let root = self.breaker.root();
        let labels = Mapped::<Label>::open(&root.map("LABELS"))?;
        for (number, label) in self.next.labels.iter().enumerate() {
            labels.set(number as u32, *label)?;
        }
        for (number, scope) in sums {
            self.breaker.scopes().set(*number, *scope)?;
        }
        for number in 0..self.next.labels.len() as u32 {
            self.lay_out_scope(number)?;
        }
        self.lay_out_sessions()?;
        self.lay_out_keys()?;
        self.lay_out_ports()?;
        let meta = Mapped::<Meta>::open(&root.map("META"))?;
        let meta = meta.ptr(0).context("META is empty")?.as_ptr();
        // SAFETY: the policy lies inside the mapping, and no packet reads this side.
        unsafe { (&raw mut (*meta).policies[self.side]).write_volatile(self.next.policy) };
        Ok(())
    }

    /// Writes the limits of a scope. A scope that is not in force also gets its armed state: no packet reads
    /// it yet.
    fn lay_out_scope(&self, number: u32) -> Result<()> {
        let scope = self.breaker.scopes().ptr(number).context("a scope is not in its map")?.as_ptr();
        let (rules, limits) = self.next.rules[number as usize];
        // SAFETY: the fields lie inside the mapping, and no packet reads this side.
        unsafe {
            (&raw mut (*scope).rules[self.side]).write_volatile(rules);
            (&raw mut (*scope).limits[self.side]).write_volatile(limits);
            for window in 0..LIMITS_PER_SCOPE {
                (&raw mut (*scope).windows[window].recheck_at[self.side]).write_volatile(0);
            }
        }
        if !self.now.declares(number as usize) {
            let armed = loosening::armed(&self.now, &self.next, number as usize);
            set_armed(self.breaker.scopes(), number, armed)?;
        }
        Ok(())
    }

    fn lay_out_sessions(&self) -> Result<()> {
        let sessions = Mapped::<Session>::open(&self.breaker.root().map("SESSIONS"))?;
        for (number, session) in self.next.sessions.iter().enumerate() {
            let declared_ns = match self.now.sessions.get(number) {
                Some(found) if found.scope_count != 0 => found.declared_ns,
                _ => clock::now_ns(),
            };
            sessions.set((number * SIDES + self.side) as u32, Session { declared_ns, ..*session })?;
        }
        Ok(())
    }

    /// Writes CompIDs, sessions of shared endpoints, and endpoints: additions first, then removals. At each
    /// moment between, a lookup for the policy in force finds what it found before.
    fn lay_out_keys(&self) -> Result<()> {
        let root = self.breaker.root();
        let mut comp_ids = maps::comp_ids(root)?;
        for (id, number) in self.next.comp_ids.iter().filter(|(id, _)| !self.now.comp_ids.contains_key(*id)) {
            comp_ids.insert(id, number, 0).context("filling map COMP_IDS")?;
        }
        let mut identities = maps::identities(root)?;
        let (put, removed) =
            endpoints::identity_changes(&self.now.identities, &self.next.identities, self.side);
        for (key, words) in put {
            identities.insert(PodIdentity(key), words, 0).context("filling map IDENTITIES")?;
        }
        for key in removed {
            identities.remove(&PodIdentity(key)).context("clearing map IDENTITIES")?;
        }
        let mut map = maps::endpoints(root)?;
        let (put, removed) = endpoints::changes(&self.now.endpoints, &self.merged_endpoints());
        for (endpoint, bits, words) in put {
            map.insert(&Key::new(bits, PodEndpoint(endpoint)), words, 0).context("filling map ENDPOINTS")?;
        }
        for (endpoint, bits) in removed {
            map.remove(&Key::new(bits, PodEndpoint(endpoint))).context("clearing map ENDPOINTS")?;
        }
        Ok(())
    }

    fn lay_out_ports(&self) -> Result<()> {
        let ports = Mapped::<u64>::open(&self.breaker.root().map("PORTS"))?;
        for (number, bits) in &self.next.ports {
            let word = ports.ptr(*number).context("a port is not in map PORTS")?;
            // SAFETY: the word lies inside the mapping. The kernel program sets bits there too, and nothing
            // clears any.
            unsafe { atomic_u64(word.as_ptr()) }.fetch_or(*bits, ORDER);
        }
        Ok(())
    }
}
