//! Puts the pinned programs on an interface that was made again under its name. Their maps are the load's: every switch, epoch and window
//! is what it was.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::programs::SchedClassifier;
use breaker_common::abi::{Interface, Meta, hook};

use super::hook::{self as place, Place};
use super::links;
use super::memory::Mapped;
use super::pins::PinRoot;
use super::tables::trim_padding;

/// Attaches what hung on the interface at this position of [`Meta::interfaces`] to the one that has its name now, and tells the number of
/// that. Keeps every load, unload and reload out meanwhile, and fails where one is at work.
pub fn reattach(root: &PinRoot, position: usize) -> Result<u32> {
    let _claim = root.claim()?;
    root.require()?;
    let map = Mapped::<Meta>::open(&root.map("META"))?;
    let meta = map.get(0).context("META is empty")?;
    let before = *meta.interfaces.get(position).context("there is no such interface")?;
    let name = trim_padding(&before.name);
    let now = Interface { ifindex: place::ifindex(&name)?, ..before };
    // The library opens no pinned XDP program without a type that it keeps to itself.
    ensure!(
        !place::is_xdp(now.hook),
        "attaching to {name}: XDP is not attached again: unload with --force, and load"
    );
    let header = links::all()?.iter().find(|link| link.index == now.ifindex).and_then(links::Link::header);
    ensure!(
        header == Some(now.link_header),
        "attaching to {name}: it is of another link type than before: load anew"
    );
    let reading = if meta.inbound == 0 { None } else { Some(Place::reading(&now, root, position)?) };
    for place in [Some(Place::deciding(&now, root, position)), reading].into_iter().flatten() {
        attach(place)?;
    }
    let place = map.place(0).context("META is empty")?;
    // SAFETY: inside the mapping. The kernel program does not read it, and whoever else writes META is kept out.
    unsafe { (&raw mut (*place.as_ptr()).interfaces[position]).write_volatile(now) };
    Ok(now.ifindex)
}

/// Attaches a pinned program. Its link is pinned beside the old one and takes over that one's name, so that a pin is always there.
fn attach(place: Place) -> Result<()> {
    let pin = place.link.clone();
    let aside = PathBuf::from(format!("{}_again", pin.display()));
    // What one left that died in between.
    let _ = fs::remove_file(&aside);
    let place = Place { link: aside.clone(), ..place };
    place::attach(&mut SchedClassifier::from_pin(&place.program)?, &place)?;
    if place.hook == hook::CLSACT {
        return Ok(());
    }
    fs::rename(&aside, &pin).with_context(|| format!("renaming {} to {}", aside.display(), pin.display()))
}
