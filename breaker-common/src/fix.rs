//! FIX framing: what the first bytes of a message say of it.
//!
//! Every message begins `8=FIX.4.x|9=LENGTH|35=TYPE|`, always in this order (FIX 4.0 to 5.0SP2, "Standard Header"; `|` is SOH).
//! So one small window holds all that counting needs, and LENGTH says where the next message begins: the body is not read (but
//! for the few messages that [`crate::fields`] is for), and what a data field holds cannot mislead.

/// Bytes in which the start of any message shows its length and type: 11 of `8=FIXT.1.1|`, `9=`, 7 digits, `|35=`, 8 of the type.
pub const CHUNK: usize = 32;
/// A window as little-endian words: the kernel's verifier follows registers better than bytes in memory.
pub type Chunk = [u64; CHUNK / 8];

/// The byte behind each field.
pub const SOH: u8 = 0x01;
const FIX4: u64 = u64::from_le_bytes(*b"8=FIX.4.");
const FIX5: u64 = u64::from_le_bytes(*b"8=FIX.5.");
const FIXT1: u64 = u64::from_le_bytes(*b"8=FIXT.1");
/// Behind LENGTH bytes of body stands `10=nnn|`.
const TRAILER: u32 = 7;
/// Bytes that a flow must show before it is taken for FIX.
pub const SIGNATURE: [u8; 5] = *b"8=FIX";

/// A MsgType(35) packed into a word, first byte lowest; of a type longer than 8 bytes the first 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsgType(pub u64);

impl MsgType {
    /// Packs a type as the dictionaries spell it; `None` where it is empty or longer than 8 bytes.
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

/// What a window says of the message that starts in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A message: its type, and its length in bytes from `8=` to the SOH of `10=`.
    Message {
        /// MsgType(35).
        msg_type: MsgType,
        /// Bytes of the whole message.
        length: u32,
        /// Bytes before the field behind MsgType(35), or before the rest of a type of 8 bytes and more.
        body_offset: u32,
    },
    /// The beginning of a message may be here, but too little of it to tell.
    Partial,
    /// No message starts here.
    Implausible,
}

