//! A loaded breaker, opened by its pins: what it enforces, and its switchboard. Needs no agent and no configuration.

use std::ops::Deref;

use anyhow::{Context, Result};
use aya::maps::MapData;
use aya::programs::ProgramInfo;
use breaker_common::abi::sync;
use breaker_common::abi::{self, Connection, ConnectionKey, Counters, LIMITS_PER_SCOPE, SIDES, Session};
use breaker_common::window;

use super::attachment::{self, Attachment, HeldAttachment};
use super::clock;
use super::hook::{self, Place};
use super::load;
use super::maps::{Maps, PodKey, Table};
use super::memory::{Mapped, ORDER, unopened, word};
use super::netns;
use super::pins::PinRoot;
use super::switchboard::Switchboard;
use crate::config::{ScopeIndex, Scopes, SessionIndex};

/// A loaded breaker: its switchboard, and all the rest.
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

/// A limit and what is in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// Its position in the scope.
    pub position: usize,
    /// The limit.
    pub limit: abi::Limit,
    /// Messages in its window now.
    pub used: u64,
    /// Messages that may be: of a ratio that changes with the fills.
    pub max_messages: u64,
    /// Most that any window has held.
    pub peak: u64,
}

/// Connections of a session, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    /// Open and not fenced.
    pub live: u64,
    /// Open or not yet forgotten, and fenced.
    pub fenced: u64,
    /// Live, and cannot be followed right now.
    pub blind: u64,
}

impl Breaker {
    /// Opens what is pinned under a root. Compares the layout before it opens anything of it.
    pub fn open(root: &PinRoot) -> Result<Self> {
        Self::from_switchboard(Switchboard::open(root)?)
    }

    /// All that belongs to a switchboard.
    pub fn from_switchboard(board: Switchboard) -> Result<Self> {
        Ok(Self { names: board.names()?, maps: Maps::new(board.root(), board.meta()), board })
    }

    /// Its maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Its scopes and sessions, by name and number.
    pub fn names(&self) -> &Scopes {
        &self.names
    }

    /// The limits that a scope has, and what is in their windows now.
    pub fn limits(&self, scope: ScopeIndex) -> Result<Vec<LimitUse>> {
        let times = self.maps.times()?;
        let now = clock::now_ns();
        let state = self.scope(scope)?;
        let used = |position: usize| {
            let (limit, window) = (state.limits[self.side()][position], state.windows[position]);
            let used = window.issued.saturating_sub(window::tail(&limit, &window, &times, now));
            LimitUse {
                position,
                limit,
                used,
                max_messages: window::max_messages(&limit, &window),
                peak: window.peak,
            }
        };
        let positions = state.rules[self.side()].positions;
        Ok((0..LIMITS_PER_SCOPE).filter(|i| positions >> i & 1 == 1).map(used).collect())
    }

    /// A limit of a scope, by its position.
    pub fn limit(&self, scope: ScopeIndex, position: usize) -> Result<Option<abi::Limit>> {
        let state = self.scope(scope)?;
        let has = state.rules[self.side()].positions >> (position & 31) & 1 == 1;
        Ok(state.limits[self.side()].get(position).filter(|_| has).copied())
    }

    /// Age of the agent's heartbeat, ns; `None` where no agent has run since the load, whose own time stands there until then.
    pub fn heartbeat_age_ns(&self) -> Result<Option<u64>> {
        let beats = self.maps.heartbeat()?;
        let (beat, agents) = (beats.get(0).unwrap_or_default(), beats.get(1).unwrap_or_default());
        Ok((agents != 0).then(|| clock::now_ns().saturating_sub(beat)))
    }

    /// How long the agent may be silent before the host trips, and how long it has been, ns; `None` where the policy does not mind.
    pub fn heartbeat_silence_ns(&self) -> Result<Option<(u64, u64)>> {
        let beat = self.maps.heartbeat()?.get(0).unwrap_or_default();
        let minds =
            self.policy().deadman_ns != 0 && self.policy().flags & abi::flag::HEARTBEAT_LOSS_TRIPS != 0;
        Ok(minds.then(|| (self.policy().deadman_ns, clock::now_ns().saturating_sub(beat))))
    }

    /// How long ago a segment of a scope's sessions was last withheld because of a switch or a limit, ns; `None` for never.
    pub fn withheld_age_ns(&self, scope: ScopeIndex) -> Result<Option<u64>> {
        let mut last = 0;
        for session in self.sessions_of(scope)? {
            last = last.max(self.scope(self.names.of_session(session))?.withheld_ns);
        }
        Ok((last != 0).then(|| clock::now_ns().saturating_sub(last)))
    }

