//! Keepers of the last line of a log outside its directory: whoever cuts the log and the anchor beside it
//! does not reach them.

use std::path::{Path, PathBuf};

use super::chain::LogEnd;

/// A log with a keeper. A bare path has none.
pub trait AuditLog {
    /// Path of the log.
    fn path(&self) -> &Path;

    /// The last line according to the keeper; `None` without one.
    fn kept(&self) -> Option<LogEnd> {
        None
    }

    /// Hands the last line to the keeper. The caller holds the lock of the log.
    fn keep(&self, _end: &LogEnd) {}
}

impl AuditLog for Path {
    fn path(&self) -> &Path {
        self
    }
}

impl AuditLog for PathBuf {
    fn path(&self) -> &Path {
        self
    }
}

/// The line after which a log continues: the end of the file, or what a keeper knows beyond it.
///
/// A rotated log ends below the number of the anchor beside it and of the keeper, and continues their chain.
/// A log that was cut continues there too, so that the missing lines leave a gap for good.
pub(super) fn continuation(end: LogEnd, beside: Option<LogEnd>, kept: Option<LogEnd>) -> LogEnd {
    let beside = beside.filter(|beside| beside.seq > end.seq);
    let kept = kept.filter(|kept| kept.seq > end.seq || (kept.seq == end.seq && kept.hash != end.hash));
    beside.into_iter().chain(kept).max_by_key(|known| known.seq).unwrap_or(end)
}
