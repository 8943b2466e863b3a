//! A loaded breaker, opened by its pins: what it enforces, and the switch. Needs no agent and no configuration.

use std::sync::atomic::fence;

use anyhow::{Context, Result, anyhow};
use aya::maps::MapData;
use aya::maps::lpm_trie::Key;
use aya::programs::ProgramInfo;
use breaker_common::abi::{
    self, ABI_VERSION, Connection, ConnectionKey, Counters, Endpoint, LIMITS_PER_SCOPE, MAGIC, Meta, Name, Scope,
    Session,
};
use breaker_common::window;

use super::clock;
use super::hook::{self, Attachment, Held};
use super::load::EndpointKey;
use super::maps::{Endpoints, Maps};
use super::memory::{Mapped, ORDER, half, word};
use super::pins::PinRoot;
use super::sockets::{SockDiag, TcpSocket};
use super::tables::{address, unpadded};
use crate::config::{ScopeIndex, Scopes, SessionIndex};
use crate::fault::{Code, Fault};

/// A loaded breaker.
pub struct Breaker {
    root: PinRoot,
    meta: Meta,
    names: Scopes,
    scopes: Mapped<Scope>,
    maps: Maps,
}

/// Connections of a session, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    /// Open and not fenced.
    pub live: u64,
    /// Open or not yet forgotten, and fenced.
    pub fenced: u64,
}

impl Breaker {
    /// Opens what is pinned under a root. Compares the layout before it opens anything of it.
    pub fn open(root: &PinRoot) -> Result<Self> {
        root.require()?;
        let meta = read_meta(root)?;
        let scopes = Mapped::<Scope>::open(&root.map("SCOPES"))?;
        if scopes.len() < meta.scopes {
            return Err(mismatch(root, format!("{} scopes where META says {}", scopes.len(), meta.scopes)));
        }
        let names = read_names(root, &meta)?;
        Ok(Self { root: root.clone(), maps: Maps::new(root, &meta), meta, names, scopes })
    }

    /// Its maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Where it is pinned.
    pub fn root(&self) -> &PinRoot {
        &self.root
    }

    /// Facts of the load.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Its scopes and sessions, by name and number.
    pub fn names(&self) -> &Scopes {
        &self.names
    }

    /// The scope of this name.
    pub fn find(&self, text: &str) -> Result<ScopeIndex> {
        self.names.find(text).map_err(|error| Fault::new(Code::Usage, error.to_string()).into())
    }

    /// A scope as it stands now.
    pub fn scope(&self, scope: ScopeIndex) -> Result<Scope> {
        self.scopes.get(scope.get()).with_context(|| format!("scope {} is not in its map", scope.get()))
    }

    /// Messages that each limit of a scope has in its window now.
    pub fn used(&self, scope: ScopeIndex) -> Result<Vec<u64>> {
        let times = self.maps.times()?;
        let now = clock::now_ns();
        let state = self.scope(scope)?;
        let count = (state.limit_count as usize).min(LIMITS_PER_SCOPE);
        let used = |i: usize| {
            let (limit, window) = (&state.limits[i], &state.windows[i]);
            window.issued.saturating_sub(window::tail(limit, window, &times, now))
        };
        Ok((0..count).map(used).collect())
    }

    /// Sets a cause in a scope's switch and raises its epoch: every connection that is older is fenced from here on. Returns the
    /// causes from before.
    pub fn trip(&self, scope: ScopeIndex, cause: u64) -> Result<u64> {
        let place = self.place(scope)?;
        // SAFETY: both words lie inside the mapping, which self holds.
        let (causes, epoch) = unsafe { (word(&raw mut (*place).switch.causes), word(&raw mut (*place).switch.epoch)) };
        let before = causes.fetch_or(cause, ORDER);
        epoch.fetch_add(1, ORDER);
        Ok(before)
    }

    /// Raises a scope's epoch, voids its windows, and then clears the causes that the caller has seen: in this order, so that
    /// nothing from before the reset passes after it.
    pub fn reset(&self, scope: ScopeIndex, seen: u64) -> Result<()> {
        let place = self.place(scope)?;
        // SAFETY: all words lie inside the mapping, which self holds.
        unsafe {
            word(&raw mut (*place).switch.epoch).fetch_add(1, ORDER);
            for i in 0..LIMITS_PER_SCOPE {
                let issued = word(&raw mut (*place).windows[i].issued).load(ORDER);
                word(&raw mut (*place).limits[i].floor).store(issued, ORDER);
            }
            fence(ORDER);
            word(&raw mut (*place).switch.causes).fetch_and(!seen, ORDER);
        }
        Ok(())
    }

    /// Age of the agent's heartbeat, ns; `None` where no agent has run since the load.
    pub fn heartbeat_age_ns(&self) -> Result<Option<u64>> {
        let beat = self.maps.heartbeat()?.get(0).unwrap_or_default();
        Ok((beat != 0).then(|| clock::now_ns().saturating_sub(beat)))
    }

