//! A loaded breaker, opened by its pins. It needs no agent and no configuration.

use std::ops::Deref;

use anyhow::{Context, Result};
use aya::maps::MapData;
use aya::programs::ProgramInfo;
use breaker_common::abi;

use super::attach_point::AttachPoint;
use super::attachment::{self, Attachment, HeldAttachment};
use super::maps::Maps;
use super::memory::open_error;
use super::pins::PinRoot;
use super::switchboard::Switchboard;
use super::{attach, clock, netns, recorded};
use crate::config::Scopes;

/// A loaded breaker: its switchboard, its names and its maps.
pub struct Breaker {
    board: Switchboard,
    names: Scopes,
    maps: Maps,
}

impl Deref for Breaker {
    type Target = Switchboard;

    fn deref(&self) -> &Switchboard {
        &self.board
    }
}

impl Breaker {
    /// Opens the load under a root. Checks the number of the layout before it opens any other map.
    pub fn open(root: &PinRoot) -> Result<Self> {
        Self::from_switchboard(Switchboard::open(root)?)
    }

    /// Opens the load of a switchboard.
    pub fn from_switchboard(board: Switchboard) -> Result<Self> {
        Ok(Self { names: board.names()?, maps: Maps::new(board.root(), board.meta()), board })
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The scopes and sessions of the policy in force, by name and number.
    pub fn names(&self) -> &Scopes {
        &self.names
    }

    /// Returns the age of the agent's heartbeat in ns; `None` if no agent has run since the load.
    pub fn heartbeat_age_ns(&self) -> Result<Option<u64>> {
        let words = self.maps.heartbeat()?;
        // The load writes its own time into the first word, and an agent sets the second.
        let (beat, agents) = (words.get(0).unwrap_or_default(), words.get(1).unwrap_or_default());
        Ok((agents != 0).then(|| clock::now_ns().saturating_sub(beat)))
    }

    /// Returns the silence of the agent that trips the host, and its silence so far, in ns; `None` if the
    /// policy has no such trip.
    pub fn heartbeat_silence_ns(&self) -> Result<Option<(u64, u64)>> {
        let beat = self.maps.heartbeat()?.get(0).unwrap_or_default();
        let policy = self.policy();
        let trips = policy.deadman_ns != 0 && policy.flags & abi::flag::HEARTBEAT_LOSS_TRIPS != 0;
        Ok(trips.then(|| (policy.deadman_ns, clock::now_ns().saturating_sub(beat))))
    }

    /// Returns true while the pins under the root are those of this load.
    pub fn is_pinned(&self) -> bool {
        let id = |data: &MapData| data.info().ok().map(|info| info.id());
        let pinned = MapData::from_pin(self.root().map("SCOPES")).ok();
        pinned.is_some_and(|pinned| id(&pinned).is_some() && id(&pinned) == id(self.scopes().data()))
    }

    /// Returns true if this thread is in another network namespace than the load.
    pub fn is_in_other_netns(&self) -> Result<bool> {
        Ok(self.meta().netns != netns::Id::default() && self.meta().netns != netns::current()?)
    }

    /// Calls a function in the network namespace of the load.
    pub fn in_netns<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Result<R> {
        netns::run_in(self.meta().netns, f)
    }

    /// The points where the programs were attached.
    pub fn attach_points(&self) -> Result<Vec<AttachPoint>> {
        AttachPoint::all(self.meta(), self.root())
    }

    /// Reads from the kernel whether each program is attached.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        let points = self.attach_points()?;
        self.in_netns(|| {
            // Without the permission every program would seem detached.
            points.iter().try_for_each(attach::require_query_permission)?;
            points.iter().map(attachment::inspect).collect()
        })?
    }

    /// Opens the links of all attachments, and holds them open for as long as the caller wants.
    pub fn hold_attachments(&self) -> Result<Vec<HeldAttachment>> {
        self.attach_points()?.iter().map(HeldAttachment::open).collect()
    }

    /// The interfaces as they were at the load.
    pub fn interfaces(&self) -> &[abi::Interface] {
        let count = (self.meta().interface_count as usize).min(self.meta().interfaces.len());
        &self.meta().interfaces[..count]
    }

    /// The pinned enforcing program.
    pub fn program(&self) -> Result<ProgramInfo> {
        let path = self.root().program();
        ProgramInfo::from_pin(&path).map_err(|error| open_error(&path, error))
    }

    /// Returns a text if the pins are not those of the load: another program, or maps that the program does
    /// not use.
    pub fn pin_mismatch(&self) -> Result<Option<String>> {
        let program = self.program()?;
        if !recorded::is_recorded(self.root(), &program)? {
            let (now, then) = (program.tag(), self.meta().program_tag);
            return Ok(Some(format!("the pinned program is {now:016x}, where {then:016x} was loaded")));
        }
        let own = self.scopes().data().info().context("reading the id of map SCOPES")?.id();
        // Without the permission to list maps the result is no mismatch.
        let is_used = program.map_ids().ok().flatten().is_none_or(|maps| maps.contains(&own));
        Ok((!is_used).then(|| "the pinned switches are not the ones that the program reads".to_owned()))
    }
}
