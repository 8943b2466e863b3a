//! The switches of a load of any version, through the part that every layout has ([`abi::frozen`]). Switches
//! can be read and tripped; everything else needs the matching version.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result};
use breaker_common::abi::frozen::Head;
use breaker_common::abi::{self, Label, Switch, label};

use super::clock;
use super::detach_link::open_pin;
use super::memory::{ORDER, atomic_u64};
use super::pins::PinRoot;
use super::strided::Strided;
use super::text::trim_padding;
use crate::cli_error::{CliError, Code};
use crate::config::{Name, ScopeName};

/// The switches of a load of any layout.
pub struct FrozenBoard {
    abi: u32,
    scopes: Strided,
    labels: Strided,
}

impl FrozenBoard {
    /// Opens the switches of any layout under a pin root.
    ///
    /// # Errors
    /// Exit code 5 if the pinned maps are not breaker's.
    pub fn open(root: &PinRoot) -> Result<Self> {
        let abi = layout(root)?;
        Ok(Self {
            abi,
            scopes: Strided::open(&root.map("SCOPES"), size_of::<Switch>())?,
            labels: Strided::open(&root.map("LABELS"), size_of::<Label>())?,
        })
    }

    /// Returns the number of the layout.
    pub fn abi(&self) -> u32 {
        self.abi
    }

    /// Returns every scope with its number, including scopes that a reload has removed.
    pub fn scopes(&self) -> Vec<(u32, ScopeName)> {
        let count = self.labels.len().min(self.scopes.len());
        (0..count).filter_map(|number| Some((number, name(&self.labels.get(number)?)?))).collect()
    }

    /// Returns the number of the scope with this name.
    pub fn find(&self, text: &str) -> Result<u32> {
        let scopes = self.scopes();
        let found = scopes.iter().find(|(_, name)| name.to_string() == text).map(|(number, _)| *number);
        found.ok_or_else(|| {
            let names: Vec<_> = scopes.iter().map(|(_, name)| name.to_string()).collect();
            let text = format!("finding {text:?}: there is no such scope: there are {}", names.join(", "));
            CliError::new(Code::Usage, text).into()
        })
    }

    /// Reads the switch of a scope.
    pub fn switch(&self, scope: u32) -> Result<Switch> {
        self.scopes.get(scope).with_context(|| format!("scope {scope} is not in its map"))
    }

    /// Sets a cause in a scope's switch and raises its epoch.
    pub fn trip(&self, scope: u32, cause: u64) -> Result<()> {
        let switch = self.scopes.place::<Switch>(scope);
        let switch = switch.with_context(|| format!("scope {scope} is not in its map"))?.as_ptr();
        // SAFETY: the words lie inside the mapping, which self holds.
        let words = unsafe {
            (
                atomic_u64(&raw mut (*switch).causes),
                atomic_u64(&raw mut (*switch).raised_ns),
                atomic_u64(&raw mut (*switch).epoch),
            )
        };
        trip_switch(words, cause);
        Ok(())
    }
}

/// Trips a switch. The words are its causes, the time of its last trip or reset, and its epoch.
pub(super) fn trip_switch((causes, raised, epoch): (&AtomicU64, &AtomicU64, &AtomicU64), cause: u64) {
    loop {
        causes.fetch_or(cause, ORDER);
        raised.store(clock::now_ns(), ORDER);
        epoch.fetch_add(1, ORDER);
        // A reset that read the old epoch may have cleared the cause. From here on, a reset finds the new
        // epoch.
        if causes.load(ORDER) & cause != 0 {
            return;
        }
    }
}

/// Reads the number of the layout under a pin root.
pub fn layout(root: &PinRoot) -> Result<u32> {
    root.require()?;
    let head = Strided::open(&root.map("META"), size_of::<Head>())?.get::<Head>(0);
    match head {
        Some(Head { magic: abi::MAGIC, abi, .. }) => Ok(abi),
        _ => {
            let text = format!(
                "adopting {}: what is pinned there is not breaker's: choose another --pin-root",
                root.path().display()
            );
            Err(CliError::new(Code::Mismatch, text).into())
        }
    }
}

/// Returns the names of pinned links that are attached to no interface. A filter of clsact has no link.
pub fn lost_links(root: &PinRoot) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.path()) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_lost = |name: &String| {
        let link = open_pin(&root.path().join(name)).ok();
        let facts =
            link.and_then(|link| fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd())).ok());
        facts.is_some_and(|facts| facts.lines().any(|line| line.replace('\t', "") == "ifindex:0"))
    };
    names.filter(|name| name.starts_with("link_")).filter(is_lost).collect()
}

/// Returns the name of a scope; `None` if the label belongs to no scope.
fn name(found: &Label) -> Option<ScopeName> {
    let text = trim_padding(&found.name);
    match found.kind {
        label::HOST => Some(ScopeName::Host),
        label::GROUP => text.parse().ok().map(ScopeName::Group),
        label::SESSION if found.session == 0 => Some(ScopeName::Session(Name::undeclared())),
        label::SESSION => text.parse().ok().map(ScopeName::Session),
        _ => None,
    }
}
