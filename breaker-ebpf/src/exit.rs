//! Early exits of a program.

use breaker_common::abi::{reason, unseen};

/// An early exit: the counted reason, and what happens to the packet.
///
/// An exit is one word, so that a global function can return it. [`Exit::MARK`] is set in every exit and in
/// no packed value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exit(u32);

/// What happens to a packet at an early exit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The packet passes unchanged.
    Pass,
    /// The packet is dropped.
    Drop,
    /// The packet becomes a TCP reset.
    Reset,
}

impl Exit {
    const MARK: u32 = 1 << 31;
    const DROP: u32 = 1 << 30;
    const RESET: u32 = 1 << 29;
    const UNSEEN: u32 = 1 << 16;
    /// The kind of an unseen packet begins at this bit.
    const KIND_AT: u32 = 8;
    /// The reason, and the kind of an unseen packet, have 8 bits each.
    const BYTE: u32 = 0xff;

    /// The packet passes for this reason (`abi::reason`).
    pub const fn pass(reason: u32) -> Self {
        Self(Self::MARK | reason)
    }

    /// The packet is dropped for this reason.
    pub const fn drop(reason: u32) -> Self {
        Self(Self::MARK | Self::DROP | reason)
    }

    /// The packet becomes a TCP reset for this reason.
    pub const fn reset(reason: u32) -> Self {
        Self(Self::MARK | Self::RESET | reason)
    }

    /// The packet passes unread and is also counted by kind (`abi::unseen`).
    pub const fn unseen(kind: u32) -> Self {
        let reason = if kind == unseen::MALFORMED { reason::MALFORMED } else { reason::UNSEEN };
        Self(Self::MARK | Self::UNSEEN | kind << Self::KIND_AT | reason)
    }

    /// Returns the counted reason.
    pub const fn reason(self) -> u32 {
        self.0 & Self::BYTE
    }

    /// Returns what happens to the packet.
    pub const fn end(self) -> End {
        if self.0 & Self::RESET != 0 {
            End::Reset
        } else if self.0 & Self::DROP != 0 {
            End::Drop
        } else {
            End::Pass
        }
    }

    /// Returns the kind of a packet that passes unread.
    pub const fn unseen_kind(self) -> Option<u32> {
        if self.0 & Self::UNSEEN != 0 { Some(self.0 >> Self::KIND_AT & Self::BYTE) } else { None }
    }

    /// Returns the exit as a word.
    pub const fn word(self) -> u32 {
        self.0
    }

    /// Returns the exit in a word; `None` if the word is a packed value.
    pub const fn from_word(word: u32) -> Option<Self> {
        if word & Self::MARK != 0 { Some(Self(word)) } else { None }
    }
}
