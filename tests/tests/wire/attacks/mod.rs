//! Attacks by an account without privileges, by a peer, and by senders of crafted frames. No order of theirs
//! crosses a limit or a trip, and no other traffic is withheld.

mod account;
mod frames;

use std::time::Duration;

use breaker_tests::receiver::Receiver;
use breaker_tests::testbed::Testbed;

/// Time after which no more segments arrive.
const QUIET: Duration = Duration::from_millis(400);

fn testbed(host: &str, keys: &str) -> (Testbed, Receiver) {
    let testbed =
        Testbed::load(&format!("{host}\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{keys}"));
    let receiver = testbed.listen(9001);
    (testbed, receiver)
}

const FIVE: &str = "limits = [{ class = \"order\", max = 5, per = \"total\" }]";

/// Number of orders at the venue, on all connections.
fn orders(receiver: &Receiver) -> usize {
    receiver
        .received()
        .iter()
        .map(|one| one.bytes.windows(6).filter(|window| window == b"\x0135=D\x01").count())
        .sum()
}
