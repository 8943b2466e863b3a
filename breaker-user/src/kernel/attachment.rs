//! Reads back from the kernel whether the programs are attached, and which programs run before them.

use std::io;

use anyhow::Result;
use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, PinnedLink};
use breaker_common::abi::hook;
use serde::Serialize;

use super::attach_point::{AttachPoint, hook_name, is_xdp};
use super::clsact::{self, Filter};
use super::memory::open_error;
use super::pins::successor;
pub use super::tcx::Chain;
use super::{links, loaded_programs, tcx, xdp};

/// The state of a program at its attach point. The serialized field names are a contract with scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Name of the interface at the load.
    pub name: String,
    /// Number of the interface at the load.
    pub ifindex: u32,
    /// `egress`, `inline` or `inbound`.
    pub mode: &'static str,
    /// `tcx`, `clsact`, `native` or `generic`.
    pub hook: &'static str,
    /// The program is attached to that interface.
    pub attached: bool,
    /// The program is the first of its chain.
    pub first: bool,
    /// The link is pinned. Without a pin it ends with the last process that holds it open.
    pub pinned: bool,
    /// Number of another interface that has the name now; only if the program is not attached.
    #[serde(skip)]
    pub remade: Option<u32>,
    /// The programs and filters that run before the program.
    #[serde(skip)]
    pub ahead: Vec<String>,
}

/// An attachment whose link is held open. Removing the pin then does not detach the program.
pub struct HeldAttachment {
    point: AttachPoint,
    programs: Vec<u32>,
    /// `None` for clsact, and for a pin that was removed before.
    _link: Option<FdLink>,
}

impl HeldAttachment {
    /// Opens the link of an attachment.
    pub fn open(point: &AttachPoint) -> Result<Self> {
        let link = PinnedLink::from_pin(&point.link).map(FdLink::from);
        let link = if point.is_link() { link.ok() } else { None };
        Ok(Self { programs: pinned_programs(point)?, point: point.clone(), _link: link })
    }

    /// Reads the state from the kernel.
    pub fn inspect(&self) -> Attachment {
        let before = state(&self.point, &self.programs);
        if before.attached {
            return before;
        }
        // An upgrade may have attached and pinned another program meanwhile.
        pinned_programs(&self.point).map_or(before, |now| state(&self.point, &now))
    }

    /// Reads the chain of tcx programs. Returns `None` at another hook, and for a missing interface.
    pub fn chain(&self) -> Option<Chain> {
        let is_tcx = self.point.hook == hook::TCX;
        if is_tcx { tcx::chain(self.point.ifindex, self.point.direction).ok() } else { None }
    }
}

/// Reads the state of an attachment from the kernel.
pub fn inspect(point: &AttachPoint) -> Result<Attachment> {
    let mut programs = pinned_programs(point)?;
    loop {
        let found = state(point, &programs);
        let now = pinned_programs(point)?;
        // An upgrade may move the pins in between.
        if found.attached || now == programs {
            return Ok(found);
        }
        programs = now;
    }
}

/// Returns the ids of the programs that may be attached: the pinned program, and its successor during an
/// upgrade or after an upgrade that died.
fn pinned_programs(point: &AttachPoint) -> Result<Vec<u32>> {
    let next = ProgramInfo::from_pin(successor(&point.program)).ok().map(|info| info.id());
    Ok([pinned_program(point)?].into_iter().chain(next).collect())
}

/// The id of the pinned program.
fn pinned_program(point: &AttachPoint) -> Result<u32> {
    let info = ProgramInfo::from_pin(&point.program);
    info.map(|info| info.id()).map_err(|error| open_error(&point.program, error))
}

/// Reads the state from the chain of the interface, not from the link: the link may be held open and
/// detached.
fn state(point: &AttachPoint, programs: &[u32]) -> Attachment {
    let chain = chain(point).unwrap_or_default();
    let is_own = |entry: &ChainEntry| matches!(entry, ChainEntry::Program(id) if programs.contains(id));
    let position = chain.iter().position(is_own);
    let remade = || links::ifindex(&point.name).ok().filter(|now| *now != point.ifindex);
    Attachment {
        name: point.name.clone(),
        ifindex: point.ifindex,
        mode: point.mode,
        hook: hook_name(point.hook),
        attached: position.is_some(),
        first: position == Some(0),
        pinned: !point.is_link() || point.link.exists(),
        remade: if position.is_none() { remade() } else { None },
        ahead: chain[..position.unwrap_or(0)].iter().map(ChainEntry::describe).collect(),
    }
}

/// An entry of the chain of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChainEntry {
    /// A program, by id.
    Program(u32),
    /// A filter without a program, by priority.
    Filter(u16),
}

impl ChainEntry {
    fn describe(&self) -> String {
        match self {
            Self::Program(id) => loaded_programs::describe(*id),
            Self::Filter(priority) => format!("a filter of clsact with pref {priority}"),
        }
    }
}

/// Returns the programs and filters of an attach point in the order in which they run. Finds the interface by
/// its number: an interface may be renamed, and a new interface may have the old name.
fn chain(point: &AttachPoint) -> io::Result<Vec<ChainEntry>> {
    if is_xdp(point.hook) {
        return Ok(xdp::program(point.ifindex)?.map(ChainEntry::Program).into_iter().collect());
    }
    // An `ingress` qdisc lists its filters for egress too, where they see no packet.
    if point.hook == hook::CLSACT && clsact::qdisc_kind(point.ifindex)?.as_deref() != Some(clsact::KIND) {
        return Ok(Vec::new());
    }
    let tcx_programs = || {
        let found = tcx::chain(point.ifindex, point.direction)?;
        Ok::<_, io::Error>(found.programs.into_iter().map(ChainEntry::Program))
    };
    if point.hook != hook::CLSACT {
        return Ok(tcx_programs()?.collect());
    }
    // Programs of tcx run before all filters. A kernel without tcx answers EINVAL. After a refusal the first
    // entry is unknown.
    let mut chain: Vec<_> = match tcx_programs() {
        Ok(programs) => programs.collect(),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => vec![ChainEntry::Filter(0)],
        Err(error) => return Err(error),
    };
    let entry = |filter: Filter| {
        filter.program.map_or(ChainEntry::Filter(filter.position.priority), ChainEntry::Program)
    };
    chain.extend(clsact::filters(point.ifindex, point.direction)?.into_iter().map(entry));
    Ok(chain)
}

/// Returns the programs of other breakers at these attach points: interface and program id. The list is also
/// empty if this process may not read the names of programs.
pub fn other_breakers(points: &[AttachPoint]) -> Vec<(String, u32)> {
    let own: Vec<u32> = points.iter().filter_map(|point| pinned_programs(point).ok()).flatten().collect();
    let is_other = |id: &u32| !own.contains(id) && loaded_programs::is_breaker(*id);
    let others_at = |point: &AttachPoint| {
        let programs = chain(point).unwrap_or_default().into_iter().filter_map(|entry| match entry {
            ChainEntry::Program(id) => Some(id),
            ChainEntry::Filter(_) => None,
        });
        programs.filter(is_other).map(|id| (point.name.clone(), id)).collect::<Vec<_>>()
    };
    points.iter().flat_map(others_at).collect()
}
