//! The audit log of a load. META keeps number and hash of its last line, so that a cut log is noticed.

use std::path::{Path, PathBuf};

use crate::audit::{self, AuditLog, LogEnd};
use crate::display;
use crate::kernel::Switchboard;
use crate::kernel::audit_end::AuditEnd;
use crate::kernel::text::trim_padding;

/// The audit log of a load, with META as its keeper.
pub struct LoadLog {
    path: PathBuf,
    meta: Option<AuditEnd>,
}

/// Path of the audit log of a load.
pub fn path(board: &Switchboard) -> PathBuf {
    trim_padding(&board.meta().audit).into()
}

impl LoadLog {
    /// The log of a load. Without META, which a trip does not wait for, the log has no keeper.
    pub fn open(board: &Switchboard) -> Self {
        Self { path: path(board), meta: AuditEnd::open(board) }
    }

    /// Hands lines to META that were written while META did not exist, such as the line of the load. An error
    /// is ignored, because the next line brings META up to date.
    pub fn catch_up(&self) {
        let _ = audit::append(self, &[]);
    }

    /// The last line that was written, according to META or the log.
    pub fn last_line(&self) -> Option<LogEnd> {
        self.kept().into_iter().chain(audit::last_line(&self.path)).max_by_key(|end| end.seq)
    }
}

impl AuditLog for LoadLog {
    fn path(&self) -> &Path {
        &self.path
    }

    fn kept(&self) -> Option<LogEnd> {
        let (seq, hash) = self.meta.as_ref()?.read()?;
        Some(LogEnd { seq, hash: display::hex(&hash) })
    }

    fn keep(&self, end: &LogEnd) {
        let Some(hash) = bytes(&end.hash) else { return };
        if let Some(meta) = &self.meta {
            meta.write(end.seq, hash);
        }
    }
}

/// The bytes of a SHA-256 in hex.
fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_survives_its_way_through_hex() {
        let hash: [u8; 32] = std::array::from_fn(|at| (at * 37 + 5) as u8);
        assert_eq!(bytes(&display::hex(&hash)), Some(hash));
        for wrong in ["", "00", &"g".repeat(64), &"ü".repeat(32)] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