    /// Arms or disarms a scope.
    pub fn set_armed(&self, scope: ScopeIndex, armed: bool) -> Result<()> {
        let place = self.place(scope)?;
        // SAFETY: the word lies inside the mapping, which self holds.
        unsafe { half(&raw mut (*place).armed).store(armed as u32, ORDER) };
        Ok(())
    }

    fn place(&self, scope: ScopeIndex) -> Result<*mut Scope> {
        let place = self.scopes.place(scope.get());
        Ok(place.with_context(|| format!("scope {} is not in its map", scope.get()))?.as_ptr())
    }

    /// A session's settings.
    pub fn session(&self, session: SessionIndex) -> Result<Session> {
        let sessions = self.maps.sessions()?;
        sessions.get(session.get()).with_context(|| format!("session {} is not in its map", session.get()))
    }

    /// Sessions that are subject to a scope.
    pub fn sessions_of(&self, scope: ScopeIndex) -> Result<Vec<SessionIndex>> {
        let sessions = self.maps.sessions()?;
        let subject = |session: &SessionIndex| {
            sessions.get(session.get()).is_some_and(|found| {
                found.scopes[..(found.scope_count as usize).min(found.scopes.len())].contains(&scope.get())
            })
        };
        Ok(self.names.sessions().filter(subject).collect())
    }

    /// Sessions of a scope whose connections a trip ends at once.
    pub fn sessions_to_end(&self, scope: ScopeIndex) -> Result<Vec<SessionIndex>> {
        let sessions = self.sessions_of(scope)?;
        let resets = |session: &SessionIndex| self.session(*session).map(|found| found.flags & abi::flag::DROP == 0);
        let mut ended = Vec::new();
        for session in sessions {
            if resets(&session)? {
                ended.push(session);
            }
        }
        Ok(ended)
    }

    /// What a session has sent, over all CPUs.
    pub fn counters(&self) -> Result<Vec<Counters>> {
        let map = self.maps.counters()?;
        (0..self.meta.sessions)
            .map(|session| Ok(map.get(&session, 0)?.iter().fold(Counters::default(), |sum, cpu| add(sum, &cpu.0))))
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
        let map = self.maps.connections()?;
        map.iter()
            .map(|entry| entry.map(|(key, value)| (key.0, value.0)).context("reading the connection table"))
            .collect()
    }

    /// Connections by session.
    pub fn connection_counts(&self) -> Result<Vec<ConnectionCount>> {
        Ok(self.connection_table()?.0)
    }

    /// Connections by session, and how many entries of the table are taken.
    pub fn connection_table(&self) -> Result<(Vec<ConnectionCount>, u64)> {
        let mut counts = vec![ConnectionCount::default(); self.meta.sessions as usize];
        let sessions = self.maps.sessions()?;
        let epochs: Vec<u64> = (0..self.meta.sessions).map(|n| self.epoch_sum(sessions, n)).collect();
        let mut taken = 0;
        for entry in self.maps.connections()?.iter() {
            let connection = entry.context("reading the connection table")?.1.0;
            taken += 1;
            let session = connection.session as usize;
            let Some(count) = counts.get_mut(session) else { continue };
            if connection.epoch != epochs[session] {
                count.fenced += 1;
            } else if connection.closed_ns == 0 {
                count.live += 1;
            }
        }
        Ok((counts, taken))
    }

    /// True while what is pinned under the root is this load.
    pub fn is_pinned(&self) -> bool {
        let id = |data: &MapData| data.info().ok().map(|info| info.id());
        let pinned = MapData::from_pin(self.root.map("SCOPES")).ok();
        pinned.is_some_and(|pinned| id(&pinned).is_some() && id(&pinned) == id(self.scopes.data()))
    }

    fn epoch_sum(&self, sessions: &Mapped<Session>, session: u32) -> u64 {
        let Some(found) = sessions.get(session) else { return 0 };
        let count = (found.scope_count as usize).min(found.scopes.len());
        found.scopes[..count].iter().filter_map(|&scope| self.scopes.get(scope)).map(|scope| scope.switch.epoch).sum()
    }

