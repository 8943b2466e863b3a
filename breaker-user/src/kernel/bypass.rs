//! Which ways of a load's sessions pass its hook by, by the routing tables and by what its sockets send.

use std::collections::HashMap;

use anyhow::{Context, Result};
use breaker_common::abi::{Endpoint, SIDES, Target, mapped, mode};

use super::disconnect::key;
use super::maps;
use super::routes::{self, Bypass, Remote};
use super::sockets::{SockDiag, TcpSocket};
use super::tables::ip;
use super::{Breaker, clock};

/// A clock read at another moment than the kernel's, ns.
const SLACK_NS: u64 = 500_000_000;

impl Breaker {
    /// Ways past the hook. Empty on a gateway, whose traffic comes in by the interface that the program hangs on.
    pub fn bypasses(&self) -> Result<Vec<Bypass>> {
        if self.meta().mode == mode::INLINE {
            return Ok(Vec::new());
        }
        let remotes = self.remotes()?;
        let covered: Vec<u32> = self.interfaces().iter().map(|interface| interface.ifindex).collect();
        self.within(|| {
            let mut found = routes::bypasses(&remotes, &covered)?;
            found.extend(self.unseen_sockets()?);
            Ok(found)
        })?
    }

    /// Where the sessions of the policy in force go.
    fn remotes(&self) -> Result<Vec<Remote>> {
        let mut at_place: HashMap<u32, Vec<String>> = HashMap::new();
        for found in maps::identities(self.root())?.iter() {
            let (key, sessions) = found.context("reading map IDENTITIES")?;
            at_place
                .entry(key.0.endpoint)
                .or_default()
                .extend(self.session_name(sessions[self.side() & (SIDES - 1)]));
        }
        let mut remotes = Vec::new();
        for found in self.maps().endpoints()?.iter() {
            let (key, words) = found.context("reading map ENDPOINTS")?;
            let sessions = match Target::unpack(words[self.side()]) {
                Target::None => continue,
                Target::Session(number) => self.session_name(number).into_iter().collect(),
                Target::Shared { endpoint, .. } => {
                    at_place.get(&endpoint).cloned().unwrap_or_else(|| vec![HOST.to_owned()])
                }
            };
            let Endpoint { local, remote, .. } = key.data().0;
            let address = ip(remote);
            let length = key.prefix_len().saturating_sub(Endpoint::FIXED_BITS) as u8;
            let length = if address.is_ipv4() { length.saturating_sub(96) } else { length };
            let local = (local != [0; 4] && local != mapped(0)).then(|| ip(local));
            remotes.push(Remote { sessions, address, length, local });
        }
        Ok(remotes)
    }

    fn session_name(&self, number: u32) -> Option<String> {
        let session = self.names().session(number)?;
        Some(format!("session/{}", self.names().session_name(session)))
    }

    /// Connections to declared endpoints that have sent data since those were declared, and that the hook has not seen.
    fn unseen_sockets(&self) -> Result<Vec<Bypass>> {
        let endpoints = self.maps().endpoints()?;
        let now = clock::now_ns();
        let mut found = Vec::new();
        for socket in SockDiag::open()?.connected_with_sent()? {
            let target = self.target_of(&endpoints, &socket);
            let session = match target {
                Target::None => continue,
                Target::Session(number) => self.names().session(number),
                Target::Shared { .. } => self.names().sessions().nth(1),
            };
            let Some(declared_ns) = session.and_then(|session| Some(self.session(session).ok()?.declared_ns))
            else {
                continue;
            };
            let age_ns = now.saturating_sub(declared_ns).saturating_sub(SLACK_NS);
            if !has_sent_within(&socket, age_ns) || self.maps().connection(&key(&socket))?.is_some() {
                continue;
            }
            let name = match target {
                Target::Session(number) => self.session_name(number),
                _ => None,
            };
            let ((local, own), (remote, port)) = (socket.local(), socket.remote());
            let (from, to) = (std::net::SocketAddr::new(local, own), std::net::SocketAddr::new(remote, port));
            let told = format!("connection {from} > {to} has sent data that no hook has seen");
            found.push(Bypass { session: name.unwrap_or_else(|| HOST.to_owned()), found: told, taken: true });
        }
        Ok(found)
    }
}

/// Where a problem is that belongs to no session.
const HOST: &str = "host";

/// Whether a connection that is open both ways has sent data so lately.
fn has_sent_within(socket: &TcpSocket, age_ns: u64) -> bool {
    let lately =
        |sent: super::sockets::Sent| sent.segments != 0 && u64::from(sent.age_ms) * 1_000_000 < age_ns;
    socket.is_open() && socket.sent().is_some_and(lately)
}
