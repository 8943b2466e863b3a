//! How a program hangs on an interface: at tc by a pinned tcx link where the kernel has it, else as a filter of clsact; at XDP by a
//! pinned link.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::util::KernelVersion;
use breaker_common::abi::{Interface, Meta, hook};
use rustix::io::Errno;

use super::clsact::{self, Filter};
use super::detach_link::detach_link;
use super::pins::{PinRoot, directory};
use super::tables::trim_padding;
use super::{attachment, links, tcx, xdp};
use crate::cli_error::{CliError, Code};
use crate::config::{self, Hook, Host, Mode};

/// Our place among the filters of clsact: the first priority, and a handle that an operator is likely to leave free.
pub(super) const FILTER: clsact::Place = clsact::Place { priority: 1, handle: 0x0b_4e };
/// The first kernel with tcx.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// The way that packets go through an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into this host: ingress.
    In,
    /// Out of it: egress.
    Out,
}

impl Direction {
    const fn word(self) -> &'static str {
        match self {
            Self::In => "ingress",
            Self::Out => "egress",
        }
    }
}

/// Where a program hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name that the interface had at the load.
    pub(super) name: String,
    /// Its number at the load.
    pub(super) ifindex: u32,
    /// One of [`hook`].
    pub(super) hook: u32,
    /// `egress` or `inline` for the program that decides, `inbound` for the one that reads what comes in.
    pub(super) mode: &'static str,
    pub(super) direction: Direction,
    /// The pin of the link,
    pub(super) link: PathBuf,
    /// of the program,
    pub(super) program: PathBuf,
    /// and what says that the load itself added the qdisc.
    pub(super) qdisc: PathBuf,
}

impl Place {
    /// Where the program that decides hangs on an interface.
    pub fn deciding(interface: &Interface, root: &PinRoot, position: usize) -> Self {
        let inline = is_xdp(interface.hook);
        Self {
            name: trim_padding(&interface.name),
            ifindex: interface.ifindex,
            hook: interface.hook,
            mode: if inline { "inline" } else { "egress" },
            direction: if inline { Direction::In } else { Direction::Out },
            link: root.link(position),
            program: if inline || interface.link_header != 0 { root.program() } else { root.program_ip() },
            qdisc: root.qdisc(position),
        }
    }

    /// Where the program that reads what comes in does: the other way round.
    pub fn reading(interface: &Interface, root: &PinRoot, position: usize) -> Result<Self> {
        let deciding = Self::deciding(interface, root, position);
        Ok(Self {
            hook: if is_xdp(interface.hook) { tc_hook(Hook::Auto)? } else { interface.hook },
            mode: "inbound",
            direction: if deciding.direction == Direction::In { Direction::Out } else { Direction::In },
            link: root.inbound_link(position),
            program: if interface.link_header != 0 {
                root.inbound_program()
            } else {
                root.inbound_program_ip()
            },
            ..deciding
        })
    }

    /// All places of a load, those of the program that decides first.
    pub fn all(meta: &Meta, root: &PinRoot) -> Result<Vec<Self>> {
        let interfaces = &meta.interfaces[..(meta.interface_count as usize).min(meta.interfaces.len())];
        let numbered = || interfaces.iter().enumerate();
        let deciding = numbered().map(|(position, interface)| Ok(Self::deciding(interface, root, position)));
        let reading = numbered().map(|(position, interface)| Self::reading(interface, root, position));
        let wanted = if meta.inbound == 0 { 0 } else { interfaces.len() };
        deciding.chain(reading.take(wanted)).collect()
    }

    /// It is attached by a link, whose pin is all that detaching takes.
    pub fn is_link(&self) -> bool {
        self.hook != hook::CLSACT
    }

    fn words(&self) -> String {
        format!("the {} of {}", self.direction.word(), self.name)
    }
}

/// Whether an interface is a card with a wire. What a hypervisor gives may bring frames of a neighbour that has left their checksum to it.
pub fn is_card(name: &str) -> bool {
    const PARAVIRTUAL: [&str; 4] = ["virtio_net", "vif", "hv_netvsc", "vmxnet3"];
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver"));
    driver.is_ok_and(|path| {
        path.file_name().is_some_and(|driver| PARAVIRTUAL.iter().all(|other| driver != *other))
    })
}

/// The number of an interface.
pub fn ifindex(name: &str) -> Result<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|errno| {
        let found = if errno == Errno::NODEV {
            "there is no such interface here".to_owned()
        } else {
            errno.to_string()
        };
        let text =
            format!("looking up interface {name}: {found}: see `ip link` and correct [host].interfaces");
        CliError::new(Code::Interface, text).into()
    })
}

