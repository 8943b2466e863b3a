//! Loads a policy: object, maps, hook, pins. From its end on the kernel enforces with no process of ours.

use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use breaker_common::abi::{Endpoint, Meta, Name, Scope, Session};
use bytemuck::Pod;

use super::hook;
use super::memory::Mapped;
use super::pins::PinRoot;
use super::tables::Tables;
use crate::config::Policy;
use crate::fault::{Code, Fault};

/// The kernel program, as `cargo xtask build` made it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BREAKER_OBJECT"));

/// Maps that live on under their own names in the pin root.
pub const PINNED: [&str; 12] = [
    "META",
    "NAMES",
    "SCOPES",
    "TIMES",
    "SESSIONS",
    "ENDPOINTS",
    "PORTS",
    "CONNECTIONS",
    "COUNTERS",
    "REASONS",
    "EVENTS",
    "HEARTBEAT",
];

/// Loads a policy under a pin root, which must be free.
pub fn load(policy: &Policy, root: &PinRoot) -> Result<()> {
    let tables = Tables::of(policy)?;
    // Before anything is made: the lock's directory may have to be mounted first, by `create`.
    let next = root.next();
    if root.exists() {
        let text = format!("loading: {} is taken: unload first, or choose another --pin-root", root.path().display());
        return Err(Fault::new(Code::Refused, text).into());
    }
    if next.exists() {
        next.remove()?;
    }
    next.create()?;
    let _lock = root.lock()?;
    let done = fill(policy, &tables, &next).and_then(|()| root.take_over(&next));
    if done.is_err() {
        // Links go with their pins, so nothing half-loaded stays attached. The first error is the one to tell.
        let _ = next.remove();
    }
    done
}

fn fill(policy: &Policy, tables: &Tables, root: &PinRoot) -> Result<()> {
    let mut object = open_object(tables)?;
    for name in PINNED {
        let map = object.map(name).ok_or_else(|| anyhow!("the object has no map {name}"))?;
        map.pin(root.map(name)).with_context(|| format!("pinning map {name}"))?;
    }
    fill_maps(tables, root)?;
    let program: &mut SchedClassifier =
        object.program_mut("egress").ok_or_else(|| anyhow!("the object has no program egress"))?.try_into()?;
    program.load().map_err(refused)?;
    program.pin(root.program()).context("pinning the program")?;
    let mut meta = tables.meta;
    meta.program_tag = program.info()?.tag();
    meta.loaded_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let kind = hook::kind();
    for (position, interface) in policy.host().interfaces.iter().enumerate() {
        meta.interfaces[position] = hook::attach(program, interface.as_str(), kind, &root.link(position))?;
        meta.interface_count = position as u32 + 1;
        put(root, "META", &[meta])?;
    }
    Ok(())
}

/// Opens the object with maps of the sizes that the policy needs.
fn open_object(tables: &Tables) -> Result<Ebpf> {
    let sizes = [
        ("NAMES", tables.names.len() as u32),
        ("SCOPES", tables.scopes.len() as u32),
        ("TIMES", tables.times),
        ("SESSIONS", tables.sessions.len() as u32),
        ("ENDPOINTS", (tables.endpoints.len() as u32).max(1)),
        ("CONNECTIONS", tables.meta.connections),
        ("COUNTERS", tables.sessions.len() as u32),
    ];
    let mut loader = EbpfLoader::new();
    // Verbose logs make a refusal take minutes where the kernel is emulated.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, size) in sizes {
        loader.map_max_entries(name, size);
    }
    loader.load(OBJECT).map_err(|error| {
        let denied = matches!(&error, EbpfError::MapError(MapError::CreateError { io_error, .. })
            if io_error.kind() == std::io::ErrorKind::PermissionDenied);
        if denied { missing_rights() } else { anyhow!(error).context("creating the maps") }
    })
}

fn missing_rights() -> anyhow::Error {
    let text =
        "loading: the kernel refused, for CAP_BPF, CAP_NET_ADMIN or CAP_PERFMON is missing: run as root or grant them";
    Fault::new(Code::Permission, text).into()
}

fn refused(error: aya::programs::ProgramError) -> anyhow::Error {
    if hook::is_denied(&error) {
        return missing_rights();
    }
    let text = format!("loading the program: this kernel does not take it: breaker needs Linux 6.1 or newer: {error}");
    Fault::new(Code::Kernel, text).into()
}

fn fill_maps(tables: &Tables, root: &PinRoot) -> Result<()> {
    put::<Meta>(root, "META", &[tables.meta])?;
    put::<Name>(root, "NAMES", &tables.names)?;
    put::<Scope>(root, "SCOPES", &tables.scopes)?;
    put::<Session>(root, "SESSIONS", &tables.sessions)?;
    let ports = Mapped::<u64>::open(&root.map("PORTS"))?;
    for (word, bits) in &tables.ports {
        ports.set(*word, *bits)?;
    }
    let data = MapData::from_pin(root.map("ENDPOINTS")).context("opening map ENDPOINTS")?;
    let mut endpoints: LpmTrie<_, EndpointKey, u32> = LpmTrie::try_from(aya::maps::Map::LpmTrie(data))?;
    for (endpoint, bits, session) in &tables.endpoints {
        endpoints.insert(&Key::new(*bits, EndpointKey(*endpoint)), session, 0).context("filling map ENDPOINTS")?;
    }
    Ok(())
}

/// aya's `Pod` for the key of the endpoints.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct EndpointKey(pub Endpoint);

// SAFETY: plain old data, as bytemuck has checked.
unsafe impl aya::Pod for EndpointKey {}

fn put<T: Pod>(root: &PinRoot, name: &str, values: &[T]) -> Result<()> {
    let map = Mapped::<T>::open(&root.map(name))?;
    for (index, value) in values.iter().enumerate() {
        map.set(index as u32, *value)?;
    }
    Ok(())
}
