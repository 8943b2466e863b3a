//! The XDP program of an interface: reads it over rtnetlink, which needs no privilege, and attaches it from
//! its pin.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use breaker_common::abi::hook;
use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};

use super::attach_point::AttachPoint;
use super::detach_link::{bpf, open_pin, pin_object};
use crate::netlink;

/// Constants of bpf(2) and XDP (kernel `uapi/linux/bpf.h`, `uapi/linux/if_link.h`).
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The part of `union bpf_attr` that BPF_LINK_CREATE reads.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Returns the id of the XDP program of an interface, native or generic.
pub fn program(ifindex: u32) -> io::Result<Option<u32>> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let found = netlink::list(Netlink::GetLink(message))?;
    let own = found.into_iter().find_map(|answer| match answer {
        Netlink::NewLink(link) if link.header.index == ifindex => Some(link.attributes),
        _ => None,
    });
    let attributes = own.unwrap_or_default().into_iter();
    let xdp = attributes
        .filter_map(|attribute| if let LinkAttribute::Xdp(xdp) = attribute { Some(xdp) } else { None });
    Ok(xdp.flatten().find_map(|found| match found {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(id),
        _ => None,
    }))
}

/// Attaches a pinned program at the same hook as before, and pins the link. aya opens a pinned XDP program
/// only with an attach type that it does not export.
pub fn attach_pinned(point: &AttachPoint) -> Result<()> {
    let program = open_pin(&point.program).with_context(|| format!("opening {}", point.program.display()))?;
    let is_generic = point.hook == hook::XDP_GENERIC;
    let mut create = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: point.ifindex,
        attach_type: BPF_XDP,
        flags: if is_generic { XDP_FLAGS_SKB_MODE } else { XDP_FLAGS_DRV_MODE },
    };
    // SAFETY: the structure contains no addresses.
    let made = unsafe { bpf(BPF_LINK_CREATE, &mut create) };
    let made = made.with_context(|| format!("attaching XDP to {}", point.name))?;
    // SAFETY: the kernel has just opened this descriptor.
    let link = unsafe { OwnedFd::from_raw_fd(made) };
    pin_object(link.as_fd(), &point.link)
        .with_context(|| format!("pinning a link at {}", point.link.display()))
}
