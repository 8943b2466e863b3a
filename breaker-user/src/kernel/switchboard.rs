//! The switchboard of a load: its facts, its scopes in memory, and the look-up of a scope by its name. A trip
//! needs nothing else, so that it waits for META and two more maps alone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, fence};

use anyhow::{Context, Result};
use breaker_common::abi::{self, LIMITS_PER_SCOPE, Label, Meta, Rules, SIDES, Scope, Switch};

use super::frozen::trip_switch;
use super::memory::{Mapped, ORDER, atomic_u64};
use super::meta;
use super::pins::PinRoot;
use super::tables::numbers::label_of;
use super::{armed, clock};
use crate::cli_error::{CliError, Code};
use crate::config::{ScopeIndex, ScopeName, Scopes};

/// The result of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The scope is no longer tripped for these causes.
    Done,
    /// The scope has tripped since the caller read its switch. Nothing is changed.
    Refused,
    /// The scope tripped again during the reset, and is tripped.
    TrippedAgain,
}

/// The facts of a load, its scopes and their labels.
pub struct Switchboard {
    root: PinRoot,
    meta: Meta,
    scopes: Mapped<Scope>,
    labels: Mapped<Label>,
}

impl Switchboard {
    /// Opens the load under a root. Checks the number of the layout before it opens any other map.
    pub fn open(root: &PinRoot) -> Result<Self> {
        let meta = meta::read(root)?;
        let scopes = Mapped::<Scope>::open(&root.map("SCOPES"))?;
        let min_scopes = meta.policies[meta.side as usize & (SIDES - 1)].scopes;
        if scopes.len() < min_scopes {
            return Err(meta::mismatch(
                root,
                format!("{} scopes where META says {min_scopes}", scopes.len()),
            ));
        }
        let labels = Mapped::<Label>::open(&root.map("LABELS"))?;
        let sessions = meta.policies[meta.side as usize & (SIDES - 1)].sessions;
        if sessions > labels.len() {
            return Err(meta::damaged(
                root,
                &format!("{sessions} sessions where there is room for {}", labels.len()),
            ));
        }
        Ok(Self { root: root.clone(), meta, scopes, labels })
    }

    /// The pin root.
    pub fn root(&self) -> &PinRoot {
        &self.root
    }

    /// Facts of the load.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The policy that was in force at the open.
    pub fn policy(&self) -> &abi::Policy {
        &self.meta.policies[self.side()]
    }

    /// The side of that policy.
    pub fn side(&self) -> usize {
        self.meta.side as usize & (SIDES - 1)
    }

    /// The scopes, in shared memory.
    pub(super) fn scopes(&self) -> &Mapped<Scope> {
        &self.scopes
    }

    /// Reads the names of the scopes and sessions of the policy in force.
    pub fn names(&self) -> Result<Scopes> {
        meta::names(&self.root, &self.meta, &self.labels, |number| self.is_declared(number))
    }

    /// Reads the names of all scopes and sessions since the load. Events may be older than the policy in
    /// force.
    pub fn all_names(&self) -> Result<Scopes> {
        meta::names(&self.root, &self.meta, &self.labels, |_| true)
    }

    /// Finds a scope by its name.
    pub fn find(&self, text: &str) -> Result<ScopeIndex> {
        let identity = |label: Label| (label.kind, label.name);
        let wanted = text.parse::<ScopeName>().ok().and_then(|name| label_of(&name).ok()).map(identity);
        let is_wanted = |number: &u32| {
            wanted.is_some() && self.labels.get(*number).map(identity) == wanted && self.is_declared(*number)
        };
        match (0..self.policy().scopes).find(is_wanted) {
            Some(number) => Ok(ScopeIndex::labelled(number)),
            // The error lists similar names.
            None => {
                self.names()?.find(text).map_err(|error| CliError::new(Code::Usage, error.to_string()).into())
            }
        }
    }

    /// Returns true if the policy in force declares the scope.
    fn is_declared(&self, number: u32) -> bool {
        self.scopes.get(number).is_some_and(|scope| scope.rules[self.side()].positions & Rules::DECLARED != 0)
    }

    /// Reads a scope.
    pub fn scope(&self, scope: ScopeIndex) -> Result<Scope> {
        self.scopes.get(scope.get()).with_context(|| format!("scope {} is not in its map", scope.get()))
    }

    /// Reads the switch of a scope.
    pub fn switch(&self, scope: ScopeIndex) -> Result<Switch> {
        let (causes, epoch) = self.switch_words(scope)?;
        // The epoch is read first. A trip in between makes it outdated, and `reset` refuses it.
        let epoch = epoch.load(ORDER);
        let causes = causes.load(ORDER);
        Ok(Switch { causes, epoch, ..self.scope(scope)?.switch })
    }

