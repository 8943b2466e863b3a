//! Inline mode: breaker on a gateway in front of the trading host, at XDP. The trading host runs nothing of
//! breaker.

mod limits;
mod segments;
mod trips;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use breaker_tests::gateway::{Gateway, Hook, Inline, Offloads};

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
limits = [{ class = "order", max = 137, per = "total" }]
[[session]]
name = "x2"
remote = ["10.9.0.2:9002", "[fd09::2]:9002"]
"#;

const LIMIT: usize = 137;

/// A sender's first retransmit comes after 200 ms of silence on a link this short, its second after 400 ms
/// more.
const ONE_RETRANSMIT: Duration = Duration::from_secs(1);

/// Time after which no more segments arrive.
const QUIET: Duration = Duration::from_millis(700);

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(Gateway::VENUE[0], port)
}

fn both_families(port: u16) -> [SocketAddr; 2] {
    Gateway::VENUE.map(|address| SocketAddr::new(address, port))
}

fn inline(hook: Hook) -> Inline {
    Inline::inline(hook, Offloads::Checksums, POLICY)
}

fn connect(testbed: &Inline, to: SocketAddr) -> TcpStream {
    let stream = testbed.network.firm.run(|| TcpStream::connect(to)).expect("connecting");
    stream.set_nodelay(true).expect("setting TCP_NODELAY");
    // A sender without a reset would otherwise block without end.
    stream.set_write_timeout(Some(2 * ONE_RETRANSMIT)).expect("setting a timeout");
    stream
}

/// Returns true if the write ends in a reset; any other error is a failure.
fn write_ends_in_reset(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    match stream.write_all(bytes) {
        Ok(()) => false,
        Err(error) if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Returns true if the socket reports a reset in time.
fn is_reset(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).expect("setting a timeout");
    stream.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}
