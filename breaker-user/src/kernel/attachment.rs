//! What the kernel says of the places that the programs were attached to.

use std::io;

use anyhow::Result;
use aya::maps::loaded_maps;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_programs};
use breaker_common::abi::hook;

use super::clsact::{self, Filter};
use super::hook::{self as place, Place};
use super::memory::unopened;
use super::{tcx, xdp};

/// What is found of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name that the interface had at the load.
    pub name: String,
    /// Its number at the load.
    pub ifindex: u32,
    /// `egress`, `inline` or `inbound`.
    pub mode: &'static str,
    /// `tcx`, `clsact`, `native` or `generic`.
    pub hook: &'static str,
    /// The program is attached to that interface.
    pub attached: bool,
    /// It is the first of its chain, so nobody can decide before it.
    pub first: bool,
    /// Its link has its pin. Without one it lasts no longer than a process that holds it open.
    pub pinned: bool,
    /// The number that another interface has now under the name, where the program is attached to none.
    pub remade: Option<u32>,
    /// The programs that decide before it.
    pub ahead: Vec<String>,
}

/// A hook as it was attached, with its link held open: removing the pin does not detach it then.
pub struct HeldAttachment {
    place: Place,
    program: u32,
    /// None of clsact, or where the pin was gone already.
    _link: Option<FdLink>,
}

impl HeldAttachment {
    /// Holds the link of an attachment.
    pub fn open(place: &Place) -> Result<Self> {
        let link = PinnedLink::from_pin(&place.link).map(FdLink::from);
        let link = if place.hook == hook::CLSACT { None } else { link.ok() };
        Ok(Self { program: pinned_program(place)?, place: place.clone(), _link: link })
    }

    /// What the kernel says of it.
    pub fn inspect(&self) -> Attachment {
        found(&self.place, self.program)
    }
}

/// What the kernel says of an attachment.
pub fn inspect(place: &Place) -> Result<Attachment> {
    Ok(found(place, pinned_program(place)?))
}

/// The number of the program that hangs there.
fn pinned_program(place: &Place) -> Result<u32> {
    let info = ProgramInfo::from_pin(&place.program);
    info.map(|info| info.id()).map_err(|error| unopened(&place.program, error))
}

/// The chain tells, and not the link: whoever holds that, with a pin or without one.
fn found(place: &Place, program_id: u32) -> Attachment {
    let chain = chain(place).unwrap_or_default();
    let position = chain.iter().position(|link| *link == Link::Program(program_id));
    let remade = || place::ifindex(&place.name).ok().filter(|now| *now != place.ifindex);
    Attachment {
        name: place.name.clone(),
        ifindex: place.ifindex,
        mode: place.mode,
        hook: place::name(place.hook),
        attached: position.is_some(),
        first: position == Some(0),
        pinned: place.hook == hook::CLSACT || place.link.exists(),
        remade: if position.is_none() { remade() } else { None },
        ahead: chain[..position.unwrap_or(0)].iter().map(Link::describe).collect(),
    }
}

/// Something that decides at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// A program, by number.
    Program(u32),
    /// A filter of another kind, by priority.
    Filter(u16),
}

impl Link {
    fn describe(&self) -> String {
        match self {
            Self::Program(id) => describe(*id),
            Self::Filter(priority) => format!("a filter of clsact with pref {priority}"),
        }
    }
}

/// A program by its number and, where this process may ask for that, its name.
pub fn describe(id: u32) -> String {
    let named = loaded_programs().flatten().find(|info| info.id() == id);
    match named.as_ref().and_then(ProgramInfo::name_as_str).filter(|name| !name.is_empty()) {
        Some(name) => format!("program {name:?}, id {id}"),
        None => format!("program id {id}"),
    }
}

/// All that decides at a place, in order. By number: a new interface under the old name is not the one that was attached to, and the
/// old one under a new name is.
fn chain(place: &Place) -> io::Result<Vec<Link>> {
    if place::is_xdp(place.hook) {
        return Ok(xdp::program(place.ifindex)?.map(Link::Program).into_iter().collect());
    }
    // The filters of an `ingress` in its place would be listed for egress too, where they see nothing.
    if place.hook == hook::CLSACT && clsact::found(place.ifindex)?.as_deref() != Some(clsact::KIND) {
        return Ok(Vec::new());
    }
    let of_tcx =
        || Ok::<_, io::Error>(tcx::chain(place.ifindex, place.direction)?.into_iter().map(Link::Program));
    if place.hook != hook::CLSACT {
        return Ok(of_tcx()?.collect());
    }
    // Programs of tcx run before all filters. A kernel without tcx does not know the question; of any other that does not answer
    // nobody can say what comes first.
    let mut chain: Vec<_> = match of_tcx() {
        Ok(programs) => programs.collect(),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => vec![Link::Filter(0)],
        Err(error) => return Err(error),
    };
    let link = |filter: Filter| filter.program.map_or(Link::Filter(filter.place.priority), Link::Program);
    chain.extend(clsact::filters(place.ifindex, place.direction)?.into_iter().map(link));
    Ok(chain)
}

/// Programs of another breaker at these places. Empty also where this process may not ask for the names of programs.
pub fn other_breakers(places: &[Place]) -> Vec<(String, u32)> {
    let own: Vec<u32> = places.iter().filter_map(|place| pinned_program(place).ok()).collect();
    let is_other = |id: &u32| !own.contains(id) && is_breaker(*id);
    let at = |place: &Place| {
        let programs = chain(place).unwrap_or_default().into_iter().filter_map(|link| match link {
            Link::Program(id) => Some(id),
            Link::Filter(_) => None,
        });
        programs.filter(is_other).map(|id| (place.name.clone(), id)).collect::<Vec<_>>()
    };
    places.iter().flat_map(at).collect()
}

/// A program of any breaker on this host. `None` also where this process may not ask.
pub fn any_breaker() -> Option<u32> {
    let named = |info: &ProgramInfo| matches!(info.name_as_str(), Some("egress" | "egress_ip" | "inline"));
    loaded_programs().flatten().filter(named).map(|info| info.id()).find(|id| is_breaker(*id))
}

/// Whether a program is a breaker's: by the map of switches that it has.
fn is_breaker(id: u32) -> bool {
    let Some(info) = loaded_programs().flatten().find(|info| info.id() == id) else { return false };
    let maps = info.map_ids().ok().flatten().unwrap_or_default();
    let has = |name: &str| {
        let named = loaded_maps().flatten().filter(|map| map.name_as_str() == Some(name));
        named.into_iter().any(|map| maps.contains(&map.id()))
    };
    has("SCOPES") && has("HEARTBEAT")
}
