//! Inbound traffic: how it is counted, and that none of it is ever withheld.

mod counting;
mod frames;
mod hook;

use std::net::{IpAddr, SocketAddr};

use breaker_common::abi::Counters;
use breaker_tests::network::Network;
use breaker_tests::testbed::Testbed;
use breaker_tests::venue::ConnectionPair;
use breaker_user::testbed::TwoHosts;

const POLICY: &str = r#"
inbound = "watch"
undeclared = "ignore"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
[[session]]
name = "x2"
remote = ["10.9.0.2:9002", "[fd09::2]:9002"]
"#;

const BOTH: [IpAddr; 2] = [TwoHosts::VENUE, TwoHosts::VENUE_V6];

fn with_clsact() -> Testbed {
    Testbed::load(&format!("hook = \"clsact\"\n{POLICY}"))
}

fn pair(testbed: &Testbed, address: IpAddr, port: u16) -> ConnectionPair {
    ConnectionPair::connect(&testbed.network.firm, &testbed.network.venue, SocketAddr::new(address, port))
}

/// Inbound counts of the sessions by their numbers, and the number of lost streams.
fn inbound<const N: usize>(testbed: &Testbed<impl Network>, sessions: [usize; N]) -> [([u64; 3], u64); N] {
    let of = |session| {
        let Counters { inbound, inbound_desyncs, .. } =
            testbed.with_breaker(|breaker| breaker.counters().expect("counters"))[session];
        (inbound, inbound_desyncs)
    };
    sessions.map(of)
}

fn sum(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|i| a[i] + b[i])
}
