//! What `ethtool(8)` does: offloads, which say how large a segment the hook sees at once, and whether there is a link.

use std::ffi::c_void;
use std::io;

use rustix::ioctl::{Updater, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::error::{Error, Result};
use super::netns::Namespace;

/// An offload of an interface, as `ethtool -K` names it. The values are the `ETHTOOL_S…` commands of `linux/ethtool.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Offload {
    /// `tso`: TCP segments leave the host's stack up to 64 KB large.
    Tso = 0x1f,
    /// `gso`: the same in software, for devices that cannot.
    Gso = 0x24,
    /// `gro`: arriving segments are joined. On veth this starts NAPI, which redirects to it need.
    Gro = 0x2c,
    /// `tx`: checksums are left to the device. Without it there is no `tso`.
    TransmitChecksum = 0x17,
}

/// `ETHTOOL_GLINK`: is there a link?
const GLINK: u32 = 0x0a;
/// `SIOCETHTOOL` in `linux/sockios.h`.
const SIOCETHTOOL: u32 = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq` as SIOCETHTOOL reads it: 40 bytes, a name and a pointer.
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
    /// Where there is no such interface, or it does not have the offload.
    pub fn set_offload(&self, interface: &str, offload: Offload, on: bool) -> Result<()> {
        let what = || format!("setting {offload:?} of {interface}");
        self.run(|| ask(interface, offload as u32, on.into()).map(drop)).map_err(|found| {
            Error::of_kernel(what(), found, "look at `ethtool -k`: not each device has each offload")
        })
    }
}

/// True when an interface of the calling thread's namespace carries packets: both ends of a cable are up.
///
/// A cable that has just come up is opened for packets by a worker of the kernel (`linkwatch` in its source), up to a
/// second later, and drops what is sent till then. This question makes the kernel do it at once.
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
    // SAFETY: SIOCETHTOOL takes a `struct ifreq` whose data points to a `struct ethtool_value`, which outlives the call
    // and is all that the kernel writes. An Updater tells the compiler that memory changes; a Setter would not.
    unsafe { ioctl(&socket, Updater::<SIOCETHTOOL, Request>::new(&mut request)) }?;
    Ok(value.data)
}
