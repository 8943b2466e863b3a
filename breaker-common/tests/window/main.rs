//! The exact sliding window.

mod charge;
mod logged;
mod random;
