//! Sessions at a shared endpoint, identified by the CompIDs of each connection's first message.

mod comp_ids;
mod trips;
mod undeclared;

use std::net::SocketAddr;

use breaker_tests::frame::message_with_body;
use breaker_tests::receiver::{Receiver, TcpConnection};
use breaker_tests::testbed::Testbed;

const REMOTE: &str = "10.9.0.2:9001";

/// Numbers of the sessions of [`TWO`], behind that of undeclared flows.
const UNDECLARED: usize = 0;

const A: usize = 1;

const B: usize = 2;

/// Two sessions at one endpoint.
const TWO: &str = r#"
[[session]]
name = "a"
remote = "10.9.0.2:9001"
sender = "DESK-A"
target = "VENUE"
[[session]]
name = "b"
remote = "10.9.0.2:9001"
sender = "DESK-B"
target = "VENUE"
"#;

/// [`TWO`] with these keys for `a`.
fn two_sessions(keys: &str) -> String {
    TWO.replacen("sender", &format!("{keys}\nsender"), 1)
}

fn at(remote: &str) -> SocketAddr {
    remote.parse().expect("an address")
}

/// A testbed, and the venue's end.
fn testbed(policy: &str) -> (Testbed, Receiver) {
    let testbed = Testbed::load(policy);
    let receiver = testbed.listen_at(at(REMOTE));
    (testbed, receiver)
}

/// A Logon with this header behind MsgType(35).
fn logon(header: &str) -> Vec<u8> {
    message_with_body(&format!("35=A|{header}|98=0|108=30|"))
}

fn logon_of(name: &str) -> Vec<u8> {
    logon(&format!("49=DESK-{name}|56=VENUE|34=1|52=20261122-09:30:00.000"))
}

fn order(id: usize) -> Vec<u8> {
    message_with_body(&format!(
        "35=D|49=DESK-?|56=VENUE|34=2|52=20261122-09:30:00.000|11=R-{id}|55=IBM|54=1|38=100|40=2|44=1|"
    ))
}

fn cancel() -> Vec<u8> {
    message_with_body("35=F|49=DESK-?|56=VENUE|34=2|52=20261122-09:30:00.000|11=C-1|41=R-1|55=IBM|54=1|")
}

/// A connection that has logged on.
fn logged_on<'a>(testbed: &Testbed, receiver: &'a Receiver, logon: &[u8]) -> TcpConnection<'a> {
    let mut connection = receiver.connect(testbed);
    connection.send_and_wait(logon);
    connection
}

/// Orders that passed, by session.
fn orders<const N: usize>(testbed: &Testbed) -> [u64; N] {
    testbed.with_breaker(|breaker| {
        let counters = breaker.counters().expect("reading the counters");
        std::array::from_fn(|session| counters[session].passed[0])
    })
}

/// Messages that passed, by session.
fn messages<const N: usize>(testbed: &Testbed) -> [u64; N] {
    std::array::from_fn(|session| testbed.counters(session).passed.iter().sum())
}
