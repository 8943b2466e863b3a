//! Loads a policy: object, maps, programs, links, pins. From then on the kernel enforces without any process.
//! Unloads it again.

use std::io::ErrorKind;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::MapError;
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use breaker_common::abi::{
    ABI_VERSION, Interface, MAGIC, MAX_INTERFACES, Meta, SIDES, hook as hook_kind, mode,
};
use bytemuck::Zeroable;

use super::attach_plan::AttachPlan;
use super::attach_point::AttachPoint;
use super::durable::{self, ScopeStates};
use super::fill::{fill_maps, write_array};
use super::memory::{Mapped, ORDER, atomic_u32};
use super::pins::{Claim, PinRoot};
use super::programs::Programs;
use super::rights::{missing_rights, require_rights};
use super::tables::Tables;
use super::tables::capacity::transient_entries;
use super::tables::numbers::Allocated;
use super::text::pad_to;
use super::{attach, bpffs, clock, links, netns, object};
use crate::cli_error::{CliError, Code};
use crate::config::{Hook, Inbound, Mode, Policy};

/// The maps that are pinned under their own names in the pin root.
pub const PINNED: [&str; 18] = [
    "META",
    "LABELS",
    "SCOPES",
    "TIMES",
    "SESSIONS",
    "ENDPOINTS",
    "COMP_IDS",
    "IDENTITIES",
    "PORTS",
    "INBOUND",
    "CONNECTIONS",
    "TRANSIENT",
    "COUNTERS",
    "REASONS",
    "UNSEEN",
    "EVENTS",
    "HEARTBEAT",
    "PROBES",
];

/// Loads a policy under a pin root, which must be free. Every scope has the state that the policy gives it.
pub fn load(policy: &Policy, root: &PinRoot) -> Result<()> {
    load_with(policy, root, ScopeStates::new)
}

/// Loads a policy and restores the states of its scopes. Calls `states` after it has excluded any other load
/// or unload of the root.
pub fn load_with(policy: &Policy, root: &PinRoot, states: impl FnOnce() -> ScopeStates) -> Result<()> {
    let tables = tables(policy)?;
    let plan = AttachPlan::new(policy.host())?;
    let claim = root.claim()?;
    require_free(root)?;
    require_rights()?;
    remove_leftovers(&claim)?;
    let next = claim.root();
    let states = states();
    let done = next
        .create()
        .and_then(|()| load_into(policy, (&tables, &states), &next, &plan))
        .and_then(|()| next.rename(root));
    if done.is_err() {
        // A half-loaded program must not stay attached. The first error is the one to report.
        let _ = remove(&next);
    }
    done
}

/// Checks everything that would make a load fail, before the load changes anything.
pub fn preflight(policy: &Policy, root: &PinRoot) -> Result<()> {
    tables(policy)?;
    AttachPlan::new(policy.host())?;
    let _claim = root.claim()?;
    require_free(root)?;
    require_rights()
}

/// Refuses a pin root that is in use, and one whose file system ends with this mount namespace.
fn require_free(root: &PinRoot) -> Result<()> {
    if root.exists() {
        let text = format!(
            "loading: refused, nothing is changed: something is loaded at {} already: unload it first, or \
             choose another --pin-root",
            root.path().display()
        );
        return Err(CliError::new(Code::Refused, text).into());
    }
    if let Some(found) = root.private_mount_problem() {
        let text = format!("loading: refused, nothing is changed: {found}: {}", bpffs::PRIVATE_MOUNT_ADVICE);
        return Err(CliError::new(Code::Interface, text).into());
    }
    Ok(())
}

/// Returns the tables of a policy. A policy that does not fit into the maps is an error in the configuration.
pub fn tables(policy: &Policy) -> Result<Tables> {
    let tables = Tables::new(policy, Allocated::default())
        .and_then(|tables| load_facts(policy, &tables).map(|_| tables));
    tables.map_err(|error| CliError::new(Code::Usage, format!("reading the configuration: {error:#}")).into())
}

/// Detaches and removes everything under a root.
pub fn unload(root: &PinRoot) -> Result<()> {
    root.require()?;
    let claim = root.claim()?;
    root.require()?;
    remove_leftovers(&claim)?;
    set_unloading(root, 1)?;
    // If this fails, the root stays and shows the programs that are still attached.
    if let Err(error) = detach_all(root) {
        // The load stays, so the agent must report its disappearance. The result is ignored: the first error
        // is reported.
        let _ = set_unloading(root, 0);
        return Err(error);
    }
    root.rename(&claim.root())?;
    claim.root().remove()
}

/// Records in META whether an `unload` is removing the load.
fn set_unloading(root: &PinRoot, unloading: u32) -> Result<()> {
    // The result is ignored: an agent of another layout does not read the word either.
    let Ok(meta) = Mapped::<Meta>::open(&root.map("META")) else { return Ok(()) };
    let entry = meta.ptr(0).context("META is empty")?.as_ptr();
    // SAFETY: the word lies inside the mapping, which this function holds.
    unsafe { atomic_u32(&raw mut (*entry).unloading) }.store(unloading, ORDER);
    Ok(())
}

/// Detaches and removes the pins of a load or an unload that died.
fn remove_leftovers(claim: &Claim) -> Result<()> {
    claim.leftovers()?.iter().try_for_each(remove)
}

fn remove(root: &PinRoot) -> Result<()> {
    detach_all(root)?;
    root.remove()
}

