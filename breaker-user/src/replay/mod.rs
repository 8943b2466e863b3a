//! `breaker replay` and `breaker learn`: the policy of a configuration over the packets of captures.
//!
//! [`maps`] lays the policy out for the model of `breaker-replay`, [`captures`] reads the files in the order
//! of time, and an observer collects what happens: [`collect`] for `replay`, [`learn`] for `learn`.

pub mod captures;
pub mod collect;
pub mod flow;
pub mod learn;
pub mod maps;
pub mod meter;
pub mod plot;
pub mod windows;

use anyhow::Result;
use breaker_replay::engine::{Engine, Settings};

use crate::config::{Inbound, Policy};
use crate::kernel::load;

/// Makes the engine for a policy, with its trips. `ordered`: see [`Settings`].
///
/// # Errors
/// The policy does not fit into the maps.
pub fn engine(policy: &Policy, ordered: bool) -> Result<Engine> {
    let inbound = policy.host().inbound == Inbound::Watch;
    let model = maps::model(policy, &load::tables(policy)?);
    Ok(Engine::new(model, Settings { inbound, ordered, enforced: true }))
}

/// Makes an engine in which nothing trips, and which reads inbound messages too.
///
/// # Errors
/// The policy does not fit into the maps.
pub fn observing_engine(policy: &Policy) -> Result<Engine> {
    let model = maps::model(policy, &load::tables(policy)?);
    Ok(Engine::new(model, Settings { inbound: true, ordered: true, enforced: false }))
}