/// Refuses where an interface is missing, and names every one that is.
pub fn require(names: &[config::Interface]) -> Result<()> {
    let missing: Vec<_> =
        names.iter().map(config::Interface::as_str).filter(|name| ifindex(name).is_err()).collect();
    match missing[..] {
        [] => Ok(()),
        // Tells also of what is not a missing interface.
        [one] => ifindex(one).map(drop),
        _ => {
            let text = format!(
                "looking up interfaces {}: there are no such interfaces here: see `ip link` and correct [host].interfaces",
                missing.join(", ")
            );
            Err(CliError::new(Code::Interface, text).into())
        }
    }
}

/// What a hook is called.
pub fn name(kind: u32) -> &'static str {
    match kind {
        hook::CLSACT => "clsact",
        hook::XDP_NATIVE => "native",
        hook::XDP_GENERIC => "generic",
        _ => "tcx",
    }
}

/// Whether a hook is XDP.
pub const fn is_xdp(kind: u32) -> bool {
    matches!(kind, hook::XDP_NATIVE | hook::XDP_GENERIC)
}

/// How a policy is to be attached, where this host can do that.
pub struct AttachPlan {
    /// One of [`hook`]. Whether an interface has native XDP only attaching tells.
    pub hook: u32,
    /// Bytes of the link header at each interface, in the order of the policy.
    pub link_headers: Vec<u32>,
}

impl AttachPlan {
    /// The way for a policy's host. Refuses one on which an interface is missing, or cannot be judged.
    pub fn new(host: &Host) -> Result<Self> {
        let kind = kind(host)?;
        require(&host.interfaces)?;
        let headers = links::headers(host)?;
        if kind == hook::CLSACT {
            host.interfaces.iter().try_for_each(|name| require_clsact(name.as_str()))?;
        }
        Ok(Self { hook: kind, link_headers: headers })
    }
}

/// Refuses where the place of clsact is taken by a qdisc that has no egress: the filters for it would see what comes in.
fn require_clsact(name: &str) -> Result<()> {
    match clsact::found(ifindex(name)?).with_context(|| format!("listing the qdiscs of {name}"))? {
        Some(other) if other != clsact::KIND => {
            let text = format!(
                "attaching to the egress of {name}: it has a qdisc {other:?} in the place of clsact, and that has no egress: `tc qdisc del dev \
                 {name} {other}` and `tc qdisc add dev {name} clsact`, and put its filters there; or, on Linux 6.6 and newer, write \
                 [host].hook = \"tcx\""
            );
            Err(CliError::new(Code::Refused, text).into())
        }
        _ => Ok(()),
    }
}

/// The hook to attach to: the wanted one, if this kernel has it. Whether an interface has native XDP only attaching tells.
fn kind(host: &Host) -> Result<u32> {
    match (host.mode, host.hook) {
        (Mode::Egress, wanted) => tc_hook(wanted),
        (Mode::Inline, Hook::Generic) => Ok(hook::XDP_GENERIC),
        (Mode::Inline, _) => Ok(hook::XDP_NATIVE),
    }
}

fn tc_hook(wanted: Hook) -> Result<u32> {
    choose(wanted, KernelVersion::current().context("asking for the version of the kernel")?)
}

fn choose(wanted: Hook, version: KernelVersion) -> Result<u32> {
    match (wanted, version >= TCX_SINCE) {
        (Hook::Clsact, _) => Ok(hook::CLSACT),
        (Hook::Tcx, false) => {
            let text = "attaching: this kernel has no tcx, which came with Linux 6.6: write [host].hook = \"auto\" or \"clsact\"";
            Err(CliError::new(Code::Kernel, text).into())
        }
        (_, false) => Ok(hook::CLSACT),
        (_, true) => Ok(hook::TCX),
    }
}

/// Attaches a loaded tc program, and pins the link where there is one.
pub fn attach(program: &mut SchedClassifier, place: &Place) -> Result<()> {
    let failed = || format!("attaching to {}", place.words());
    let attach_type = match place.direction {
        Direction::In => TcAttachType::Ingress,
        Direction::Out => TcAttachType::Egress,
    };
    if place.hook == hook::CLSACT {
        let filters = clsact::filters(place.ifindex, place.direction).with_context(failed)?;
        if filters.iter().any(|filter| filter.place == FILTER) {
            let text = format!(
                "attaching to {}: another filter has breaker's place (pref {} handle {:#x}): is it another breaker's? Unload \
                 that, or `tc filter del` it",
                place.words(),
                FILTER.priority,
                FILTER.handle
            );
            return Err(CliError::new(Code::Refused, text).into());
        }
        let added = clsact::add_qdisc(place.ifindex)
            .with_context(|| format!("adding qdisc clsact to {}", place.name))?;
        if added && !place.qdisc.exists() {
            directory(&place.qdisc)?;
        }
        let options = NlOptions { priority: FILTER.priority, handle: FILTER.handle.into(), classid: None };
        let options = TcAttachOptions::Netlink(options);
        let id = program.attach_with_options(&place.name, attach_type, options).with_context(failed)?;
        // The filter is to outlive this process: forgetting the link is what leaves it in place.
        std::mem::forget(program.take_link(id)?);
        return Ok(());
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&place.name, attach_type, options).with_context(failed)?;
    pin(program.take_link(id)?.try_into(), place)
}