    /// Forgets connections that sent their FIN or RST more than `age_ns` ago.
    pub fn forget_closed(&self, age_ns: u64) -> Result<usize> {
        let mut map = self.maps.connections()?;
        let now = clock::now_ns();
        let old: Vec<_> = map
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, connection)| {
                let closed = connection.0.closed_ns;
                closed != 0 && now.saturating_sub(closed) > age_ns
            })
            .map(|(key, _)| key)
            .collect();
        let mut forgotten = 0;
        for key in old {
            // One that a new SYN has taken over meanwhile is open again: look once more.
            let closed = map.get(&key, 0).is_ok_and(|found| found.0.closed_ns != 0);
            forgotten += usize::from(closed && map.remove(&key).is_ok());
        }
        Ok(forgotten)
    }

    /// Ends the connections of these sessions, idle ones too. Returns how many.
    pub fn destroy_sockets(&self, sessions: &[SessionIndex]) -> Result<usize> {
        let endpoints = self.maps.endpoints()?;
        let mut diag = SockDiag::open()?;
        let mut destroyed = 0;
        for socket in diag.connected()? {
            let of = session_of(&endpoints, &socket);
            if of.is_some_and(|number| sessions.iter().any(|session| session.get() == number))
                && diag.destroy(&socket)?
            {
                destroyed += 1;
            }
        }
        Ok(destroyed)
    }

    /// The interfaces, as the kernel has them now.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        let program = self.program()?.id();
        Ok(self.hooks().iter().map(|hook| hook.inspect(program)).collect())
    }

    /// The hooks, their links held open for as long as the caller wants.
    pub fn hooks(&self) -> Vec<Held> {
        let of = |(position, interface)| Held::open(interface, &self.root.link(position));
        self.interfaces().iter().enumerate().map(of).collect()
    }

    fn interfaces(&self) -> &[abi::Interface] {
        let count = (self.meta.interface_count as usize).min(self.meta.interfaces.len());
        &self.meta.interfaces[..count]
    }

    /// The program that is pinned.
    pub fn program(&self) -> Result<ProgramInfo> {
        let path = self.root.program();
        ProgramInfo::from_pin(&path).with_context(|| format!("opening {}", path.display()))
    }

    /// Detaches from every interface and removes every pin.
    pub fn unload(self) -> Result<()> {
        let _lock = self.root.lock()?;
        for (position, interface) in self.interfaces().iter().enumerate() {
            hook::detach(interface, &self.root.link(position))?;
        }
        self.root.remove()
    }
}

/// The session that a socket's connection is, as the kernel program would find it.
fn session_of(endpoints: &Endpoints, socket: &TcpSocket) -> Option<u32> {
    let ((local, _), (remote, port)) = (socket.local(), socket.remote());
    let with = |local| Endpoint { port: port.to_be(), pad: 0, local, remote: address(remote) };
    let get = |endpoint| endpoints.get(&Key::new(Endpoint::BITS, EndpointKey(endpoint)), 0).ok();
    get(with(address(local))).or_else(|| get(with([0; 4])))
}

fn read_meta(root: &PinRoot) -> Result<Meta> {
    let path = root.map("META");
    let data = MapData::from_pin(&path).map_err(|error| {
        let text =
            format!("adopting {}: it holds no {}: {error}: it is not breaker's", root.path().display(), path.display());
        anyhow!(Fault::new(Code::Mismatch, text))
    })?;
    let info = data.info()?;
    let head = || -> Option<(u64, u32)> {
        // The first words stand where they stand in every version; the rest may not.
        let bytes =
            (info.value_size() as usize).is_multiple_of(8) && info.max_entries() == 1 && info.value_size() >= 16;
        bytes.then_some(())?;
        let words = Mapped::<[u64; 2]>::of(MapData::from_pin(&path).ok()?).ok()?.get(0)?;
        Some((words[0], words[1] as u32))
    };
    match head() {
        Some((MAGIC, ABI_VERSION)) => {}
        Some((MAGIC, found)) => return Err(mismatch(root, format!("layout {found}"))),
        _ => return Err(mismatch(root, "no layout of breaker".to_owned())),
    }
    Mapped::<Meta>::open(&path)?.get(0).context("reading META")
}

fn mismatch(root: &PinRoot, found: String) -> anyhow::Error {
    let text = format!(
        "adopting {}: it has {found}, where breaker {} has layout {ABI_VERSION}: unload it with the version that loaded it",
        root.path().display(),
        crate::VERSION
    );
    Fault::new(Code::Mismatch, text).into()
}

fn read_names(root: &PinRoot, meta: &Meta) -> Result<Scopes> {
    let names = Mapped::<Name>::open(&root.map("NAMES"))?;
    let read = |number: u32| -> Result<crate::config::Name> {
        let name = unpadded(&names.get(number).with_context(|| format!("scope {number} has no name"))?);
        name.parse().map_err(|_| mismatch(root, format!("a scope named {name:?}")))
    };
    let groups = (1..=meta.groups).map(read).collect::<Result<_>>()?;
    let declared = (meta.groups + 2..meta.scopes).map(read).collect::<Result<_>>()?;
    Ok(Scopes::new(groups, declared))
}

fn add(sum: Counters, more: &Counters) -> Counters {
    let Counters { passed, withheld, packets_passed, packets_withheld, retransmitted, desyncs } = sum;
    Counters {
        passed: std::array::from_fn(|i| passed[i] + more.passed[i]),
        withheld: std::array::from_fn(|i| withheld[i] + more.withheld[i]),
        packets_passed: packets_passed + more.packets_passed,
        packets_withheld: packets_withheld + more.packets_withheld,
        retransmitted: retransmitted + more.retransmitted,
        desyncs: desyncs + more.desyncs,
    }
}
