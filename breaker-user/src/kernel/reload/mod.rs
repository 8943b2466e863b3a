//! Puts another policy in force, whole or not at all, under traffic.
//!
//! All of it is laid out on the side that is not in force, where no packet looks; then one store turns to it. A packet reads once which
//! side that is, and is judged by that alone. What both policies have keeps its number, and with it switch, epoch, window, counters
//! and connections. A reload that dies before the store has changed nothing; the next one writes the whole side anew.

mod connections;
mod endpoints;
mod in_force;
mod loosened;
mod rings;
mod sums;
mod unchangeable;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::atomic::fence;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::MapData;
use aya::maps::lpm_trie::Key;
use breaker_common::abi::{self, LIMITS_PER_SCOPE, Label, Limit, Meta, SIDES, Scope, Session, flag};
use breaker_common::window::Ring;
use serde_json::{Value, json};

use self::in_force::InForce;
use self::rings::Word;
use super::load::EndpointKey;
use super::maps::{self, PodIdentity};
use super::memory::{Mapped, ORDER, half, word};
use super::pins::PinRoot;
use super::tables::{Room, Tables, same};
use super::{Breaker, clock};
use crate::cli_error::{CliError, Code};
use crate::config::Policy;
use crate::{audit, journal};

/// What a reload has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// False where this very file was in force already.
    pub changed: bool,
    /// What the new policy loosens.
    pub loosened: Vec<String>,
    /// Scopes that are new.
    pub added: Vec<String>,
    /// Scopes that are gone.
    pub removed: Vec<String>,
}

impl Reloaded {
    /// What an event tells of it.
    pub fn counts(&self, policy: &Policy) -> Value {
        json!({
            "sha256": policy.sha256_hex(), "loosened": self.loosened, "added": self.added, "removed": self.removed,
        })
    }
}

/// Puts a policy in force in place of the one that is. `first` is told what changes before it does, and may still refuse it.
pub fn reload(
    policy: &Policy,
    root: &PinRoot,
    first: impl FnOnce(&Breaker, &Reloaded) -> Result<()>,
) -> Result<Reloaded> {
    root.require()?;
    // No load, unload or other reload meanwhile; and no reset, which would void windows and raise epochs that are being carried over.
    // A trip waits for nobody.
    let _claim = root.claim()?;
    root.require()?;
    let _lock = root.lock()?;
    let breaker = Breaker::open(root)?;
    if breaker.policy().sha256 == *policy.sha256() {
        return Ok(Reloaded::default());
    }
    let differences = unchangeable::differences(breaker.meta(), policy);
    if !differences.is_empty() {
        return Err(refused(&format!("{}: `breaker unload`, then `breaker load`", differences.join("; "))));
    }
    let now = InForce::read(&breaker)?;
    let made = Tables::of(policy, now.allocated());
    let mut next =
        made.map_err(|error| CliError::new(Code::Usage, format!("reading the configuration: {error:#}")))?;
    let sums = sums::keep(&now, &mut next);
    let sums = sums.map_err(|found| refused(&format!("{found}: `breaker unload`, then `breaker load`")))?;
    let side = Side { breaker: &breaker, now: &now, next: &next, side: 1 - now.side };
    side.require_room()?;
    let loosened = loosened::loosened(&now, &next);
    allow(&breaker, &now, &loosened)?;
    side.put(&sums)?;
    let (added, removed) = loosened::added_and_removed(&now, &next);
    let done = Reloaded { changed: true, loosened, added, removed };
    first(&breaker, &done)?;
    side.turn()?;
    let found = Breaker::open(root)?;
    if found.policy().sha256 != *policy.sha256() {
        return Err(CliError::new(Code::Unexpected, "reloading: the kernel still says otherwise").into());
    }
    Ok(done)
}

/// Refuses to loosen anything while something is tripped, or unseen.
fn allow(breaker: &Breaker, now: &InForce, loosened: &[String]) -> Result<()> {
    if loosened.is_empty() {
        return Ok(());
    }
    let tripped = now.tripped();
    if !tripped.is_empty() {
        let are = if tripped.len() == 1 { "is" } else { "are" };
        let found =
            format!("{} {are} tripped, and it would loosen: {}", tripped.join(", "), loosened.join("; "));
        return Err(refused(&format!("{found}: reset first, or only tighten")));
    }
    audit::reserve(&journal::path(breaker)).map_err(|error| {
        let found = format!(
            "the audit log cannot be written ({error:#}), and it would loosen: {}",
            loosened.join("; ")
        );
        refused(&format!("{found}: make room, or see to [agent].audit"))
    })
}

