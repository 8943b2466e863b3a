//! The points where programs are attached: an interface, a hook and a direction.

use std::path::PathBuf;

use anyhow::Result;
use breaker_common::abi::{Interface, Meta, hook};

use super::attach_plan::tc_hook;
use super::direction::Direction;
use super::pins::PinRoot;
use super::text::trim_padding;
use crate::config::Hook;

/// A point where a program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachPoint {
    /// Name of the interface at the load.
    pub(super) name: String,
    /// Number of the interface at the load.
    pub(super) ifindex: u32,
    /// One of [`hook`].
    pub(super) hook: u32,
    /// `egress` or `inline` for the enforcing program, `inbound` for the program that reads inbound traffic.
    pub(super) mode: &'static str,
    /// The packets that the program sees.
    pub(super) direction: Direction,
    /// Pin of the link.
    pub(super) link: PathBuf,
    /// Pin of the program.
    pub(super) program: PathBuf,
    /// Marker that the load itself added the qdisc.
    pub(super) qdisc: PathBuf,
}

impl AttachPoint {
    /// The attach point of the enforcing program at the interface with this position in [`Meta::interfaces`].
    pub fn enforcing(interface: &Interface, root: &PinRoot, position: usize) -> Self {
        let inline = is_xdp(interface.hook);
        Self {
            name: trim_padding(&interface.name),
            ifindex: interface.ifindex,
            hook: interface.hook,
            mode: if inline { "inline" } else { "egress" },
            direction: if inline { Direction::Ingress } else { Direction::Egress },
            link: root.link(position),
            program: if inline || interface.link_header != 0 { root.program() } else { root.program_ip() },
            qdisc: root.qdisc(position),
        }
    }

    /// The attach point of the program that reads inbound traffic. It has the direction opposite to the
    /// enforcing program's.
    pub fn inbound(interface: &Interface, root: &PinRoot, position: usize) -> Result<Self> {
        let enforcing = Self::enforcing(interface, root, position);
        Ok(Self {
            hook: if is_xdp(interface.hook) { tc_hook(Hook::Auto)? } else { interface.hook },
            mode: "inbound",
            direction: enforcing.direction.opposite(),
            link: root.inbound_link(position),
            program: if interface.link_header != 0 {
                root.inbound_program()
            } else {
                root.inbound_program_ip()
            },
            ..enforcing
        })
    }

    /// All attach points of a load, those of the enforcing program first.
    pub fn all(meta: &Meta, root: &PinRoot) -> Result<Vec<Self>> {
        let interfaces = &meta.interfaces[..(meta.interface_count as usize).min(meta.interfaces.len())];
        let numbered = || interfaces.iter().enumerate();
        let enforcing =
            numbered().map(|(position, interface)| Ok(Self::enforcing(interface, root, position)));
        let inbound = numbered().map(|(position, interface)| Self::inbound(interface, root, position));
        let inbound_count = if meta.inbound == 0 { 0 } else { interfaces.len() };
        enforcing.chain(inbound.take(inbound_count)).collect()
    }

    /// Returns true if the program is attached by a BPF link. Its pin is enough to detach it.
    pub fn is_link(&self) -> bool {
        self.hook != hook::CLSACT
    }

    /// The attach point in an error text: `the egress of eth1`.
    pub fn describe(&self) -> String {
        format!("the {} of {}", self.direction.name(), self.name)
    }
}

/// The name of a hook, one of [`hook`].
pub fn hook_name(kind: u32) -> &'static str {
    match kind {
        hook::CLSACT => "clsact",
        hook::XDP_NATIVE => "native",
        hook::XDP_GENERIC => "generic",
        _ => "tcx",
    }
}

/// Returns true if a hook is an XDP hook.
pub const fn is_xdp(kind: u32) -> bool {
    matches!(kind, hook::XDP_NATIVE | hook::XDP_GENERIC)
}
