//! Loads a policy: object, maps, hook, pins. From its end on the kernel enforces with no process of ours.

use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use breaker_common::abi::{
    ABI_VERSION, Endpoint, Interface, LIMITS_PER_SCOPE, Label, Limit, MAGIC, MAX_INTERFACES, Meta, Rules,
    SIDES, Scope, Session, mode,
};
use bytemuck::{Pod, Zeroable};
use rustix::thread::{CapabilitySet, capabilities};

use super::maps::{self, PodIdentity};
use super::memory::Mapped;
use super::pages;
use super::pins::{Claim, PinRoot};
use super::programs::Programs;
use super::tables::{Allocated, Tables, pad_to, transient};
use super::{bpffs, clock, hook, netns};
use crate::cli_error::{CliError, Code};
use crate::config::{Hook, Inbound, Mode, Policy};

/// The kernel program, as `cargo xtask build` made it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BREAKER_OBJECT"));

/// Maps that live on under their own names in the pin root.
pub const PINNED: [&str; 17] = [
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
];

/// The object as this kernel takes it.
pub fn object() -> Vec<u8> {
    pages::fit(OBJECT).0
}

/// Loads a policy under a pin root, which must be free.
pub fn load(policy: &Policy, root: &PinRoot) -> Result<()> {
    let tables = tables(policy)?;
    let way = hook::AttachPlan::new(policy.host())?;
    let claim = root.claim()?;
    require_free(root)?;
    require_rights()?;
    clear(&claim)?;
    let next = claim.root();
    let done =
        next.create().and_then(|()| fill(policy, &tables, &next, &way)).and_then(|()| next.rename(root));
    if done.is_err() {
        // So that nothing half-loaded stays attached. The first error is the one to tell.
        let _ = remove(&next);
    }
    done
}

/// Refuses what is known to fail before anything is done for it.
pub fn preflight(policy: &Policy, root: &PinRoot) -> Result<()> {
    tables(policy)?;
    hook::AttachPlan::new(policy.host())?;
    let _claim = root.claim()?;
    require_free(root)?;
    require_rights()
}

/// Refuses a place where something is loaded already, or whose pins would end with this process.
fn require_free(root: &PinRoot) -> Result<()> {
    if root.exists() {
        let text = format!(
            "loading: refused, nothing is changed: something is loaded at {} already: unload it first, or choose another --pin-root",
            root.path().display()
        );
        return Err(CliError::new(Code::Refused, text).into());
    }
    if let Some(found) = root.private_mount_problem() {
        let text = format!("loading: refused, nothing is changed: {found}: {}", bpffs::IN_PRIVATE_MOUNTS);
        return Err(CliError::new(Code::Interface, text).into());
    }
    Ok(())
}

/// The tables of a policy; what does not fit into the maps is an error in the configuration.
pub fn tables(policy: &Policy) -> Result<Tables> {
    let tables =
        Tables::of(policy, Allocated::default()).and_then(|tables| facts(policy, &tables).map(|_| tables));
    tables.map_err(|error| CliError::new(Code::Usage, format!("reading the configuration: {error:#}")).into())
}

/// Detaches and removes what is loaded under a root.
pub fn unload(root: &PinRoot) -> Result<()> {
    root.require()?;
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
    let Some(meta) = Mapped::<Meta>::open(&root.map("META")).ok().and_then(|meta| meta.get(0)) else {
        return Ok(());
    };
    let places = hook::Place::all(&meta, root)?;
    // Where the namespace of the load is gone, so is what was attached in it.
    netns::within(meta.netns, || places.iter().try_for_each(hook::detach))
        .unwrap_or_else(|_| places.iter().filter(|place| place.is_link()).try_for_each(hook::detach))
}

fn fill(policy: &Policy, tables: &Tables, root: &PinRoot, way: &hook::AttachPlan) -> Result<()> {
    let mut meta = facts(policy, tables)?;
    let (object, sees) = pages::fit(OBJECT);
    meta.shared_pages = sees as u32;
    let object = open_object(&object, tables, &meta)?;
    for name in PINNED {
        let map = object.map(name).ok_or_else(|| anyhow!("the object has no map {name}"))?;
        map.pin(root.map(name)).with_context(|| format!("pinning map {name}"))?;
    }
    fill_maps(tables, root)?;
    let mut programs = Programs::load(object, &meta, root, way.link_headers.contains(&0))?;
    meta.program_tag = programs.tag()?;
    let mut wired = true;
    for (position, (interface, link)) in policy.host().interfaces.iter().zip(&way.link_headers).enumerate() {
        let name = interface.as_str();
        // Told before it is done, so that whoever comes after a crash knows where to look.
        meta.interfaces[position] = Interface {
            name: pad_to(name)?,
            ifindex: hook::ifindex(name)?,
            hook: way.hook,
            link_header: *link,
            pad: 0,
        };
        meta.interface_count = position as u32 + 1;
        put(root, "META", &[meta])?;
        let generic_too = policy.host().hook == Hook::Auto;
        let hook = programs.attach(&meta.interfaces[position], root, position, generic_too)?;
        meta.interfaces[position].hook = hook;
        wired &= hook == breaker_common::abi::hook::XDP_NATIVE && hook::is_card(name);
        meta.wired = wired as u32;
        put(root, "META", &[meta])?;
    }
    Ok(())
}