fn refused(found: &str) -> anyhow::Error {
    CliError::new(Code::Refused, format!("reloading: refused, nothing is changed: {found}")).into()
}

/// A policy on its way into force.
struct Side<'a> {
    breaker: &'a Breaker,
    now: &'a InForce,
    next: &'a Tables,
    side: usize,
}

/// A limit whose ring is new.
struct Moved<'a> {
    scope: u32,
    position: usize,
    limit: &'a Limit,
    /// The limit that its window is from; `None` where that begins anew.
    before: Option<Limit>,
}

impl Side<'_> {
    /// The endpoints that the map must hold.
    fn endpoints(&self) -> Vec<endpoints::Entry> {
        endpoints::merged(&self.now.endpoints, &self.next.endpoints, self.side)
    }

    /// Refuses what the maps have no room for.
    fn require_room(&self) -> Result<()> {
        // What goes does so last.
        let (put, _) = endpoints::changes(&self.now.endpoints, &self.endpoints());
        let known: HashSet<_> =
            self.now.endpoints.iter().map(|(endpoint, bits, _)| endpoints::masked(endpoint, *bits)).collect();
        let places = put
            .iter()
            .filter(|(endpoint, bits, _)| !known.contains(&endpoints::masked(endpoint, *bits)))
            .count();
        let (put, _) = endpoints::identities(&self.now.identities, &self.next.identities, self.side);
        let known: HashSet<_> =
            self.now.identities.iter().map(|(key, _)| (key.endpoint, key.comp_ids)).collect();
        let identities = put.iter().filter(|(key, _)| !known.contains(&(key.endpoint, key.comp_ids))).count();
        let needed = Room {
            scopes: self.next.labels.len() as u32,
            sessions: self.next.sessions.len() as u32,
            endpoints: (self.now.endpoints.len() + places) as u32,
            identities: (self.now.identities.len() + identities) as u32,
            comp_ids: self.next.comp_ids.len() as u32,
            slots: self.next.slots,
        };
        let room = |name: &str| -> Result<u32> {
            let path = self.breaker.root().map(name);
            let info = MapData::from_pin(&path).and_then(|data| data.info());
            Ok(info.with_context(|| format!("asking after {}", path.display()))?.max_entries())
        };
        let there = Room {
            scopes: room("SCOPES")?.min(room("LABELS")?),
            sessions: room("COUNTERS")?.min(room("SESSIONS")? / SIDES as u32),
            endpoints: room("ENDPOINTS")?,
            identities: room("IDENTITIES")?,
            comp_ids: room("COMP_IDS")?,
            slots: room("TIMES")?,
        };
        match unchangeable::lacking(&needed, &there)[..] {
            [] => Ok(()),
            ref lacking => {
                let found = format!("what is loaded is too small: it takes {}", lacking.join(", "));
                Err(refused(&format!("{found}: `breaker unload`, then `breaker load`")))
            }
        }
    }

    /// Lays the policy out beside the one in force, which stays as it is.
    fn put(&self, sums: &[(u32, Scope)]) -> Result<()> {
        let root = self.breaker.root();
        let labels = Mapped::<Label>::open(&root.map("LABELS"))?;
        for (number, label) in self.next.labels.iter().enumerate() {
            labels.set(number as u32, *label)?;
        }
        for (number, scope) in sums {
            self.breaker.scopes().set(*number, *scope)?;
        }
        for number in 0..self.next.labels.len() as u32 {
            self.put_scope(number)?;
        }
        let sessions = Mapped::<Session>::open(&root.map("SESSIONS"))?;
        for (number, session) in self.next.sessions.iter().enumerate() {
            let declared_ns = match self.now.sessions.get(number) {
                Some(found) if found.scope_count != 0 => found.declared_ns,
                _ => clock::now_ns(),
            };
            sessions.set((number * SIDES + self.side) as u32, Session { declared_ns, ..*session })?;
        }
        self.put_keys()?;
        let ports = Mapped::<u64>::open(&root.map("PORTS"))?;
        for (number, bits) in &self.next.ports {
            let place = ports.place(*number).context("a port beyond the map of ports")?;
            // SAFETY: inside the mapping, which outlives this. The kernel program sets bits there too, and nobody clears any.
            unsafe { word(place.as_ptr()) }.fetch_or(*bits, ORDER);
        }
        let meta = Mapped::<Meta>::open(&root.map("META"))?;
        let place = meta.place(0).context("META is empty")?.as_ptr();
        // SAFETY: inside the mapping; nobody looks at this side.
        unsafe { (&raw mut (*place).policies[self.side]).write_volatile(self.next.policy) };
        Ok(())
    }

    /// The limits of a scope; and whether it is armed, where no packet asks for that yet.
    fn put_scope(&self, number: u32) -> Result<()> {
        let place = self.breaker.scopes().place(number).context("a scope beyond its map")?.as_ptr();
        let (rules, limits) = self.next.rules[number as usize];
        // SAFETY: inside the mapping; nobody looks at this side.
        unsafe {
            (&raw mut (*place).rules[self.side]).write_volatile(rules);
            (&raw mut (*place).limits[self.side]).write_volatile(limits);
            for window in 0..LIMITS_PER_SCOPE {
                (&raw mut (*place).windows[window].recheck_at[self.side]).write_volatile(0);
            }
        }
        if !self.now.declares(number as usize) {
            self.set_armed(number, loosened::armed(self.now, self.next, number as usize))?;
        }
        Ok(())
    }

    fn set_armed(&self, number: u32, armed: bool) -> Result<()> {
        let place = self.breaker.scopes().place(number).context("a scope beyond its map")?.as_ptr();
        // SAFETY: inside the mapping, which the breaker holds.
        unsafe { half(&raw mut (*place).armed) }.store(armed as u32, ORDER);
        Ok(())
    }

    /// CompIDs, sessions at shared places, endpoints: first what is new, then what nobody needs. At each moment between, the policy in
    /// force finds what it found before.
    fn put_keys(&self) -> Result<()> {
        let root = self.breaker.root();
        let mut comp_ids = maps::comp_ids(root)?;
        for (id, number) in self.next.comp_ids.iter().filter(|(id, _)| !self.now.comp_ids.contains_key(*id)) {
            comp_ids.insert(id, number, 0).context("filling map COMP_IDS")?;
        }
        let mut identities = maps::identities(root)?;
        let (put, gone) = endpoints::identities(&self.now.identities, &self.next.identities, self.side);
        for (key, place) in put {
            identities.insert(PodIdentity(key), place, 0).context("filling map IDENTITIES")?;
        }
        for key in gone {
            identities.remove(&PodIdentity(key)).context("clearing map IDENTITIES")?;
        }
        let mut map = maps::endpoints(root)?;
        let (put, gone) = endpoints::changes(&self.now.endpoints, &self.endpoints());
        for (endpoint, bits, place) in put {
            map.insert(&Key::new(bits, EndpointKey(endpoint)), place, 0).context("filling map ENDPOINTS")?;
        }
        for (endpoint, bits) in gone {
            map.remove(&Key::new(bits, EndpointKey(endpoint))).context("clearing map ENDPOINTS")?;
        }
        Ok(())
    }

    /// Turns to the policy. What tightens comes before the store, what loosens after it.
    fn turn(&self) -> Result<()> {
        connections::prepare(self.breaker, self.now, self.next)?;
        let times = Times(Mapped::open(&self.breaker.root().map("TIMES"))?);
        let meta = Mapped::<Meta>::open(&self.breaker.root().map("META"))?;
        let place = meta.place(0).context("META is empty")?.as_ptr();
        self.arm(true)?;
        self.start_silence()?;
        let moved = self.moved();
        let mut filled = Vec::with_capacity(moved.len());
        for moved in &moved {
            filled.push(self.fill(moved, &times)?);
        }
        fence(ORDER);
        // SAFETY: inside the mapping, which this function holds.
        unsafe { half(&raw mut (*place).side) }.store(self.side as u32, ORDER);
        wait_for_packets();
        for (moved, from) in moved.iter().zip(filled) {
            self.mend(moved, from, &times)?;
        }
        self.arm(false)?;
        connections::settle(self.breaker, self.now, self.next)
    }

    /// Arms, or disarms, the scopes that both policies have and on which they differ.
    fn arm(&self, armed: bool) -> Result<()> {
        for number in (0..self.now.scopes.len()).filter(|number| self.now.declares(*number)) {
            let declared = self.next.armed.get(number).copied().flatten().is_some();
            let was = self.now.scopes[number].armed != 0;
            if declared && was != armed && loosened::armed(self.now, self.next, number) == armed {
                self.set_armed(number as u32, armed)?;
            }
        }
        Ok(())
    }

    /// Where the agent's silence trips from now on its time begins now: nobody may have come yet.
    fn start_silence(&self) -> Result<()> {
        let trips =
            |policy: &abi::Policy| policy.deadman_ns != 0 && policy.flags & flag::HEARTBEAT_LOSS_TRIPS != 0;
        if trips(&self.next.policy) && !trips(&self.now.policy) {
            self.breaker.maps().heartbeat()?.set(0, clock::now_ns())?;
        }
        Ok(())
    }

    /// The limits whose window or ring is new.
    fn moved(&self) -> Vec<Moved<'_>> {
        let mut moved = Vec::new();
        for (scope, (rules, limits)) in self.next.rules.iter().enumerate() {
            let old = self.now.limits(scope);
            for position in (0..limits.len()).filter(|i| rules.positions >> i & 1 == 1) {
                let limit = &limits[position];
                let before =
                    old.iter().find(|(i, old)| *i == position && same(old, limit)).map(|(_, old)| *old);
                if before.is_none_or(|before| limit.per_ns != 0 && before.ring != limit.ring) {
                    moved.push(Moved { scope: scope as u32, position, limit, before });
                }
            }
        }
        moved
    }

    /// Fills a new ring, and where the window is new has it begin with nothing. Returns how many tickets were out.
    fn fill(&self, moved: &Moved<'_>, times: &Times) -> Result<u64> {
        let place = self.breaker.scopes().place(moved.scope).context("a scope beyond its map")?.as_ptr();
        // SAFETY: the words lie inside the mapping, which the breaker holds.
        let window = unsafe { &raw mut (*place).windows[moved.position] };
        // SAFETY: as above.
        let issued = unsafe { word(&raw mut (*window).issued) }.load(ORDER);
        let now = clock::now_ns();
        let before = moved.before.as_ref().map(|before| (before, times));
        for Word { slot, word } in
            rings::fill(moved.limit, issued, before.as_ref().map(|(limit, ring)| (*limit, ring)), now)
        {
            times.put(slot, word)?;
        }
        if moved.before.is_none() {
            // SAFETY: as above. Where a limit that goes still has this window it ends a moment early.
            unsafe {
                let fills = word(&raw mut (*window).fills).load(ORDER);
                word(&raw mut (*window).fill_floor).store(fills, ORDER);
                word(&raw mut (*window).floor).store(issued, ORDER);
                word(&raw mut (*window).peak).store(0, ORDER);
                word(&raw mut (*window).level).store(0, ORDER);
            }
        }
        Ok(issued)
    }

    /// Writes what tickets have left out that were taken between the filling and the turn.
    fn mend(&self, moved: &Moved<'_>, from: u64, times: &Times) -> Result<()> {
        let scope = self.breaker.scopes().get(moved.scope).context("a scope beyond its map")?;
        let now = clock::now_ns();
        let issued = scope.windows[moved.position].issued;
        for (seen, Word { slot, word }) in rings::missing(moved.limit, &times, (from, issued), now) {
            times.exchange(slot, seen, word);
        }
        Ok(())
    }
}

