//! A policy as the values of the kernel program's maps. Pure: what it makes is what is loaded, and what tests look at.
//!
//! A policy that replaces another keeps the numbers of all that stays ([`Allocated`]), so that connections keep their session, and limits
//! their window.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use anyhow::{Result, bail, ensure};
use breaker_common::abi::Inbound;
use breaker_common::abi::{
    self, Address, CompId, Endpoint, IdentityKey, LIMITS_PER_SCOPE, Label, Limit, Override, Rules, Scope,
    Session, Target, flag, identity, label, mapped, undeclared, while_tripped,
};
use breaker_common::limits;
use breaker_common::window::{granule_bits, ring_bits};
use bytemuck::Zeroable;

use crate::config::{
    self, DeadmanAction, EndpointSessions, MessageSize, OnDesync, OnTableFull, OnTrip, Per, Policy, PossDup,
    ScopeIndex, ScopeName, SessionIndex, Undeclared, WhileTripped, WireFormat,
};

/// Numbers that are given already, and the limits that have windows. Nothing at a first load.
#[derive(Default)]
pub struct Allocated {
    /// What each scope number stands for.
    pub labels: Vec<Label>,
    /// Which limits each scope has now.
    pub rules: Vec<(Rules, [Limit; LIMITS_PER_SCOPE])>,
    /// Session numbers end here.
    pub sessions: u32,
    /// Numbers of CompIDs.
    pub comp_ids: BTreeMap<CompId, u32>,
    /// Numbers of shared places, by key and length of prefix.
    pub places: Vec<((Endpoint, u32), u32)>,
    /// Slots of the rings that are in use.
    pub rings: Vec<Range<u32>>,
}

/// Values of all maps that user space fills, for one side.
pub struct Tables {
    /// The policy as a whole.
    pub policy: abi::Policy,
    /// What each scope number stands for.
    pub labels: Vec<Label>,
    /// Whether a limit that is passed trips, by scope number; `None` where the policy does not have the scope.
    pub armed: Vec<Option<bool>>,
    /// Which limits it has, by scope number.
    pub rules: Vec<(Rules, [Limit; LIMITS_PER_SCOPE])>,
    /// Sessions by number; without scopes where the policy does not have them.
    pub sessions: Vec<Session>,
    /// Endpoints: key, length of the prefix that counts in bits, and a word of [`Target`].
    pub endpoints: Vec<(Endpoint, u32, u32)>,
    /// Numbers of the CompIDs and SubIDs.
    pub comp_ids: BTreeMap<CompId, u32>,
    /// Sessions at shared places.
    pub identities: Vec<(IdentityKey, u32)>,
    /// Bits of the ports that have endpoints.
    pub ports: BTreeMap<u32, u64>,
    /// Slots of all rings.
    pub slots: u32,
}

impl Tables {
    /// The tables of a policy, beside what is taken.
    pub fn of(policy: &Policy, taken: Allocated) -> Result<Self> {
        let numbers = Numbers::of(policy, &taken)?;
        let mut tables = Self {
            policy: facts(policy)?,
            armed: vec![None; numbers.labels.len()],
            rules: vec![(Rules::default(), Default::default()); numbers.labels.len()],
            sessions: vec![Session::zeroed(); numbers.session_count as usize],
            labels: numbers.labels.clone(),
            endpoints: Vec::new(),
            comp_ids: taken.comp_ids,
            identities: Vec::new(),
            ports: BTreeMap::new(),
            slots: 0,
        };
        let mut slots = Slots::beside(taken.rings);
        let next = taken.places.iter().map(|(_, number)| number + 1).max().unwrap_or(0);
        let mut places = Places { known: taken.places, next };
        (tables.policy.scopes, tables.policy.sessions) = (tables.labels.len() as u32, numbers.session_count);
        for scope in policy.scopes().iter() {
            let number = numbers.scope(scope) as usize;
            let before = taken.rules.get(number).copied().unwrap_or_default();
            tables.armed[number] = Some(policy.armed(scope));
            tables.rules[number] = rules(policy.limits(scope), before, &mut slots)?;
            if policy.armed(scope) {
                tables.rules[number].0.positions |= Rules::ARMED;
            }
        }
        tables.slots = slots.end;
        for session in policy.scopes().sessions() {
            tables.sessions[numbers.session(session) as usize] = tables.session(policy, session, &numbers);
        }
        for place in policy.endpoints() {
            tables.endpoint(policy, &place, &mut places, &numbers);
        }
        Ok(tables)
    }

