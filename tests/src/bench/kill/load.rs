//! The load of a sender that never pauses: with a backlog in its socket, or without.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread::yield_now;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::bench::order::{LENGTH, orders};

/// Bytes in the socket that are not sent yet (kernel `uapi/linux/sockios.h`).
const SIOCOUTQNSD: libc::Ioctl = 0x894b;
/// Orders of one write of the backlog.
const EACH: usize = 80;

/// Kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The sender writes until its socket is full and blocks: a backlog of megabytes.
    Backlog,
    /// The sender writes an order when the one before has left the host.
    OneByOne,
}

impl Load {
    /// Name in the table, and as an argument.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::OneByOne => "one-by-one",
        }
    }

    /// The load with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Backlog, Self::OneByOne].into_iter().find(|load| load.name() == name)
    }

    /// Bytes received when the load has reached its full rate.
    pub const fn full_rate(self) -> u64 {
        match self {
            Self::Backlog => 4 << 20,
            Self::OneByOne => 1_000 * LENGTH as u64,
        }
    }

    /// Writes orders until the connection is dead.
    pub fn write_on(self, stream: &mut TcpStream) {
        match self {
            Self::Backlog => {
                let payload = orders(0, EACH);
                while stream.write_all(&payload).is_ok() {}
            }
            Self::OneByOne => {
                stream.set_nodelay(true).expect("setting TCP_NODELAY");
                let payload = orders(0, 1);
                while stream.write_all(&payload).is_ok() && has_left(stream) {}
            }
        }
    }
}

/// Waits until all bytes are sent. Returns false if the connection is dead.
fn has_left(stream: &TcpStream) -> bool {
    while unsent(stream) != 0 {
        // The venue never writes, so only the end of the connection can be read.
        if recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) != Err(Errno::AGAIN) {
            return false;
        }
        yield_now();
    }
    true
}

fn unsent(stream: &TcpStream) -> libc::c_int {
    let mut found: libc::c_int = 0;
    // SAFETY: the kernel writes an integer.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), SIOCOUTQNSD, &raw mut found) };
    assert_eq!(done, 0, "SIOCOUTQNSD: {}", io::Error::last_os_error());
    found
}
