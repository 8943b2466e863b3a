//! Look-ups in the policy: user space writes these maps, the program reads them.
//!
//! User space changes only the side that is not in force. A packet reads the side once, so one policy decides
//! on the whole packet.

use core::borrow::Borrow;
use core::hint::black_box;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
};
use breaker_common::abi::{
    Address, CompId, ConnectionKey, Endpoint, IdentityKey, Label, Meta, Policy, SIDES, Session, TargetWords,
    flag, identity, undeclared,
};

use crate::atomic;

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;

#[map]
static META: Array<Meta> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Names of the scopes, by number. Only user space reads them.
#[map]
static LABELS: Array<Label> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The agent's last heartbeat, or the time of the load before the first one (CLOCK_MONOTONIC, ns); then
/// whether there was one.
#[map]
static HEARTBEAT: Array<u64> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// One bit for each watched remote port, in host order. User space sets the ports of the sessions. The
/// program sets, by atomic OR, each port of undeclared FIX.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// Sessions by endpoint.
#[map]
static ENDPOINTS: LpmTrie<Endpoint, TargetWords> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Sessions at shared endpoints, by CompIDs.
#[map]
static IDENTITIES: HashMap<IdentityKey, TargetWords> = HashMap::with_max_entries(1, 0);

/// Numbers of the declared CompIDs and SubIDs.
#[map]
static COMP_IDS: HashMap<CompId, u32> = HashMap::with_max_entries(1, 0);

/// Sessions by number; both sides of a session are adjacent.
#[map]
static SESSIONS: Array<Session> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Returns the side in force, its policy, and `Meta::hold`.
#[inline(always)]
pub fn in_force() -> Option<(u32, &'static Policy, u32)> {
    let meta = META.get_ptr(0)?;
    // SAFETY: fields of a map value. User space may change the side at any time, but not the policy of the
    // side in force.
    unsafe {
        let side = (&raw const (*meta).side).read_volatile() & (SIDES as u32 - 1);
        let hold = (&raw const (*meta).hold).read_volatile();
        Some((side, &*(&raw const (*meta).policies).cast::<Policy>().add(side as usize), hold))
    }
}

/// Returns true if every frame comes from a wire, with a full checksum (`Meta::wired`).
#[inline(always)]
pub fn is_wired() -> bool {
    META.get(0).is_some_and(|meta| meta.wired != 0)
}

/// Returns the generation of the load (`Meta::generation`).
#[inline(always)]
pub fn generation() -> u64 {
    // SAFETY: a word of a map value; user space may change it at any time.
    META.get_ptr(0).map_or(0, |meta| unsafe { (&raw const (*meta).generation).read_volatile() })
}

/// Returns the policy of a side.
#[inline(always)]
pub fn policy(side: u32) -> Option<&'static Policy> {
    META.get(0).map(|meta| &meta.policies[side as usize & (SIDES - 1)])
}

/// Returns how to treat undeclared FIX (`abi::undeclared`).
#[inline(always)]
pub fn undeclared(side: u32) -> u32 {
    policy(side).map_or(undeclared::IGNORE, |policy| policy.undeclared)
}

/// Returns the agent's last heartbeat (CLOCK_MONOTONIC, ns), its longest age, and whether an older one trips
/// the host. `None` if the policy does not watch the heartbeat.
#[inline(always)]
pub fn heartbeat(side: u32) -> Option<(u64, u64, bool)> {
    let policy = policy(side)?;
    if policy.deadman_ns == 0 {
        return None;
    }
    let beat = HEARTBEAT.get_ptr(0)?;
    // SAFETY: a word of a map value; user space may change it at any time.
    Some((unsafe { beat.read_volatile() }, policy.deadman_ns, policy.flags & flag::HEARTBEAT_LOSS_TRIPS != 0))
}

/// Returns the session with this number.
#[inline(always)]
pub fn session(number: u32, side: u32) -> Option<&'static Session> {
    let index = number.wrapping_mul(SIDES as u32).wrapping_add(side);
    // SAFETY: the value lives as long as the map. Of the side in force, user space changes one word only.
    SESSIONS.get_ptr(index).map(|session| unsafe { &*session })
}

/// Returns the session at a shared endpoint with these CompIDs; 0 if there is none.
#[inline(always)]
pub fn session_by_comp_ids(endpoint: u32, comp_ids: [u32; 4], side: u32) -> u32 {
    let key = IdentityKey { endpoint, comp_ids };
    // SAFETY: only user space writes the map.
    unsafe { IDENTITIES.get(key) }.map_or(0, |sessions| sessions[side as usize & (SIDES - 1)])
}

/// Returns the number of a CompID or SubID.
#[inline(always)]
pub fn comp_id(value: &CompId) -> u32 {
    // SAFETY: user space writes a number once.
    unsafe { COMP_IDS.get(value) }.map_or(identity::UNKNOWN, |number| *number)
}

/// Returns true if connections to a remote port, in network order, are looked up.
#[inline(always)]
pub fn is_port_watched(port: u16) -> bool {
    let port = u16::from_be(port);
    PORTS.get((port >> 6) as u32).is_some_and(|word| word >> (port & 63) & 1 == 1)
}

/// Watches a remote port, in network order, from now on.
#[inline(always)]
pub fn watch_port(port: u16) {
    let port = u16::from_be(port);
    if let Some(word) = PORTS.get_ptr_mut((port >> 6) as u32) {
        // SAFETY: a word of a map value.
        unsafe { atomic::fetch_or(word, 1 << (port & 63)) };
    }
}

/// Returns true if a session of the policy in force has this remote address, at any port.
#[inline(always)]
pub fn is_declared(address: &Address) -> bool {
    let endpoint = Endpoint { port: 0, pad: 0, local: [0; 4], remote: *address };
    in_force().is_some_and(|(side, ..)| target(endpoint, side) != 0)
}

/// Returns the target (a word of `abi::Target`) of a connection from a socket of account `uid`; 0 if there is
/// none.
#[inline(always)]
pub fn lookup_endpoint(key: &ConnectionKey, uid: u32, side: u32) -> u32 {
    // An endpoint with the local address takes precedence over one with any local address.
    let endpoint = Endpoint { port: key.remote_port, pad: 0, local: key.local, remote: key.remote };
    let word = match target(endpoint, side) {
        0 => target(Endpoint { local: [0; 4], ..endpoint }, side),
        word => word,
    };
    // `Target::unpack` and the callers test the sign too. From two signed tests of one register Linux 6.18
    // derives contradictory bounds and warns: "REG INVARIANTS VIOLATION".
    let is_shared = black_box(word >> 31) != 0;
    if is_shared || word == 0 {
        return word;
    }
    let belongs_to_other = |session: &Session| session.flags & flag::MATCH_UID != 0 && session.uid != uid;
    if session(word, side).is_some_and(belongs_to_other) { 0 } else { word }
}

/// Returns the target of the longest matching prefix of an endpoint; 0 if there is none.
#[inline(always)]
fn target(endpoint: Endpoint, side: u32) -> u32 {
    let key = AlignedKey(Key::new(Endpoint::BITS, endpoint));
    ENDPOINTS.get(key).map_or(0, |targets: &TargetWords| targets[side as usize & (SIDES - 1)])
}

/// A key with aligned words. aya's key is packed, and the verifier refuses it on the stack: "misaligned stack
/// access" (all kernels).
#[repr(C, align(8))]
struct AlignedKey(Key<Endpoint>);

impl Borrow<Key<Endpoint>> for AlignedKey {
    #[inline(always)]
    fn borrow(&self) -> &Key<Endpoint> {
        &self.0
    }
}
