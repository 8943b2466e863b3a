//! Takes over what a version with another layout has loaded: new maps, which the values of the old ones are
//! copied to.
//!
//! While they are copied the old program drops what would change them ([`Meta::hold`]), which is a delay to
//! TCP. The new pins come together beside the root, each link is pinned there too and gets the new program,
//! and then the two directories trade places in one step. Up to that step the old layout is the one in
//! force, and an upgrade that dies is undone by the next one.

use std::os::fd::AsFd;
use std::sync::atomic::fence;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::MapType;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use breaker_common::abi::{ABI_VERSION, MAGIC, Meta, Switch};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::attach_point::AttachPoint;
use super::super::detach_link::{open_pin, pin_object};
use super::super::frozen::{FrozenBoard, layout};
use super::super::memory::{Mapped, ORDER, atomic_u32};
use super::super::pins::{Claim, PinRoot, make_directory};
use super::super::programs::Programs;
use super::super::raw_map::RawMap;
use super::super::reload::wait_for_packets;
use super::super::strided::Strided;
use super::super::swap::swap;
use super::super::text::pad_to;
use super::super::{attachment, clock, load, netns, object};
use super::build::{Build, Upgrade};
use super::lost::refuse_lost;

/// Converts the key and the value of an entry of the named map.
pub type Convert = fn(map: &str, key: Vec<u8>, value: Vec<u8>) -> Option<(Vec<u8>, Vec<u8>)>;

/// A layout that this version can read.
pub struct Migration {
    /// Its number.
    pub from: u32,
    /// Offset of `hold` in its META, bytes.
    pub hold: usize,
    /// Offset of `unloading` in its META, bytes.
    pub unloading: usize,
    /// Its maps whose entries are not those of this version. META is always one.
    pub changed: &'static [&'static str],
    /// A key and a value of such a map as this version has them; `None` for an entry that it does not have.
    pub convert: Convert,
}

/// The layouts that can be taken over. Layout 5 is the first that can be held, so no older one ever is.
pub const KNOWN: &[Migration] = &[];

/// How long the old program drops what would change its maps, seconds: it lets go by itself then.
const HOLD_S: u64 = 3;
/// The copy must be done and every program swapped so long before that, ns.
const MARGIN_NS: u64 = 1_000_000_000;
/// A trip by whoever had the old switches open is carried over for so long after the upgrade.
const LATE: Duration = Duration::from_millis(50);

/// Maps that have as many entries as before.
const SIZED: [&str; 11] = [
    "LABELS",
    "SCOPES",
    "TIMES",
    "SESSIONS",
    "ENDPOINTS",
    "COMP_IDS",
    "IDENTITIES",
    "CONNECTIONS",
    "TRANSIENT",
    "INBOUND",
    "COUNTERS",
];

/// Takes over what is loaded. Everything that locks the root is held by the caller.
pub fn migrate(
    root: &PinRoot,
    claim: &Claim,
    migration: &Migration,
    first: impl FnOnce(&Meta, &Upgrade) -> Result<()>,
) -> Result<Upgrade> {
    let old = OldMeta::open(root, migration)?;
    let meta = old.converted(migration)?;
    require_attached(&meta, root)?;
    let next = claim.root();
    next.create()?;
    let done = prepare(root, &next, &meta, migration.from).and_then(|(upgrade, meta)| {
        first(&meta, &upgrade)?;
        take_over(root, &next, &old, migration, &meta)?;
        Ok(upgrade)
    });
    match done {
        Ok(upgrade) => {
            old.end();
            settle(root, &next)?;
            Ok(upgrade)
        }
        Err(error) => {
            // The first error is the one to report.
            let _ = undo(root, &next, &meta);
            old.hold(0);
            Err(error)
        }
    }
}

/// Creates the new maps, and verifies and pins the new programs. META as it will be, but for what the copy
/// takes from the old one.
fn prepare(root: &PinRoot, next: &PinRoot, meta: &Meta, from: u32) -> Result<(Upgrade, Meta)> {
    let object::KernelObject { bytes, sees_shared_pages: sees } = object::for_running_kernel();
    let object = open_sized(&bytes, root)?;
    for name in load::PINNED {
        let map = object.map(name).with_context(|| format!("the object has no map {name}"))?;
        map.pin(next.map(name)).with_context(|| format!("pinning map {name}"))?;
    }
    let count = meta.interface_count as usize;
    let without_header = meta.interfaces[..count].iter().any(|interface| interface.link_header == 0);
    let tag = Programs::load(object, meta, next, without_header)?.tag()?;
    let upgrade = Upgrade { from: Build { abi: from, ..Build::recorded(meta) }, to: Build::own(tag) };
    let to = &upgrade.to;
    let made = Meta {
        abi: ABI_VERSION,
        version: pad_to(&to.version)?,
        git: pad_to(&to.git)?,
        program_tag: tag,
        shared_pages: sees as u32,
        generation: meta.generation + 1,
        ..*meta
    };
    Ok((upgrade, made))
}

