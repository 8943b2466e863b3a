//! UNIX sockets of the type SOCK_SEQPACKET: each message arrives as a whole, and the kernel names the sender.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

use crate::people::Peer;

/// Bytes of the longest message.
pub const MAX_MESSAGE: usize = 4096;

/// A message from the other end.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole message.
    Message(Vec<u8>),
    /// A message that is longer than [`MAX_MESSAGE`].
    TooLong,
    /// The other end was closed.
    End,
}

/// Makes a socket.
pub fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Connects to a listening socket.
pub fn connect_to(path: &Path, timeout: Duration) -> io::Result<OwnedFd> {
    let socket = socket()?;
    // Also limits the wait for a place in the queue of the listening socket.
    set_timeout(&socket, timeout)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Limits the wait of each later [`receive`] and [`send_message`].
pub fn set_timeout(socket: impl AsFd, timeout: Duration) -> io::Result<()> {
    set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    Ok(())
}

/// Receives a message.
pub fn receive(socket: impl AsFd) -> io::Result<Received> {
    let mut bytes = vec![0; MAX_MESSAGE];
    // With TRUNC the result is the length of the whole message.
    let (_, length) = recv(socket, bytes.as_mut_slice(), RecvFlags::TRUNC)?;
    Ok(match length {
        0 => Received::End,
        length if length > MAX_MESSAGE => Received::TooLong,
        length => {
            bytes.truncate(length);
            Received::Message(bytes)
        }
    })
}

/// Sends a message.
pub fn send_message(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    // Without a signal if the other end was closed.
    send(socket, bytes, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The user at the other end, at the time of its connect(2).
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let found = socket_peercred(&socket)?;
    let mut gids = peer_groups(socket)?;
    gids.push(found.gid.as_raw());
    Ok(Peer { uid: found.uid.as_raw(), pid: found.pid.as_raw_nonzero().get() as u32, gids })
}

/// The supplementary groups of the user at the other end. rustix lacks SO_PEERGROUPS.
fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut gids: Vec<u32> = vec![0; 64];
    loop {
        let mut length = size_of_val(gids.as_slice()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to the vector, and the length to `length`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                gids.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if result == 0 {
            gids.truncate(count);
            return Ok(gids);
        }
        let error = io::Error::last_os_error();
        // The kernel has written the length that it needs.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= gids.len() {
            return Err(error);
        }
        gids.resize(count, 0);
    }
}
