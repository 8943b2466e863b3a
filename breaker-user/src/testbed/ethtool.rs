//! Offloads and link state of an interface, as `ethtool(8)` sets and shows them.
//! Offloads decide how large a segment the hook sees.

use std::ffi::c_void;
use std::io;

use rustix::ioctl::{Updater, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::error::{Error, Result};
use super::netns::Namespace;

/// An offload of an interface, named as in `ethtool -K`. The values are the `ETHTOOL_S…` commands of
/// `linux/ethtool.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Offload {
    /// `tso`: TCP segments leave the host's stack up to 64 KB large.
    /// `tso`: TCP segments of up to 64 KB leave the host's stack.
    Tso = 0x1f,
    /// `gso`: the same in software, for devices without TSO.
    Gso = 0x24,
    /// `gro`: received segments are joined. On veth it starts NAPI, which an XDP redirect to the device
    /// needs.
    Gro = 0x2c,
    /// `tx`: the device computes checksums. `tso` requires it.
    TransmitChecksum = 0x17,
}

/// `ETHTOOL_GLINK`: reads the link state.
const GLINK: u32 = 0x0a;
/// `SIOCETHTOOL` in `linux/sockios.h`.
const SIOCETHTOOL: u32 = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq` as SIOCETHTOOL reads it: 40 bytes, with the interface name and a pointer.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: *mut c_void,
    rest: [u8; 16],
}

impl Namespace {
    /// Turns an offload of an interface on or off.
    ///
    /// # Errors
    /// If the interface does not exist, or does not have the offload.
    pub fn set_offload(&self, interface: &str, offload: Offload, on: bool) -> Result<()> {
        let what = || format!("setting {offload:?} of {interface}");
        self.run(|| ask(interface, offload as u32, on.into()).map(drop)).map_err(|found| {
            Error::from_kernel(what(), found, "see `ethtool -k`: not every device has every offload")
        })
    }
}

/// Returns true if an interface of the calling thread's namespace carries packets: both ends of the veth pair
/// are up.
///
/// The kernel enables a new link in a worker (`net/core/link_watch.c`) up to one second later, and drops
/// packets until then. `ETHTOOL_GLINK` makes the kernel process the pending link event at once.
pub(super) fn has_link(interface: &str) -> io::Result<bool> {
    Ok(ask(interface, GLINK, 0)? != 0)
}

fn ask(interface: &str, command: u32, data: u32) -> io::Result<u32> {
    let mut name = [0; 16];
    // IFNAMSIZ counts the final NUL.
    let place = name[..15].get_mut(..interface.len()).ok_or(io::ErrorKind::InvalidInput)?;
    place.copy_from_slice(interface.as_bytes());
    let mut value = Value { command, data };
    let mut request = Request { name, value: (&raw mut value).cast(), rest: [0; 16] };
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: SIOCETHTOOL takes a `struct ifreq` whose data points to a `struct ethtool_value`. The value
    // outlives the call, and the kernel writes nothing else. An Updater tells the compiler that memory
    // changes; a Setter does not.
    unsafe { ioctl(&socket, Updater::<SIOCETHTOOL, Request>::new(&mut request)) }?;
    Ok(value.data)
}