    /// A session's settings.
    pub fn session(&self, session: SessionIndex) -> Result<Session> {
        let found = self.maps.sessions()?.get(self.session_place(session.get()));
        found.with_context(|| format!("session {} is not in its map", session.get()))
    }

    /// Where a session lies in its map.
    fn session_place(&self, session: u32) -> u32 {
        session * SIDES as u32 + self.side() as u32
    }

    /// Sessions that are subject to a scope.
    pub fn sessions_of(&self, scope: ScopeIndex) -> Result<Vec<SessionIndex>> {
        let sessions = self.maps.sessions()?;
        let subject = |session: &SessionIndex| {
            sessions.get(self.session_place(session.get())).is_some_and(|found| {
                found.scopes[..(found.scope_count as usize).min(found.scopes.len())].contains(&scope.get())
            })
        };
        Ok(self.names.sessions().filter(subject).collect())
    }

    /// What a session has sent, over all CPUs.
    pub fn counters(&self) -> Result<Vec<Counters>> {
        let map = self.maps.counters()?;
        (0..self.policy().sessions)
            .map(|session| {
                Ok(map.get(&session, 0)?.iter().fold(Counters::default(), |sum, cpu| add(sum, &cpu.0)))
            })
            .collect()
    }

    /// Packets by the way they ended, over all CPUs, in the order of [`abi::reason::NAMES`].
    pub fn reasons(&self) -> Result<Vec<u64>> {
        (0..abi::reason::NAMES.len() as u32).map(|reason| self.reason(reason)).collect()
    }

    /// Packets that ended one way: one of [`abi::reason`].
    pub fn reason(&self, reason: u32) -> Result<u64> {
        Ok(self.maps.reasons()?.get(&reason, 0)?.iter().sum())
    }

    /// Every connection in the table.
    pub fn connections(&self) -> Result<Vec<(ConnectionKey, Connection)>> {
        let mut all = Vec::new();
        self.maps.for_each_connection(|_, key, connection| all.push((*key, *connection)))?;
        Ok(all)
    }

    /// How many entries of the table of live connections are taken.
    pub fn live_connections(&self) -> Result<u64> {
        let mut taken = 0;
        self.maps.for_each_in(Table::Live, |_, _| taken += 1)?;
        Ok(taken)
    }

    /// Connections by session.
    pub fn connection_counts(&self) -> Result<Vec<ConnectionCount>> {
        Ok(self.connection_table()?.0)
    }

    /// Connections by session, and how many entries of the table of live ones are taken.
    pub fn connection_table(&self) -> Result<(Vec<ConnectionCount>, u64)> {
        let mut counts = vec![ConnectionCount::default(); self.policy().sessions as usize];
        let sessions = self.maps.sessions()?;
        let epochs: Vec<u64> = (0..self.policy().sessions).map(|n| self.epoch_sum(sessions, n)).collect();
        let mut taken = 0;
        self.maps.for_each_connection(|table, _, connection| {
            taken += u64::from(table == Table::Live);
            let session = connection.session as usize;
            let Some(count) = counts.get_mut(session) else { return };
            // A SYN that nobody has answered is no connection yet.
            let attempt = table == Table::Transient && connection.opened == 1 && connection.stream.sent == 0;
            if connection.epoch != epochs[session] {
                count.fenced += 1;
            } else if connection.closed_ns == 0 && !attempt {
                count.live += 1;
                count.blind += u64::from(connection.stream.framing.sync != sync::IN_SYNC);
            }
        })?;
        Ok((counts, taken))
    }

    /// True while what is pinned under the root is this load.
    pub fn is_pinned(&self) -> bool {
        let id = |data: &MapData| data.info().ok().map(|info| info.id());
        let pinned = MapData::from_pin(self.root().map("SCOPES")).ok();
        pinned.is_some_and(|pinned| id(&pinned).is_some() && id(&pinned) == id(self.scopes().data()))
    }

    /// The sum of the epochs of a session's scopes: what a connection that is not fenced carries.
    pub(super) fn epoch_sum_at(&self, session: u32) -> u64 {
        self.maps.sessions().map_or(0, |sessions| self.epoch_sum(sessions, session))
    }

    fn epoch_sum(&self, sessions: &Mapped<Session>, session: u32) -> u64 {
        let Some(found) = sessions.get(self.session_place(session)) else { return 0 };
        let count = (found.scope_count as usize).min(found.scopes.len());
        let epochs = found.scopes[..count]
            .iter()
            .filter_map(|&scope| self.scopes().get(scope))
            .map(|scope| scope.switch.epoch);
        // A difference stands there too where a reload has changed the scopes of a session, and it may be below 0.
        epochs.fold(0, u64::wrapping_add)
    }

