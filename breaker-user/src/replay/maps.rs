//! The maps of a policy in memory, laid out as for the kernel.

use std::cell::{Cell, RefCell};

use breaker_common::abi::{CompId, Scope, Session, flag};
use breaker_replay::model::Model;
use breaker_replay::model::maps::Maps;
use bytemuck::Zeroable;

use crate::config::Policy;
use crate::kernel::tables::Tables;
use crate::kernel::tables::capacity::transient_entries;
use crate::kernel::tables::limits::ScopeLimits;

/// Makes a model with the tables of a policy. The heartbeat is never lost: a capture does not have it.
pub fn model(policy: &Policy, tables: &Tables) -> Model {
    let connections = policy.host().connections.get();
    let scopes: Vec<_> = tables.rules.iter().zip(&tables.armed).map(scope).collect();
    let identities = tables.identities.iter();
    let mut maps = Maps::default();
    maps.sessions = tables.sessions.iter().map(session).collect();
    maps.scopes = scopes;
    maps.times = vec![Cell::new(0); tables.ring_slots as usize];
    maps.comp_ids = comp_ids(tables);
    maps.identities = identities.map(|(key, session)| (key.endpoint, key.comp_ids, *session)).collect();
    maps.undeclared = tables.policy.undeclared;
    // An entry with port 0 is for packets whose port cannot be found.
    for (endpoint, bits, target) in tables.endpoints.iter().filter(|(endpoint, ..)| endpoint.port != 0) {
        maps.add_endpoint(*bits, *endpoint, *target);
    }
    let mut model = Model::with_maps(maps);
    model.max_connections = connections as usize;
    model.max_transient = transient_entries(connections) as usize;
    model
}

fn scope(((rules, limits), armed): (&ScopeLimits, &Option<bool>)) -> RefCell<Scope> {
    let mut scope = Scope { armed: (*armed == Some(true)) as u32, ..Scope::zeroed() };
    (scope.rules[0], scope.limits[0]) = (*rules, *limits);
    RefCell::new(scope)
}

/// Returns a session whose sockets may belong to any user: a capture does not say the user.
fn session(session: &Session) -> Session {
    Session { flags: session.flags & !flag::MATCH_UID & !flag::WATCHES_HEARTBEAT, declared_ns: 1, ..*session }
}

/// Returns the CompIDs in the order of their numbers.
fn comp_ids(tables: &Tables) -> Vec<CompId> {
    let mut numbered: Vec<_> = tables.comp_ids.iter().map(|(id, number)| (*number, *id)).collect();
    numbered.sort_unstable();
    numbered.into_iter().map(|(_, id)| id).collect()
}
