//! The testbed: throw-away network namespaces on this host's own kernel, and FIX sessions over real TCP
//! inside them.
//!
//! `breaker drill` and the privileged tests run in it. It needs root and no other program:
//!
//! ```no_run
//! use breaker_user::testbed::{Moment, Result, TwoHosts, fix};
//! use std::time::Duration;
//!
//! # fn main() -> Result<()> {
//! let hosts = TwoHosts::new()?;
//! let address = TwoHosts::venue_socket(9001);
//! let venue = hosts.venue.run(|| fix::Acceptor::listen(address, fix::AcceptorSettings::default()))?;
//! let engine = fix::Initiator::new(fix::InitiatorSettings::new(address));
//! hosts.firm.run(|| engine.connect())?;
//! engine.logon()?;
//! let start = Moment::now();
//! assert_eq!(engine.send_orders("R", 1..=212).messages, 212);
//! venue.wait_for_orders(212, Duration::from_secs(5))?;
//! assert_eq!(venue.cl_ord_ids(), fix::cl_ord_ids("R", 1..=212));
//! println!("{:?} after the first", venue.orders()[211].at.since(start));
//! # Ok(())
//! # }
//! ```

pub mod fix;

mod clock;
mod error;
mod ethtool;
mod link;
mod netns;
mod two_hosts;
mod watched;

pub use clock::Moment;
pub use error::{Error, Result};
pub use ethtool::Offload;
pub use link::veth;
pub use netns::Namespace;
pub use two_hosts::TwoHosts;
