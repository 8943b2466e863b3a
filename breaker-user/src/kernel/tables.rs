//! A policy as the values of the kernel program's maps. Pure: what it makes is what is loaded, and what tests look at.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use breaker_common::abi::{
    self, ABI_VERSION, Address, Endpoint, LIMITS_PER_SCOPE, MAGIC, MOST_INTERFACES, Meta, Name, Override, Scope,
    Session, flag, mapped, undeclared, while_tripped,
};
use breaker_common::window::{granule_bits, ring_bits};
use bytemuck::Zeroable;

use crate::config::{Limit, OnDesync, OnTableFull, OnTrip, Per, Policy, SessionIndex, Undeclared, WhileTripped, Wire};

/// Values of all maps that user space fills.
pub struct Tables {
    /// The single META value, but for what only the load knows.
    pub meta: Meta,
    /// Names by scope number.
    pub names: Vec<Name>,
    /// Scopes by number.
    pub scopes: Vec<Scope>,
    /// Sessions by number.
    pub sessions: Vec<Session>,
    /// Endpoints: key, length of the prefix that counts in bits, session.
    pub endpoints: Vec<(Endpoint, u32, u32)>,
    /// Bits of the ports that have endpoints.
    pub ports: BTreeMap<u32, u64>,
    /// Slots of all rings.
    pub times: u32,
}

impl Tables {
    /// The tables of a policy.
    pub fn of(policy: &Policy) -> Result<Self> {
        let mut times = 0u64;
        let scopes = policy
            .scopes()
            .iter()
            .map(|scope| self::scope(policy.armed(scope), policy.limits(scope), &mut times))
            .collect();
        ensure!(
            times <= u32::MAX as u64 / 8,
            "laying out the limits: their rings need {times} slots: use fewer or smaller limits"
        );
        let endpoints: Vec<_> = policy.scopes().sessions().flat_map(|session| endpoints(policy, session)).collect();
        let mut ports = BTreeMap::new();
        for (endpoint, _, _) in &endpoints {
            let port = u16::from_be(endpoint.port);
            *ports.entry(port as u32 / 64).or_default() |= 1u64 << (port % 64);
        }
        Ok(Self {
            meta: meta(policy)?,
            names: names(policy),
            scopes,
            sessions: policy.scopes().sessions().map(|session| self::session(policy, session)).collect(),
            endpoints,
            ports,
            times: (times as u32).max(1),
        })
    }

    /// Kernel memory that the maps will take, bytes: what `check` prints. Overheads of the kernel's own are estimated high.
    pub fn memory(&self, cpus: usize) -> u64 {
        let array = |entries: usize, value: usize| (entries * value).next_multiple_of(4096) as u64;
        let connection = size_of::<abi::ConnectionKey>() + size_of::<abi::Connection>() + 64;
        array(self.scopes.len(), size_of::<Scope>())
            + array(self.names.len(), size_of::<Name>())
            + array(self.sessions.len(), size_of::<Session>())
            + array(self.times as usize, 8)
            + array(1024, 8)
            + array(self.meta.connections as usize, connection)
            + array(self.endpoints.len(), 128)
            + array(self.sessions.len() * cpus, size_of::<abi::Counters>())
            + 256 * 1024
    }
}

