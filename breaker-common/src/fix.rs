//! The FIX header: the length and the MsgType of a message, from its first bytes.
//!
//! Every message starts with `8=FIX.4.x|9=LENGTH|35=TYPE|` in this order (FIX 4.0 to 5.0SP2, "Standard
//! Header"; `|` is SOH). One chunk of 32 bytes therefore contains all that counting needs. LENGTH gives the
//! offset of the next message, so the body is not read, and the content of a data field cannot imitate a
//! message. Only [`crate::fields`] reads bodies, for a few types of messages.

/// Length of a chunk in bytes. The first chunk of any message contains its length and its MsgType.
///
/// The longest header has 11 bytes of `8=FIXT.1.1|`, `9=`, 7 digits, `|35=`, and 8 bytes of the type.
pub const CHUNK: usize = 32;
/// A chunk of payload as little-endian words.
///
/// The verifier tracks values in registers better than bytes in memory.
pub type Chunk = [u64; CHUNK / 8];

/// The byte that ends each field.
pub const SOH: u8 = 0x01;
const FIX4: u64 = u64::from_le_bytes(*b"8=FIX.4.");
const FIX5: u64 = u64::from_le_bytes(*b"8=FIX.5.");
const FIXT1: u64 = u64::from_le_bytes(*b"8=FIXT.1");
/// Length of the trailer `10=nnn|` behind the body.
const TRAILER: u32 = 7;
/// First bytes of every FIX message. A flow that starts with these bytes is treated as FIX.
pub const SIGNATURE: [u8; 5] = *b"8=FIX";

/// A MsgType(35) packed into a word, with the first byte lowest. A longer type is cut to 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsgType(pub u64);

impl MsgType {
    /// Packs a type as spelled in the dictionaries. Returns `None` if `text` is empty or longer than 8 bytes.
    pub const fn new(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > 8 {
            return None;
        }
        let mut packed = 0;
        let mut i = bytes.len();
        while i > 0 {
            i -= 1;
            packed = packed << 8 | bytes[i] as u64;
        }
        Some(Self(packed))
    }
}

/// Result of parsing the start of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A message.
    Message {
        /// MsgType(35).
        msg_type: MsgType,
        /// Length of the message in bytes, from `8=` to the SOH of `10=`.
        length: u32,
        /// Offset of the field behind MsgType(35), or of the rest of a type of 8 bytes or more.
        body_offset: u32,
    },
    /// Possibly the start of a message: more bytes are needed.
    Partial,
    /// No message starts here.
    Implausible,
}

/// Parses the header of a message from its first `available` bytes. The bytes behind them must be zero.
///
/// Accepts `FIX.4.x`, `FIX.5.0` with or without `SPn`, and `FIXT.1.x`. Accepts leading zeros of
/// BodyLength(9), as far as the header fits into the chunk.
#[inline(always)]
pub fn header(chunk: &Chunk, available: u32) -> Header {
    let [w0, w1, ..] = *chunk;
    if available < 8 {
        let seen = (1u64 << (8 * available)) - 1;
        let plausible = w0 == FIX4 & seen || w0 == FIX5 & seen || w0 == FIXT1 & seen;
        return if plausible { Header::Partial } else { Header::Implausible };
    }
    // Bytes 8 to 15: the end of the version and the tag of BodyLength(9). `at` is the offset of the length's
    // digits.
    let (pattern, mask, at) = match w0 {
        // `4|9=`, with any digit.
        FIX4 => (0x3d_39_01_00, 0xff_ff_ff_00, 12),
        // `0SP2|9=`, with any digit, or `0|9=`.
        FIX5 if w1 >> 8 & 0xff == b'S' as u64 => (0x3d_39_01_00_50_53_30, 0xff_ff_ff_00_ff_ff_ff, 15),
        FIX5 => (0x3d_39_01_30, 0xff_ff_ff_ff, 12),
        // `.1|9=`, with any digit.
        FIXT1 => (0x3d_39_01_00_2e, 0xff_ff_ff_00_ff, 13),
        _ => return Header::Implausible,
    };
    if available < at {
        let seen = (1u64 << (8 * (available - 8))) - 1;
        return if (w1 ^ pattern) & mask & seen == 0 { Header::Partial } else { Header::Implausible };
    }
    if (w1 ^ pattern) & mask != 0 {
        return Header::Implausible;
    }
    length_and_type(chunk, available, at)
}

