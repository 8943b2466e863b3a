//! Attaches the pinned programs to an interface that was removed and made again under its name. The maps
//! stay, and with them every switch, epoch and window.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::programs::SchedClassifier;
use breaker_common::abi::{Interface, Meta};

use super::attach_point::{AttachPoint, is_xdp};
use super::memory::Mapped;
use super::pins::PinRoot;
use super::text::trim_padding;
use super::{attach, links};

/// Attaches the programs of the interface at this position of [`Meta::interfaces`] to the interface with that
/// name now. Returns its number.
///
/// # Errors
/// Fails while a load, unload or reload is running. XDP programs and an interface of another link type are
/// not attached again.
pub fn reattach(root: &PinRoot, position: usize) -> Result<u32> {
    let _claim = root.claim()?;
    root.require()?;
    let map = Mapped::<Meta>::open(&root.map("META"))?;
    let meta = map.get(0).context("META is empty")?;
    let before = *meta.interfaces.get(position).context("there is no such interface")?;
    let name = trim_padding(&before.name);
    let now = Interface { ifindex: links::ifindex(&name)?, ..before };
    // aya opens a pinned XDP program only with an attach type that it does not export.
    ensure!(
        !is_xdp(now.hook),
        "attaching to {name}: XDP is not attached again: unload with --force, and load"
    );
    let header = links::all()?.iter().find(|link| link.index == now.ifindex).and_then(links::Link::header);
    ensure!(
        header == Some(now.link_header),
        "attaching to {name}: it has another link type than before: unload with --force, and load"
    );
    let inbound = if meta.inbound == 0 { None } else { Some(AttachPoint::inbound(&now, root, position)?) };
    for point in [Some(AttachPoint::enforcing(&now, root, position)), inbound].into_iter().flatten() {
        attach_pinned(point)?;
    }
    let meta = map.ptr(0).context("META is empty")?;
    // SAFETY: the field lies inside the mapping. The kernel program does not read it, and the claim keeps
    // other writers out.
    unsafe { (&raw mut (*meta.as_ptr()).interfaces[position]).write_volatile(now) };
    Ok(now.ifindex)
}

/// Attaches a pinned program. The new link is pinned beside the old one and then renamed, so a pin always
/// exists.
fn attach_pinned(point: AttachPoint) -> Result<()> {
    let pin = point.link.clone();
    let new_pin = PathBuf::from(format!("{}_again", pin.display()));
    // An earlier attempt may have died here.
    let _ = fs::remove_file(&new_pin);
    let point = AttachPoint { link: new_pin.clone(), ..point };
    attach::attach_tc(&mut SchedClassifier::from_pin(&point.program)?, &point)?;
    if !point.is_link() {
        return Ok(());
    }
    fs::rename(&new_pin, &pin).with_context(|| format!("renaming {} to {}", new_pin.display(), pin.display()))
}
