//! Puts this binary's program in the place of the one that is attached, under traffic.
//!
//! Both programs work on the pinned maps, so each packet is judged by one of the two, and every switch,
//! epoch, window, counter and connection stays. The new program is pinned beside the old one under a name
//! of its own ([`super::pins::successor`]), and takes that one's name last. META names the program that
//! decides: the store of its tag commits the upgrade. What an upgrade leaves that dies before that store is
//! undone by the next one; after it, the next one completes it. Meanwhile each hook has a whole program,
//! old or new.

mod build;
mod lost;
pub mod migrate;

use std::fs;

use anyhow::{Context, Result};
use aya::programs::ProgramInfo;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use breaker_common::abi::{ABI_VERSION, Meta};
use semver::Version;

pub use self::build::{Build, Upgrade};
use self::lost::refuse_lost;
use self::migrate::Migration;
use super::attach_point::AttachPoint;
use super::frozen::layout;
use super::memory::Mapped;
use super::pins::PinRoot;
use super::programs::Programs;
use super::swap::swap;
use super::text::{pad_to, trim_padding};
use super::{Breaker, load, meta, object, recorded, rights};
use crate::cli_error::{CliError, Code};

/// Replaces the programs of what is loaded by those of this binary. `first` is told once the kernel has
/// accepted the new programs, before anything changes, and may still refuse. `force` allows an older
/// version; `migrations` are the layouts that can be taken over.
///
/// # Errors
/// Exit code 4 for an older version, 5 for a layout that cannot be taken over, 8 where a hook is
/// not attached. Nothing is changed then.
pub fn upgrade(
    root: &PinRoot,
    force: bool,
    migrations: &[Migration],
    first: impl FnOnce(&Meta, &Upgrade) -> Result<()>,
) -> Result<Upgrade> {
    root.require()?;
    // No load, unload, reload or other upgrade meanwhile; and no reset, which compares the program with META.
    let claim = root.claim()?;
    root.require()?;
    let found = layout(root)?;
    let migration = migrations.iter().find(|migration| migration.from == found);
    let migration = if found == ABI_VERSION { None } else { migration };
    if found != ABI_VERSION && migration.is_none() {
        return Err(meta::mismatch(root, format!("layout {found}")));
    }
    let _lock = root.lock()?;
    rights::require_rights()?;
    migrate::recover(root, &claim, migration)?;
    match migration {
        Some(migration) => migrate::migrate(root, &claim, migration, first),
        None => upgrade_in_place(root, force, first),
    }
}

/// The same where the layout of what is loaded is this version's.
fn upgrade_in_place(
    root: &PinRoot,
    force: bool,
    first: impl FnOnce(&Meta, &Upgrade) -> Result<()>,
) -> Result<Upgrade> {
    let breaker = Breaker::open(root)?;
    if !force {
        require_newer(&trim_padding(&breaker.meta().version))?;
    }
    // aya opens a pinned map whatever its shape, and the verifier goes by the shape that the object declares.
    breaker.maps().open_all()?;
    recover(&breaker)?;
    require_attached(&breaker)?;
    let next = root.successors();
    let (upgrade, sees) = exchange(&breaker, &next, first).inspect_err(|_| {
        // The first error is the one to report. What stays here is removed by the next upgrade.
        let _ = undo(&breaker, &next);
    })?;
    record(root, &upgrade.to, sees)?;
    settle(root, &next)?;
    let found = Breaker::open(root)?;
    if found.program()?.tag() != upgrade.to.program_tag {
        return Err(CliError::new(Code::Unexpected, "upgrading: the kernel still says otherwise").into());
    }
    require_attached(&found)?;
    Ok(upgrade)
}

