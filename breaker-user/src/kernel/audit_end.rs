//! Number and hash of the last line of the audit log in META. Only the holder of the log's lock writes them.

use std::sync::atomic::Ordering;

use breaker_common::abi::Meta;

use super::memory::{Mapped, ORDER, atomic_u64};
use super::switchboard::Switchboard;

/// Number of reads during a write after which the value counts as unknown.
const ATTEMPTS: usize = 1000;

/// The mapped META, for number and hash of the last line of the audit log.
pub struct AuditEnd(Mapped<Meta>);

impl AuditEnd {
    /// Opens META of a load; `None` if it cannot be mapped.
    pub fn open(board: &Switchboard) -> Option<Self> {
        Mapped::open(&board.root().map("META")).ok().map(Self)
    }

    /// Reads number and SHA-256 of the last line; `None` if none is known.
    pub fn read(&self) -> Option<(u64, [u8; 32])> {
        for _ in 0..ATTEMPTS {
            let before = self.0.get(0)?;
            std::sync::atomic::fence(ORDER);
            if before.audit_seq != 0 && self.0.get(0)?.audit_seq == before.audit_seq {
                return Some((before.audit_seq, before.audit_hash));
            }
            if before.audit_seq == 0 && before.audit_hash == [0; 32] {
                return None;
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Replaces number and hash. The number is 0 during the write, so no reader pairs it with another hash.
    pub fn write(&self, seq: u64, hash: [u8; 32]) {
        let Some(meta) = self.0.ptr(0) else { return };
        // SAFETY: the words lie inside the mapping, which self holds; one process at a time writes them.
        unsafe {
            let number = atomic_u64(&raw mut (*meta.as_ptr()).audit_seq);
            number.store(0, Ordering::SeqCst);
            (&raw mut (*meta.as_ptr()).audit_hash).write_volatile(hash);
            number.store(seq, Ordering::SeqCst);
        }
    }
}
