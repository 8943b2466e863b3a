//! The audit log: one JSON object a line. A hash chain makes every edit, removal and reordering visible.
//!
//! Lines that are cut off at the end leave no trace in the file. `anchor` keeps number and hash of the last
//! line beside the log, and a `keeper` keeps them outside its directory; `claims` compares them with the log.
//! An operator who must be certain keeps a copy on another host.
//!
//! Agent and verbs write the same file in turns, and each waits until its line is on disk.

mod anchor;
mod append;
mod chain;
mod claims;
mod entry;
mod keeper;
mod reader;
mod verify;

pub use append::{Locked, append, append_within, check_path, is_empty, is_locked, last_line, reserve};
pub use chain::LogEnd;
pub use claims::{Claim, Compared, Comparison, compare};
pub use entry::{Actor, Entry, Line, act_for};
pub use keeper::AuditLog;
pub use reader::Reader;
pub use verify::{Verified, verify};
