//! `breaker replay`: the policy of a configuration over the packets of captures.
//!
//! [`maps`] lays the policy out for the model of `breaker-replay`, [`captures`] reads the files in the order
//! of time, and [`collect`] collects what happens.

pub mod captures;
pub mod collect;
pub mod flow;
pub mod maps;
pub mod meter;
pub mod plot;
pub mod windows;

use anyhow::Result;
use breaker_replay::engine::{Engine, Settings};

use crate::config::{Inbound, Policy};
use crate::kernel::load;

/// Makes the engine for a policy. Without `enforced` nothing trips.
///
/// # Errors
/// The policy does not fit into the maps.
pub fn engine(policy: &Policy, enforced: bool, ordered: bool) -> Result<Engine> {
    let inbound = policy.host().inbound == Inbound::Watch;
    let model = maps::model(policy, &load::tables(policy)?);
    Ok(Engine::new(model, Settings { inbound, ordered, enforced }))
}