/// UTF-8 of at most `N` bytes, zero-padded.
pub fn padded<const N: usize>(text: &str) -> Result<[u8; N]> {
    ensure!(text.len() <= N, "storing {text:?}: it has {} bytes where {N} fit: shorten it", text.len());
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// What [`padded`] stored.
pub fn unpadded(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn meta(policy: &Policy) -> Result<Meta> {
    let host = policy.host();
    let found = host.interfaces.len();
    ensure!(
        found <= MOST_INTERFACES,
        "attaching to {found} interfaces: one load takes {MOST_INTERFACES}: load a second one"
    );
    let full = if host.on_table_full == OnTableFull::Pass { flag::PASS_WHEN_FULL } else { 0 };
    Ok(Meta {
        magic: MAGIC,
        abi: ABI_VERSION,
        flags: full,
        undeclared: match host.undeclared {
            Undeclared::Ignore => undeclared::IGNORE,
            Undeclared::Watch => undeclared::WATCH,
            Undeclared::Block => undeclared::BLOCK,
        },
        scopes: policy.scopes().count(),
        groups: policy.groups().len() as u32,
        sessions: policy.scopes().session_count(),
        connections: host.connections.get(),
        policy_sha256: *policy.sha256(),
        policy: padded(policy.name().as_str())?,
        version: padded(crate::VERSION)?,
        git: padded(crate::GIT)?,
        audit: padded(&policy.agent().audit.as_path().to_string_lossy())?,
        ..Meta::zeroed()
    })
}

fn names(policy: &Policy) -> Vec<Name> {
    let scopes = policy.scopes();
    scopes
        .iter()
        .map(|scope| {
            let full = scopes.name(scope).to_string();
            let name = full.split_once('/').map_or("", |(_, name)| name);
            padded(name).unwrap_or([0; 64])
        })
        .collect()
}

fn scope(armed: bool, limits: &[Limit], times: &mut u64) -> Scope {
    let mut scope = Scope { armed: armed as u32, limit_count: limits.len() as u32, ..Scope::zeroed() };
    for (place, limit) in scope.limits.iter_mut().zip(limits.iter().take(LIMITS_PER_SCOPE)) {
        *place = self::limit(limit, times);
        scope.classes |= 1 << place.class;
    }
    scope
}

fn limit(limit: &Limit, times: &mut u64) -> abi::Limit {
    let max = limit.max.get() as u64;
    let per_ns = match limit.per {
        Per::Window(window) => window.as_nanos() as u64,
        Per::Total => 0,
    };
    let ring_bits = if per_ns == 0 { 0 } else { ring_bits(max) };
    let mut warn = [0; abi::WARNINGS_PER_LIMIT];
    for (place, percent) in warn.iter_mut().zip(limit.warn.as_slice()) {
        *place = (max * *percent as u64).div_ceil(100);
    }
    let base = *times as u32;
    *times += if per_ns == 0 { 0 } else { 1 << ring_bits };
    abi::Limit {
        class: limit.class as u32,
        granule_bits: if per_ns == 0 { 0 } else { granule_bits(max) },
        max,
        per_ns,
        base,
        ring_bits,
        warn,
        floor: 0,
    }
}

fn session(policy: &Policy, index: SessionIndex) -> Session {
    let mut made = Session::zeroed();
    let scopes = policy.scopes_of(index);
    made.scope_count = scopes.len() as u32;
    for (place, scope) in made.scopes.iter_mut().zip(scopes) {
        *place = scope.get();
    }
    let host = policy.host();
    let declared = policy.session(index);
    let (on_trip, on_desync, tripped) = declared
        .map_or((host.on_trip, host.on_desync, host.while_tripped), |session| {
            (session.on_trip, session.on_desync, session.while_tripped)
        });
    let opaque = declared.is_some_and(|session| session.wire == Wire::Opaque);
    for (set, bit) in [
        (on_trip == OnTrip::Drop, flag::DROP),
        (on_desync == OnDesync::Trip, flag::DESYNC_TRIPS),
        (opaque, flag::OPAQUE),
    ] {
        made.flags |= if set { bit } else { 0 };
    }
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

fn endpoints(policy: &Policy, index: SessionIndex) -> Vec<(Endpoint, u32, u32)> {
    let Some(session) = policy.session(index) else { return Vec::new() };
    let local = session.local.map_or([0; 4], address);
    let of = |remote: &crate::config::Endpoint| {
        let prefix = remote.prefix();
        let mapped_bits = if prefix.address().is_ipv4() { 96 } else { 0 };
        let bits = Endpoint::FIXED_BITS + mapped_bits + prefix.length() as u32;
        (Endpoint { port: remote.port().to_be(), pad: 0, local, remote: address(prefix.address()) }, bits, index.get())
    };
    session.remotes.iter().map(of).collect()
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
