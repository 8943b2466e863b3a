//! Finds traffic of a load's sessions that does not pass its hook: by the routing tables, and by the data
//! that sockets have sent.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use breaker_common::abi::{Endpoint, SIDES, Target, mapped, mode};

use super::address::ip_address;
use super::endpoint_lookup::connection_key;
use super::maps;
use super::routes::{self, Bypass, Remote};
use super::sockets::{SentData, SockDiag, TcpSocket};
use super::{Breaker, clock};

/// The clock of sock_diag is read at another moment than ours, ns.
const CLOCK_TOLERANCE_NS: u64 = 500_000_000;

/// The location of a problem that belongs to no session.
const HOST: &str = "host";

impl Breaker {
    /// Finds bypasses. The result is empty on a gateway: its traffic comes in by the interface with the
    /// program.
    pub fn bypasses(&self) -> Result<Vec<Bypass>> {
        if self.meta().mode == mode::INLINE {
            return Ok(Vec::new());
        }
        let remotes = self.remotes()?;
        let covered: Vec<u32> = self.interfaces().iter().map(|interface| interface.ifindex).collect();
        self.in_netns(|| {
            let mut found = routes::bypasses(&remotes, &covered)?;
            found.extend(self.unseen_sockets()?);
            Ok(found)
        })?
    }

    /// Returns the remote addresses of the policy in force.
    fn remotes(&self) -> Result<Vec<Remote>> {
        let mut sharing: HashMap<u32, Vec<String>> = HashMap::new();
        for found in maps::identities(self.root())?.iter() {
            let (key, sessions) = found.context("reading map IDENTITIES")?;
            sharing
                .entry(key.0.endpoint)
                .or_default()
                .extend(self.session_scope(sessions[self.side() & (SIDES - 1)]));
        }
        let mut remotes = Vec::new();
        for found in self.maps().endpoints()?.iter() {
            let (key, words) = found.context("reading map ENDPOINTS")?;
            let sessions = match Target::unpack(words[self.side()]) {
                Target::None => continue,
                Target::Session(number) => self.session_scope(number).into_iter().collect(),
                Target::Shared { endpoint, .. } => {
                    sharing.get(&endpoint).cloned().unwrap_or_else(|| vec![HOST.to_owned()])
                }
            };
            let Endpoint { local, remote, .. } = key.data().0;
            let address = ip_address(remote);
            let length = key.prefix_len().saturating_sub(Endpoint::FIXED_BITS) as u8;
            let length = if address.is_ipv4() { length.saturating_sub(96) } else { length };
            let local = (local != [0; 4] && local != mapped(0)).then(|| ip_address(local));
            remotes.push(Remote { sessions, address, length, local });
        }
        Ok(remotes)
    }

    /// The scope of a session, by its number: `session/NAME`.
    fn session_scope(&self, number: u32) -> Option<String> {
        let session = self.names().session(number)?;
        Some(format!("session/{}", self.names().session_name(session)))
    }

    /// Finds connections to declared endpoints that the hook has not seen, and that have sent data since the
    /// endpoints were declared.
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
            let age_ns = now.saturating_sub(declared_ns).saturating_sub(CLOCK_TOLERANCE_NS);
            if !has_sent_within(&socket, age_ns)
                || self.maps().connection(&connection_key(&socket))?.is_some()
            {
                continue;
            }
            let scope = match target {
                Target::Session(number) => self.session_scope(number),
                _ => None,
            };
            found.push(Bypass {
                session: scope.unwrap_or_else(|| HOST.to_owned()),
                found: unseen_text(&socket),
                in_use: true,
            });
        }
        Ok(found)
    }
}

fn unseen_text(socket: &TcpSocket) -> String {
    let ((local, local_port), (remote, remote_port)) = (socket.local(), socket.remote());
    let (from, to) = (SocketAddr::new(local, local_port), SocketAddr::new(remote, remote_port));
    format!("connection {from} > {to} has sent data that no hook has seen")
}

/// Returns true if an open connection has sent data within the last `age_ns`.
fn has_sent_within(socket: &TcpSocket, age_ns: u64) -> bool {
    let is_recent = |sent: SentData| sent.segments != 0 && u64::from(sent.age_ms) * 1_000_000 < age_ns;
    socket.is_open() && socket.sent().is_some_and(is_recent)
}
