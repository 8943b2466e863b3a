//! Upgrades a load with another layout: creates new maps and copies the values of the old maps to them.
//!
//! During the copy, the old program drops every packet that would change the maps ([`Meta::hold`]). TCP sees
//! this as a delay. The new pins are created in a directory beside the pin root. Every link is pinned there
//! too and gets the new program. One rename then exchanges the two directories. Before the rename the old
//! layout is in force, and the next upgrade undoes an upgrade that died.

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
    /// Number of the layout.
    pub from: u32,
    /// Offset of `hold` in META, in bytes.
    pub hold: usize,
    /// Offset of `unloading` in META, in bytes.
    pub unloading: usize,
    /// Maps whose entries differ from those of this version. META is always one of them.
    pub changed: &'static [&'static str],
    /// Converts an entry of a changed map; returns `None` if this version has no such entry.
    pub convert: Convert,
}

/// The layouts that can be upgraded. No layout before 5 has `hold`, so no older layout can be added.
pub const KNOWN: &[Migration] = &[];

/// Time in seconds during which the old program drops packets that would change its maps. The hold ends by
/// itself.
const HOLD_S: u64 = 3;
/// Time in ns before the end of the hold by which the copy and all swaps must be done.
const MARGIN_NS: u64 = 1_000_000_000;
/// Wait for trips by processes that had opened the old switches before the upgrade.
const LATE_TRIPS: Duration = Duration::from_millis(50);

/// Maps that keep their number of entries.
const SAME_SIZE: [&str; 11] = [
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

/// Upgrades a load with another layout. The caller holds the claim and the lock of the pin root.
pub fn migrate(
    root: &PinRoot,
    claim: &Claim,
    migration: &Migration,
    before_change: impl FnOnce(&Meta, &Upgrade) -> Result<()>,
) -> Result<Upgrade> {
    let old = OldMeta::open(root, migration)?;
    let meta = old.converted(migration)?;
    require_attached(&meta, root)?;
    let next = claim.root();
    next.create()?;
    let done = prepare(root, &next, &meta, migration.from).and_then(|(upgrade, meta)| {
        before_change(&meta, &upgrade)?;
        take_over(root, &next, &old, migration, &meta)?;
        Ok(upgrade)
    });
    match done {
        Ok(upgrade) => {
            old.mark_unloading();
            settle(root, &next)?;
            Ok(upgrade)
        }
        Err(error) => {
            // The first error is reported.
            let _ = undo(root, &next, &meta);
            old.hold(0);
            Err(error)
        }
    }
}

/// Creates the new maps, and verifies and pins the new programs. Returns the new META, without the fields
/// that the copy takes from the old META.
fn prepare(root: &PinRoot, next: &PinRoot, meta: &Meta, from: u32) -> Result<(Upgrade, Meta)> {
    let object::KernelObject { bytes, sees_shared_pages } = object::for_running_kernel();
    let object = open_with_sizes(&bytes, root)?;
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
        shared_pages: sees_shared_pages as u32,
        generation: meta.generation + 1,
        ..*meta
    };
    Ok((upgrade, made))
}

/// Opens the object with maps of the same size as the old maps.
fn open_with_sizes(object: &[u8], root: &PinRoot) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // Verbose logs make a refusal take minutes where the kernel is emulated.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in SAME_SIZE {
        loader.map_max_entries(name, RawMap::open(&root.map(name))?.shape()?.2);
    }
    loader.load(object).context("creating the maps")
}

/// Holds the old program, copies its maps, swaps the new program into every hook, and exchanges the old pins
/// with the new pins.
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
    // A verb may have written to the old META since `prepare`.
    let now = old.converted(migration)?;
    let held = Meta { hold: until as u32, side: now.side, policies: now.policies, ..*made };
    let meta = Mapped::<Meta>::open(&next.map("META"))?;
    meta.set(0, held)?;
    for name in load::PINNED.into_iter().filter(|name| *name != "META" && *name != "EVENTS") {
        if root.map(name).exists() {
            copy(root, next, name, migration).with_context(|| format!("copying map {name}"))?;
        }
    }
    // The dead man's time starts now: an agent of the old version must be restarted.
    Mapped::<u64>::open(&next.map("HEARTBEAT"))?.set(0, clock::now_ns())?;
    pin_links(root, next, made)?;
    let places = AttachPoint::all(made, next)?;
    netns::run_in(made.netns, || places.iter().try_for_each(swap))??;
    ensure!(
        clock::now_ns() + MARGIN_NS < until * 1_000_000_000,
        "copying the maps: it took longer than {HOLD_S} s, for which the old program is held: \
         upgrade when the host is less busy"
    );
    root.give_to_owner(&next.all_pins()?)?;
    renameat_with(CWD, root.path(), CWD, next.path(), RenameFlags::EXCHANGE)
        .with_context(|| format!("exchanging {} and {}", root.path().display(), next.path().display()))?;
    // From here on the old pins are under `next`.
    carry_trips(next, root)?;
    let place = meta.ptr(0).context("META is empty")?.as_ptr();
    fence(ORDER);
    // SAFETY: inside the mapping, which this function holds.
    unsafe { atomic_u32(&raw mut (*place).hold) }.store(0, ORDER);
    Ok(())
}

/// Copies the entries of a map, and converts the entries of a changed map.
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

/// Pins every link beside the new programs too, and copies the directories that record a created qdisc.
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

/// Trips each scope of `to` for the causes that only the scope of `from` has.
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

/// Removes the old pins, which are under `next` after the exchange, after a wait for late trips.
fn settle(root: &PinRoot, next: &PinRoot) -> Result<()> {
    sleep(LATE_TRIPS);
    carry_trips(next, root)?;
    // Only the second pins of the links are removed: the links stay attached, with the new programs.
    next.remove()
}

/// Swaps the old programs back in, and removes the new pins.
fn undo(root: &PinRoot, next: &PinRoot, meta: &Meta) -> Result<()> {
    let places = AttachPoint::all(meta, root)?;
    netns::run_in(meta.netns, || places.iter().try_for_each(swap))??;
    if FrozenBoard::open(next).is_ok() {
        carry_trips(next, root)?;
    }
    next.remove()
}

/// Removes the pins that an earlier upgrade left when it died. `migration` is that of the layout in force;
/// `None` if this is the layout of this version.
pub fn recover(root: &PinRoot, claim: &Claim, migration: Option<&Migration>) -> Result<()> {
    let next = claim.root();
    if !next.exists() {
        return Ok(());
    }
    match migration {
        // The upgrade died before the exchange of the pins: the old layout is in force.
        Some(migration) => undo(root, &next, &OldMeta::open(root, migration)?.converted(migration)?),
        None if layout(&next).is_ok_and(|found| found != ABI_VERSION) => {
            carry_trips(&next, root)?;
            next.remove()
        }
        None => Ok(()),
    }
}

/// Refuses the upgrade if a hook has no program of this load, or a link has no pin.
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

    /// Reads META and converts it to the layout of this version.
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

    /// Makes the old program drop packets that would change its maps, until this second of CLOCK_MONOTONIC.
    fn hold(&self, until: u32) {
        self.set(self.hold, until);
    }

    /// Marks the old load as unloading, so that an agent of the old version reports no tampering.
    fn mark_unloading(&self) {
        self.set(self.unloading, 1);
    }

    fn set(&self, offset: usize, value: u32) {
        if let Some(place) = self.map.place::<u8>(0) {
            // SAFETY: `open` has checked that the word is inside the mapping; every word of META is aligned.
            unsafe { atomic_u32(place.as_ptr().add(offset).cast()) }.store(value, ORDER);
        }
    }
}