    /// A session as its map has it.
    fn session(&mut self, policy: &Policy, index: SessionIndex, numbers: &Numbers) -> Session {
        let mut made = settings(policy, index);
        let scopes = policy.scopes_of(index);
        made.scope_count = scopes.len() as u32;
        for (place, scope) in made.scopes.iter_mut().zip(scopes) {
            *place = numbers.scope(scope);
        }
        // What no session declares may come from anyone: it uses up nothing of the host's limits unless the file says so.
        if policy.session(index).is_some() || policy.host().undeclared_trips {
            limits::list_limits(&mut made, |scope| self.rules[scope as usize]);
        }
        if let Some(session) = policy.session(index) {
            made.comp_ids = session.comp_ids().map(|id| id.map_or(0, |id| self.comp_id(id)));
        }
        made
    }

    /// The number of a CompID, given now where it has none.
    fn comp_id(&mut self, id: &config::CompId) -> u32 {
        let mut bytes = [0; size_of::<CompId>()];
        bytes[..id.as_str().len()].copy_from_slice(id.as_str().as_bytes());
        let next = identity::FIRST + self.comp_ids.len() as u32;
        *self.comp_ids.entry(bytemuck::cast(bytes)).or_insert(next)
    }

    /// Takes a place in: its endpoint, its port, and where it is shared, whose it may be.
    fn endpoint(
        &mut self,
        policy: &Policy,
        place: &EndpointSessions,
        places: &mut Places,
        numbers: &Numbers,
    ) {
        let prefix = place.remote.prefix();
        let mapped_bits = if prefix.address().is_ipv4() { 96 } else { 0 };
        let bits = Endpoint::FIXED_BITS + mapped_bits + prefix.length() as u32;
        let local = place.local.map_or([0; 4], address);
        let key =
            Endpoint { port: place.remote.port().to_be(), pad: 0, local, remote: address(prefix.address()) };
        let target = match place.sessions[..] {
            [one] => Target::Session(numbers.session(one)),
            _ => {
                let known =
                    places.known.iter().find(|(known, _)| *known == (key, bits)).map(|(_, number)| *number);
                let number = known.unwrap_or(places.next);
                places.next += u32::from(known.is_none());
                Target::Shared {
                    endpoint: number,
                    mask: self.share(policy, number, &place.sessions, numbers),
                }
            }
        };
        // The address alone, for packets whose port cannot be found.
        let address = (Endpoint { port: 0, local: [0; 4], ..key }, bits, Target::Session(1).pack());
        if !self.endpoints.contains(&address) {
            self.endpoints.push(address);
        }
        let port = place.remote.port();
        *self.ports.entry(port as u32 / 64).or_default() |= 1u64 << (port % 64);
        self.endpoints.push((key, bits, target.pack()));
    }

    /// Says which sessions a shared place has. Returns the mask of the fields that tell them apart.
    fn share(&mut self, policy: &Policy, place: u32, sessions: &[SessionIndex], numbers: &Numbers) -> u32 {
        let mut mask = 0;
        for index in sessions {
            let Some(session) = policy.session(*index) else { continue };
            let ids = session.comp_ids().map(|id| id.map_or(0, |id| self.comp_id(id)));
            mask = (0..ids.len()).filter(|&i| ids[i] != 0).fold(0, |mask, i| mask | 1 << i);
            self.identities.push((IdentityKey { endpoint: place, comp_ids: ids }, numbers.session(*index)));
        }
        for (position, index) in sessions.iter().enumerate() {
            let ids = [identity::LISTED, position as u32, 0, 0];
            self.identities.push((IdentityKey { endpoint: place, comp_ids: ids }, numbers.session(*index)));
        }
        mask
    }

    /// Room that the maps are made with: more than it takes, for what a later policy adds.
    pub fn room(&self) -> Room {
        let more = |count: usize| (count + count / 2 + 32) as u32;
        Room {
            scopes: more(self.labels.len()),
            sessions: more(self.sessions.len()),
            // Two for a session that is added: its endpoint, and its address with any port.
            endpoints: more(self.endpoints.len()) + 32,
            identities: more(self.identities.len()),
            comp_ids: more(self.comp_ids.len()),
            // Where every limit gets another time the rings of both policies are in use for a moment.
            slots: self.slots.saturating_mul(2).saturating_add(65_536),
        }
    }
}