/// Opens the object with maps as large as the old ones.
fn open_sized(object: &[u8], root: &PinRoot) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // Verbose logs make a refusal take minutes where the kernel is emulated.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in SIZED {
        loader.map_max_entries(name, RawMap::open(&root.map(name))?.shape()?.2);
    }
    loader.load(object).context("creating the maps")
}

/// Holds the old program, copies its maps, swaps the new program into every hook and lets the new pins take
/// the place of the old ones.
fn take_over(
    root: &PinRoot,
    next: &PinRoot,
    old: &OldMeta,
    migration: &Migration,
    made: &Meta,
) -> Result<()> {
    let until = clock::now_ns() / 1_000_000_000 + HOLD_S;
    old.hold(until as u32);
    wait_for_packets();
    // Everything of META that a verb may have written since is in the old one.
    let now = old.converted(migration)?;
    let held = Meta { hold: until as u32, side: now.side, policies: now.policies, ..*made };
    let meta = Mapped::<Meta>::open(&next.map("META"))?;
    meta.set(0, held)?;
    for name in load::PINNED.into_iter().filter(|name| *name != "META" && *name != "EVENTS") {
        if root.map(name).exists() {
            copy(root, next, name, migration).with_context(|| format!("copying map {name}"))?;
        }
    }
    // The time of a dead man begins now: an agent of the old version must be started anew.
    Mapped::<u64>::open(&next.map("HEARTBEAT"))?.set(0, clock::now_ns())?;
    pin_links(root, next, made)?;
    let places = AttachPoint::all(made, next)?;
    netns::run_in(made.netns, || places.iter().try_for_each(swap))??;
    ensure!(
        clock::now_ns() + MARGIN_NS < until * 1_000_000_000,
        "copying the maps: it took longer than {HOLD_S} s, for which the old program is held: \
         upgrade when the host is less busy"
    );
    renameat_with(CWD, root.path(), CWD, next.path(), RenameFlags::EXCHANGE)
        .with_context(|| format!("exchanging {} and {}", root.path().display(), next.path().display()))?;
    // From here on the old pins are at `next`.
    carry_trips(next, root)?;
    let place = meta.ptr(0).context("META is empty")?.as_ptr();
    fence(ORDER);
    // SAFETY: inside the mapping, which this function holds.
    unsafe { atomic_u32(&raw mut (*place).hold) }.store(0, ORDER);
    Ok(())
}

/// Copies a map.
fn copy(root: &PinRoot, next: &PinRoot, name: &str, migration: &Migration) -> Result<()> {
    let (from, to) = (RawMap::open(&root.map(name))?, RawMap::open(&next.map(name))?);
    let is_changed = migration.changed.contains(&name);
    if !is_changed && from.shape()?.0 == MapType::Array {
        let (from, to) = (Strided::open(&root.map(name), 8)?, Strided::open(&next.map(name), 8)?);
        return to.copy(&from);
    }
    from.each(|key, value| {
        if !is_changed {
            return to.put(&key, &mut value.clone());
        }
        let mut made: Option<(Vec<u8>, Vec<u8>)> = None;
        for part in value.chunks_exact(from.value_size) {
            let Some((key, mut part)) = (migration.convert)(name, key.clone(), part.to_vec()) else {
                return Ok(());
            };
            part.resize(to.value_size, 0);
            made.get_or_insert_with(|| (key, Vec::new())).1.extend(part);
        }
        made.map_or(Ok(()), |(key, mut value)| to.put(&key, &mut value))
    })
}

/// Pins every link, and every note of a qdisc, beside the new programs too.
fn pin_links(root: &PinRoot, next: &PinRoot, meta: &Meta) -> Result<()> {
    for (from, to) in AttachPoint::all(meta, root)?.iter().zip(AttachPoint::all(meta, next)?) {
        if from.is_link() {
            let link = open_pin(&from.link).with_context(|| format!("opening {}", from.link.display()))?;
            pin_object(link.as_fd(), &to.link).with_context(|| format!("pinning {}", to.link.display()))?;
        } else if from.qdisc.exists() && !to.qdisc.exists() {
            make_directory(&to.qdisc)?;
        }
    }
    Ok(())
}

