//! The exact sliding window.

#[path = "../model/policy.rs"]
mod policy;
#[path = "../model/scope.rs"]
mod scope;

mod charge;
mod logged;
mod random;
