//! The place of a connection in a table.

/// The table of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Live connections of declared sessions.
    Live,
    /// All other connections. The least recently used ones are evicted.
    Transient,
}

/// The place of a connection, until another packet is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The table.
    pub table: Table,
    pub(super) index: usize,
}

impl Slot {
    /// Returns the index in its table.
    #[inline(always)]
    pub(super) fn index(self) -> usize {
        self.index
    }
}
