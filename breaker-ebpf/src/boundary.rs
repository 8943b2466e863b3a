//! Values that cross the boundary of a global function, each packed into one register.
//!
//! The verifier accepts no other result: "Global function ... doesn't return scalar. Only those are
//! supported." (all kernels, `btf.c`).

use core::ops::ControlFlow;

use breaker_common::limits::Attempt;
use breaker_common::message::Class;

use crate::exit::Exit;
use crate::packet::{MAX_OFFSET, Network, Transport};

/// A value that a global function returns.
pub trait Pack {
    /// The register: `u32` or `u64`.
    type Word;
    /// Packs the value.
    fn pack(self) -> Self::Word;
    /// Unpacks the value.
    fn unpack(word: Self::Word) -> Self;
}

impl Pack for () {
    type Word = u32;

    #[inline(always)]
    fn pack(self) -> u32 {
        0
    }

    #[inline(always)]
    fn unpack(_: u32) {}
}

impl Pack for u32 {
    type Word = u32;

    #[inline(always)]
    fn pack(self) -> u32 {
        self
    }

    #[inline(always)]
    fn unpack(word: u32) -> u32 {
        word
    }
}

impl Pack for bool {
    type Word = u32;

    #[inline(always)]
    fn pack(self) -> u32 {
        self as u32
    }

    #[inline(always)]
    fn unpack(word: u32) -> bool {
        word != 0
    }
}

impl Pack for Network {
    type Word = u32;

    #[inline(always)]
    fn pack(self) -> u32 {
        self.ethertype as u32 | self.offset << 16 | (self.encapsulated as u32) << 28
    }

    #[inline(always)]
    fn unpack(word: u32) -> Self {
        Self { ethertype: word as u16, offset: word >> 16 & MAX_OFFSET, encapsulated: word >> 28 & 1 != 0 }
    }
}

impl Pack for Transport {
    type Word = u32;

    #[inline(always)]
    fn pack(self) -> u32 {
        self.tcp | self.fragment << 16
    }

    #[inline(always)]
    fn unpack(word: u32) -> Self {
        Self { tcp: word & MAX_OFFSET, fragment: word >> 16 & MAX_OFFSET }
    }
}

/// The value must leave bit 31 clear, which marks an exit.
impl<T: Pack<Word = u32>> Pack for Result<T, Exit> {
    type Word = u32;

    #[inline(always)]
    fn pack(self) -> u32 {
        match self {
            Ok(value) => value.pack(),
            Err(exit) => exit.word(),
        }
    }

    #[inline(always)]
    fn unpack(word: u32) -> Self {
        match Exit::from_word(word) {
            Some(exit) => Err(exit),
            None => Ok(T::unpack(word)),
        }
    }
}

/// A step of a search: the offset of the match, or the offset to continue at. Offsets are below 2^31.
impl Pack for ControlFlow<u32, u32> {
    type Word = u32;

    #[inline(always)]
    fn pack(self) -> u32 {
        match self {
            Self::Break(offset) => offset | MATCH,
            Self::Continue(offset) => offset,
        }
    }

    #[inline(always)]
    fn unpack(word: u32) -> Self {
        if word & MATCH != 0 { Self::Break(word & !MATCH) } else { Self::Continue(word) }
    }
}

const MATCH: u32 = 1 << 31;

/// No set of charged limits has one of the two highest values.
impl Pack for Attempt {
    type Word = u64;

    #[inline(always)]
    fn pack(self) -> u64 {
        match self {
            Self::NotCounted => NOT_COUNTED,
            Self::NearLimit => NEAR_LIMIT,
            Self::Charged(uncommitted) => uncommitted,
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        match word {
            NOT_COUNTED => Self::NotCounted,
            NEAR_LIMIT => Self::NearLimit,
            uncommitted => Self::Charged(uncommitted),
        }
    }
}

const NOT_COUNTED: u64 = u64::MAX;
const NEAR_LIMIT: u64 = u64::MAX - 1;

/// A message's class, and whether an override of the session sets the class.
impl Pack for (Class, bool) {
    type Word = u64;

    #[inline(always)]
    fn pack(self) -> u64 {
        let (class, is_override) = self;
        class as u64 | (is_override as u64) << 8
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        (Class::from_code(word & 0xff), word >> 8 != 0)
    }
}