/// Attaches a loaded XDP program, and pins the link: in the driver, or in the stack where `generic_too` allows that. Tells which.
pub fn attach_xdp(program: &mut Xdp, place: &Place, generic_too: bool) -> Result<u32> {
    if let Some(id) =
        xdp::program(place.ifindex).with_context(|| format!("asking what is attached to {}", place.name))?
    {
        let text = format!(
            "attaching XDP to {}: another XDP program is there ({}): detach that, see `ip link` and `bpftool net`",
            place.name,
            attachment::describe(id)
        );
        return Err(CliError::new(Code::Refused, text).into());
    }
    let modes = match (place.hook, generic_too) {
        (hook::XDP_GENERIC, _) => vec![(XdpMode::Skb, hook::XDP_GENERIC)],
        // Frames that native XDP sends back into a veth are lost where its other end has no XDP program of its own (`veth_xdp_xmit`).
        (_, true) if links::is_veth(place.ifindex) => vec![(XdpMode::Skb, hook::XDP_GENERIC)],
        (_, true) => vec![(XdpMode::Driver, hook::XDP_NATIVE), (XdpMode::Skb, hook::XDP_GENERIC)],
        (_, false) => vec![(XdpMode::Driver, hook::XDP_NATIVE)],
    };
    let mut failures = Vec::new();
    for (mode, kind) in modes {
        match program.attach(&place.name, mode) {
            Ok(id) => {
                pin(program.take_link(id)?.try_into(), place)?;
                return Ok(kind);
            }
            Err(error) => failures.push(format!("{} XDP: {:#}", name(kind), anyhow!(error))),
        }
    }
    let text = format!(
        "attaching XDP to {}: {}: see that its MTU is at most a page's and LRO is off, or write [host].hook = \"generic\"",
        place.name,
        failures.join("; ")
    );
    Err(CliError::new(Code::Kernel, text).into())
}

fn pin<E: std::fmt::Display>(link: Result<FdLink, E>, place: &Place) -> Result<()> {
    let link = link.map_err(|error| anyhow!("taking the link of {}: {error}", place.name))?;
    let pinned = link.pin(&place.link).map(drop);
    pinned.with_context(|| format!("pinning the link of {} at {}", place.name, place.link.display()))
}

/// Detaches what was attached, if it is there. An interface that is gone took the program with it.
pub fn detach(place: &Place) -> Result<()> {
    if place.hook != hook::CLSACT {
        return match detach_link(&place.link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("detaching the link at {}", place.link.display()))
            }
            _ => Ok(()),
        };
    }
    let failed = || format!("detaching from {}", place.words());
    // Only our own: in the same place may stand what somebody put there since.
    if let Some(own) = program_id(&place.program)? {
        let ours = |filter: &Filter| filter.place == FILTER && filter.program == Some(own);
        if clsact::filters(place.ifindex, place.direction).with_context(failed)?.iter().any(ours) {
            clsact::remove(place.ifindex, place.direction, FILTER).with_context(failed)?;
        }
    }
    // A qdisc that was there before the load is not ours, and one that others use by now is theirs too.
    if place.qdisc.exists() {
        clsact::remove_qdisc(place.ifindex).with_context(failed)?;
    }
    Ok(())
}

/// The number of a pinned program; `None` where a load had not come to pin it.
fn program_id(pin: &std::path::Path) -> Result<Option<u32>> {
    if !pin.exists() {
        return Ok(None);
    }
    Ok(Some(ProgramInfo::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?.id()))
}

/// Refuses where the kernel does not let this process see what is attached.
pub fn require_sight(place: &Place) -> Result<()> {
    match tcx::chain(place.ifindex, place.direction) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("asking what is attached to {}", place.name))
        }
        _ => Ok(()),
    }
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
    use crate::cli_error::code_of;

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
            assert_eq!(
                choose(wanted, version).map_err(|error| code_of(&error)),
                expected,
                "{wanted} on {version:?}"
            );
        }
    }
}
