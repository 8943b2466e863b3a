//! Destroys the sockets of sessions, in the network namespace of the load and in those of the containers
//! behind it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use anyhow::Result;

use super::Breaker;
use super::address::ip_address;
use super::endpoint_lookup::connection_key;
use super::netns;
use super::sockets::{SockDiag, TcpSocket};
use crate::config::SessionIndex;

/// The sockets of a session that are destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All sockets.
    All,
    /// The sockets of fenced connections.
    Fenced,
}

/// The parts of a connection that stay the same under source address translation: remote address, remote
/// port, local port.
type TranslatedKey = (IpAddr, u16, u16);

impl Breaker {
    /// Destroys sockets of these sessions on this host, idle ones too. Returns how many.
    pub fn disconnect(&self, sessions: &[SessionIndex], selection: Selection) -> Result<usize> {
        let destroyed = self.in_netns(|| self.disconnect_own(sessions, selection))??;
        Ok(destroyed + self.disconnect_in_containers(sessions, selection)?)
    }

    /// Destroys sockets in the namespace of the load.
    fn disconnect_own(&self, sessions: &[SessionIndex], selection: Selection) -> Result<usize> {
        let endpoints = self.maps().endpoints()?;
        let mut diag = SockDiag::open()?;
        let mut destroyed = 0;
        for socket in diag.connected()? {
            let Some(number) = self.session_of(&endpoints, &socket)? else { continue };
            let is_selected = sessions.iter().any(|session| session.get() == number)
                && (selection == Selection::All || self.is_fenced(&socket, number)?);
            destroyed += usize::from(is_selected && diag.destroy(&socket)?);
        }
        Ok(destroyed)
    }

    /// Destroys sockets in all other namespaces, of connections that the hook has seen. Other sockets there
    /// with a declared endpoint do not use the hook.
    fn disconnect_in_containers(&self, sessions: &[SessionIndex], selection: Selection) -> Result<usize> {
        let load =
            if self.meta().netns == netns::Id::default() { netns::current()? } else { self.meta().netns };
        let others: Vec<_> = netns::all().into_iter().filter(|netns| netns.id != load).collect();
        if others.is_empty() {
            return Ok(0);
        }
        let seen = self.seen_connections(sessions, selection)?;
        if seen.is_empty() {
            return Ok(0);
        }
        // An error in one namespace does not stop the others.
        Ok(others.iter().filter_map(|netns| netns.run(|| destroy_seen(&seen)).ok()?.ok()).sum())
    }

    /// Returns the open connections of these sessions in the connection tables.
    fn seen_connections(
        &self,
        sessions: &[SessionIndex],
        selection: Selection,
    ) -> Result<HashSet<TranslatedKey>> {
        let mut seen = HashSet::new();
        let sums: HashMap<u32, u64> =
            sessions.iter().map(|session| (session.get(), self.epoch_sum(session.get()))).collect();
        self.maps().for_each_connection(|_, key, connection| {
            let Some(sum) = sums.get(&connection.session) else { return };
            if connection.closed_ns == 0 && (selection == Selection::All || connection.epoch != *sum) {
                let ports = (u16::from_be(key.remote_port), u16::from_be(key.local_port));
                seen.insert((ip_address(key.remote), ports.0, ports.1));
            }
        })?;
        Ok(seen)
    }

    /// Returns true if the connection of a session's socket is fenced. A connection that the hook has not
    /// seen counts as older than every trip and reset since the load.
    fn is_fenced(&self, socket: &TcpSocket, session: u32) -> Result<bool> {
        let sum = self.epoch_sum(session);
        let found = self.maps().connection(&connection_key(socket))?;
        Ok(found.map_or(socket.is_established() && sum != 0, |connection| connection.epoch != sum))
    }
}

/// Destroys the sockets of these connections in the namespace of this thread.
fn destroy_seen(seen: &HashSet<TranslatedKey>) -> Result<usize> {
    let mut diag = SockDiag::open()?;
    let mut destroyed = 0;
    for socket in diag.connected()? {
        let ((remote, remote_port), (_, local_port)) = (socket.remote(), socket.local());
        let is_seen = seen.contains(&(remote, remote_port, local_port));
        destroyed += usize::from(is_seen && diag.destroy(&socket)?);
    }
    Ok(destroyed)
}
