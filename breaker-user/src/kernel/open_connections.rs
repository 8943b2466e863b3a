//! The open connections of sessions: those in the connection tables, and sockets that the hook has not seen.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;

use anyhow::Result;
use breaker_common::abi::{ConnectionKey, mode};

use super::Breaker;
use super::address::ip_address;
use super::maps::Table;
use crate::config::SessionIndex;

/// An open connection of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenConnection {
    /// The session's number.
    pub session: u32,
    /// The address and port on the trading host.
    pub local: SocketAddr,
    /// The address and port of the venue.
    pub remote: SocketAddr,
}

impl Breaker {
    /// Lists the connections of these sessions that are open and have not been fenced by a withheld segment,
    /// in the order of the sessions' numbers.
    pub fn open_connections(&self, sessions: &[SessionIndex]) -> Result<Vec<OpenConnection>> {
        let mut found = BTreeSet::new();
        let wanted: HashSet<u32> = sessions.iter().map(|session| session.get()).collect();
        self.maps().for_each_connection(|table, key, connection| {
            let is_unanswered =
                table == Table::Transient && connection.opened == 1 && connection.stream.sent == 0;
            if connection.closed_ns == 0 && !is_unanswered && wanted.contains(&connection.session) {
                let (local, remote) = addresses(key);
                found.insert(OpenConnection { session: connection.session, local, remote });
            }
        })?;
        if self.meta().mode == mode::EGRESS {
            for socket in self.in_netns(|| self.session_sockets())?? {
                let Some(session) = socket.session.filter(|session| wanted.contains(&session.get())) else {
                    continue;
                };
                let (local, remote) = (socket.local, socket.remote);
                found.insert(OpenConnection { session: session.get(), local, remote });
            }
        }
        Ok(found.into_iter().collect())
    }
}

fn addresses(key: &ConnectionKey) -> (SocketAddr, SocketAddr) {
    let at = |address, port: u16| SocketAddr::new(ip_address(address), u16::from_be(port));
    (at(key.local, key.local_port), at(key.remote, key.remote_port))
}
