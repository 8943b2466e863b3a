//! How the program hangs on an interface: by a pinned tcx link where the kernel has it, else as a filter of clsact.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use breaker_common::abi::{Interface, hook};
use rustix::io::Errno;

use super::sever::sever;
use super::tables::{padded, unpadded};
use crate::fault::{Code, Fault};

/// Our place in the clsact chain: the first that an operator is likely to leave free.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x0b_4e);

/// What is found of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name that the interface had at the load.
    pub name: String,
    /// Its number at the load.
    pub ifindex: u32,
    /// `tcx` or `clsact`.
    pub hook: &'static str,
    /// The program is attached to that interface.
    pub attached: bool,
    /// It is the first of its chain, so nobody can decide before it.
    pub first: bool,
    /// Its link has its pin. Without one it lasts no longer than a process that holds it open.
    pub pinned: bool,
}

/// A hook as it was attached, with its link held open: removing the pin does not detach it then.
pub struct Held {
    interface: Interface,
    pin: PathBuf,
    /// None of clsact, or where the pin was gone already.
    link: Option<FdLink>,
}

/// The number of an interface.
pub fn ifindex(name: &str) -> Result<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|errno| {
        let found =
            if errno == Errno::NODEV { "there is no such interface here".to_owned() } else { errno.to_string() };
        let text = format!("looking up interface {name}: {found}: see `ip link` and correct [host].interfaces");
        Fault::new(Code::Interface, text).into()
    })
}

/// The hook that this kernel gives us.
pub fn kind() -> u32 {
    match KernelVersion::current() {
        Ok(version) if version < KernelVersion::new(6, 6, 0) => hook::CLSACT,
        _ => hook::TCX,
    }
}

/// Attaches the loaded program to an interface and pins the link, where there is one.
pub fn attach(program: &mut SchedClassifier, name: &str, kind: u32, pin: &Path) -> Result<Interface> {
    let ifindex = ifindex(name)?;
    let made = Interface { name: padded(name)?, ifindex, hook: kind };
    let failed = || format!("attaching to the egress of {name}");
    if kind == hook::CLSACT {
        match tc::qdisc_add_clsact(name) {
            Ok(()) | Err(TcError::AlreadyAttached) => {}
            Err(error) => return Err(error).with_context(|| format!("adding qdisc clsact to {name}")),
        }
        let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
        let id = program.attach_with_options(name, TcAttachType::Egress, options).with_context(failed)?;
        // The filter is to outlive this process: forgetting the link is what leaves it in place.
        std::mem::forget(program.take_link(id)?);
        return Ok(made);
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(name, TcAttachType::Egress, options).with_context(failed)?;
    let link: FdLink =
        program.take_link(id)?.try_into().map_err(|error| anyhow!("taking the link of {name}: {error}"))?;
    link.pin(pin).with_context(|| format!("pinning the link of {name} at {}", pin.display()))?;
    Ok(made)
}

/// Detaches what [`attach`] attached. An interface that is gone took the program with it.
pub fn detach(interface: &Interface, pin: &Path) -> Result<()> {
    let name = unpadded(&interface.name);
    if interface.hook == hook::TCX {
        return match sever(pin) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("detaching the link at {}", pin.display()))
            }
            _ => Ok(()),
        };
    }
    if ifindex(&name).ok() != Some(interface.ifindex) {
        return Ok(());
    }
    match SchedClassifierLink::attached(&name, TcAttachType::Egress, PRIORITY, HANDLE, None) {
        Ok(link) => drop(link),
        Err(error) => return Err(error).with_context(|| format!("finding the filter on {name}")),
    }
    Ok(())
}

impl Held {
    /// Holds the link of an attachment.
    pub fn open(interface: &Interface, pin: &Path) -> Self {
        let link = if interface.hook == hook::TCX { PinnedLink::from_pin(pin).map(FdLink::from).ok() } else { None };
        Self { interface: *interface, pin: pin.to_owned(), link }
    }

    /// What the kernel says of it.
    pub fn inspect(&self, program_id: u32) -> Attachment {
        let Interface { name, ifindex, hook } = self.interface;
        let found =
            Attachment { name: unpadded(&name), ifindex, hook: "tcx", attached: false, first: false, pinned: false };
        if hook == hook::CLSACT {
            // Netlink has no cheap way to ask for one filter: the program counts as attached while its interface is there.
            let there = self::ifindex(&found.name).ok() == Some(ifindex);
            return Attachment { hook: "clsact", attached: there, first: there, pinned: true, ..found };
        }
        let Some(link) = self.link.as_ref().and_then(|link| link.info().ok()) else { return found };
        let chain = chain(ifindex).unwrap_or_default();
        Attachment {
            attached: link.program_id() == program_id && chain.contains(&program_id),
            first: chain.first() == Some(&program_id),
            pinned: self.pin.exists(),
            ..found
        }
    }
}

/// Programs at the egress of an interface, in the order they run; `None` where it is gone. By number: a new interface under the
/// old name is not the one that was attached to, and the old one under a new name is.
fn chain(ifindex: u32) -> Option<Vec<u32>> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None).ok()?;
    let name = rustix::net::netdevice::index_to_name(&socket, ifindex).ok()?;
    let (_, programs) = SchedClassifier::query_tcx(&name, TcAttachType::Egress).ok()?;
    Some(programs.iter().map(|program| program.id()).collect())
}

/// True where a failure says that a right is missing.
pub fn is_denied(error: &ProgramError) -> bool {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            denied(io_error) && verifier_log.to_string().trim().is_empty()
        }
        ProgramError::SyscallError(error) => denied(&error.io_error),
        _ => false,
    }
}