/// Parses the header from the digits of BodyLength(9) on. `at` is the offset of the digits: 12, 13 or 15.
#[inline(always)]
fn length_and_type(chunk: &Chunk, available: u32, at: u32) -> Header {
    let zeros = leading_zeros(word_at(chunk, at));
    // At most two words of zeros: behind them the chunk has no room for a type.
    let zeros = if zeros == 8 { 8 + leading_zeros(word_at(chunk, at + 8)) } else { zeros };
    let first = at + zeros;
    if first >= available {
        return cut_off(available);
    }
    let field = word_at(chunk, first);
    let digits = first_soh(field);
    if digits >= available - first {
        // No SOH yet. BodyLength(9) has at most 7 digits.
        return if available - first < 8 { cut_off(available) } else { Header::Implausible };
    }
    let Some(body) = parse_digits(field, digits) else { return Header::Implausible };
    type_field(chunk, available, first + digits + 1, body)
}

/// Returns `Partial` for a header that `available` bytes cut off, or `Implausible` if they fill the chunk.
#[inline(always)]
fn cut_off(available: u32) -> Header {
    if available < CHUNK as u32 { Header::Partial } else { Header::Implausible }
}

/// Returns the number of leading characters `0` of a word, at most 8.
#[inline(always)]
fn leading_zeros(word: u64) -> u32 {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    first_nonzero(word ^ ZEROS)
}

/// Returns the position of the first non-zero byte of a word, or 8 if all bytes are zero.
#[inline(always)]
fn first_nonzero(word: u64) -> u32 {
    let mut count = 0;
    let mut rest = word;
    if rest & 0xffff_ffff == 0 {
        (count, rest) = (4, rest >> 32);
    }
    if rest & 0xffff == 0 {
        (count, rest) = (count + 2, rest >> 16);
    }
    if rest & 0xff == 0 {
        (count, rest) = (count + 1, rest >> 8);
    }
    if rest & 0xff == 0 { 8 } else { count }
}

/// Returns the eight bytes of a chunk from `at` on. Bytes behind the end of the chunk are zero.
#[inline(always)]
fn word_at(chunk: &Chunk, at: u32) -> u64 {
    let [w0, w1, w2, w3] = *chunk;
    let (low, high) = match at >> 3 {
        0 => (w0, w1),
        1 => (w1, w2),
        2 => (w2, w3),
        3 => (w3, 0),
        _ => return 0,
    };
    let shift = 8 * (at & 7);
    // Two steps, because `64 - shift` is 64 for a shift of 0, and BPF then shifts by 0.
    low >> shift | (high << 1) << (63 - shift)
}

/// Parses a common header from a whole chunk: a BodyLength(9) of two to four digits and a MsgType of one
/// character.
///
/// Returns the MsgType and the length of the message. Returns `None` for any other header; [`header`] parses
/// all. This function is the fast path: it loads the fields at fixed offsets and searches nothing.
#[inline(always)]
pub fn common_header(chunk: &Chunk) -> Option<(MsgType, u32)> {
    let [w0, w1, w2, _] = *chunk;
    let (tag, at) = match w0 {
        FIX4 => (w1 & 0xff_ff_ff_00 ^ 0x3d_39_01_00, 12),
        FIXT1 => (w1 & 0xff_ff_ff_00_ff ^ 0x3d_39_01_00_2e, 13),
        _ => return None,
    };
    if tag != 0 {
        return None;
    }
    let length_field = if at == 12 { w1 >> 32 | w2 << 32 } else { w1 >> 40 | w2 << 24 };
    let digits = match () {
        () if length_field >> 24 & 0xff == SOH as u64 => 3,
        () if length_field >> 16 & 0xff == SOH as u64 => 2,
        () if length_field >> 32 & 0xff == SOH as u64 => 4,
        () => return None,
    };
    let body = parse_digits(length_field, digits)?;
    // `35=`, the type and SOH: five bytes at `start`, which is at most 18.
    let start = at + digits + 1;
    let shift = 8 * (start & 7);
    let (low, high) = if start < 16 { (w1, w2) } else { (w2, 0) };
    let field = low >> shift | (high << 1) << (63 - shift);
    let msg_type = field >> 24 & 0xff;
    let common =
        field & 0xff_00_ff_ff_ff == (SOH as u64) << 32 | 0x3d_35_33 && msg_type != SOH as u64 && body >= 5;
    common.then_some((MsgType(msg_type), start + body + TRAILER))
}