/// Entries of TRANSIENT beside so many connections: enough that none is evicted while its peer may still answer, also where a kernel keeps
/// many of them ready for each CPU (`LOCAL_FREE_TARGET`, 128).
pub fn transient(connections: u32) -> u32 {
    const LEAST: u32 = 4096;
    LEAST.max(connections / 4)
}

/// Entries that maps have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
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
    pub slots: u32,
}

impl Room {
    /// Kernel memory that the maps will take, bytes: what `check` prints. Every entry counts as if it were in use. `cpus` are those that
    /// the machine may ever have.
    pub fn memory(&self, connections: u32, inbound: bool, cpus: usize) -> u64 {
        const PAGE: usize = 4096;
        // One that can be mapped begins on a page of its own, behind one with what the kernel knows of it.
        let array = |entries: u32, value: usize| (entries as usize * value).next_multiple_of(PAGE) + PAGE;
        // Kernel `htab_map_mem_usage`: an entry has a header, each CPU keeps one ready, and buckets are a power of two.
        let hash = |entries: u32, value: usize| {
            let entry = 48 + size_of::<abi::ConnectionKey>().next_multiple_of(8) + value.next_multiple_of(8);
            (entries as usize + cpus) * entry + entries.next_power_of_two() as usize * 16 + PAGE
        };
        let per_cpu =
            |entries: u32, value: usize| entries as usize * (value.next_multiple_of(8) * cpus + 8) + PAGE;
        let bytes = array(1, size_of::<abi::Meta>())
            + array(self.scopes, size_of::<Scope>())
            + array(self.scopes, size_of::<Label>())
            + array(self.sessions * abi::SIDES as u32, size_of::<Session>())
            + array(self.slots, 8)
            + array(1024, 8)
            + array(2, 8)
            + hash(connections, size_of::<abi::Connection>())
            + hash(transient(connections), size_of::<abi::Connection>())
            + hash(if inbound { connections } else { 1 }, size_of::<Inbound>())
            + hash(self.endpoints + self.identities + self.comp_ids, 128)
            + per_cpu(self.sessions, size_of::<abi::Counters>())
            + per_cpu(abi::reason::NAMES.len() as u32, 8)
            // What a packet needs while it is judged,
            + per_cpu(1, PAGE)
            // and the event ring with its own pages.
            + 256 * 1024 + 8 * PAGE;
        bytes as u64
    }
}

/// The numbers that scopes and sessions of a policy have in the maps.
struct Numbers {
    labels: Vec<Label>,
    scopes: Vec<u32>,
    sessions: Vec<u32>,
    session_count: u32,
}

impl Numbers {
    /// Those that are taken for what stays, and the next ones for what is new.
    fn of(policy: &Policy, taken: &Allocated) -> Result<Self> {
        let scopes = policy.scopes();
        let mut made = Self {
            labels: taken.labels.clone(),
            scopes: vec![u32::MAX; scopes.count() as usize],
            sessions: vec![u32::MAX; scopes.session_count() as usize],
            session_count: taken.sessions,
        };
        for scope in scopes.iter() {
            let mut wanted = labelled(&scopes.name(scope))?;
            let same = |known: &Label| known.kind == wanted.kind && known.name == wanted.name;
            let number = match made.labels.iter().position(same) {
                Some(number) => number,
                None => {
                    if wanted.kind == label::SESSION {
                        wanted.session = made.session_count;
                        made.session_count += 1;
                    }
                    made.labels.push(wanted);
                    made.labels.len() - 1
                }
            };
            made.scopes[scope.get() as usize] = number as u32;
            if let config::Scope::Session(session) = scopes.what(scope) {
                made.sessions[session.get() as usize] = made.labels[number].session;
            }
        }
        Ok(made)
    }

    fn scope(&self, scope: ScopeIndex) -> u32 {
        self.scopes[scope.get() as usize]
    }

    fn session(&self, session: SessionIndex) -> u32 {
        self.sessions[session.get() as usize]
    }
}

