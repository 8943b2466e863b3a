//! Ends the sockets of sessions, in the network namespace of the load and in those of the containers behind it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use anyhow::Result;
use aya::maps::lpm_trie::Key;
use breaker_common::abi::{Connection, ConnectionKey, Endpoint, Target, flag};

use super::Breaker;
use super::load::EndpointKey;
use super::maps::Endpoints;
use super::netns;
use super::sockets::{SockDiag, TcpSocket};
use super::tables::address;
use crate::config::SessionIndex;

/// Which sockets of a session are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// Those of fenced connections.
    Fenced,
}

/// What tells a connection when an address on the way was translated: its peer's address and port, and its own port.
type Translated = (IpAddr, u16, u16);

impl Breaker {
    /// Ends connections of these sessions, idle ones too, where their sockets are on this host. Returns how many.
    pub fn disconnect(&self, sessions: &[SessionIndex], which: Selection) -> Result<usize> {
        let ended = self.within(|| self.end_own(sessions, which))??;
        Ok(ended + self.end_in_containers(sessions, which)?)
    }

    /// In the namespace of the load.
    fn end_own(&self, sessions: &[SessionIndex], which: Selection) -> Result<usize> {
        let endpoints = self.maps().endpoints()?;
        let mut diag = SockDiag::open()?;
        let mut ended = 0;
        for socket in diag.connected()? {
            let of = self.session_of(&endpoints, &socket)?;
            let wanted = of.is_some_and(|number| sessions.iter().any(|session| session.get() == number));
            let wanted =
                wanted && (which == Selection::All || self.is_fenced(&socket, of.unwrap_or_default())?);
            ended += usize::from(wanted && diag.destroy(&socket)?);
        }
        Ok(ended)
    }

    /// In all other namespaces: connections that the hook has seen. What else has these addresses there takes another way.
    fn end_in_containers(&self, sessions: &[SessionIndex], which: Selection) -> Result<usize> {
        let load = if self.meta().netns == netns::Id::default() { netns::own()? } else { self.meta().netns };
        let others: Vec<_> = netns::all().into_iter().filter(|netns| netns.id != load).collect();
        if others.is_empty() {
            return Ok(0);
        }
        let seen = self.seen(sessions, which)?;
        if seen.is_empty() {
            return Ok(0);
        }
        // One that may not be entered, or that has gone, keeps the others from nothing.
        Ok(others.iter().filter_map(|netns| netns.run(|| end_seen(&seen)).ok()?.ok()).sum())
    }

    /// Open connections of these sessions in the table.
    fn seen(&self, sessions: &[SessionIndex], which: Selection) -> Result<HashSet<Translated>> {
        let mut seen = HashSet::new();
        let sums: HashMap<u32, u64> =
            sessions.iter().map(|one| (one.get(), self.epoch_sum_at(one.get()))).collect();
        self.maps().for_each_connection(|_, key, connection| {
            let Some(sum) = sums.get(&connection.session) else { return };
            if connection.closed_ns == 0 && (which == Selection::All || connection.epoch != *sum) {
                let ports = (u16::from_be(key.remote_port), u16::from_be(key.local_port));
                seen.insert((super::tables::ip(key.remote), ports.0, ports.1));
            }
        })?;
        Ok(seen)
    }

    /// Whether the connection of a socket of a session is fenced. One that the hook has not seen is as old as the load.
    fn is_fenced(&self, socket: &TcpSocket, session: u32) -> Result<bool> {
        let sum = self.epoch_sum_at(session);
        let found: Option<Connection> = self.maps().connection(&key(socket))?;
        Ok(found.map_or(socket.is_established() && sum != 0, |connection| connection.epoch != sum))
    }

    /// The session that a socket's connection is, as the kernel program would find it; at a shared place, as its first message told. One
    /// that the peer has opened is nobody's.
    fn session_of(&self, endpoints: &Endpoints, socket: &TcpSocket) -> Result<Option<u32>> {
        Ok(match self.target_of(endpoints, socket) {
            Target::None => None,
            Target::Session(session) => {
                let of_nobody = |found: Connection| found.session == Connection::IGNORED;
                (!self.maps().connection(&key(socket))?.is_some_and(of_nobody)).then_some(session)
            }
            Target::Shared { .. } => self.maps().connection(&key(socket))?.map(|found| found.session),
        })
    }

    /// What is declared where a socket's connection goes.
    pub(super) fn target_of(&self, endpoints: &Endpoints, socket: &TcpSocket) -> Target {
        let ConnectionKey { local, remote, remote_port, .. } = key(socket);
        let with = |local| Endpoint { port: remote_port, pad: 0, local, remote };
        let get = |endpoint| endpoints.get(&Key::new(Endpoint::BITS, EndpointKey(endpoint)), 0).ok();
        let word = |endpoint| get(endpoint).map(|place| place[self.side()]).filter(|word| *word != 0);
        Target::unpack(word(with(local)).or_else(|| word(with([0; 4]))).unwrap_or(0))
    }

    /// Sessions of these whose connections are ended by a reset and not by silence.
    pub fn with_tcp_resets(&self, sessions: Vec<SessionIndex>) -> Result<Vec<SessionIndex>> {
        let mut found = Vec::new();
        for session in sessions {
            if self.session(session)?.flags & flag::DROP == 0 {
                found.push(session);
            }
        }
        Ok(found)
    }
}

/// Ends the sockets of connections that were seen, in this thread's namespace.
fn end_seen(seen: &HashSet<Translated>) -> Result<usize> {
    let mut diag = SockDiag::open()?;
    let mut ended = 0;
    for socket in diag.connected()? {
        let ((remote, port), (_, own)) = (socket.remote(), socket.local());
        ended += usize::from(seen.contains(&(remote, port, own)) && diag.destroy(&socket)?);
    }
    Ok(ended)
}

/// The key of a socket's connection.
pub(super) fn key(socket: &TcpSocket) -> ConnectionKey {
    let ((local, local_port), (remote, remote_port)) = (socket.local(), socket.remote());
    ConnectionKey {
        local: address(local),
        remote: address(remote),
        local_port: local_port.to_be(),
        remote_port: remote_port.to_be(),
    }
}