    /// A number that changes, except for a chance of 1 in 2^64, if a switch or an arm changes.
    pub fn switch_stamp(&self) -> u64 {
        let mut stamp = DefaultHasher::new();
        for scope in (0..self.policy().scopes).filter_map(|number| self.scopes.ptr(number)) {
            // SAFETY: the value lies inside the mapping, which self holds, and its words are aligned.
            let words = unsafe {
                let scope = scope.as_ptr();
                let armed = (&raw const (*scope).armed).read_volatile();
                let causes = atomic_u64(&raw mut (*scope).switch.causes).load(ORDER);
                (causes, atomic_u64(&raw mut (*scope).switch.epoch).load(ORDER), armed)
            };
            words.hash(&mut stamp);
        }
        stamp.finish()
    }

    /// Trips a scope: sets a cause in its switch and raises its epoch. Every older connection is fenced from
    /// then on.
    pub fn trip(&self, scope: ScopeIndex, cause: u64) -> Result<()> {
        let (causes, epoch) = self.switch_words(scope)?;
        let raised_at = self.raised_at(scope)?;
        trip_switch((causes, raised_at, epoch), cause);
        Ok(())
    }

    /// Resets a scope: raises its epoch, voids its windows, and then clears these of the causes in `seen`,
    /// which the caller has read. In this order no segment from before the reset passes after it. A trip
    /// after the caller's read stays, whatever the result.
    pub fn reset(&self, scope: ScopeIndex, seen: Switch, causes_to_clear: u64) -> Result<Reset> {
        let cleared = seen.causes & causes_to_clear;
        let state = self.ptr(scope)?;
        let (causes, epoch) = self.switch_words(scope)?;
        let raised_at = self.raised_at(scope)?;
        if epoch.load(ORDER) != seen.epoch {
            return Ok(Reset::Refused);
        }
        raised_at.store(clock::now_ns(), ORDER);
        // A trip raises the epoch. Then the exchange fails, and the scope stays as it is.
        if epoch.compare_exchange(seen.epoch, seen.epoch + 1, ORDER, ORDER).is_err() {
            return Ok(Reset::Refused);
        }
        // SAFETY: the word lies inside the mapping, which self holds.
        unsafe { atomic_u64(&raw mut (*state).switch.resets) }.fetch_add(1, ORDER);
        for i in 0..LIMITS_PER_SCOPE {
            // SAFETY: all words lie inside the mapping, which self holds.
            unsafe {
                let window = &raw mut (*state).windows[i];
                let issued = atomic_u64(&raw mut (*window).issued).load(ORDER);
                atomic_u64(&raw mut (*window).floor).store(issued, ORDER);
                let fills = atomic_u64(&raw mut (*window).fills).load(ORDER);
                atomic_u64(&raw mut (*window).fill_floor).store(fills, ORDER);
            }
        }
        fence(ORDER);
        causes.fetch_and(!cleared, ORDER);
        if epoch.load(ORDER) != seen.epoch + 1 {
            // A trip came in between, perhaps for a cause that was just cleared. The trip must stay.
            causes.fetch_or(cleared, ORDER);
        }
        let rest = seen.causes & !cleared;
        Ok(if causes.load(ORDER) & !rest == 0 { Reset::Done } else { Reset::TrippedAgain })
    }

    /// Raises the epoch of a scope to at least this one.
    pub fn raise_epoch(&self, scope: ScopeIndex, least: u64) -> Result<()> {
        let (_, epoch) = self.switch_words(scope)?;
        epoch.fetch_max(least, ORDER);
        Ok(())
    }

    /// Arms or disarms a scope.
    pub fn set_armed(&self, scope: ScopeIndex, armed: bool) -> Result<()> {
        armed::set_armed(&self.scopes, scope.get(), armed)
    }

    /// The causes and the epoch of a scope's switch.
    fn switch_words(&self, scope: ScopeIndex) -> Result<(&AtomicU64, &AtomicU64)> {
        let state = self.ptr(scope)?;
        // SAFETY: both words lie inside the mapping, which self holds.
        Ok(unsafe {
            (atomic_u64(&raw mut (*state).switch.causes), atomic_u64(&raw mut (*state).switch.epoch))
        })
    }

    /// The time when a scope's epoch was last raised.
    fn raised_at(&self, scope: ScopeIndex) -> Result<&AtomicU64> {
        let state = self.ptr(scope)?;
        // SAFETY: the word lies inside the mapping, which self holds.
        Ok(unsafe { atomic_u64(&raw mut (*state).switch.raised_ns) })
    }

    fn ptr(&self, scope: ScopeIndex) -> Result<*mut Scope> {
        let state = self.scopes.ptr(scope.get());
        Ok(state.with_context(|| format!("scope {} is not in its map", scope.get()))?.as_ptr())
    }
}
