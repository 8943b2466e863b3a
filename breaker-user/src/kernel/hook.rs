//! How the program hangs on an interface: by a pinned tcx link where the kernel has it, else as a filter of clsact.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use breaker_common::abi::{Interface, hook};
use rustix::io::Errno;

use super::clsact::{self, Filter, Place};
use super::pins::{PinRoot, directory};
use super::sever::sever;
use super::tables::unpadded;
use super::tcx;
use crate::config::{self, Hook};
use crate::fault::{Code, Fault};

/// Our place among the filters of clsact: the first priority, and a handle that an operator is likely to leave free.
const PLACE: Place = Place { priority: 1, handle: 0x0b_4e };
/// The first kernel with tcx.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

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
    _link: Option<FdLink>,
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

/// Refuses where an interface is missing, and names every one that is.
pub fn require(names: &[config::Interface]) -> Result<()> {
    let missing: Vec<_> = names.iter().map(config::Interface::as_str).filter(|name| ifindex(name).is_err()).collect();
    match missing[..] {
        [] => Ok(()),
        // Tells also of what is not a missing interface.
        [one] => ifindex(one).map(drop),
        _ => {
            let text = format!(
                "looking up interfaces {}: there are no such interfaces here: see `ip link` and correct [host].interfaces",
                missing.join(", ")
            );
            Err(Fault::new(Code::Interface, text).into())
        }
    }
}

/// What a hook is called.
pub fn word(kind: u32) -> &'static str {
    if kind == hook::CLSACT { "clsact" } else { "tcx" }
}

/// The hook to attach to: the wanted one, if this kernel has it.
pub fn kind(wanted: Hook) -> Result<u32> {
    choose(wanted, KernelVersion::current().context("asking for the version of the kernel")?)
}

fn choose(wanted: Hook, version: KernelVersion) -> Result<u32> {
    match (wanted, version >= TCX_SINCE) {
        (Hook::Auto, false) | (Hook::Clsact, _) => Ok(hook::CLSACT),
        (Hook::Auto | Hook::Tcx, true) => Ok(hook::TCX),
        (Hook::Native | Hook::Generic, _) => {
            let text = format!("attaching: {wanted} is no hook at egress: write [host].hook = \"auto\"");
            Err(Fault::new(Code::Usage, text).into())
        }
        (Hook::Tcx, false) => {
            let text = "attaching: this kernel has no tcx, which came with Linux 6.6: write [host].hook = \"auto\" or \"clsact\"";
            Err(Fault::new(Code::Kernel, text).into())
        }
    }
}

/// Attaches the loaded program to an interface, and pins the link where there is one.
pub fn attach(program: &mut SchedClassifier, interface: &Interface, root: &PinRoot, position: usize) -> Result<()> {
    let name = unpadded(&interface.name);
    let failed = || format!("attaching to the egress of {name}");
    if interface.hook == hook::CLSACT {
        if clsact::filters(interface.ifindex).with_context(failed)?.iter().any(|filter| filter.place == PLACE) {
            let text = format!(
                "attaching to the egress of {name}: another filter has breaker's place (pref {} handle {:#x}): is it another \
                 breaker's? Unload that, or `tc filter del` it",
                PLACE.priority, PLACE.handle
            );
            return Err(Fault::new(Code::Refused, text).into());
        }
        if clsact::add_qdisc(interface.ifindex).with_context(|| format!("adding qdisc clsact to {name}"))? {
            directory(&root.qdisc(position))?;
        }
        let options = NlOptions { priority: PLACE.priority, handle: PLACE.handle.into(), classid: None };
        let options = TcAttachOptions::Netlink(options);
        let id = program.attach_with_options(&name, TcAttachType::Egress, options).with_context(failed)?;
        // The filter is to outlive this process: forgetting the link is what leaves it in place.
        std::mem::forget(program.take_link(id)?);
        return Ok(());
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&name, TcAttachType::Egress, options).with_context(failed)?;
    let link: FdLink =
        program.take_link(id)?.try_into().map_err(|error| anyhow!("taking the link of {name}: {error}"))?;
    let pin = root.link(position);
    link.pin(&pin).map(drop).with_context(|| format!("pinning the link of {name} at {}", pin.display()))
}