/// META, but for what only the attaching tells.
fn facts(policy: &Policy, tables: &Tables) -> Result<Meta> {
    let host = policy.host();
    let found = host.interfaces.len();
    ensure!(
        found <= MAX_INTERFACES,
        "attaching to {found} interfaces: one load takes {MAX_INTERFACES}: load a second one"
    );
    let mut meta = Meta {
        magic: MAGIC,
        abi: ABI_VERSION,
        mode: if host.mode == Mode::Inline { mode::INLINE } else { mode::EGRESS },
        connections: host.connections.get(),
        capacity: tables.room().scopes,
        ring_slots: tables.room().slots,
        loaded_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        version: pad_to(crate::VERSION)?,
        git: pad_to(crate::GIT)?,
        netns: netns::own()?,
        inbound: (host.inbound == Inbound::Watch) as u32,
        audit: pad_to(&policy.agent().audit.as_path().to_string_lossy())?,
        ..Meta::zeroed()
    };
    meta.policies[0] = tables.policy;
    Ok(meta)
}

/// Opens the object with maps of the sizes that the policy needs.
fn open_object(object: &[u8], tables: &Tables, meta: &Meta) -> Result<Ebpf> {
    let room = tables.room();
    let sizes = [
        ("LABELS", room.scopes),
        ("SCOPES", room.scopes),
        ("TIMES", room.slots),
        ("SESSIONS", room.sessions * SIDES as u32),
        ("ENDPOINTS", room.endpoints),
        ("COMP_IDS", room.comp_ids),
        ("IDENTITIES", room.identities),
        ("CONNECTIONS", meta.connections),
        ("TRANSIENT", transient(meta.connections)),
        ("INBOUND", if meta.inbound == 0 { 1 } else { meta.connections }),
        ("COUNTERS", room.sessions),
    ];
    let mut loader = EbpfLoader::new();
    // Verbose logs make a refusal take minutes where the kernel is emulated.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, size) in sizes {
        loader.map_max_entries(name, size);
    }
    loader.load(object).map_err(|error| {
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
    let text =
        format!("loading: this process lacks {}: run as root, or grant what is missing", missing.join(", "));
    Err(CliError::new(Code::Permission, text).into())
}

/// What loading takes; CAP_SYS_ADMIN includes all of it.
const RIGHTS: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];

fn missing_rights() -> anyhow::Error {
    let text = "loading: the kernel refused, though no capability is missing: load outside of containers and user namespaces";
    require_rights().err().unwrap_or_else(|| CliError::new(Code::Permission, text).into())
}

/// Why the kernel did not take a program.
pub fn refused(error: ProgramError) -> anyhow::Error {
    if hook::is_denied(&error) {
        return missing_rights();
    }
    let missing = missing(&error);
    let text = if missing.is_empty() {
        format!(
            "loading the program: this kernel does not take it: breaker needs Linux 6.1 or newer: {error}"
        )
    } else {
        format!("loading the program: this kernel lacks {}: boot Linux 6.1 or newer", missing.join(", "))
    };
    CliError::new(Code::Kernel, text).into()
}

/// What breaker's programs call that came to Linux after 5.10, by the kind of program that calls it.
const HELPERS: [(ProgramType, BpfHelper, &str); 3] = [
    (
        ProgramType::SchedClassifier,
        BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
        "the helper bpf_ktime_get_coarse_ns",
    ),
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_load_bytes, "the helper bpf_xdp_load_bytes"),
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_store_bytes, "the helper bpf_xdp_store_bytes"),
];

/// Names of what this kernel lacks, of what a kernel that refuses a program may lack.
fn missing(error: &ProgramError) -> Vec<&'static str> {
    // So a verifier before 5.12 calls an atomic operation that returns what was there; there is no other way to ask for those.
    const NO_ATOMICS: &str = "BPF_STX uses reserved fields";
    let says = |text| matches!(error, ProgramError::LoadError { verifier_log, .. } if verifier_log.to_string().contains(text));
    let atomics = says(NO_ATOMICS).then_some("atomic operations with a result");
    let helpers =
        HELPERS.iter().filter(|(kind, helper, _)| matches!(is_helper_supported(*kind, *helper), Ok(false)));
    atomics.into_iter().chain(helpers.map(|(.., name)| *name)).collect()
}

fn fill_maps(tables: &Tables, root: &PinRoot) -> Result<()> {
    put::<Label>(root, "LABELS", &tables.labels)?;
    put::<Scope>(root, "SCOPES", &tables.rules.iter().zip(&tables.armed).map(scope).collect::<Vec<_>>())?;
    let declared_ns = clock::now_ns();
    put::<Session>(
        root,
        "SESSIONS",
        &tables
            .sessions
            .iter()
            .flat_map(|session| [Session { declared_ns, ..*session }, Session::zeroed()])
            .collect::<Vec<_>>(),
    )?;
    let ports = Mapped::<u64>::open(&root.map("PORTS"))?;
    for (word, bits) in &tables.ports {
        ports.set(*word, *bits)?;
    }
    // A dead man's time begins now: nobody may come.
    put(root, "HEARTBEAT", &[clock::now_ns()])?;
    let mut endpoints = maps::endpoints(root)?;
    for (endpoint, bits, word) in &tables.endpoints {
        endpoints
            .insert(&Key::new(*bits, EndpointKey(*endpoint)), [*word, 0], 0)
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

fn scope(((rules, limits), armed): (&(Rules, [Limit; LIMITS_PER_SCOPE]), &Option<bool>)) -> Scope {
    let mut scope = Scope { armed: (*armed == Some(true)) as u32, ..Scope::zeroed() };
    (scope.rules[0], scope.limits[0]) = (*rules, *limits);
    scope
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
