//! The session layer of FIX 4.4: sequence numbers, answers to admin messages, heartbeats. It touches no
//! socket.
//!
//! One behaviour differs from a real engine: a message after a gap is accepted at once and not requested
//! again. The testbed so records each order that arrived, at the time when it arrived.

use std::mem;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::decode::Message;
use super::encode::{Encoder, Fields, Header};
use super::order::Report;
use super::socket::End;
use super::tag;
use crate::testbed::clock::Moment;
use crate::testbed::watched::lock;

/// A message that the session layer has to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Heartbeat(0), with the TestReqID(112) of a TestRequest or without one.
    Heartbeat(Option<String>),
    /// TestRequest(1), sent after the peer was silent.
    TestRequest,
    /// ResendRequest(2) for a gap, as an inclusive range.
    ResendRequest { first: u64, last: u64 },
    /// SequenceReset(4) with GapFillFlag(123)=Y for an inclusive range of messages; `last` 0 is the last
    /// sent.
    GapFill { first: u64, last: u64 },
    /// Logon(A) with HeartBtInt(108) in seconds and ResetSeqNumFlag(141).
    Logon { heartbeat: u64, reset: bool },
    /// Logout(5) with its Text(58).
    Logout(String),
    /// ExecutionReport(8).
    Report(Report),
}

/// The kind of a received message, for the side above the session layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Logon(A).
    Logon,
    /// Logout(5).
    Logout,
    /// Reject(3).
    Reject,
    /// The session layer has handled it alone.
    Handled,
    /// Any other message type.
    Application,
}

/// The receiving half of a session, which outlives connections.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Expected MsgSeqNum(34) of the next message.
    pub expected: u64,
    /// The gaps so far, as inclusive ranges.
    pub gaps: Vec<(u64, u64)>,
}

/// The sending half of a session, which outlives connections.
#[derive(Debug)]
pub(super) struct Outbound {
    encoder: Encoder,
    /// MsgSeqNum(34) of the next message.
    pub next: u64,
    /// Time of the last write.
    pub sent: Moment,
}

/// Both halves of a session, and the replies that are not written yet.
///
/// The thread that reads a connection never waits for a thread that writes to it: two peers that only write
/// would block each other. Its replies wait in `pending` until one of the threads gets `outbound`.
#[derive(Debug)]
pub(super) struct Session {
    pub inbound: Mutex<Inbound>,
    pub outbound: Mutex<Outbound>,
    pub pending: Mutex<Vec<Reply>>,
    /// True while a connection uses the session.
    pub taken: AtomicBool,
}

impl Session {
    pub fn new(encoder: Encoder) -> Self {
        Self {
            inbound: Mutex::new(Inbound { expected: 1, gaps: Vec::new() }),
            outbound: Mutex::new(Outbound { encoder, next: 1, sent: Moment::now() }),
            pending: Mutex::default(),
            taken: AtomicBool::new(false),
        }
    }

    /// Appends the pending replies to `out`.
    pub fn answer(&self, outbound: &mut Outbound, out: &mut Vec<u8>) {
        for reply in mem::take(&mut *lock(&self.pending)) {
            outbound.reply(out, reply);
        }
    }
}

impl Inbound {
    /// Receives a message and adds the replies that it requires.
    ///
    /// An error ends the session: its text belongs in a Logout.
    pub fn receive(&mut self, message: &Message<'_>, replies: &mut Vec<Reply>) -> Result<Incoming, String> {
        let seq = message.seq().ok_or("MsgSeqNum(34) is missing")?;
        let msg_type = message.msg_type();
        let gap_fill = message.is_yes(tag::GAP_FILL_FLAG);
        if msg_type == b"4" && !gap_fill {
            self.expected = message.number(tag::NEW_SEQ_NO).ok_or("NewSeqNo(36) is missing")?;
            return Ok(Incoming::Handled);
        }
        if msg_type == b"A" && message.is_yes(tag::RESET_SEQ_NUM_FLAG) {
            self.expected = 1;
        }
        self.advance(seq, message.poss_dup(), replies)?;
        match msg_type {
            b"0" => Ok(Incoming::Handled),
            b"1" => {
                replies.push(Reply::Heartbeat(Some(message.text(tag::TEST_REQ_ID).to_owned())));
                Ok(Incoming::Handled)
            }
            b"2" => {
                let bound = |tag| message.number(tag).ok_or("a bound of a ResendRequest is missing");
                replies
                    .push(Reply::GapFill { first: bound(tag::BEGIN_SEQ_NO)?, last: bound(tag::END_SEQ_NO)? });
                Ok(Incoming::Handled)
            }
            b"3" => Ok(Incoming::Reject),
            b"4" => {
                let filled = message.number(tag::NEW_SEQ_NO).ok_or("NewSeqNo(36) is missing")?;
                self.expected = self.expected.max(filled);
                Ok(Incoming::Handled)
            }
            b"5" => Ok(Incoming::Logout),
            b"A" => Ok(Incoming::Logon),
            _ => Ok(Incoming::Application),
        }
    }

