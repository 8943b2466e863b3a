//! The messages and connections that an acceptor has recorded.

use std::net::SocketAddr;

use super::socket::Ending;
use crate::testbed::clock::Moment;

/// An order or a cancel that has arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// ClOrdID(11).
    pub cl_ord_id: String,
    /// When the read returned that contained its last byte.
    pub at: Moment,
    /// MsgSeqNum(34).
    pub seq: u64,
    /// PossDupFlag(43)=Y: the engine has resent it.
    pub poss_dup: bool,
    /// Index of the acceptor's connection, from 0.
    pub connection: usize,
}

/// A connection of an acceptor, open or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Address of the peer.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub opened: Moment,
    /// SenderCompID(49) of its Logon; `None` before the Logon.
    pub session: Option<String>,
    /// Number of NewOrderSingle(D) messages on it.
    pub orders: u64,
    /// How the connection ended; `None` while it is open.
    pub ending: Option<Ending>,
}

/// Everything that an acceptor has recorded.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub orders: Vec<Received>,
    pub cancels: Vec<Received>,
    pub connections: Vec<Connection>,
}
