//! What is shown: one set of structs behind tables and JSON.

pub mod columns;
pub mod failures;
pub mod status;
pub mod table;

pub use status::Status;
