//! The state file keeps the state of the scopes through a reboot, an `unload` and the loss of the pins.
//!
//! While a policy is loaded, the kernel's maps are authoritative, and every writer reads them again under a
//! lock. A verb writes the file before it returns; the agent writes the file at each change. A load reads the
//! file before it attaches its hook. The file has every trip of the kernel, except a trip by the kernel
//! program that no verb and no agent has read yet.

mod contents;
mod health;
mod last_policy;
mod now;
pub mod pending;
mod plan;
mod restore;
mod save;
mod store;
pub mod warnings;

#[cfg(test)]
mod tests;

pub use contents::{AgentRun, AuditEnd, Contents, Scope, TotalUse};
pub use health::{Health, health};
pub use last_policy::last_policy;
pub use plan::{Plan, Wanted, merge, plan};
pub use restore::Restoring;
pub use save::{Act, Saved, save, save_in_background, store};
pub use store::{Found, Lock, Store};
