//! Flows that are not FIX of a declared session: unreadable sessions, undeclared FIX, connections without
//! room in the table, and other traffic.

mod full_table;
mod opaque;
mod undeclared;

use breaker_tests::receiver::{End, Receiver, TcpConnection};
use breaker_tests::rng::Rng;
use breaker_tests::testbed::Testbed;

/// Bytes that look like TLS records of application data.
fn tls_records(length: usize, rng: &mut Rng) -> Vec<u8> {
    let head = [0x17, 3, 3, 0x40, 0];
    head.into_iter().chain(std::iter::repeat_with(|| rng.below(256) as u8)).take(length).collect()
}

/// Web and shell traffic, to the port of the undeclared flow and to others. All of it arrives, on old
/// connections and on new ones.
struct OtherTraffic<'a> {
    connections: Vec<TcpConnection<'a>>,
    receivers: Vec<&'a Receiver>,
    testbed: &'a Testbed,
}

impl<'a> OtherTraffic<'a> {
    fn new(testbed: &'a Testbed, receivers: &[&'a Receiver]) -> Self {
        let connections = receivers.iter().map(|receiver| receiver.connect(testbed)).collect();
        let mut others = Self { connections, receivers: receivers.to_vec(), testbed };
        others.exchange();
        others
    }

    fn exchange(&mut self) {
        let new_connection: Vec<_> =
            self.receivers.iter().map(|receiver| receiver.connect(self.testbed)).collect();
        self.connections.extend(new_connection);
        for connection in &mut self.connections {
            connection
                .send_and_wait(b"POST /orders HTTP/1.1\r\nHost: venue\r\nContent-Length: 40000\r\n\r\n");
            connection.send_and_wait(&tls_records(40_000, &mut Rng(0x7156)));
            connection.send_and_wait(b"SSH-2.0-OpenSSH_9.9\r\n");
            connection.send_and_wait(b"8");
            assert_eq!(connection.received().end, End::Open);
        }
    }
}

/// A policy for undeclared FIX, and a session.
fn undeclared(policy: &str, limits: &str) -> String {
    format!(
        "undeclared = \"{policy}\"\nlimits = [{limits}]\n[[session]]\nname = \"x1\"\nremote = \
         \"10.9.0.2:9001\"\n"
    )
}