/// Reads the header of a message from its first `available` bytes; words beyond them must be zero.
///
/// Accepts `FIX.4.x`, `FIX.5.0` with or without `SPn`, and `FIXT.1.x`, and a BodyLength with leading zeros as far as the window reaches.
#[inline(always)]
pub fn header(window: &Chunk, available: u32) -> Header {
    let [w0, w1, ..] = *window;
    if available < 8 {
        let seen = (1u64 << (8 * available)) - 1;
        let plausible = w0 == FIX4 & seen || w0 == FIX5 & seen || w0 == FIXT1 & seen;
        return if plausible { Header::Partial } else { Header::Implausible };
    }
    // What follows the first eight bytes: the last figure of the version and the tag of BodyLength. `at` is where its digits start.
    let (pattern, mask, at) = match w0 {
        // `4|9=`, with any figure.
        FIX4 => (0x3d_39_01_00, 0xff_ff_ff_00, 12),
        // `0SP2|9=`, with any figure, or `0|9=`.
        FIX5 if w1 >> 8 & 0xff == b'S' as u64 => (0x3d_39_01_00_50_53_30, 0xff_ff_ff_00_ff_ff_ff, 15),
        FIX5 => (0x3d_39_01_30, 0xff_ff_ff_ff, 12),
        // `.1|9=`, with any figure.
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
    length_and_type(window, available, at)
}

/// The rest of [`header`], from the digits of BodyLength(9) on, which stand `at` bytes in (12, 13 or 15).
#[inline(always)]
fn length_and_type(window: &Chunk, available: u32, at: u32) -> Header {
    let zeros = leading_zeros(word_at(window, at));
    // A second word of zeros, and no more: behind those there is no room for a type.
    let zeros = if zeros == 8 { 8 + leading_zeros(word_at(window, at + 8)) } else { zeros };
    let first = at + zeros;
    if first >= available {
        return cut_off(available);
    }
    let field = word_at(window, first);
    let digits = first_soh(field);
    if digits >= available - first {
        // No SOH yet: there can be no more than 7 digits.
        return if available - first < 8 { cut_off(available) } else { Header::Implausible };
    }
    // Zeros alone are a length of 0, which no message has.
    let Some(body) = parse_digits(field, digits) else { return Header::Implausible };
    type_field(window, available, first + digits + 1, body)
}

/// A header of which this many bytes are too few: more may follow, unless they fill the window.
#[inline(always)]
fn cut_off(available: u32) -> Header {
    if available < CHUNK as u32 { Header::Partial } else { Header::Implausible }
}

/// How many characters `0` a word begins with, at most 8.
#[inline(always)]
fn leading_zeros(word: u64) -> u32 {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    first_other(word ^ ZEROS)
}

/// Position of the first byte of a word that is not zero, 8 where all are.
#[inline(always)]
fn first_other(word: u64) -> u32 {
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

/// Eight bytes of a window from `at` on; what lies behind the window is zero.
#[inline(always)]
fn word_at(window: &Chunk, at: u32) -> u64 {
    let [w0, w1, w2, w3] = *window;
    let (low, high) = match at >> 3 {
        0 => (w0, w1),
        1 => (w1, w2),
        2 => (w2, w3),
        3 => (w3, 0),
        _ => return 0,
    };
    let shift = 8 * (at & 7);
    // Shifting by 64 - shift would be 64 where shift is 0, which is no shift at all: hence two steps.
    low >> shift | (high << 1) << (63 - shift)
}

/// Reads the header of a message from a whole window, where it is of the common kind: a length of two to four digits, a type of one
/// character. `None` where it is not; [`header`] tells the same of it, and what it is else.
///
/// For the packet path: with a place known there is nothing to search.
#[inline(always)]
pub fn common_header(window: &Chunk) -> Option<(MsgType, u32)> {
    let [w0, w1, w2, _] = *window;
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
    // `35=`, the type, SOH: five bytes from `start` on, which is at most 18.
    let start = at + digits + 1;
    let shift = 8 * (start & 7);
    let (low, high) = if start < 16 { (w1, w2) } else { (w2, 0) };
    let field = low >> shift | (high << 1) << (63 - shift);
    let msg_type = field >> 24 & 0xff;
    let plain =
        field & 0xff_00_ff_ff_ff == (SOH as u64) << 32 | 0x3d_35_33 && msg_type != SOH as u64 && body >= 5;
    plain.then_some((MsgType(msg_type), start + body + TRAILER))
}

/// The rest of [`header`], from `35=` on, which stands `at` bytes in.
#[inline(always)]
fn type_field(window: &Chunk, available: u32, at: u32, body: u32) -> Header {
    if at >= available {
        return cut_off(available);
    }
    let first = word_at(window, at);
    let second = word_at(window, at + 8);
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
    // Of a type as long as the word its SOH has not been seen: whatever is left of it is read as a field of no tag.
    let body_offset = at + 3 + length + (length < 8) as u32;
    Header::Message { msg_type: MsgType(msg_type), length: at + body + TRAILER, body_offset }
}

/// Position of the first SOH in a word, 8 where there is none.
#[inline(always)]
fn first_soh(word: u64) -> u32 {
    find_byte(word, SOH)
}

/// Position of the first byte of this value in a word, 8 where there is none.
#[inline(always)]
pub fn find_byte(word: u64, byte: u8) -> u32 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // A byte's top bit is set where it is zero after the XOR; borrows only reach bytes above the first such.
    let zero = word ^ (ONES * byte as u64);
    let found = (zero.wrapping_sub(ONES) & !zero & (ONES << 7)) >> 7;
    // BPF has no instruction that counts trailing zeros: count the bytes below the lowest mark.
    let below = (found & found.wrapping_neg()).wrapping_sub(1);
    if found == 0 { 8 } else { ((below & ONES).wrapping_mul(ONES) >> 56) as u32 }
}

/// The number in the first `digits` (up to 7) bytes of a word.
#[inline(always)]
pub fn parse_digits(word: u64, digits: u32) -> Option<u32> {
    if digits == 0 || digits > 7 {
        return None;
    }
    // Digits to the upper end, '0' into what that leaves free; then pairs, fours, eights.
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
