//! The state file: what a host keeps of its scopes through a reboot, an `unload` and the loss of its pins.
//!
//! The kernel's maps are the truth while something is loaded, and every writer reads them anew under a lock.
//! The verbs write before they return, the agent at each change. A load reads the file before its hook is
//! attached. The file never says that a scope passes while the kernel withholds, except for a trip that the
//! kernel made and that no verb and no agent has seen yet.

mod contents;
mod health;
mod now;
pub mod pending;
mod plan;
mod restore;
mod save;
mod store;

#[cfg(test)]
mod tests;

pub use contents::{AgentRun, AuditEnd, Contents, Scope, TotalUse};
pub use health::{Health, health};
pub use plan::{Plan, Wanted, merge, plan};
pub use restore::Restoring;
pub use save::{Act, Saved, save, save_in_background, store};
pub use store::{Found, Lock, Store};
