//! The checks of `verify` that `status` does not make: the programs, the sockets of sessions and their
//! processes.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use breaker_common::abi::{flag, mode, sync};

use crate::enforced::{Problem, ProblemKind};
use crate::kernel::Breaker;
use crate::kernel::bypass_libraries::{self, Search};
use crate::kernel::own_programs::ProgramTags;
use crate::kernel::packets::Addresses;
use crate::kernel::session_sockets::SessionSocket;
use crate::kernel::tls;

/// Longest time for which connections are watched for TLS.
const TLS_WATCH: Duration = Duration::from_secs(1);

/// What the checks found.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Problems.
    pub gaps: Vec<Problem>,
    /// Facts that are no problem, and checks that were not possible.
    pub notes: Vec<String>,
    /// Number of connections whose acknowledged bytes were compared with the passed bytes.
    pub compared: usize,
}

/// Returns the gaps of programs that are not those of this binary.
pub fn program_gaps(tags: &[ProgramTags]) -> Vec<Problem> {
    let differing = tags.iter().filter(|tags| tags.pinned != tags.own);
    let gap = |tags: &ProgramTags| {
        let found =
            format!("the pinned program has the tag {:016x}, this binary's {:016x}", tags.pinned, tags.own);
        let cure = "run `verify` of the version that `status` names, or `breaker upgrade`";
        Problem::new(ProblemKind::Program, tags.name, found, cure)
    };
    differing.map(gap).collect()
}

/// Checks the sockets to the endpoints of sessions.
pub fn check_sockets(breaker: &Breaker) -> Result<Coverage> {
    let mut coverage = Coverage::default();
    if breaker.meta().mode == mode::INLINE {
        let text = "sockets and processes were not checked: they are on the hosts behind this gateway";
        coverage.notes.push(text.to_owned());
        return Ok(coverage);
    }
    let sockets = breaker.in_netns(|| breaker.session_sockets())??;
    coverage.check_bytes(breaker, &sockets);
    coverage.check_processes(breaker, &sockets, bypass_libraries::search());
    coverage.check_tls(breaker, &sockets);
    Ok(coverage)
}

impl Coverage {
    /// Compares the bytes that the peers acknowledged with the bytes that the hook passed.
    fn check_bytes(&mut self, breaker: &Breaker, sockets: &[SessionSocket]) {
        let mut unknown = 0;
        for socket in sockets {
            match socket.excess() {
                Some(0) => self.compared += 1,
                Some(excess) => {
                    self.compared += 1;
                    let found = format!(
                        "{}: the peer has acknowledged {excess} bytes that the hook has not passed: they \
                         took another path",
                        connection(socket)
                    );
                    let cure = "find the path (`ip route get`, `ip rule`, kernel bypass), and cover it";
                    self.gaps.push(Problem::new(ProblemKind::Route, &scope(breaker, socket), found, cure));
                }
                None => unknown += 1,
            }
        }
        if unknown != 0 {
            self.notes.push(format!(
                "{unknown} connections were not compared byte by byte: the hook has not seen how they began"
            ));
        }
    }

    /// Reports processes that own a socket of a session and have a library that can send past the kernel.
    fn check_processes(&mut self, breaker: &Breaker, sockets: &[SessionSocket], search: Search) {
        for process in search.found {
            let who = format!(
                "process {} ({}) has {} mapped ({})",
                process.pid, process.name, process.library, process.stack
            );
            let own: Vec<_> =
                sockets.iter().filter(|socket| process.sockets.contains(&socket.inode)).collect();
            if own.is_empty() {
                self.notes.push(format!("{who}: connections of that stack are not visible to the kernel"));
            }
            let mut named = HashSet::new();
            for socket in own {
                let scope = scope(breaker, socket);
                if named.insert(scope.clone()) {
                    let found = format!("{who} and owns {}", connection(socket));
                    let cure =
                        "start the process without that library, or enforce on a gateway (mode inline)";
                    self.gaps.push(Problem::new(ProblemKind::KernelBypass, &scope, found, cure));
                }
            }
        }
        if search.closed != 0 {
            self.notes.push(format!(
                "{} processes could not be inspected for kernel bypass: run `verify` as root",
                search.closed
            ));
        }
    }

    /// Watches the connections in which no FIX message was ever read, and reports those that carry TLS.
    fn check_tls(&mut self, breaker: &Breaker, sockets: &[SessionSocket]) {
        let is_candidate = |socket: &&SessionSocket| {
            let is_opaque = socket
                .session
                .is_some_and(|session| breaker.session(session).is_ok_and(|s| s.flags & flag::OPAQUE != 0));
            let is_unread = socket.connection.is_some_and(|connection| {
                connection.message_seen == 0 && connection.stream.framing.sync == sync::BLIND
            });
            is_unread && !is_opaque
        };
        let candidates: Vec<_> = sockets.iter().filter(is_candidate).collect();
        let addresses = |socket: &SessionSocket| Addresses { local: socket.local, remote: socket.remote };
        let wanted: HashSet<_> = candidates.iter().map(|socket| addresses(socket)).collect();
        let found = match breaker.in_netns(|| tls::find(&wanted, TLS_WATCH)).and_then(|found| found) {
            Ok(found) => found,
            Err(error) => {
                self.notes.push(format!("TLS was not looked for: {error:#}"));
                return;
            }
        };
        for socket in candidates {
            if found.contains(&addresses(socket)) {
                let text = format!("{}: a segment begins with a TLS record", connection(socket));
                let cure =
                    "declare wire = \"opaque\" with limits in segments, or let the engine send plain FIX";
                self.gaps.push(Problem::new(ProblemKind::Tls, &scope(breaker, socket), text, cure));
            } else {
                self.notes.push(format!(
                    "{}: no FIX message was ever read: TLS is possible, but no segment in {} s showed it",
                    connection(socket),
                    TLS_WATCH.as_secs()
                ));
            }
        }
    }
}

fn scope(breaker: &Breaker, socket: &SessionSocket) -> String {
    let name = |session| format!("session/{}", breaker.names().session_name(session));
    socket.session.map_or_else(|| "host".to_owned(), name)
}

fn connection(socket: &SessionSocket) -> String {
    format!("connection {} > {}", socket.local, socket.remote)
}