/// Verifies the new programs, and then puts each in its place. Also returns whether they see shared pages.
fn exchange(
    breaker: &Breaker,
    next: &PinRoot,
    first: impl FnOnce(&Meta, &Upgrade) -> Result<()>,
) -> Result<(Upgrade, bool)> {
    let root = breaker.root();
    let object::KernelObject { bytes, sees_shared_pages: sees } = object::for_running_kernel();
    let without_header = breaker.interfaces().iter().any(|interface| interface.link_header == 0);
    let mut programs = Programs::load(open_over(&bytes, root)?, breaker.meta(), next, without_header)?;
    let tag = programs.tag()?;
    let upgrade = Upgrade { from: Build::recorded(breaker.meta()), to: Build::own(tag) };
    first(breaker.meta(), &upgrade)?;
    swap_all(breaker, next)?;
    Ok((upgrade, sees))
}

/// Opens the object with the maps that are pinned.
fn open_over(object: &[u8], root: &PinRoot) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // Verbose logs make a refusal take minutes where the kernel is emulated.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in load::PINNED {
        loader.map_pin_path(name, root.map(name));
    }
    loader.load(object).context("opening the program over the pinned maps")
}

/// Puts the programs of this root in their places, where the root has them.
fn swap_all(breaker: &Breaker, programs: &PinRoot) -> Result<()> {
    let places = AttachPoint::all(breaker.meta(), programs)?;
    let pinned = || places.iter().filter(|place| place.program.exists());
    breaker.in_netns(|| pinned().try_for_each(swap))?
}

/// Writes who put which program in force. The tag comes last: it says that every hook has the new program.
fn record(root: &PinRoot, build: &Build, sees_shared_pages: bool) -> Result<()> {
    let map = Mapped::<Meta>::open(&root.map("META"))?;
    let place = map.ptr(0).context("META is empty")?.as_ptr();
    let (version, git) = (pad_to(&build.version)?, pad_to(&build.git)?);
    // SAFETY: inside the mapping, which this function holds. The kernel program reads none of these words,
    // and whoever else writes META is kept out.
    unsafe {
        (&raw mut (*place).version).write_volatile(version);
        (&raw mut (*place).git).write_volatile(git);
        (&raw mut (*place).shared_pages).write_volatile(sees_shared_pages as u32);
        let generation = &raw mut (*place).generation;
        generation.write_volatile(generation.read_volatile() + 1);
        (&raw mut (*place).program_tag).write_volatile(build.program_tag);
    }
    Ok(())
}

/// Gives the new programs the names of the old ones, which end with that.
fn settle(root: &PinRoot, next: &PinRoot) -> Result<()> {
    for (from, to) in next.programs().iter().zip(&root.programs()).filter(|(from, _)| from.exists()) {
        fs::rename(from, to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Completes or undoes what an upgrade left when it died: META says which.
fn recover(breaker: &Breaker) -> Result<()> {
    let (root, next) = (breaker.root(), breaker.root().successors());
    if !next.programs().iter().any(|pin| pin.exists()) {
        return Ok(());
    }
    let recorded = recorded::tag(root)?;
    if ProgramInfo::from_pin(next.program()).is_ok_and(|program| program.tag() == recorded) {
        swap_all(breaker, &next)?;
        return settle(root, &next);
    }
    undo(breaker, &next)
}

/// Puts the old programs back, and removes the new ones.
fn undo(breaker: &Breaker, next: &PinRoot) -> Result<()> {
    swap_all(breaker, breaker.root())?;
    for pin in next.programs().iter().filter(|pin| pin.exists()) {
        fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))?;
    }
    Ok(())
}

/// Refuses to go back to an older version. A version that cannot be read is older than any.
fn require_newer(loaded: &str) -> Result<()> {
    let (Ok(before), Ok(own)) = (Version::parse(loaded), Version::parse(crate::VERSION)) else {
        return Ok(());
    };
    if own >= before {
        return Ok(());
    }
    let text = format!(
        "upgrading: refused, nothing is changed: version {before} is loaded, and this is {own}, an \
         older one: to go back to it, add --force"
    );
    Err(CliError::new(Code::Refused, text).into())
}

/// Refuses where a hook has no program of this load, or a link has no pin.
fn require_attached(breaker: &Breaker) -> Result<()> {
    refuse_lost(breaker.attachments()?)
}
