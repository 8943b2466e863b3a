//! A sender of random packets, and its peer.

use breaker_common::decide::{FIN, RST, SYN};
use breaker_tests::frame::{ACK, message, message_with_body, order};
use breaker_tests::rng::Rng;

/// A sender and its peer: sent and pending bytes, and sequence numbers.
pub struct Sender {
    /// Number of the session.
    pub session: u32,
    /// Its own port.
    pub port: u16,
    /// Sequence number of the next byte.
    pub seq: u32,
    pending: Vec<u8>,
    last: Option<(u32, u8, Vec<u8>)>,
    peer_seq: u32,
    peer_pending: Vec<u8>,
}

impl Sender {
    /// Creates the sender number `n`.
    pub fn new(n: u16) -> Self {
        let session = 1 + u32::from(n % 4);
        let pending = Vec::new();
        Self {
            session,
            port: 40_000 + n,
            seq: 7_000,
            pending,
            last: None,
            peer_seq: 1,
            peer_pending: Vec::new(),
        }
    }

    /// The next packet: sequence number, flags, payload.
    pub fn next(&mut self, rng: &mut Rng) -> (u32, u8, Vec<u8>) {
        let packet = match rng.below(40) {
            0 | 1 => {
                self.seq = rng.below(1 << 32) as u32;
                self.pending.clear();
                if self.session == 4 {
                    let target = ["VENUE-4", "VENUE-5", "VENUE-6", "A-LONG-NAME-OF-SOME-OTHER-VENUE"]
                        [rng.below(4) as usize];
                    self.pending = message_with_body(&format!(
                        "35=A|34=1|52=20261122-09:30:00|49=FIRM|56={target}|98=0|108=30|"
                    ));
                }
                (self.seq.wrapping_sub(1), SYN, Vec::new())
            }
            2 => (self.seq, ACK | FIN, Vec::new()),
            3 => (self.seq, RST, Vec::new()),
            4 => (self.seq, ACK, Vec::new()),
            5..=7 if self.last.is_some() => return self.last.clone().expect("one"),
            // A gap, and bytes that are not FIX.
            8 => self.send(rng.below(200) as u32, vec![b'z'; 1 + rng.below(60) as usize]),
            9 => self.send(1 + rng.below(300) as u32, order(9)),
            _ => {
                while self.pending.len() < 1_200 {
                    let one = match rng.below(16) {
                        0 => message("FIX.4.2", "F", b"11=C\x0141=R\x01"),
                        1 => message("FIXT.1.1", "0", b""),
                        2 => message("FIX.4.4", "R", b"131=Q\x01"),
                        3 => message("FIX.4.4", "U77", b"58=own\x01"),
                        4 => message("FIX.4.4", "AE", b""),
                        5 => {
                            message("FIX.4.4", "D", b"34=7\x0195=9\x0196=a\x0143=Y\x01bc\x0143=Y\x0111=R\x01")
                        }
                        6 => {
                            message("FIX.4.4", "D", b"34=7\x0195=9\x0196=a\x0143=Y\x01bc\x0143=N\x0111=R\x01")
                        }
                        7 => {
                            let action = 1 + rng.below(4);
                            message(
                                "FIXT.1.1",
                                "CA",
                                format!("11=M\x011373={action}\x011374=1\x01").as_bytes(),
                            )
                        }
                        _ => order(rng.below(1_000_000) as u32),
                    };
                    self.pending.extend(one);
                }
                let length = 1 + rng.below(1_100) as usize;
                let rest = self.pending.split_off(length);
                let payload = std::mem::replace(&mut self.pending, rest);
                self.send(0, payload)
            }
        };
        self.last = Some(packet.clone());
        packet
    }

    fn send(&mut self, gap: u32, payload: Vec<u8>) -> (u32, u8, Vec<u8>) {
        let seq = self.seq.wrapping_add(gap);
        self.seq = seq.wrapping_add(payload.len() as u32);
        (seq, ACK, payload)
    }

    /// The next packet of its peer.
    pub fn answer(&mut self, rng: &mut Rng) -> (u32, u8, Vec<u8>) {
        if rng.below(30) == 0 {
            self.peer_seq = rng.below(1 << 32) as u32;
            self.peer_pending.clear();
            return (self.peer_seq.wrapping_sub(1), SYN | ACK, Vec::new());
        }
        while self.peer_pending.len() < 1_200 {
            let one = match rng.below(9) {
                0 => message("FIX.4.4", "8", b"37=1\x0195=7\x0196=150=F\x01z\x01150=0\x0139=0\x01"),
                1 => message("FIX.4.4", "8", b"37=1\x01150=F\x0139=2\x01"),
                2 => message("FIX.4.2", "8", b"37=1\x0139=1\x01150=1\x01"),
                3 => message("FIX.4.0", "8", b"37=1\x0139=2\x0158=no ExecType in this version\x01"),
                4 => message("FIX.4.4", "8", b"150=8\x0139=8\x01"),
                5 => message("FIX.4.4", "j", b"380=1\x01"),
                6 => message("FIXT.1.1", "AE", b"571=1\x01"),
                _ => message("FIX.4.4", "0", b""),
            };
            self.peer_pending.extend(one);
        }
        let rest = self.peer_pending.split_off(1 + rng.below(1_100) as usize);
        let payload = std::mem::replace(&mut self.peer_pending, rest);
        let seq = self.peer_seq;
        self.peer_seq = seq.wrapping_add(payload.len() as u32);
        (seq, ACK, payload)
    }
}
