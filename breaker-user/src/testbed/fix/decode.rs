//! Decodes a byte stream that arrives in pieces into whole, checked messages.

use std::io::{self, Read};
use std::ops::Range;

use super::encode::{BEGIN, SOH, check_sum};
use super::tag;

/// Bytes of one read: a few of the largest segments.
const READ: usize = 256 << 10;
/// Longest message, in bytes. The testbed writes no longer ones.
const LONGEST: usize = 64 << 10;
/// Length of `10=123` and SOH.
const TRAILER: usize = 7;

/// Decodes messages from bytes.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// The bytes that have arrived and are not yet part of a returned message.
    pending: Range<usize>,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    tag: u32,
    value: Range<usize>,
}

/// A whole message whose BodyLength(9) and CheckSum(10) are right.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    fields: &'a [Field],
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self { buffer: vec![0; READ + LONGEST], pending: 0..0, fields: Vec::new() }
    }

    /// Reads once from `source` and returns the number of bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// Those of the read.
    pub fn fill(&mut self, mut source: impl Read) -> io::Result<usize> {
        // Less than one message is pending, so that a whole read fits behind it.
        self.buffer.copy_within(self.pending.clone(), 0);
        self.pending = 0..self.pending.len();
        let count = source.read(&mut self.buffer[self.pending.end..])?;
        self.pending.end += count;
        Ok(count)
    }

    /// Returns the next message if all of it has arrived. Call it until it returns `None` before
    /// [`Decoder::fill`].
    ///
    /// # Errors
    /// If the bytes are no valid message. The decoder cannot continue after an error.
    pub fn message(&mut self) -> Result<Option<Message<'_>>, &'static str> {
        let Some(length) = whole(&self.buffer[self.pending.clone()])? else { return Ok(None) };
        let bytes = &self.buffer[self.pending.start..][..length];
        self.pending.start += length;
        split(bytes, &mut self.fields)?;
        Ok(Some(Message { bytes, fields: &self.fields }))
    }
}

impl<'a> Message<'a> {
    /// All bytes of the message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// MsgType(35).
    pub fn msg_type(&self) -> &'a [u8] {
        self.field(tag::MSG_TYPE).unwrap_or_default()
    }

    /// MsgSeqNum(34).
    pub fn seq(&self) -> Option<u64> {
        self.number(tag::MSG_SEQ_NUM)
    }

    /// PossDupFlag(43)=Y.
    pub fn poss_dup(&self) -> bool {
        self.is_yes(tag::POSS_DUP_FLAG)
    }

    /// The value of the first field with this tag.
    pub fn field(&self, tag: u32) -> Option<&'a [u8]> {
        let field = self.fields.iter().find(|field| field.tag == tag)?;
        Some(&self.bytes[field.value.clone()])
    }

    /// The value of the first field with this tag if it is UTF-8; empty if there is none.
    pub fn text(&self, tag: u32) -> &'a str {
        self.field(tag).and_then(|value| str::from_utf8(value).ok()).unwrap_or_default()
    }

    /// The value of the first field with this tag if it is a whole number.
    pub fn number(&self, tag: u32) -> Option<u64> {
        number(self.field(tag)?)
    }

    /// Returns true if the value of the field is Y.
    pub fn is_yes(&self, tag: u32) -> bool {
        self.field(tag) == Some(b"Y")
    }
}

/// The length of the message at the start of `bytes`; `None` if more bytes are needed.
fn whole(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let common = bytes.len().min(BEGIN.len());
    if bytes[..common] != BEGIN[..common] {
        return Err("not the start of a FIX 4.4 message");
    }
    let rest = &bytes[common..];
    let Some(digits) = rest.iter().take(8).position(|byte| *byte == SOH) else {
        return if rest.len() < 8 { Ok(None) } else { Err("BodyLength(9) has no end") };
    };
    let body = number(&rest[..digits]).ok_or("BodyLength(9) is not a number")?;
    let length = BEGIN.len() + digits + 1 + body as usize + TRAILER;
    if length > LONGEST {
        return Err("BodyLength(9) is too large");
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let (message, trailer) = bytes[..length].split_at(length - TRAILER);
    let sum = trailer.strip_prefix(b"10=").and_then(|rest| rest.strip_suffix(&[SOH]));
    let sum = sum.and_then(number).ok_or("BodyLength(9) does not lead to CheckSum(10)")?;
    if sum != u64::from(check_sum(message)) {
        return Err("CheckSum(10) is wrong");
    }
    Ok(Some(length))
}

/// Finds the fields of a whole message.
fn split(bytes: &[u8], fields: &mut Vec<Field>) -> Result<(), &'static str> {
    fields.clear();
    let mut at = 0;
    let mut data = None;
    while at < bytes.len() {
        let equals = bytes[at..].iter().position(|byte| *byte == b'=').ok_or("a field has no '='")?;
        let tag = number(&bytes[at..at + equals])
            .and_then(|tag| u32::try_from(tag).ok())
            .ok_or("a tag is not a number")?;
        let start = at + equals + 1;
        let length = match data.take() {
            Some((expected, length)) if expected == tag => length,
            _ => bytes[start..].iter().position(|byte| *byte == SOH).ok_or("a field has no end")?,
        };
        let end = start
            .checked_add(length)
            .filter(|end| bytes.get(*end) == Some(&SOH))
            .ok_or("a data field is too long")?;
        if let Some(expected) = tag::data_of(tag) {
            data = number(&bytes[start..end]).map(|length| (expected, length as usize));
        }
        fields.push(Field { tag, value: start..end });
        at = end + 1;
    }
    Ok(())
}

/// Parses digits; `None` for anything else, and for more than 18 digits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}