/// The rings, written word by word.
struct Times(Mapped<u64>);

impl Times {
    fn put(&self, slot: u64, value: u64) -> Result<()> {
        let place = u32::try_from(slot)
            .ok()
            .and_then(|slot| self.0.place(slot))
            .context("a slot beyond the rings")?;
        // SAFETY: inside the mapping, which self holds.
        unsafe { word(place.as_ptr()) }.store(value, ORDER);
        Ok(())
    }

    /// Writes where the kernel program has not been since.
    fn exchange(&self, slot: u64, seen: u64, value: u64) {
        if let Some(place) = u32::try_from(slot).ok().and_then(|slot| self.0.place(slot)) {
            // SAFETY: as above. Where it was written meanwhile there is nothing to do.
            let _ = unsafe { word(place.as_ptr()) }.compare_exchange(seen, value, ORDER, ORDER);
        }
    }
}

impl Ring for &Times {
    fn read(&self, slot: u64) -> u64 {
        u32::try_from(slot).ok().and_then(|slot| self.0.get(slot)).unwrap_or_default()
    }

    /// What is written here goes by [`Times::put`].
    fn write(&mut self, _: u64, _: u64) {}
}

/// Waits until every packet is judged that had read which side is in force before it was turned.
fn wait_for_packets() {
    /// membarrier(2): on a kernel without full dynamic ticks this is the kernel's own `synchronize_rcu`, and programs run under RCU.
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    /// Else: longer than a packet is ever judged.
    const LONG: Duration = Duration::from_millis(20);
    // SAFETY: takes three numbers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0 {
        sleep(LONG);
    }
}