    fn advance(&mut self, seq: u64, poss_dup: bool, replies: &mut Vec<Reply>) -> Result<(), String> {
        if seq > self.expected {
            self.gaps.push((self.expected, seq - 1));
            replies.push(Reply::ResendRequest { first: self.expected, last: seq - 1 });
        }
        if seq < self.expected && !poss_dup {
            // The text of QuickFIX.
            return Err(format!("MsgSeqNum too low, expecting {} but received {seq}", self.expected));
        }
        self.expected = self.expected.max(seq + 1);
        Ok(())
    }
}

impl Outbound {
    /// Appends a message with the next sequence number to `out`.
    pub fn message(&mut self, out: &mut Vec<u8>, msg_type: &str, fill: impl FnOnce(&mut Fields<'_>)) {
        let header = Header { msg_type, seq: self.next, poss_dup: false };
        self.next += 1;
        self.sent = Moment::now();
        self.encoder.message(out, header, fill);
    }

    /// Appends a message again, with PossDupFlag(43)=Y and the sequence number that it had.
    pub fn resend(
        &mut self,
        out: &mut Vec<u8>,
        (msg_type, seq): (&str, u64),
        fill: impl FnOnce(&mut Fields<'_>),
    ) {
        self.sent = Moment::now();
        self.encoder.message(out, Header { msg_type, seq, poss_dup: true }, fill);
    }

    /// Appends a reply to `out`.
    pub fn reply(&mut self, out: &mut Vec<u8>, reply: Reply) {
        match reply {
            Reply::Heartbeat(None) => self.message(out, "0", |_| ()),
            Reply::Heartbeat(Some(id)) => self.message(out, "0", |f| _ = f.text(tag::TEST_REQ_ID, id)),
            Reply::TestRequest => self.message(out, "1", |f| _ = f.now(tag::TEST_REQ_ID)),
            Reply::ResendRequest { first, last } => self.message(out, "2", |f| {
                f.number(tag::BEGIN_SEQ_NO, first).number(tag::END_SEQ_NO, last);
            }),
            Reply::GapFill { first, last } => self.gap_fill(out, first, last),
            Reply::Logon { heartbeat, reset } => {
                if reset {
                    self.next = 1;
                }
                self.message(out, "A", |f| {
                    f.number(tag::ENCRYPT_METHOD, 0).number(tag::HEART_BT_INT, heartbeat);
                    f.text(tag::RESET_SEQ_NUM_FLAG, if reset { "Y" } else { "N" });
                });
            }
            Reply::Logout(text) if text.is_empty() => self.message(out, "5", |_| ()),
            Reply::Logout(text) => self.message(out, "5", |f| _ = f.text(tag::TEXT, text)),
            Reply::Report(report) => self.message(out, "8", |f| report.fill(f)),
        }
    }

    /// Sends a gap fill for messages that were requested again, so that no order is sent twice.
    fn gap_fill(&mut self, out: &mut Vec<u8>, first: u64, last: u64) {
        let next = if last == 0 { self.next } else { self.next.min(last + 1) };
        if first < next {
            self.encoder.message(out, Header { msg_type: "4", seq: first, poss_dup: true }, |f| {
                f.text(tag::GAP_FILL_FLAG, "Y").number(tag::NEW_SEQ_NO, next);
            });
        }
    }
}

/// The heartbeat timer of one connection.
#[derive(Debug)]
pub(super) struct HeartbeatTimer {
    /// HeartBtInt(108); zero turns heartbeats off.
    /// HeartBtInt(108); zero is no heartbeats.
    pub interval: Duration,
    last_received: Moment,
    test_request_sent: bool,
}

impl HeartbeatTimer {
    pub fn new() -> Self {
        Self { interval: Duration::ZERO, last_received: Moment::now(), test_request_sent: false }
    }

    /// Records that data arrived.
    pub fn received(&mut self, at: Moment) {
        self.last_received = at;
        self.test_request_sent = false;
    }

    /// The reply that is due now. An error means that the peer must be considered dead.
    /// Like engines, it allows for the network delay: a TestRequest after 1.2 intervals, the end after 2.4.
    pub fn due(&mut self, last_sent: Moment) -> Result<Option<Reply>, End> {
        let silent = self.last_received.elapsed();
        if self.interval.is_zero() {
            return Ok(None);
        }
        if silent > self.interval.mul_f64(2.4) {
            return Err(End::Silent);
        }
        if silent > self.interval.mul_f64(1.2) && !self.test_request_sent {
            self.test_request_sent = true;
            return Ok(Some(Reply::TestRequest));
        }
        Ok((last_sent.elapsed() >= self.interval).then_some(Reply::Heartbeat(None)))
    }
}