/// Parses the header from `35=` on. `at` is the offset of `35=`.
#[inline(always)]
fn type_field(chunk: &Chunk, available: u32, at: u32, body: u32) -> Header {
    if at >= available {
        return cut_off(available);
    }
    let first = word_at(chunk, at);
    let second = word_at(chunk, at + 8);
    let tag_seen = if available - at < 3 { (1u64 << (8 * (available - at))) - 1 } else { 0xff_ff_ff };
    if (first ^ 0x3d_35_33) & tag_seen != 0 {
        return Header::Implausible;
    }
    if tag_seen != 0xff_ff_ff {
        return cut_off(available);
    }
    let value = first >> 24 | second << 40;
    let length = first_soh(value);
    if length == 0 {
        return Header::Implausible;
    }
    if length == 8 && at + 11 > available {
        return cut_off(available);
    }
    if body < 3 + length + 1 {
        return Header::Implausible;
    }
    let msg_type = if length == 8 { value } else { value & ((1u64 << (8 * length)) - 1) };
    // The SOH of a type of 8 bytes or more has not been seen. The rest of the type is read as a field without
    // a tag.
    let body_offset = at + 3 + length + (length < 8) as u32;
    Header::Message { msg_type: MsgType(msg_type), length: at + body + TRAILER, body_offset }
}

/// Returns the position of the first SOH in a word, or 8 if there is none.
#[inline(always)]
fn first_soh(word: u64) -> u32 {
    find_byte(word, SOH)
}

/// Returns the position of the first `byte` in a word, or 8 if there is none.
#[inline(always)]
pub fn find_byte(word: u64, byte: u8) -> u32 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Sets the top bit of each byte that is zero after the XOR. A borrow reaches only bytes above the first
    // zero byte.
    let zero = word ^ (ONES * byte as u64);
    let found = (zero.wrapping_sub(ONES) & !zero & (ONES << 7)) >> 7;
    // BPF has no instruction that counts trailing zeros, so this counts the bytes below the lowest set bit.
    let below = (found & found.wrapping_neg()).wrapping_sub(1);
    if found == 0 { 8 } else { ((below & ONES).wrapping_mul(ONES) >> 56) as u32 }
}

/// Parses the first `digits` bytes of a word as a decimal number.
///
/// Returns `None` if a byte is no digit, or if `digits` is 0 or more than 7.
#[inline(always)]
pub fn parse_digits(word: u64, digits: u32) -> Option<u32> {
    if digits == 0 || digits > 7 {
        return None;
    }
    // Shifts the digits to the upper end and fills with '0'. Then adds up pairs, fours and eights.
    let free = 64 - 8 * digits;
    let text = word << free | 0x3030_3030_3030_3030 & ((1u64 << free) - 1);
    let nibbles = text ^ 0x3030_3030_3030_3030;
    if (nibbles | nibbles.wrapping_add(0x0606_0606_0606_0606)) & 0xf0f0_f0f0_f0f0_f0f0 != 0 {
        return None;
    }
    let pairs = nibbles.wrapping_mul(10).wrapping_add(nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff) as u32)
}
