//! Encodes messages: the only place that writes BodyLength(9), CheckSum(10) and the header.

use super::tag;
use super::timestamp::Timestamp;

/// Ends each field.
pub(super) const SOH: u8 = 1;
/// Start of each FIX 4.4 message.
pub(super) const BEGIN: &[u8] = b"8=FIX.4.4\x019=";

/// Encodes the messages of one side of a session.
#[derive(Clone, Debug)]
pub struct Encoder {
    sender: String,
    target: String,
    body: Vec<u8>,
    clock: Timestamp,
}

/// Header fields of a message other than the CompIDs and the time.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// MsgType(35).
    pub msg_type: &'a str,
    /// MsgSeqNum(34).
    pub seq: u64,
    /// PossDupFlag(43)=Y, with OrigSendingTime(122).
    pub poss_dup: bool,
}

/// The fields of a message that is being encoded.
#[derive(Debug)]
pub struct Fields<'a> {
    body: &'a mut Vec<u8>,
    now: &'a str,
}

impl Encoder {
    /// Makes an encoder for SenderCompID(49) and TargetCompID(56).
    pub fn new(sender: impl Into<String>, target: impl Into<String>) -> Self {
        Self { sender: sender.into(), target: target.into(), body: Vec::new(), clock: Timestamp::new() }
    }

    /// Appends a message to `out`: the header, the fields that `fill` adds, the trailer.
    pub fn message(&mut self, out: &mut Vec<u8>, header: Header<'_>, fill: impl FnOnce(&mut Fields<'_>)) {
        self.body.clear();
        let mut fields = Fields { body: &mut self.body, now: self.clock.now() };
        fields.text(tag::MSG_TYPE, header.msg_type).number(tag::MSG_SEQ_NUM, header.seq);
        if header.poss_dup {
            fields.text(tag::POSS_DUP_FLAG, "Y");
        }
        fields
            .text(tag::SENDER_COMP_ID, &self.sender)
            .now(tag::SENDING_TIME)
            .text(tag::TARGET_COMP_ID, &self.target);
        if header.poss_dup {
            fields.now(tag::ORIG_SENDING_TIME);
        }
        fill(&mut fields);
        let start = out.len();
        out.extend_from_slice(BEGIN);
        push_number(out, self.body.len() as u64);
        out.push(SOH);
        out.extend_from_slice(&self.body);
        let sum = check_sum(&out[start..]);
        out.extend_from_slice(b"10=");
        out.extend([sum / 100, sum / 10 % 10, sum % 10].map(|digit| b'0' + digit));
        out.push(SOH);
    }
}

impl Fields<'_> {
    /// Adds a text field. A value that contains SOH must follow its length field.
    pub fn text(&mut self, tag: u32, value: impl AsRef<[u8]>) -> &mut Self {
        self.tag(tag);
        self.body.extend_from_slice(value.as_ref());
        self.body.push(SOH);
        self
    }

    /// Adds a whole-number field.
    pub fn number(&mut self, tag: u32, value: u64) -> &mut Self {
        self.tag(tag);
        push_number(self.body, value);
        self.body.push(SOH);
        self
    }

    /// Adds a price field, given in cents.
    pub fn cents(&mut self, tag: u32, cents: u64) -> &mut Self {
        self.tag(tag);
        push_number(self.body, cents / 100);
        let rest = (cents % 100) as u8;
        self.body.extend([b'.', b'0' + rest / 10, b'0' + rest % 10, SOH]);
        self
    }

    /// Adds a field with the SendingTime(52) of the message.
    pub fn now(&mut self, tag: u32) -> &mut Self {
        self.text(tag, self.now)
    }

    fn tag(&mut self, tag: u32) {
        push_number(self.body, tag.into());
        self.body.push(b'=');
    }
}

/// CheckSum(10): the sum of all bytes before its own tag, modulo 256.
pub(super) fn check_sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}