/// The label of a scope. A session's number is not in it yet.
pub(super) fn labelled(name: &ScopeName) -> Result<Label> {
    let (kind, text) = match name {
        ScopeName::Host => (label::HOST, ""),
        ScopeName::Group(name) => (label::GROUP, name.as_str()),
        ScopeName::Session(name) => (label::SESSION, name.as_str()),
    };
    Ok(Label { kind, session: 0, name: pad_to(text)? })
}

/// UTF-8 of at most `N` bytes, zero-padded.
pub fn pad_to<const N: usize>(text: &str) -> Result<[u8; N]> {
    ensure!(text.len() <= N, "storing {text:?}: it has {} bytes where {N} fit: shorten it", text.len());
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// What [`pad_to`] stored.
pub fn trim_padding(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn facts(policy: &Policy) -> Result<abi::Policy> {
    let host = policy.host();
    let silence_trips = host.deadman.is_some_and(|deadman| deadman.action == DeadmanAction::Trip);
    Ok(abi::Policy {
        sha256: *policy.sha256(),
        name: pad_to(policy.name().as_str())?,
        flags: flags([
            (host.on_table_full == OnTableFull::Pass, flag::PASS_WHEN_FULL),
            (silence_trips, flag::HEARTBEAT_LOSS_TRIPS),
        ]),
        undeclared: match host.undeclared {
            Undeclared::Ignore => undeclared::IGNORE,
            Undeclared::Watch => undeclared::WATCH,
            Undeclared::Block => undeclared::BLOCK,
        },
        deadman_ns: host.deadman.map_or(0, |deadman| deadman.after.as_nanos() as u64),
        ..abi::Policy::zeroed()
    })
}

fn flags<const N: usize>(bits: [(bool, u32); N]) -> u32 {
    bits.into_iter().fold(0, |all, (set, bit)| if set { all | bit } else { all })
}

/// Lays the limits of a scope out beside those it has. One of the same class over the same time keeps its position, and so its window,
/// and its ring too where that is large enough.
fn rules(
    limits: &[config::Limit],
    (before, old): (Rules, [Limit; LIMITS_PER_SCOPE]),
    slots: &mut Slots,
) -> Result<(Rules, [Limit; LIMITS_PER_SCOPE])> {
    let made: Vec<_> = limits.iter().take(LIMITS_PER_SCOPE).map(limit).collect();
    let was_there = |i: usize| before.positions >> i & 1 == 1;
    let stays = |limit: &Limit| (0..LIMITS_PER_SCOPE).find(|&i| was_there(i) && same(&old[i], limit));
    let kept: Vec<Option<usize>> = made.iter().map(stays).collect();
    // For the others first the positions that no limit has: their windows are empty.
    let mut free: Vec<_> = (0..LIMITS_PER_SCOPE).filter(|i| !kept.contains(&Some(*i))).collect();
    free.sort_by_key(|&i| was_there(i));
    let mut free = free.into_iter();
    let mut rules = Rules { positions: Rules::DECLARED, pad: 0 };
    let mut placed = [Limit::default(); LIMITS_PER_SCOPE];
    for (mut limit, kept) in made.into_iter().zip(kept) {
        let Some(position) = kept.or_else(|| free.next()) else { continue };
        let ring = kept.map(|i| &old[i]).filter(|old| fits(old, &limit));
        match ring {
            Some(ring) => limit.ring = ring.ring,
            None if limit.per_ns == 0 => {}
            None => limit.ring.base = slots.take(1 << limit.ring.ring_bits)?,
        }
        rules.positions |= 1 << position;
        placed[position] = limit;
    }
    Ok((rules, placed))
}

/// The numbers of shared places: those that are given, and the next one.
struct Places {
    known: Vec<((Endpoint, u32), u32)>,
    next: u32,
}

/// The slots that no ring has: where those of a policy that was replaced were, the next one finds room.
struct Slots {
    /// From the lowest on; the last has no end.
    free: Vec<Range<u32>>,
    /// Slots in use end here.
    end: u32,
}

impl Slots {
    /// No ring may have more than this.
    const MOST: u32 = u32::MAX / 8;

    /// All but these.
    fn beside(mut used: Vec<Range<u32>>) -> Self {
        used.sort_by_key(|ring| ring.start);
        let mut made = Self { free: Vec::new(), end: 0 };
        for ring in used {
            if ring.start > made.end {
                made.free.push(made.end..ring.start);
            }
            made.end = made.end.max(ring.end);
        }
        made.free.push(made.end..Self::MOST);
        made
    }

    /// Takes so many from the lowest gap that has them.
    fn take(&mut self, count: u32) -> Result<u32> {
        let Some(gap) = self.free.iter_mut().find(|gap| gap.end - gap.start >= count) else {
            bail!(
                "laying out the limits: their rings need more than {} slots: use fewer or smaller limits",
                Self::MOST
            );
        };
        let start = gap.start;
        gap.start += count;
        self.end = self.end.max(gap.start);
        Ok(start)
    }
}

/// Limits that differ in their figures alone: the window of one is that of the other.
pub fn same(old: &Limit, new: &Limit) -> bool {
    (old.class, old.per_ns, old.per_fill != 0) == (new.class, new.per_ns, new.per_fill != 0)
}

/// Whether a ring has room for another limit of the same window.
fn fits(ring: &Limit, limit: &Limit) -> bool {
    ring.ring.granule_bits == limit.ring.granule_bits && ring.ring.ring_bits >= limit.ring.ring_bits
}

fn limit(limit: &config::Limit) -> Limit {
    let max = limit.max.get() as u64;
    let per_ns = match limit.per {
        Per::Window(window) => window.as_nanos() as u64,
        Per::Total => 0,
    };
    let mut warn = [0; abi::WARNINGS_PER_LIMIT];
    for (place, percent) in warn.iter_mut().zip(limit.warn.as_slice()) {
        *place = (max * *percent as u64).div_ceil(100);
    }
    let timed = abi::RingLayout {
        base: 0,
        granule_bits: granule_bits(max) as u8,
        ring_bits: ring_bits(max) as u8,
        pad: 0,
    };
    let ring = if per_ns == 0 { abi::RingLayout::NONE } else { timed };
    let per_fill = limit.per_fill.map_or(0, |ratio| ratio.get());
    Limit { class: limit.class as u32, max, per_ns, warn, per_fill, ring }
}

/// A session's settings; which scopes and CompIDs it has is for [`Tables::session`].
fn settings(policy: &Policy, index: SessionIndex) -> Session {
    let mut made = Session::zeroed();
    let host = policy.host();
    let declared = policy.session(index);
    let (on_trip, on_desync, tripped) = declared
        .map_or((host.on_trip, host.on_desync, host.while_tripped), |session| {
            (session.on_trip, session.on_desync, session.while_tripped)
        });
    made.flags = flags([
        (on_trip == OnTrip::Drop, flag::DROP),
        (on_desync == OnDesync::Trip, flag::DESYNC_TRIPS),
        (on_desync == OnDesync::Warn, flag::BLIND_UNCOUNTED),
        (declared.is_some_and(|session| session.user.is_some()), flag::MATCH_UID),
        (declared.is_some_and(|session| session.wire == WireFormat::Opaque), flag::OPAQUE),
        // What nobody declares has no Logon of ours to resend after.
        (declared.is_none_or(|session| session.possdup == PossDup::Pass), flag::REPLAYS_PASS),
        (host.deadman.is_some(), flag::WATCHES_HEARTBEAT),
    ]);
    made.longest = declared.map_or(MessageSize::DEFAULT, |session| session.longest).bytes();
    made.uid = declared.and_then(|session| session.user).map_or(0, |user| user.uid());
    made.while_tripped = match tripped {
        WhileTripped::ReduceOnly => while_tripped::REDUCE_ONLY,
        WhileTripped::AdminOnly => while_tripped::ADMIN_ONLY,
        WhileTripped::Isolate => while_tripped::ISOLATE,
    };
    let classes = declared.map_or(&[][..], |session| &session.classes);
    made.override_count = classes.len() as u32;
    for (place, (msg_type, class)) in made.overrides.iter_mut().zip(classes) {
        *place = Override { msg_type: msg_type.packed().0, class: *class as u64 };
    }
    made
}

/// An address as the maps hold it.
pub fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => mapped(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => bytemuck::cast(v6.octets()),
    }
}

/// An address that [`address`] stored.
pub fn ip(address: Address) -> IpAddr {
    let bytes: [u8; 16] = bytemuck::cast(address);
    std::net::Ipv6Addr::from(bytes).to_canonical()
}
