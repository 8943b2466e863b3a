//! Many hosts, with a real etcd cluster.

mod engine;
mod faults;
mod hosts;
mod nemesis;
mod permissions;

use breaker_tests::etcd::Cluster;
use breaker_user::fleet::engine::Engine;

/// A client of all members.
fn engine(cluster: &Cluster) -> Engine {
    Engine::new(&cluster.endpoints()).expect("an engine")
}
