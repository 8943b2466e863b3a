//! Attaches programs to interfaces and detaches them. At tc: by a pinned tcx link, or as a clsact filter on a
//! kernel without tcx. At XDP: by a pinned link.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode};
use breaker_common::abi::hook;

use super::attach_point::{AttachPoint, hook_name};
use super::clsact::{self, Filter, Position};
use super::detach_link::detach_link;
use super::direction::Direction;
use super::pins::{make_directory, successor};
use super::{links, loaded_programs, tcx, xdp};
use crate::cli_error::{CliError, Code};

/// Our position among the filters of clsact: the first priority, and a handle that operators are unlikely to
/// use.
const FILTER: Position = Position { priority: 1, handle: 0x0b_4e };

/// Attaches a loaded tc program. Pins the link if the hook has one.
pub fn attach_tc(program: &mut SchedClassifier, point: &AttachPoint) -> Result<()> {
    if point.hook == hook::CLSACT {
        return attach_filter(program, point);
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program
        .attach_with_options(&point.name, attach_type(point), options)
        .with_context(|| format!("attaching to {}", point.describe()))?;
    pin(program.take_link(id)?.try_into(), point)
}

pub(super) fn attach_type(point: &AttachPoint) -> TcAttachType {
    match point.direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

/// Attaches a loaded tc program as a filter of clsact. Adds the qdisc if it is missing.
fn attach_filter(program: &mut SchedClassifier, point: &AttachPoint) -> Result<()> {
    let failed = || format!("attaching to {}", point.describe());
    let filters = clsact::filters(point.ifindex, point.direction).with_context(failed)?;
    if filters.iter().any(|filter| filter.position == FILTER) {
        let text = format!(
            "attaching to {}: another filter has breaker's position (pref {} handle {:#x}), perhaps of \
             another breaker: unload that one, or `tc filter del` the filter",
            point.describe(),
            FILTER.priority,
            FILTER.handle
        );
        return Err(CliError::new(Code::Refused, text).into());
    }
    let added =
        clsact::add_qdisc(point.ifindex).with_context(|| format!("adding qdisc clsact to {}", point.name))?;
    if added && !point.qdisc.exists() {
        make_directory(&point.qdisc)?;
    }
    let options = TcAttachOptions::Netlink(filter_options());
    let id = program.attach_with_options(&point.name, attach_type(point), options).with_context(failed)?;
    // aya removes the filter when the link is dropped.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// The position of the filter as aya needs it.
pub(super) fn filter_options() -> NlOptions {
    NlOptions { priority: FILTER.priority, handle: FILTER.handle.into(), classid: None }
}

/// Attaches a loaded XDP program and pins the link. Returns the hook that was used: native XDP, or generic
/// XDP if `generic_too` allows it.
pub fn attach_xdp(program: &mut Xdp, point: &AttachPoint, generic_too: bool) -> Result<u32> {
    let present =
        xdp::program(point.ifindex).with_context(|| format!("querying the programs of {}", point.name))?;
    if let Some(id) = present {
        let text = format!(
            "attaching XDP to {}: another XDP program is attached ({}): detach that program, see `ip link` \
             and `bpftool net`",
            point.name,
            loaded_programs::describe(id)
        );
        return Err(CliError::new(Code::Refused, text).into());
    }
    let mut failures = Vec::new();
    for (mode, kind) in xdp_modes(point, generic_too) {
        match program.attach(&point.name, mode) {
            Ok(id) => {
                pin(program.take_link(id)?.try_into(), point)?;
                return Ok(kind);
            }
            Err(error) => failures.push(format!("{} XDP: {:#}", hook_name(kind), anyhow!(error))),
        }
    }
    let text = format!(
        "attaching XDP to {}: {}: check that its MTU is at most a page's and LRO is off, or write \
         [host].hook = \"generic\"",
        point.name,
        failures.join("; ")
    );
    Err(CliError::new(Code::Kernel, text).into())
}

/// The modes of XDP to try, in order, with their hooks.
fn xdp_modes(point: &AttachPoint, generic_too: bool) -> Vec<(XdpMode, u32)> {
    const NATIVE: (XdpMode, u32) = (XdpMode::Driver, hook::XDP_NATIVE);
    const GENERIC: (XdpMode, u32) = (XdpMode::Skb, hook::XDP_GENERIC);
    match (point.hook, generic_too) {
        (hook::XDP_GENERIC, _) => vec![GENERIC],
        // A veth loses frames that native XDP transmits, unless its peer has an XDP program of its own
        // (kernel `veth_xdp_xmit`).
        (_, true) if links::is_veth(point.ifindex) => vec![GENERIC],
        (_, true) => vec![NATIVE, GENERIC],
        (_, false) => vec![NATIVE],
    }
}

fn pin<E: std::fmt::Display>(link: Result<FdLink, E>, point: &AttachPoint) -> Result<()> {
    let link = link.map_err(|error| anyhow!("taking the link of {}: {error}", point.name))?;
    let pinned = link.pin(&point.link).map(drop);
    pinned.with_context(|| format!("pinning the link of {} at {}", point.name, point.link.display()))
}

/// Detaches the program of an attach point, if it is attached. A removed interface has detached it already.
pub fn detach(point: &AttachPoint) -> Result<()> {
    if point.is_link() {
        return match detach_link(&point.link) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("detaching the link at {}", point.link.display()))
            }
            _ => Ok(()),
        };
    }
    let failed = || format!("detaching from {}", point.describe());
    // A filter at our position may belong to somebody else by now.
    let own = [pinned_program(&point.program)?, pinned_program(&successor(&point.program))?];
    let is_own = |filter: &Filter| {
        filter.position == FILTER && filter.program.is_some() && own.contains(&filter.program)
    };
    if own != [None, None]
        && clsact::filters(point.ifindex, point.direction).with_context(failed)?.iter().any(is_own)
    {
        clsact::remove(point.ifindex, point.direction, FILTER).with_context(failed)?;
    }
    // A qdisc that was there before the load stays, and so does one that has other filters.
    if point.qdisc.exists() {
        clsact::remove_qdisc(point.ifindex).with_context(failed)?;
    }
    Ok(())
}

/// Returns the id of a pinned program; `None` if a load ended before it pinned the program.
fn pinned_program(pin: &Path) -> Result<Option<u32>> {
    if !pin.exists() {
        return Ok(None);
    }
    Ok(Some(ProgramInfo::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?.id()))
}

/// Fails if this process may not query the programs of an interface.
pub fn require_query_permission(point: &AttachPoint) -> Result<()> {
    match tcx::chain(point.ifindex, point.direction) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("querying the programs of {}", point.name))
        }
        _ => Ok(()),
    }
}