/// Throws each switch that is thrown at `from`, or was since it was copied, at `to` too.
fn carry_trips(from: &PinRoot, to: &PinRoot) -> Result<()> {
    let (from, to) = (FrozenBoard::open(from)?, FrozenBoard::open(to)?);
    for (number, name) in from.scopes() {
        let Ok(scope) = to.find(&name.to_string()) else { continue };
        let (old, new): (Switch, Switch) = (from.switch(number)?, to.switch(scope)?);
        let missing = old.causes & !new.causes;
        if missing != 0 {
            to.trip(scope, missing)?;
        }
    }
    Ok(())
}

/// Removes the old pins, which are at `next` by now, once nobody throws a switch there any more.
fn settle(root: &PinRoot, next: &PinRoot) -> Result<()> {
    sleep(LATE);
    carry_trips(next, root)?;
    // The links are those of the new programs: they are not detached, only the old names go.
    next.remove()
}

/// Puts the old programs back, and removes what was made.
fn undo(root: &PinRoot, next: &PinRoot, meta: &Meta) -> Result<()> {
    let places = AttachPoint::all(meta, root)?;
    netns::run_in(meta.netns, || places.iter().try_for_each(swap))??;
    if FrozenBoard::open(next).is_ok() {
        carry_trips(next, root)?;
    }
    next.remove()
}

/// Removes what an upgrade left that died. `migration` is of the layout that is in force, where that is not
/// this version's.
pub fn recover(root: &PinRoot, claim: &Claim, migration: Option<&Migration>) -> Result<()> {
    let next = claim.root();
    if !next.exists() {
        return Ok(());
    }
    match migration {
        // It died before the pins traded places: the old layout is in force.
        Some(migration) => undo(root, &next, &OldMeta::open(root, migration)?.converted(migration)?),
        None if layout(&next).is_ok_and(|found| found != ABI_VERSION) => {
            carry_trips(&next, root)?;
            next.remove()
        }
        None => Ok(()),
    }
}

/// Refuses where a hook has no program of this load.
fn require_attached(meta: &Meta, root: &PinRoot) -> Result<()> {
    let places = AttachPoint::all(meta, root)?;
    let found =
        netns::run_in(meta.netns, || places.iter().map(attachment::inspect).collect::<Result<Vec<_>>>())??;
    refuse_lost(found)
}

/// META of an older layout.
struct OldMeta {
    map: Strided,
    raw: RawMap,
    hold: usize,
    unloading: usize,
}

impl OldMeta {
    fn open(root: &PinRoot, migration: &Migration) -> Result<Self> {
        let path = root.map("META");
        let least = migration.hold.max(migration.unloading) + 4;
        Ok(Self {
            map: Strided::open(&path, least)?,
            raw: RawMap::open(&path)?,
            hold: migration.hold,
            unloading: migration.unloading,
        })
    }

    /// What it says, as this version has it.
    fn converted(&self, migration: &Migration) -> Result<Meta> {
        let mut found = None;
        self.raw.each(|key, value| {
            found = (migration.convert)("META", key, value);
            Ok(())
        })?;
        let (_, bytes) = found.context("META is empty")?;
        let meta: Meta = bytemuck::try_pod_read_unaligned(&bytes)
            .map_err(|error| anyhow::anyhow!("reading META of layout {}: {error}", migration.from))?;
        ensure!(
            meta.magic == MAGIC && meta.interface_count as usize <= meta.interfaces.len(),
            "META is damaged"
        );
        Ok(meta)
    }

    /// Has the old program drop what would change its maps, up to this second of CLOCK_MONOTONIC.
    fn hold(&self, until: u32) {
        self.set(self.hold, until);
    }

    /// Tells the agent of the old version that it was not tampered with.
    fn end(&self) {
        self.set(self.unloading, 1);
    }

    fn set(&self, offset: usize, value: u32) {
        if let Some(place) = self.map.place::<u8>(0) {
            // SAFETY: inside the mapping, as `open` has made sure, and aligned as every word of META is.
            unsafe { atomic_u32(place.as_ptr().add(offset).cast()) }.store(value, ORDER);
        }
    }
}
