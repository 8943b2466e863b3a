//! The fleet: many hosts that are tripped together through an etcd cluster.
//!
//! Nothing on a host waits for etcd. The records in etcd say what is to be in force ([`record`], [`key`]);
//! [`standing`] derives which scopes of a host are tripped, and [`sameness`] which hosts differ. All of these
//! are pure; [`engine`] calls etcd. The agent of each host applies the records to its kernel, and
//! acknowledges what it read back.

pub mod engine;
pub mod key;
pub mod record;
pub mod sameness;
pub mod scope;
pub mod standing;

pub use key::Prefix;
pub use scope::FleetScope;
