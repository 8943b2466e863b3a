//! The switchboard of a load: its facts, its scopes in memory, and what finds one by its name. It is all that throwing a switch takes,
//! and so all that a trip waits for: two maps more than META, and the name of no other scope.

use std::sync::atomic::{AtomicU64, fence};

use anyhow::{Context, Result};
use breaker_common::abi::{self, LIMITS_PER_SCOPE, Label, Meta, Rules, SIDES, Scope, Switch};

use super::clock;
use super::memory::{Mapped, ORDER, half, word};
use super::meta;
use super::pins::PinRoot;
use super::tables::labelled;
use crate::cli_error::{CliError, Code};
use crate::config::{ScopeIndex, ScopeName, Scopes};

/// What came of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The scope is not tripped any more.
    Done,
    /// It had tripped since the caller looked: nothing is changed.
    Refused,
    /// It was reset, and tripped while that was being done: it is tripped.
    TrippedAgain,
}

/// See the module.
pub struct Switchboard {
    root: PinRoot,
    meta: Meta,
    scopes: Mapped<Scope>,
    labels: Mapped<Label>,
}

impl Switchboard {
    /// Opens what is pinned under a root. Compares the layout before it opens anything of it.
    pub fn open(root: &PinRoot) -> Result<Self> {
        let meta = meta::read(root)?;
        let scopes = Mapped::<Scope>::open(&root.map("SCOPES"))?;
        let least = meta.policies[meta.side as usize & (SIDES - 1)].scopes;
        if scopes.len() < least {
            return Err(meta::mismatch(root, format!("{} scopes where META says {least}", scopes.len())));
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

    /// Where it is pinned.
    pub fn root(&self) -> &PinRoot {
        &self.root
    }

    /// Facts of the load.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The policy that was in force when this was opened.
    pub fn policy(&self) -> &abi::Policy {
        &self.meta.policies[self.side()]
    }

    /// The side that it is on.
    pub fn side(&self) -> usize {
        self.meta.side as usize & (SIDES - 1)
    }

    /// Its scopes, as they lie in memory.
    pub(super) fn scopes(&self) -> &Mapped<Scope> {
        &self.scopes
    }

    /// What the numbers of scopes and sessions stand for in the policy in force.
    pub fn names(&self) -> Result<Scopes> {
        meta::names(&self.root, &self.meta, &self.labels, |number| self.is_declared(number))
    }

    /// What they stand for in any policy since the load: events may be older than the one in force.
    pub fn all_names(&self) -> Result<Scopes> {
        meta::names(&self.root, &self.meta, &self.labels, |_| true)
    }

    /// The scope of this name.
    pub fn find(&self, text: &str) -> Result<ScopeIndex> {
        let words = |label: Label| (label.kind, label.name);
        let wanted = text.parse::<ScopeName>().ok().and_then(|name| labelled(&name).ok()).map(words);
        let is_wanted = |number: &u32| {
            wanted.is_some() && self.labels.get(*number).map(words) == wanted && self.is_declared(*number)
        };
        match (0..self.policy().scopes).find(is_wanted) {
            Some(number) => Ok(ScopeIndex::labelled(number)),
            // Who errs is told which names are near, and those must be read for it.
            None => {
                self.names()?.find(text).map_err(|error| CliError::new(Code::Usage, error.to_string()).into())
            }
        }
    }

    /// Whether the policy in force has the scope of this number.
    fn is_declared(&self, number: u32) -> bool {
        self.scopes.get(number).is_some_and(|scope| scope.rules[self.side()].positions & Rules::DECLARED != 0)
    }

    /// A scope as it stands now.
    pub fn scope(&self, scope: ScopeIndex) -> Result<Scope> {
        self.scopes.get(scope.get()).with_context(|| format!("scope {} is not in its map", scope.get()))
    }

    /// The switch of a scope now.
    pub fn switch(&self, scope: ScopeIndex) -> Result<Switch> {
        let (causes, epoch) = self.words(scope)?;
        // The epoch first: a trip that comes in between makes it an old one, which `reset` does not take.
        let epoch = epoch.load(ORDER);
        let causes = causes.load(ORDER);
        Ok(Switch { causes, epoch, ..self.scope(scope)?.switch })
    }

    /// Sets a cause in a scope's switch and raises its epoch: every connection that is older is fenced from here on.
    pub fn trip(&self, scope: ScopeIndex, cause: u64) -> Result<()> {
        let (causes, epoch) = self.words(scope)?;
        let raised = self.raised(scope)?;
        loop {
            causes.fetch_or(cause, ORDER);
            raised.store(clock::now_ns(), ORDER);
            epoch.fetch_add(1, ORDER);
            // A reset in between may have cleared it, and knew of no newer epoch yet. From here on it would see that there is one.
            if causes.load(ORDER) & cause != 0 {
                return Ok(());
            }
        }
    }

    /// Raises a scope's epoch, voids its windows, and then clears the causes that the caller has seen: in this order, so that
    /// nothing from before the reset passes after it. A trip since the caller looked stays, whether the reset was done or not.
    pub fn reset(&self, scope: ScopeIndex, seen: Switch) -> Result<Reset> {
        let place = self.place(scope)?;
        let (causes, epoch) = self.words(scope)?;
        let raised = self.raised(scope)?;
        if epoch.load(ORDER) != seen.epoch {
            return Ok(Reset::Refused);
        }
        raised.store(clock::now_ns(), ORDER);
        // Whoever trips it raises the epoch: then it is not the one that the caller has seen, and is left as it is.
        if epoch.compare_exchange(seen.epoch, seen.epoch + 1, ORDER, ORDER).is_err() {
            return Ok(Reset::Refused);
        }
        // SAFETY: the word lies inside the mapping, which self holds.
        unsafe { word(&raw mut (*place).switch.resets) }.fetch_add(1, ORDER);
        for i in 0..LIMITS_PER_SCOPE {
            // SAFETY: all words lie inside the mapping, which self holds.
            unsafe {
                let window = &raw mut (*place).windows[i];
                let issued = word(&raw mut (*window).issued).load(ORDER);
                word(&raw mut (*window).floor).store(issued, ORDER);
                let fills = word(&raw mut (*window).fills).load(ORDER);
                word(&raw mut (*window).fill_floor).store(fills, ORDER);
            }
        }
        fence(ORDER);
        causes.fetch_and(!seen.causes, ORDER);
        if epoch.load(ORDER) != seen.epoch + 1 {
            // A trip came in between, perhaps for a cause that was just cleared: its trip is not ours to undo.
            causes.fetch_or(seen.causes, ORDER);
        }
        Ok(if causes.load(ORDER) == 0 { Reset::Done } else { Reset::TrippedAgain })
    }

    /// Arms or disarms a scope.
    pub fn set_armed(&self, scope: ScopeIndex, armed: bool) -> Result<()> {
        let place = self.place(scope)?;
        // SAFETY: the word lies inside the mapping, which self holds.
        unsafe { half(&raw mut (*place).armed).store(armed as u32, ORDER) };
        Ok(())
    }

    /// Causes and epoch of a scope's switch.
    fn words(&self, scope: ScopeIndex) -> Result<(&AtomicU64, &AtomicU64)> {
        let place = self.place(scope)?;
        // SAFETY: both words lie inside the mapping, which self holds.
        Ok(unsafe { (word(&raw mut (*place).switch.causes), word(&raw mut (*place).switch.epoch)) })
    }

    /// When a scope's epoch was last raised.
    fn raised(&self, scope: ScopeIndex) -> Result<&AtomicU64> {
        let place = self.place(scope)?;
        // SAFETY: the word lies inside the mapping, which self holds.
        Ok(unsafe { word(&raw mut (*place).switch.raised_ns) })
    }

    fn place(&self, scope: ScopeIndex) -> Result<*mut Scope> {
        let place = self.scopes.place(scope.get());
        Ok(place.with_context(|| format!("scope {} is not in its map", scope.get()))?.as_ptr())
    }
}
