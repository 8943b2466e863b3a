//! What an acceptor has seen.

use std::net::SocketAddr;

use super::socket::Ending;
use crate::testbed::clock::Moment;

/// An order or a cancel that arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// ClOrdID(11).
    pub cl_ord_id: String,
    /// When the read that brought its last byte returned.
    pub at: Moment,
    /// MsgSeqNum(34).
    pub seq: u64,
    /// PossDupFlag(43)=Y: the engine has sent it again.
    pub poss_dup: bool,
    /// On which of the acceptor's connections, counted from 0.
    pub connection: usize,
}

/// A connection that an acceptor has had, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub opened: Moment,
    /// SenderCompID(49) of its Logon, once that was taken.
    pub session: Option<String>,
    /// NewOrderSingles(D) that came on it.
    pub orders: u64,
    /// How it ended; none while it is open.
    pub ending: Option<Ending>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub orders: Vec<Received>,
    pub cancels: Vec<Received>,
    pub connections: Vec<Connection>,
}
