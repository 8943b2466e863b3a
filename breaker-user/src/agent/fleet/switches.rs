//! The trips, resets and arms of the fleet in the switches of this host.
//!
//! A trip of the fleet is a cause of its own. A local reset does not clear it, and the fleet clears nothing
//! else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use breaker_common::abi::{cause, mode};
use serde_json::{Value, json};

use crate::agent::loaded::{InForce, Loaded};
use crate::agent::log::Log;
use crate::agent::notice::notice;
use crate::audit::Entry;
use crate::config::{Name, ScopeName};
use crate::fleet::FleetScope;
use crate::fleet::standing::{Standing, StandingTrip};
use crate::journal;
use crate::kernel::Reset;
use crate::kernel::disconnect::Selection;
use crate::reset::objection;

/// The switches of this host, for the fleet.
pub struct Switches {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    /// Name of this host in the fleet.
    host: Name,
    /// The trips that stand. Held while a switch is set or cleared for the fleet, so that no reset meets a
    /// trip that is newer.
    standing: Mutex<Standing>,
}

/// Who did something in the fleet, and why.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// Id of the command.
    pub id: &'a str,
    /// The person.
    pub by: &'a str,
    /// The reason.
    pub why: &'a str,
}

impl Switches {
    /// Makes the switches of a host with this name, which knows these trips.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, host: Name, standing: Standing) -> Self {
        Self { loaded, log, host, standing: Mutex::new(standing) }
    }

    /// The name of this host.
    pub fn host(&self) -> &Name {
        &self.host
    }

    /// The trips that this host knows.
    pub fn standing(&self) -> Standing {
        self.lock().clone()
    }

    /// Returns the scope of this host that a fleet's scope concerns.
    pub fn own_scope(&self, scope: &FleetScope) -> Option<ScopeName> {
        scope.on_host(&self.host, |scope| self.declares(scope))
    }

    fn declares(&self, scope: &ScopeName) -> bool {
        self.loaded.in_force().breaker.find(&scope.to_string()).is_ok()
    }

    /// Changes the trips that this host knows, and trips each scope whose trip stands and that the fleet has
    /// not tripped yet. Returns these trips.
    pub fn trip(&self, change: impl FnOnce(&mut Standing)) -> Vec<StandingTrip> {
        let mut standing = self.lock();
        change(&mut standing);
        let now = self.loaded.in_force();
        let mut tripped = Vec::new();
        for trip in standing.on_host(&self.host, |scope| self.declares(scope)) {
            match self.trip_scope(&now, &trip) {
                Ok(false) => {}
                Ok(true) => tripped.push(trip),
                Err(error) => notice(&format!("{} is not tripped for the fleet: {error:#}", trip.scope)),
            }
        }
        tripped
    }

    /// Trips a scope unless the fleet has tripped it. Returns true if it was tripped.
    fn trip_scope(&self, now: &InForce, trip: &StandingTrip) -> Result<bool> {
        let scope = now.breaker.find(&trip.scope.to_string())?;
        if now.breaker.switch(scope)?.causes & cause::FLEET != 0 {
            return Ok(false);
        }
        now.breaker.trip(scope, cause::FLEET)?;
        Ok(true)
    }

    /// Returns true if the fleet has tripped a scope, as its switch shows.
    pub fn is_tripped(&self, scope: &ScopeName) -> Result<bool> {
        let now = self.loaded.in_force();
        let scope = now.breaker.find(&scope.to_string())?;
        Ok(now.breaker.switch(scope)?.causes & cause::FLEET != 0)
    }

    /// Logs the trip of a scope.
    pub fn log_trip(&self, scope: &ScopeName, key: &str, author: Option<Author<'_>>) {
        let counts = json!({ "fleet_scope": key, "id": author.map(|author| author.id) });
        self.log.record(self.entry("tripped", scope, author, counts));
    }

    /// Disconnects the connections of a scope that was tripped.
    pub fn disconnect(&self, scope: &ScopeName) {
        let now = self.loaded.in_force();
        let ended = now.breaker.find(&scope.to_string()).and_then(|scope| {
            if now.breaker.meta().mode == mode::INLINE {
                return Ok(0);
            }
            let sessions = now.breaker.with_tcp_resets(now.breaker.sessions_of(scope)?)?;
            now.breaker.disconnect(&sessions, Selection::All)
        });
        if let Err(error) = ended {
            notice(&format!("{scope}: idle connections were not ended: {error:#}"));
        }
    }

    /// Clears the fleet's cause of each scope whose trips are all lifted. Returns why a scope stays tripped.
    pub fn lift(&self, author: Option<Author<'_>>) -> Vec<(ScopeName, String)> {
        let lifted = self.lock().lifted_on_host(&self.host, |scope| self.declares(scope));
        let mut refused = Vec::new();
        for name in lifted {
            match self.lift_scope(&name, author) {
                Ok(None) => {}
                Ok(Some(found)) => refused.push((name, found)),
                Err(error) => refused.push((name, format!("{error:#}"))),
            }
        }
        refused
    }

    /// Clears the fleet's cause of a scope, under the conditions of `breaker reset`. Returns the objection.
    fn lift_scope(&self, name: &ScopeName, author: Option<Author<'_>>) -> Result<Option<String>> {
        let now = self.loaded.in_force();
        let scope = now.breaker.find(&name.to_string())?;
        if now.breaker.switch(scope)?.causes & cause::FLEET == 0 {
            return Ok(None);
        }
        let _lock = now.breaker.root().lock()?;
        let before = now.breaker.switch(scope)?;
        if let Some((found, cure)) = objection(&now.breaker, scope, before.causes & cause::FLEET, false)? {
            return Ok(Some(format!("{found}: {cure}")));
        }
        let counts = json!({ "epoch": before.epoch + 1, "id": author.map(|author| author.id) });
        self.log.record_now(self.entry("reset", name, author, counts));
        let standing = self.lock();
        if !standing.lifted_on_host(&self.host, |scope| self.declares(scope)).contains(name) {
            return Ok(Some("the fleet has tripped it again".to_owned()));
        }
        let reset = now.breaker.reset(scope, before, cause::FLEET)?;
        drop(standing);
        Ok(match reset {
            Reset::Done => None,
            Reset::Refused | Reset::TrippedAgain => Some("it has tripped again meanwhile".to_owned()),
        })
    }

    /// Arms or disarms a scope.
    pub fn arm(&self, scope: &ScopeName, armed: bool, author: Author<'_>) -> Result<()> {
        let now = self.loaded.in_force();
        let index = now.breaker.find(&scope.to_string())?;
        let kind = if armed { "armed" } else { "disarmed" };
        self.log.record_now(self.entry(kind, scope, Some(author), json!({ "id": author.id })));
        now.breaker.set_armed(index, armed)
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, kind: &str, scope: &ScopeName, author: Option<Author<'_>>, mut counts: Value) -> Entry {
        let causes = if matches!(kind, "tripped" | "reset") { cause::FLEET } else { 0 };
        counts["by"] = author.map(|author| author.by).into();
        Entry {
            scope: Some(scope.to_string()),
            cause: journal::cause_field(causes),
            reason: author.map(|author| author.why.to_owned()),
            ..self.loaded.entry(kind, counts)
        }
    }
}
