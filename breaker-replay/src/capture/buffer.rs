//! The bytes of a capture that are in memory.

use std::io::{self, ErrorKind, Read};

/// Result of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// There are more bytes now.
    More,
    /// The input has no more bytes.
    End,
}

/// A window over the bytes of an input.
pub(super) struct Buffer<R> {
    input: R,
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    /// Offset of the first byte of the window in the input.
    offset: u64,
}

/// Bytes of a read. Larger reads do not fit into the cache of a core.
const SIZE: usize = 256 << 10;

impl<R: Read> Buffer<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, bytes: vec![0; SIZE], from: 0, to: 0, offset: 0 }
    }

    /// The bytes in memory that are not consumed.
    #[inline(always)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Offset of [`Self::bytes`] in the input.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Removes bytes from the front.
    #[inline(always)]
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.to - self.from);
        self.from += count;
        self.offset += count as u64;
    }

    /// Makes room for a block of so many bytes.
    pub(super) fn reserve(&mut self, needed: usize) {
        if needed > self.bytes.len() {
            self.bytes.resize(needed.next_power_of_two(), 0);
        }
    }

    /// Reads more bytes behind those in memory. A full window gets more room.
    pub(super) fn fill(&mut self) -> io::Result<Fill> {
        self.bytes.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.to == self.bytes.len() {
            self.bytes.resize(2 * self.to, 0);
        }
        loop {
            match self.input.read(&mut self.bytes[self.to..]) {
                Ok(0) => return Ok(Fill::End),
                Ok(count) => {
                    self.to += count;
                    return Ok(Fill::More);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
