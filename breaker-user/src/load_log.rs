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

/// Returns the path of the audit log of a load.
pub fn path(board: &Switchboard) -> PathBuf {
    trim_padding(&board.meta().audit).into()
}

impl LoadLog {
    /// Opens the audit log of a load. If META cannot be mapped, the log has no keeper.
    pub fn open(board: &Switchboard) -> Self {
        Self { path: path(board), meta: AuditEnd::open(board) }
    }

    /// Updates META with lines that were written before META existed, such as the line of the load. An error
    /// is ignored, because the next line updates META.
    pub fn catch_up(&self) {
        let _ = audit::append(self, &[]);
    }

    /// Returns number and hash of the last written line, according to META or the log.
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
        let Some(hash) = decode_hex(&end.hash) else { return };
        if let Some(meta) = &self.meta {
            meta.write(end.seq, hash);
        }
    }
}

/// Decodes a SHA-256 from hex.
fn decode_hex(hex: &str) -> Option<[u8; 32]> {
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
    fn decoding_restores_a_hash_from_hex() {
        let hash: [u8; 32] = std::array::from_fn(|at| (at * 37 + 5) as u8);
        assert_eq!(decode_hex(&display::hex(&hash)), Some(hash));
        for wrong in ["", "00", &"g".repeat(64), &"ü".repeat(32)] {
            assert_eq!(decode_hex(wrong), None, "{wrong}");
        }
    }
}
