//! Replaces the attached programs by those of this binary, under traffic.
//!
//! Both programs use the pinned maps, so every switch, epoch, window, counter and connection stays. Each
//! packet runs exactly one of the two programs. The new program is first pinned beside the old program
//! ([`super::pins::successor`]), and is renamed to the old name last. META names the program in force: the
//! store of its tag commits the upgrade. If an upgrade dies before the store, the next upgrade undoes it; if
//! it dies after the store, the next upgrade completes it. Each hook has the old or the new program at every
//! moment.

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

/// Replaces the programs of a load by those of this binary. `before_change` is called after the kernel has
/// accepted the new programs and before anything changes; an error from it refuses the upgrade. `force`
/// allows an older version; `migrations` are the layouts that can be upgraded.
///
/// # Errors
/// Exit code 4 for an older version, 5 for a layout that cannot be upgraded, 8 if a program is detached.
/// Nothing is changed in these cases.
pub fn upgrade(
    root: &PinRoot,
    force: bool,
    migrations: &[Migration],
    before_change: impl FnOnce(&Meta, &Upgrade) -> Result<()>,
) -> Result<Upgrade> {
    root.require()?;
    // The claim and the lock keep out load, unload, reload and other upgrades. They also keep out a reset,
    // which compares the program with META.
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
        Some(migration) => migrate::migrate(root, &claim, migration, before_change),
        None => upgrade_in_place(root, force, before_change),
    }
}

/// Upgrades a load that has the layout of this version.
fn upgrade_in_place(
    root: &PinRoot,
    force: bool,
    before_change: impl FnOnce(&Meta, &Upgrade) -> Result<()>,
) -> Result<Upgrade> {
    let breaker = Breaker::open(root)?;
    if !force {
        require_newer(&trim_padding(&breaker.meta().version))?;
    }
    // aya does not check the shape of a pinned map, and the verifier uses the shape that the object declares.
    breaker.maps().open_all()?;
    recover(&breaker)?;
    require_attached(&breaker)?;
    let next = root.successors();
    let (upgrade, sees_shared_pages) = exchange(&breaker, &next, before_change).inspect_err(|_| {
        // The first error is reported. The next upgrade removes pins that stay.
        let _ = undo(&breaker, &next);
    })?;
    record(root, &upgrade.to, sees_shared_pages)?;
    settle(root, &next)?;
    let found = Breaker::open(root)?;
    if found.program()?.tag() != upgrade.to.program_tag {
        return Err(CliError::new(Code::Unexpected, "upgrading: the kernel still says otherwise").into());
    }
    require_attached(&found)?;
    Ok(upgrade)
}

/// Verifies the new programs and swaps each into its hook. Also returns whether they detect shared pages.
fn exchange(
    breaker: &Breaker,
    next: &PinRoot,
    before_change: impl FnOnce(&Meta, &Upgrade) -> Result<()>,
) -> Result<(Upgrade, bool)> {
    let root = breaker.root();
    let object::KernelObject { bytes, sees_shared_pages } = object::for_running_kernel();
    let without_header = breaker.interfaces().iter().any(|interface| interface.link_header == 0);
    let mut programs = Programs::load(open_over(&bytes, root)?, breaker.meta(), next, without_header)?;
    let tag = programs.tag()?;
    let upgrade = Upgrade { from: Build::recorded(breaker.meta()), to: Build::own(tag) };
    before_change(breaker.meta(), &upgrade)?;
    swap_all(breaker, next)?;
    Ok((upgrade, sees_shared_pages))
}

/// Opens the object with the pinned maps.
fn open_over(object: &[u8], root: &PinRoot) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // Verbose logs make a refusal take minutes where the kernel is emulated.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in load::PINNED {
        loader.map_pin_path(name, root.map(name));
    }
    loader.load(object).context("opening the program over the pinned maps")
}

/// Swaps every program that is pinned under `programs` into its hook.
fn swap_all(breaker: &Breaker, programs: &PinRoot) -> Result<()> {
    let places = AttachPoint::all(breaker.meta(), programs)?;
    let pinned = || places.iter().filter(|place| place.program.exists());
    breaker.in_netns(|| pinned().try_for_each(swap))?
}

/// Records the new build in META. The tag is stored last, because it states that every hook has the new
/// program.
fn record(root: &PinRoot, build: &Build, sees_shared_pages: bool) -> Result<()> {
    let map = Mapped::<Meta>::open(&root.map("META"))?;
    let place = map.ptr(0).context("META is empty")?.as_ptr();
    let (version, git) = (pad_to(&build.version)?, pad_to(&build.git)?);
    // SAFETY: the words lie inside the mapping, which this function holds. The kernel program reads none of
    // them, and the locks of the pin root keep out all other writers.
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

/// Renames the pins of the new programs to those of the old programs, which removes the old programs.
fn settle(root: &PinRoot, next: &PinRoot) -> Result<()> {
    for (from, to) in next.programs().iter().zip(&root.programs()).filter(|(from, _)| from.exists()) {
        root.give_to_owner(std::slice::from_ref(from))?;
        fs::rename(from, to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Completes or undoes an upgrade that died, depending on the program that META names.
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

/// Swaps the old programs back in, and removes the new programs.
fn undo(breaker: &Breaker, next: &PinRoot) -> Result<()> {
    swap_all(breaker, breaker.root())?;
    for pin in next.programs().iter().filter(|pin| pin.exists()) {
        fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))?;
    }
    Ok(())
}

/// Refuses an upgrade to an older version. A loaded version that cannot be parsed counts as older.
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

/// Refuses the upgrade if a hook has no program of this load, or a link has no pin.
fn require_attached(breaker: &Breaker) -> Result<()> {
    refuse_lost(breaker.attachments()?)
}