/// Detaches what [`attach`] attached, if it is there. An interface that is gone took the program with it.
pub fn detach(interface: &Interface, root: &PinRoot, position: usize) -> Result<()> {
    if interface.hook == hook::TCX {
        let pin = root.link(position);
        return match sever(&pin) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("detaching the link at {}", pin.display()))
            }
            _ => Ok(()),
        };
    }
    let failed = || format!("detaching from the egress of {}", unpadded(&interface.name));
    // Only our own: in the same place may stand what somebody put there since.
    let pin = root.program();
    let own = ProgramInfo::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?.id();
    let ours = |filter: &Filter| filter.place == PLACE && filter.program == Some(own);
    if clsact::filters(interface.ifindex).with_context(failed)?.iter().any(ours) {
        clsact::remove(interface.ifindex, PLACE).with_context(failed)?;
    }
    // A qdisc that was there before the load is not ours, and one that others use by now is theirs too.
    if root.qdisc(position).exists() {
        clsact::remove_qdisc(interface.ifindex).with_context(failed)?;
    }
    Ok(())
}

/// Refuses where the kernel does not let this process see what is attached.
pub fn require_sight(interface: &Interface) -> Result<()> {
    match tcx::chain(interface.ifindex) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("asking what is attached to {}", unpadded(&interface.name)))
        }
        _ => Ok(()),
    }
}

impl Held {
    /// Holds the link of an attachment.
    pub fn open(interface: &Interface, pin: &Path) -> Self {
        let link = if interface.hook == hook::TCX { PinnedLink::from_pin(pin).map(FdLink::from).ok() } else { None };
        Self { interface: *interface, pin: pin.to_owned(), _link: link }
    }

    /// What the kernel says of it.
    pub fn inspect(&self, program_id: u32) -> Attachment {
        inspect(&self.interface, &self.pin, program_id)
    }
}

/// What the kernel says of an attachment. The chain tells, and not the link: whoever holds that, with a pin or without one.
pub fn inspect(interface: &Interface, pin: &Path, program_id: u32) -> Attachment {
    let Interface { name, ifindex, hook } = *interface;
    let found =
        Attachment { name: unpadded(&name), ifindex, hook: word(hook), attached: false, first: false, pinned: true };
    if hook == hook::CLSACT {
        return filtered(found, program_id);
    }
    // By number: a new interface under the old name is not the one that was attached to, and the old one under a new name is.
    let chain = tcx::chain(ifindex).unwrap_or_default();
    Attachment {
        attached: chain.contains(&program_id),
        first: chain.first() == Some(&program_id),
        pinned: pin.exists(),
        ..found
    }
}

/// An attachment of clsact: a filter of the program, which is first where no filter and no program of tcx comes before it.
fn filtered(found: Attachment, program_id: u32) -> Attachment {
    let filters = clsact::filters(found.ifindex).unwrap_or_default();
    let position = filters.iter().position(|filter| filter.program == Some(program_id));
    // Programs of tcx run before all filters. A kernel without tcx does not know the question.
    let alone = match tcx::chain(found.ifindex) {
        Ok(chain) => chain.is_empty(),
        Err(error) => error.raw_os_error() == Some(libc::EINVAL),
    };
    Attachment { attached: position.is_some(), first: position == Some(0) && alone, ..found }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::code_of;

    #[test]
    fn a_kernel_without_tcx_gets_clsact_or_says_that_it_has_none() {
        let (old, new) = (KernelVersion::new(6, 5, 255), KernelVersion::new(6, 6, 0));
        for (wanted, version, expected) in [
            (Hook::Auto, old, Ok(hook::CLSACT)),
            (Hook::Auto, new, Ok(hook::TCX)),
            (Hook::Tcx, old, Err(Code::Kernel)),
            (Hook::Tcx, new, Ok(hook::TCX)),
            (Hook::Clsact, old, Ok(hook::CLSACT)),
            (Hook::Clsact, new, Ok(hook::CLSACT)),
        ] {
            assert_eq!(choose(wanted, version).map_err(|error| code_of(&error)), expected, "{wanted} on {version:?}");
        }
    }
}
