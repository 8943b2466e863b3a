//! Finds the session of a socket's connection, as the kernel program does.

use anyhow::Result;
use aya::maps::lpm_trie::Key;
use breaker_common::abi::{Connection, ConnectionKey, Endpoint, Target};

use super::Breaker;
use super::address::map_address;
use super::maps::{Endpoints, PodEndpoint};
use super::sockets::TcpSocket;

impl Breaker {
    /// Returns the session of a socket's connection. At a shared endpoint the connection has the session of
    /// its first message. A connection that the peer opened has none.
    pub(super) fn session_of(&self, endpoints: &Endpoints, socket: &TcpSocket) -> Result<Option<u32>> {
        let connection = || self.maps().connection(&connection_key(socket));
        Ok(match self.target_of(endpoints, socket) {
            Target::None => None,
            Target::Session(session) => {
                let is_ignored = |found: Connection| found.session == Connection::IGNORED;
                (!connection()?.is_some_and(is_ignored)).then_some(session)
            }
            Target::Shared { .. } => connection()?.map(|found| found.session),
        })
    }

    /// Looks up the endpoint of a socket's connection: with its local address, then with any local address.
    pub(super) fn target_of(&self, endpoints: &Endpoints, socket: &TcpSocket) -> Target {
        let ConnectionKey { local, remote, remote_port, .. } = connection_key(socket);
        let get = |endpoint: &Endpoint| {
            let found = endpoints.get(&Key::new(Endpoint::BITS, PodEndpoint(*endpoint)), 0);
            found.map_or(0, |words| words[self.side()])
        };
        Target::unpack(lookup(&Endpoint { port: remote_port, pad: 0, local, remote }, get))
    }
}

/// Looks an endpoint up as the kernel program does: with its local address, then with any local address.
/// `get` returns 0 for no entry.
pub(super) fn lookup(endpoint: &Endpoint, get: impl Fn(&Endpoint) -> u32) -> u32 {
    match get(endpoint) {
        0 => get(&Endpoint { local: [0; 4], ..*endpoint }),
        word => word,
    }
}

/// Returns the key of a socket's connection in the connection tables.
pub(super) fn connection_key(socket: &TcpSocket) -> ConnectionKey {
    let ((local, local_port), (remote, remote_port)) = (socket.local(), socket.remote());
    ConnectionKey {
        local: map_address(local),
        remote: map_address(remote),
        local_port: local_port.to_be(),
        remote_port: remote_port.to_be(),
    }
}
