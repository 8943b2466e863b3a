//! A keeper stores number and hash of the last line of a log outside the directory of the log. A person who
//! cuts the log and the anchor beside it does not reach the keeper.

use std::path::{Path, PathBuf};

use super::chain::LogEnd;

/// An audit log, which may have a keeper. A plain path has no keeper.
pub trait AuditLog {
    /// Returns the path of the log.
    fn path(&self) -> &Path;

    /// Returns the last line that the keeper has stored; `None` if there is none.
    fn kept(&self) -> Option<LogEnd> {
        None
    }

    /// Stores the last line in the keeper. The caller holds the lock of the log.
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

/// Returns the line after which a log continues: the last line in the file, or a later line that the anchor
/// or the keeper has stored.
///
/// A rotated log has a lower last number than the anchor and the keeper, and continues their chain. A log
/// that was cut continues there too, so the missing lines leave a permanent gap.
pub(super) fn continuation(end: LogEnd, beside: Option<LogEnd>, kept: Option<LogEnd>) -> LogEnd {
    let beside = beside.filter(|beside| beside.seq > end.seq);
    let kept = kept.filter(|kept| kept.seq > end.seq || (kept.seq == end.seq && kept.hash != end.hash));
    beside.into_iter().chain(kept).max_by_key(|known| known.seq).unwrap_or(end)
}