/// Detaches every program of a root, which may be incomplete.
fn detach_all(root: &PinRoot) -> Result<()> {
    let Some(meta) = Mapped::<Meta>::open(&root.map("META")).ok().and_then(|meta| meta.get(0)) else {
        return Ok(());
    };
    let points = AttachPoint::all(&meta, root)?;
    // A network namespace that no longer exists has no filters either. A link may outlive it.
    netns::run_in(meta.netns, || points.iter().try_for_each(attach::detach))
        .unwrap_or_else(|_| points.iter().filter(|point| point.is_link()).try_for_each(attach::detach))
}

/// Makes and fills the maps, loads the programs and attaches them. All pins go into `root`.
fn load_into(
    policy: &Policy,
    (tables, states): (&Tables, &ScopeStates),
    root: &PinRoot,
    plan: &AttachPlan,
) -> Result<()> {
    let mut meta = load_facts(policy, tables)?;
    let object = object::for_running_kernel();
    meta.shared_pages = object.sees_shared_pages as u32;
    let object = make_maps(&object.bytes, tables, &meta)?;
    for name in PINNED {
        let map = object.map(name).ok_or_else(|| anyhow!("the object has no map {name}"))?;
        map.pin(root.map(name)).with_context(|| format!("pinning map {name}"))?;
    }
    fill_maps(tables, root)?;
    // The states are restored before the attachment, so that a restored trip applies to the first packet.
    durable::restore(tables, states, root)?;
    let mut programs = Programs::load(object, &meta, root, plan.link_headers.contains(&0))?;
    meta.program_tag = programs.tag()?;
    // The verification takes up to a second on a busy host, so the dead man's time starts after it.
    write_array(root, "HEARTBEAT", &[clock::now_ns()])?;
    attach_programs(policy, &mut programs, &mut meta, root, plan)
}

/// Attaches the programs to each interface, and records in META where they are attached.
fn attach_programs(
    policy: &Policy,
    programs: &mut Programs,
    meta: &mut Meta,
    root: &PinRoot,
    plan: &AttachPlan,
) -> Result<()> {
    let mut wired = true;
    for (position, (interface, link_header)) in
        policy.host().interfaces.iter().zip(&plan.link_headers).enumerate()
    {
        let name = interface.as_str();
        // META has the interface before a program is attached, so an unload after a crash finds the program.
        meta.interfaces[position] = Interface {
            name: pad_to(name)?,
            ifindex: links::ifindex(name)?,
            hook: plan.hook,
            link_header: *link_header,
            pad: 0,
        };
        meta.interface_count = position as u32 + 1;
        write_array(root, "META", &[*meta])?;
        let generic_too = policy.host().hook == Hook::Auto;
        let hook = programs.attach(&meta.interfaces[position], root, position, generic_too)?;
        meta.interfaces[position].hook = hook;
        wired &= hook == hook_kind::XDP_NATIVE && links::is_physical_nic(name);
        meta.wired = wired as u32;
        write_array(root, "META", &[*meta])?;
    }
    Ok(())
}

/// Returns META without the facts that only attaching shows.
fn load_facts(policy: &Policy, tables: &Tables) -> Result<Meta> {
    let host = policy.host();
    let count = host.interfaces.len();
    ensure!(
        count <= MAX_INTERFACES,
        "attaching to {count} interfaces: one load takes {MAX_INTERFACES}: load a second one"
    );
    let capacity = tables.capacity();
    let mut meta = Meta {
        magic: MAGIC,
        abi: ABI_VERSION,
        mode: if host.mode == Mode::Inline { mode::INLINE } else { mode::EGRESS },
        connections: host.connections.get(),
        capacity: capacity.scopes,
        ring_slots: capacity.ring_slots,
        loaded_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        version: pad_to(crate::VERSION)?,
        git: pad_to(crate::GIT)?,
        netns: netns::current()?,
        inbound: (host.inbound == Inbound::Watch) as u32,
        audit: pad_to(&policy.agent().audit.as_path().to_string_lossy())?,
        state: pad_to(&policy.agent().state.as_path().to_string_lossy())?,
        generation: 1,
        ..Meta::zeroed()
    };
    meta.policies[0] = tables.policy;
    Ok(meta)
}

/// Opens the object and makes its maps in the sizes that the policy needs.
fn make_maps(object: &[u8], tables: &Tables, meta: &Meta) -> Result<Ebpf> {
    let capacity = tables.capacity();
    let sizes = [
        ("LABELS", capacity.scopes),
        ("SCOPES", capacity.scopes),
        ("TIMES", capacity.ring_slots),
        ("SESSIONS", capacity.sessions * SIDES as u32),
        ("ENDPOINTS", capacity.endpoints),
        ("COMP_IDS", capacity.comp_ids),
        ("IDENTITIES", capacity.identities),
        ("CONNECTIONS", meta.connections),
        ("TRANSIENT", transient_entries(meta.connections)),
        ("INBOUND", if meta.inbound == 0 { 1 } else { meta.connections }),
        ("COUNTERS", capacity.sessions),
    ];
    let mut loader = EbpfLoader::new();
    // A refusal with a verbose log takes minutes on an emulated kernel.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, size) in sizes {
        loader.map_max_entries(name, size);
    }
    loader.load(object).map_err(|error| {
        let is_denied = matches!(&error, EbpfError::MapError(MapError::CreateError { io_error, .. })
            if io_error.kind() == ErrorKind::PermissionDenied);
        if is_denied { missing_rights() } else { anyhow!(error).context("creating the maps") }
    })
}
