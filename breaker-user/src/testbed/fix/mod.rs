//! FIX 4.4 over blocking TCP sockets: an [`Initiator`] that trades and an [`Acceptor`] that records what
//! arrives.
//!
//! Both behave like engines: sequence numbers that outlive connections, heartbeats, TestRequest,
//! ResendRequest, Logout. Tests that write to a socket of their own use the codec, [`Encoder`] and
//! [`Decoder`].

pub mod tag;

mod acceptor;
mod connection;
mod decode;
mod encode;
mod initiator;
mod ledger;
mod order;
mod session;
mod socket;
#[cfg(test)]
mod tests;
mod timestamp;

pub use acceptor::{Acceptor, AcceptorSettings};
pub use decode::{Decoder, Message};
pub use encode::{Encoder, Fields, Header};
pub use initiator::{Initiator, InitiatorSettings, Sent};
pub use ledger::{Connection, Received};
pub use order::{cancel, cl_ord_id, cl_ord_ids, new_order};
pub use socket::{End, Ending, connect};
