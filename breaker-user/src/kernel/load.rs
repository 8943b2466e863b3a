//! Loads a policy: object, maps, hook, pins. From its end on the kernel enforces with no process of ours.

use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use breaker_common::abi::{Endpoint, Interface, Meta, Name, Scope, Session};
use bytemuck::Pod;
use rustix::thread::{CapabilitySet, capabilities};

use super::hook;
use super::memory::Mapped;
use super::pins::{Claim, PinRoot};
use super::tables::{Tables, padded};
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
    let tables = tables(policy)?;
    let kind = hook::kind(policy.host().hook)?;
    hook::require(&policy.host().interfaces)?;
    let claim = root.claim()?;
    if root.exists() {
        let text = format!(
            "loading: refused, nothing is changed: something is loaded at {} already: unload it first, or choose another --pin-root",
            root.path().display()
        );
        return Err(Fault::new(Code::Refused, text).into());
    }
    clear(&claim)?;
    let next = claim.root();
    let done = next.create().and_then(|()| fill(policy, &tables, &next, kind)).and_then(|()| next.rename(root));
    if done.is_err() {
        // So that nothing half-loaded stays attached. The first error is the one to tell.
        let _ = remove(&next);
    }
    done
}

/// The tables of a policy; what does not fit into them is an error in the configuration.
pub fn tables(policy: &Policy) -> Result<Tables> {
    Tables::of(policy).map_err(|error| Fault::new(Code::Usage, format!("reading the configuration: {error:#}")).into())
}

/// Detaches and removes what is loaded under a root.
pub fn unload(root: &PinRoot) -> Result<()> {
    let claim = root.claim()?;
    root.require()?;
    clear(&claim)?;
    // Where this fails the root stays, and says what is still attached.
    detach(root)?;
    root.rename(&claim.root())?;
    claim.root().remove()
}

/// Detaches and removes what a load or an unload left when it died.
fn clear(claim: &Claim) -> Result<()> {
    claim.leftovers()?.iter().try_for_each(remove)
}

fn remove(root: &PinRoot) -> Result<()> {
    detach(root)?;
    root.remove()
}

/// Detaches what is attached of a root, whole or not.
fn detach(root: &PinRoot) -> Result<()> {
    let Some(meta) = Mapped::<Meta>::open(&root.map("META")).ok().and_then(|meta| meta.get(0)) else { return Ok(()) };
    let count = (meta.interface_count as usize).min(meta.interfaces.len());
    meta.interfaces[..count].iter().enumerate().try_for_each(|(n, interface)| hook::detach(interface, root, n))
}

fn fill(policy: &Policy, tables: &Tables, root: &PinRoot, kind: u32) -> Result<()> {
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
    for (position, interface) in policy.host().interfaces.iter().enumerate() {
        let name = interface.as_str();
        // Told before it is done, so that whoever comes after a crash knows where to look.
        meta.interfaces[position] = Interface { name: padded(name)?, ifindex: hook::ifindex(name)?, hook: kind };
        meta.interface_count = position as u32 + 1;
        put(root, "META", &[meta])?;
        hook::attach(program, &meta.interfaces[position], root, position)?;
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

/// Refuses where this process may not load, and says what it lacks.
pub fn require_rights() -> Result<()> {
    // A kernel that does not tell is one to ask by loading.
    let Ok(held) = capabilities(None).map(|sets| sets.effective) else { return Ok(()) };
    let lacks = |right: &&(CapabilitySet, &str)| !held.intersects(right.0 | CapabilitySet::SYS_ADMIN);
    let missing: Vec<_> = RIGHTS.iter().filter(lacks).map(|right| right.1).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("loading: this process lacks {}: run as root, or grant what is missing", missing.join(", "));
    Err(Fault::new(Code::Permission, text).into())
}

/// What loading takes; CAP_SYS_ADMIN includes all of it.
const RIGHTS: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];

fn missing_rights() -> anyhow::Error {
    let text =
        "loading: the kernel refused, though no capability is missing: load outside of containers and user namespaces";
    require_rights().err().unwrap_or_else(|| Fault::new(Code::Permission, text).into())
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
