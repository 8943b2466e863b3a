//! What the verbs show: the same structs for tables and JSON.

pub mod attestation;
pub mod columns;
mod coverage;
pub mod event;
pub mod expectation;
pub mod explanation;
pub mod explanation_text;
pub mod failures;
pub mod learn;
mod learn_log;
pub mod learn_toml;
pub mod page;
pub mod policy_diff;
pub mod rates;
pub mod replay;
pub mod replay_table;
pub mod scope;
pub mod session;
pub mod status;
pub mod table;
pub mod top;

pub use attestation::Attestation;
pub use explanation::Explanation;
pub use scope::Scope;
pub use session::{Session, Verdicts};
pub use status::Status;
