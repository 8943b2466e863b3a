//! The TCP sockets of this host to the endpoints of sessions, with what the hook knows of each.

use std::net::SocketAddr;

use anyhow::Result;
use breaker_common::abi::{Connection, ConnectionKey, Target};

use super::Breaker;
use super::endpoint_lookup::connection_key;
use super::sockets::{SockDiag, TcpSocket};
use crate::config::SessionIndex;

/// A socket to the endpoint of a session.
#[derive(Clone, Debug)]
pub struct SessionSocket {
    /// The session; `None` at a shared endpoint until the first message has identified the session.
    pub session: Option<SessionIndex>,
    /// The local address and port.
    pub local: SocketAddr,
    /// The remote address and port.
    pub remote: SocketAddr,
    /// Inode of the socket, as in the links of `/proc/PID/fd`.
    pub inode: u32,
    /// Key of the connection in the connection tables.
    pub key: ConnectionKey,
    /// The connection as the hook knows it; `None` if the hook has not seen any packet of it.
    pub connection: Option<Connection>,
    /// Sequence numbers that the peer has acknowledged; `None` if the connection is not open.
    acknowledged: Option<u64>,
}

impl SessionSocket {
    /// Returns how many bytes the peer has acknowledged that the hook has not passed. `None` if the hook has
    /// not seen the SYN, because the number of passed bytes is then unknown.
    ///
    /// The table counts 32-bit sequence numbers, so an excess of 2 GiB or more is not recognized.
    pub fn excess(&self) -> Option<u32> {
        let connection = self.connection.as_ref().filter(|connection| connection.opened == 1)?;
        // The peer has acknowledged the SYN too, which takes one sequence number (RFC 9293, 3.4).
        let acknowledged = self.acknowledged?.wrapping_sub(1) as u32;
        let passed = connection.stream.next_seq.wrapping_sub(connection.isn).wrapping_sub(1);
        let excess = acknowledged.wrapping_sub(passed);
        Some(if (excess as i32) < 0 { 0 } else { excess })
    }
}

impl Breaker {
    /// Lists the sockets of this thread's network namespace to the endpoints of sessions.
    ///
    /// A socket is read before its connection: the hook sees a byte before the peer can acknowledge it, so
    /// [`SessionSocket::excess`] is never too high.
    pub fn session_sockets(&self) -> Result<Vec<SessionSocket>> {
        let endpoints = self.maps().endpoints()?;
        let mut found = Vec::new();
        for socket in SockDiag::open()?.connected_with_sent()? {
            let target = self.target_of(&endpoints, &socket);
            if target == Target::None || !socket.is_established() {
                continue;
            }
            let key = connection_key(&socket);
            let connection = self.maps().connection(&key)?;
            if connection.is_some_and(|connection| connection.session == Connection::IGNORED) {
                continue;
            }
            let session = match target {
                Target::Session(number) => self.names().session(number),
                _ => {
                    let identified = connection.filter(|connection| connection.session != 0);
                    identified.and_then(|connection| self.names().session(connection.session))
                }
            };
            found.push(SessionSocket {
                session,
                local: address(socket.local()),
                remote: address(socket.remote()),
                inode: socket.inode(),
                key,
                connection,
                acknowledged: acknowledged(&socket),
            });
        }
        Ok(found)
    }
}

fn address((ip, port): (std::net::IpAddr, u16)) -> SocketAddr {
    SocketAddr::new(ip, port)
}

fn acknowledged(socket: &TcpSocket) -> Option<u64> {
    // A FIN takes a sequence number too. Only an open connection has sent none.
    socket.sent().filter(|_| socket.is_open()).map(|sent| sent.acknowledged)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn socket(acknowledged: u64, isn: u32, next_seq: u32) -> SessionSocket {
        let mut connection = Connection { isn, opened: 1, ..Connection::zeroed() };
        connection.stream.next_seq = next_seq;
        let any = SocketAddr::from(([0; 4], 0));
        SessionSocket {
            session: None,
            local: any,
            remote: any,
            inode: 0,
            key: ConnectionKey::zeroed(),
            connection: Some(connection),
            acknowledged: Some(acknowledged),
        }
    }

    #[test]
    fn the_excess_is_what_the_peer_acknowledged_and_the_hook_did_not_pass() {
        for (acknowledged, isn, next_seq, expected) in [
            (1, 100, 101, 0),
            (11, 100, 111, 0),
            (1, 100, 111, 0),
            (12, 100, 111, 1),
            (12, u32::MAX, 10, 1),
            (11, u32::MAX - 4, 6, 0),
            ((5 << 32) + 11, u32::MAX - 4, 6, 0),
        ] {
            let found = socket(acknowledged, isn, next_seq).excess();
            assert_eq!(found, Some(expected), "{acknowledged} {isn} {next_seq}");
        }
        let mut joined = socket(100, 0, 0);
        joined.connection = joined.connection.map(|found| Connection { opened: 0, ..found });
        assert_eq!(joined.excess(), None);
    }
}