    /// Lets replays pass again where nothing is tripped: of each such session what has happened so far is of another day.
    pub fn start_trading_day(&self) -> Result<()> {
        let sessions = self.maps.sessions()?;
        for number in 0..self.policy().sessions {
            let Some(found) = sessions.get(self.session_place(number)) else { continue };
            let count = (found.scope_count as usize).min(found.scopes.len());
            let tripped =
                |scope: &u32| self.scopes().get(*scope).is_none_or(|scope| scope.switch.causes != 0);
            // The sum first: what trips after it was read makes it an old one.
            let epoch = self.epoch_sum(sessions, number);
            if let Some(place) = sessions.place(self.session_place(number))
                && !found.scopes[..count].iter().any(tripped)
            {
                // SAFETY: the word lies inside the mapping, which self holds.
                unsafe { word(&raw mut (*place.as_ptr()).day_epoch) }.store(epoch, ORDER);
            }
        }
        Ok(())
    }

    /// Forgets connections that sent their FIN or RST more than `age_ns` ago.
    pub fn evict_closed(&self, age_ns: u64) -> Result<usize> {
        let now = clock::now_ns();
        let mut old = Vec::new();
        self.maps.for_each_connection(|table, key, connection| {
            let closed = connection.closed_ns;
            if closed != 0 && now.saturating_sub(closed) > age_ns {
                old.push((table, PodKey(*key)));
            }
        })?;
        let mut inbound = self.maps.inbound()?;
        let mut forgotten = 0;
        for (table, key) in old {
            let mut map = self.maps.connections(table)?;
            // One that a new SYN has taken over meanwhile is open again: look once more.
            let closed = map.get(&key, 0).is_ok_and(|found| found.0.closed_ns != 0);
            if closed && map.remove(&key).is_ok() {
                forgotten += 1;
                // Where nothing has come in there is nothing to forget.
                let _ = inbound.remove(&key);
            }
        }
        Ok(forgotten)
    }

    /// What is attached, as the kernel has it now: the program that decides first.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        let places = self.attach_points()?;
        self.within(|| {
            // Who may not look would see nothing attached.
            places.iter().try_for_each(hook::require_sight)?;
            places.iter().map(attachment::inspect).collect()
        })?
    }

    /// This thread is in another network namespace than the load.
    pub fn is_in_other_netns(&self) -> Result<bool> {
        Ok(self.meta().netns != netns::Id::default() && self.meta().netns != netns::own()?)
    }

    /// Does something in the network namespace of the load.
    pub fn within<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Result<R> {
        netns::within(self.meta().netns, f)
    }

    /// The places that the programs were attached to.
    pub fn attach_points(&self) -> Result<Vec<Place>> {
        Place::all(self.meta(), self.root())
    }

    /// The hooks, their links held open for as long as the caller wants.
    pub fn hold_attachments(&self) -> Result<Vec<HeldAttachment>> {
        self.attach_points()?.iter().map(HeldAttachment::open).collect()
    }

    /// The interfaces as they were at the load.
    pub fn interfaces(&self) -> &[abi::Interface] {
        let count = (self.meta().interface_count as usize).min(self.meta().interfaces.len());
        &self.meta().interfaces[..count]
    }

    /// The program that is pinned.
    pub fn program(&self) -> Result<ProgramInfo> {
        let path = self.root().program();
        ProgramInfo::from_pin(&path).map_err(|error| unopened(&path, error))
    }

    /// Why what is pinned is not what was loaded: another program, or maps that the program does not use.
    pub fn pin_mismatch(&self) -> Result<Option<String>> {
        let program = self.program()?;
        if program.tag() != self.meta().program_tag {
            let (now, then) = (program.tag(), self.meta().program_tag);
            return Ok(Some(format!("the pinned program is {now:016x}, where {then:016x} was loaded")));
        }
        let own = self.scopes().data().info().context("asking after map SCOPES")?.id();
        // Whoever may not ask for programs by number learns nothing of it.
        let is_used = program.map_ids().ok().flatten().is_none_or(|maps| maps.contains(&own));
        Ok((!is_used).then(|| "the pinned switches are not the ones that the program reads".to_owned()))
    }

    /// Detaches from every interface and removes every pin.
    pub fn unload(&self) -> Result<()> {
        load::unload(self.root())
    }
}

fn add(sum: Counters, more: &Counters) -> Counters {
    let mut sum = sum;
    let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut sum));
    let more: &[u64] = bytemuck::cast_slice(std::slice::from_ref(more));
    words.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    sum
}
