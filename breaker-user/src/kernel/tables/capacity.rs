//! The number of entries of the maps, and the kernel memory that they take.

use breaker_common::abi::{self, Inbound, Label, Scope, Session};

/// Entries of the maps whose size depends on the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// SCOPES and LABELS.
    pub scopes: u32,
    /// COUNTERS, and SESSIONS on each side.
    pub sessions: u32,
    /// ENDPOINTS.
    pub endpoints: u32,
    /// IDENTITIES.
    pub identities: u32,
    /// COMP_IDS.
    pub comp_ids: u32,
    /// TIMES.
    pub ring_slots: u32,
}

/// Entries of TRANSIENT for a connection table of this size. No entry is evicted while the peer may still
/// answer, even on a kernel that keeps many entries ready for each CPU (`LOCAL_FREE_TARGET`, 128).
pub fn transient_entries(connections: u32) -> u32 {
    const MIN: u32 = 4096;
    MIN.max(connections / 4)
}

const PAGE: usize = 4096;

impl Capacity {
    /// Returns the kernel memory that the maps take if every entry is in use, in bytes. `cpus` is the number
    /// of CPUs that the machine can ever have.
    pub fn memory(&self, connections: u32, inbound: bool, cpus: usize) -> u64 {
        let hash = |entries: u32, value: usize| hash_bytes(entries, value, cpus);
        let per_cpu =
            |entries: u32, value: usize| entries as usize * (value.next_multiple_of(8) * cpus + 8) + PAGE;
        let arrays = array_bytes(1, size_of::<abi::Meta>())
            + array_bytes(self.scopes, size_of::<Scope>())
            + array_bytes(self.scopes, size_of::<Label>())
            + array_bytes(self.sessions * abi::SIDES as u32, size_of::<Session>())
            + array_bytes(self.ring_slots, 8)
            + array_bytes(1024, 8)
            + array_bytes(2, 8);
        let hashes = hash(connections, size_of::<abi::Connection>())
            + hash(transient_entries(connections), size_of::<abi::Connection>())
            + hash(if inbound { connections } else { 1 }, size_of::<Inbound>())
            + hash(self.endpoints + self.identities + self.comp_ids, 128);
        let counters =
            per_cpu(self.sessions, size_of::<abi::Counters>()) + per_cpu(abi::reason::NAMES.len() as u32, 8);
        let scratch = per_cpu(1, PAGE);
        let event_ring = 256 * 1024 + 8 * PAGE;
        (arrays + hashes + counters + scratch + event_ring) as u64
    }
}

/// Memory of an array that can be mapped: its values begin on a page of their own, after a page with the
/// kernel's own data.
fn array_bytes(entries: u32, value: usize) -> usize {
    (entries as usize * value).next_multiple_of(PAGE) + PAGE
}

/// Memory of a hash map (kernel `htab_map_mem_usage`). Each entry has a header, each CPU keeps one entry
/// ready, and the number of buckets is a power of two.
fn hash_bytes(entries: u32, value: usize, cpus: usize) -> usize {
    let entry = 48 + size_of::<abi::ConnectionKey>().next_multiple_of(8) + value.next_multiple_of(8);
    (entries as usize + cpus) * entry + entries.next_power_of_two() as usize * 16 + PAGE
}
