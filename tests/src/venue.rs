//! Messages that a venue sends, and a connection with both of its ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::scope;
use std::time::Duration;

use breaker_common::message::InboundClass;
use breaker_user::testbed::Namespace;
use rustix::net::sockopt::set_socket_send_buffer_size;

use crate::frame::message;
use crate::rng::Rng;

/// Longer than any transfer between two namespaces takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// An execution report. `fields` follow the usual ones, each ended by `|` in place of SOH.
pub fn execution_report(begin: &str, fields: &str) -> Vec<u8> {
    message(begin, "8", format!("37=O-1|17=E-1|11=R-1|55=IBM|54=1|{fields}").replace('|', "\x01").as_bytes())
}

/// A fill in FIX 4.4.
pub fn fill() -> Vec<u8> {
    execution_report("FIX.4.4", "150=F|39=2|31=101.25|32=100|151=0|14=100|6=101.25|")
}

/// A business-level reject.
pub fn reject() -> Vec<u8> {
    message("FIX.4.4", "j", b"45=2\x01372=D\x01380=3\x0158=no\x01")
}

/// A data field behind its length field. The data looks like fills and rejects.
fn decoy(length: u32, data: u32) -> String {
    let inside = "|150=F|39=2|10=000|8=FIX.4.4|9=20|35=8|150=F|39=8|10=000|";
    format!("{length}={}|{data}={inside}|", inside.len())
}

/// Messages of every kind that is a fill or a reject, and of some that are neither, with their classes.
pub fn inbound_samples() -> Vec<(Vec<u8>, InboundClass)> {
    use InboundClass::{Fill, Other, Reject};
    let text = |msg_type, fields: &str| message("FIX.4.4", msg_type, fields.replace('|', "\x01").as_bytes());
    let long = "x".repeat(3_000);
    vec![
        (fill(), Fill),
        (execution_report("FIXT.1.1", "39=1|150=F|"), Fill),
        (execution_report("FIX.4.2", "20=0|150=1|39=1|"), Fill),
        (execution_report("FIX.4.2", "20=0|150=2|39=2|"), Fill),
        (execution_report("FIX.4.0", "20=0|39=1|"), Fill),
        (execution_report("FIX.4.0", "20=0|39=2|"), Fill),
        (execution_report("FIX.4.4", &format!("{}150=F|39=1|", decoy(354, 355))), Fill),
        (execution_report("FIX.4.4", &format!("58={long}|150=F|39=1|")), Fill),
        (execution_report("FIX.4.4", "150=8|39=8|58=no|"), Reject),
        (execution_report("FIX.4.0", "20=0|39=8|"), Reject),
        (text("3", "45=2|58=no|"), Reject),
        (text("9", "37=O-1|11=C-1|41=R-1|39=0|434=1|"), Reject),
        (reject(), Reject),
        (text("j", &format!("{}45=2|372=8|380=0|", decoy(354, 355))), Reject),
        (execution_report("FIX.4.4", "150=0|39=0|"), Other),
        (execution_report("FIX.4.4", "150=4|39=4|"), Other),
        // The order is restated, or its status was requested: the fill was reported before.
        (execution_report("FIX.4.4", "150=D|39=1|"), Other),
        (execution_report("FIX.4.4", "150=I|39=2|"), Other),
        (execution_report("FIX.4.4", &format!("150=0|{}39=0|", decoy(354, 355))), Other),
        (execution_report("FIX.4.4", &format!("{}150=0|39=0|", decoy(95, 96))), Other),
        (execution_report("FIX.4.4", "58=150=F|1150=F|150=0|39=0|"), Other),
        (text("AE", "571=T-1|150=F|39=2|"), Other),
        (text("W", &format!("55=IBM|{}", decoy(95, 96))), Other),
        (text("0", ""), Other),
        (text("1", "112=150=F|"), Other),
        (text("A", "98=0|108=30|"), Other),
        (text("BE", "923=1|"), Other),
    ]
}

/// Random messages, and the number of fills, rejects and others among them.
pub fn random_inbound(rng: &mut Rng, count: usize) -> (Vec<u8>, [u64; 3]) {
    let samples = inbound_samples();
    let (mut bytes, mut counts) = (Vec::new(), [0; 3]);
    for _ in 0..count {
        let (message, class) = &samples[rng.below(samples.len() as u64) as usize];
        bytes.extend_from_slice(message);
        counts[class_index(*class)] += 1;
    }
    (bytes, counts)
}

/// Index of a class in such counts.
pub fn class_index(class: InboundClass) -> usize {
    class as usize - InboundClass::Fill as usize
}

/// A connection from the trading host to the venue.
pub struct ConnectionPair {
    /// The trading host's end.
    pub firm: TcpStream,
    /// The venue's end.
    pub venue: TcpStream,
}

impl ConnectionPair {
    /// Connects to an address of the venue. No test may listen there already.
    pub fn connect(firm: &Namespace, venue: &Namespace, to: SocketAddr) -> Self {
        let listener = venue.run(|| TcpListener::bind(to)).expect("listening");
        let firm = firm.run(|| TcpStream::connect(to)).expect("connecting");
        let (venue, _) = listener.accept().expect("accepting");
        for end in [&firm, &venue] {
            end.set_nodelay(true).expect("setting TCP_NODELAY");
            end.set_read_timeout(Some(PATIENCE)).expect("setting a timeout");
            end.set_write_timeout(Some(PATIENCE)).expect("setting a timeout");
        }
        Self { firm, venue }
    }

    /// Limits the bytes in flight, so that no queue on the path is full and drops segments.
    pub fn limit_in_flight(self, bytes: usize) -> Self {
        for end in [&self.firm, &self.venue] {
            set_socket_send_buffer_size(end, bytes).expect("setting a buffer's size");
        }
        self
    }

    /// Sends these parts from the venue, each by a write of its own, and reads them at the trading host.
    pub fn venue_sends(&mut self, parts: &[&[u8]]) {
        transfer(&mut self.venue, &mut self.firm, parts);
    }

    /// Sends bytes from the trading host, and reads them at the venue.
    pub fn firm_sends(&mut self, bytes: &[u8]) {
        transfer(&mut self.firm, &mut self.venue, &[bytes]);
    }

    /// Sends parts in both directions at the same time.
    pub fn exchange(&mut self, outbound: &[&[u8]], inbound: &[&[u8]]) {
        let clone = |stream: &TcpStream| stream.try_clone().expect("another handle");
        let (mut firm, mut venue) = (clone(&self.firm), clone(&self.venue));
        scope(|threads| {
            threads.spawn(|| transfer(&mut firm, &mut venue, outbound));
            self.venue_sends(inbound);
        });
    }
}

/// Sends parts from one end, and reads them at the other.
fn transfer(from: &mut TcpStream, to: &mut TcpStream, parts: &[&[u8]]) {
    let whole = parts.concat();
    let mut received = vec![0; whole.len()];
    scope(|threads| {
        threads.spawn(|| parts.iter().for_each(|part| from.write_all(part).expect("sending")));
        to.read_exact(&mut received).expect("all bytes arrive");
    });
    assert!(received == whole, "the received bytes are those sent");
}

/// Cuts bytes at random into small parts, some of them up to `most` bytes long.
pub fn random_segments<'a>(rng: &mut Rng, mut bytes: &'a [u8], most: u64) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let most = if rng.below(4) == 0 { most } else { 300 };
        let (part, rest) = bytes.split_at((1 + rng.below(most) as usize).min(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    parts
}
