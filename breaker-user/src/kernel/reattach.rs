//! Attaches the pinned programs again: after an interface was removed and created again under its name, or
//! after another process detached a program. The programs are not verified again. The maps stay, and with
//! them every switch, epoch and window.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::programs::SchedClassifier;
use breaker_common::abi::{Interface, Meta};

use super::attach_point::{AttachPoint, is_xdp};
use super::memory::Mapped;
use super::pins::PinRoot;
use super::text::trim_padding;
use super::{Breaker, attach, attachment, links, netns, xdp};
use crate::cli_error::{CliError, Code};

/// Returns the positions in [`Meta::interfaces`] of the interfaces with a detached program.
pub fn detached(breaker: &Breaker) -> Result<Vec<usize>> {
    let attachments = breaker.attachments()?;
    let count = breaker.interfaces().len().max(1);
    let is_detached = |position: &usize| {
        attachments.iter().skip(*position).step_by(count).any(|attachment| !attachment.attached)
    };
    Ok((0..breaker.interfaces().len()).filter(is_detached).collect())
}

/// Attaches the missing programs to the interface that now has the name at this position of
/// [`Meta::interfaces`]. Returns the index of the interface.
///
/// # Errors
/// Fails while a load, unload, reload or upgrade is running, and if the interface has another link type
/// than before.
pub fn reattach(root: &PinRoot, position: usize) -> Result<u32> {
    let _claim = root.claim()?;
    root.require()?;
    let map = Mapped::<Meta>::open(&root.map("META"))?;
    let meta = map.get(0).context("META is empty")?;
    let before = *meta.interfaces.get(position).context("there is no such interface")?;
    let now = netns::run_in(meta.netns, || attach_missing(&meta, before, root, position))??;
    let meta = map.ptr(0).context("META is empty")?.as_ptr();
    // SAFETY: the fields lie inside the mapping. The claim keeps other writers out.
    unsafe {
        (&raw mut (*meta).interfaces[position]).write_volatile(now);
        let generation = &raw mut (*meta).generation;
        generation.write_volatile(generation.read_volatile() + 1);
    }
    Ok(now.ifindex)
}

fn attach_missing(meta: &Meta, before: Interface, root: &PinRoot, position: usize) -> Result<Interface> {
    let name = trim_padding(&before.name);
    let now = Interface { ifindex: links::ifindex(&name)?, ..before };
    let header = links::all()?.iter().find(|link| link.index == now.ifindex).and_then(links::Link::header);
    if header != Some(now.link_header) {
        let text = format!(
            "attaching to {name}: it has another link type than before: \
             `breaker unload --force`, then `breaker load`"
        );
        return Err(CliError::new(Code::Interface, text).into());
    }
    let inbound = if meta.inbound == 0 { None } else { Some(AttachPoint::inbound(&now, root, position)?) };
    for point in [Some(AttachPoint::enforcing(&now, root, position)), inbound].into_iter().flatten() {
        if !attachment::inspect(&point)?.attached {
            attach_pinned(root, point)?;
        }
    }
    Ok(now)
}

/// Attaches a pinned program. The new link is pinned beside the old one and then renamed, so a pin always
/// exists.
fn attach_pinned(root: &PinRoot, point: AttachPoint) -> Result<()> {
    let pin = point.link.clone();
    let new_pin = PathBuf::from(format!("{}_again", pin.display()));
    // An earlier attempt may have died here.
    let _ = fs::remove_file(&new_pin);
    let point = AttachPoint { link: new_pin.clone(), ..point };
    if is_xdp(point.hook) {
        xdp::attach_pinned(&point)?;
    } else {
        attach::attach_tc(&mut SchedClassifier::from_pin(&point.program)?, &point)?;
    }
    if !point.is_link() {
        return Ok(());
    }
    root.give_to_owner(std::slice::from_ref(&new_pin))?;
    fs::rename(&new_pin, &pin).with_context(|| format!("renaming {} to {}", new_pin.display(), pin.display()))
}
