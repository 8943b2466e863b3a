//! The pinned maps of a load that a process reads: each opened once, when it is first needed, and only where its shape is what this
//! program was built for. A map that is open stays readable where its pin goes.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapType, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf};
use breaker_common::abi::Inbound;
use breaker_common::abi::{
    self, CompId, Connection, ConnectionKey, Counters, IdentityKey, Label, Meta, SIDES, Session, TargetWords,
    UnseenKey,
};
use breaker_common::window::Ring;

use super::batch;
use super::load::EndpointKey;
use super::memory::{self, Mapped};
use super::pins::PinRoot;
use crate::cli_error::{CliError, Code};

/// The maps of a load, but for META and SCOPES, which every verb needs.
pub struct Maps {
    root: PinRoot,
    meta: Meta,
    times: OnceLock<Times>,
    sessions: OnceLock<Mapped<Session>>,
    counters: OnceLock<PerCpuArray<MapData, PodCounters>>,
    reasons: OnceLock<PerCpuArray<MapData, u64>>,
    heartbeat: OnceLock<Mapped<u64>>,
    /// Both connection tables, to walk over,
    tables: [OnceLock<MapData>; 2],
    /// and to look up and remove.
    connections: [OnceLock<Mutex<Connections>>; 2],
    inbound: OnceLock<Mutex<InboundTable>>,
    unseen: OnceLock<UnseenTable>,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Open connections of declared sessions: never evicted.
    Live,
    /// SYNs without an answer, what has closed or is fenced, what no session declares: the least recently used is evicted.
    Transient,
}

impl Table {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Live, Self::Transient];

    fn map(self) -> &'static str {
        match self {
            Self::Live => "CONNECTIONS",
            Self::Transient => "TRANSIENT",
        }
    }

    fn map_type(self) -> MapType {
        match self {
            Self::Live => MapType::Hash,
            Self::Transient => MapType::LruHash,
        }
    }
}

/// A connection table.
pub type Connections = HashMap<MapData, PodKey, PodConnection>;
/// The endpoints, by longest prefix.
pub type Endpoints = LpmTrie<MapData, EndpointKey, TargetWords>;
/// What comes in, by connection.
pub type InboundTable = HashMap<MapData, PodKey, PodInbound>;
/// Packets that passed unread.
type UnseenTable = PerCpuHashMap<MapData, PodUnseen, u64>;
/// Numbers of CompIDs.
pub type CompIds = HashMap<MapData, CompId, u32>;
/// Sessions at shared places.
pub type Identities = HashMap<MapData, PodIdentity, TargetWords>;

impl Maps {
    /// The maps under a root. Opens none of them.
    pub fn new(root: &PinRoot, meta: &Meta) -> Self {
        Self {
            root: root.clone(),
            meta: *meta,
            times: OnceLock::new(),
            sessions: OnceLock::new(),
            counters: OnceLock::new(),
            reasons: OnceLock::new(),
            heartbeat: OnceLock::new(),
            tables: [const { OnceLock::new() }; 2],
            connections: [const { OnceLock::new() }; 2],
            inbound: OnceLock::new(),
            unseen: OnceLock::new(),
        }
    }

    /// Opens all of them, and looks at the shape of those that this process does not keep open too.
    pub fn open_all(&self) -> Result<()> {
        self.times()?;
        self.sessions()?;
        self.counters()?;
        self.reasons()?;
        self.heartbeat()?;
        for table in Table::ALL {
            drop(self.connections(table)?);
            self.table(table)?;
        }
        drop(self.unseen()?);
        self.endpoints()?;
        self.events()?;
        let policy = self.policy();
        self.open("SCOPES", MapType::Array, size_of::<abi::Scope>(), policy.scopes)?;
        self.open("LABELS", MapType::Array, size_of::<Label>(), policy.scopes)?;
        self.open("PORTS", MapType::Array, 8, 1024)?;
        comp_ids(&self.root)?;
        identities(&self.root)?;
        drop(self.inbound()?);
        Ok(())
    }

    /// The rings of all limits.
    pub fn times(&self) -> Result<&Times> {
        once(&self.times, || {
            let data = self.open("TIMES", MapType::Array, 8, 1)?;
            Ok(Times(Array::try_from(Map::Array(data))?))
        })
    }

    /// The sessions.
    pub fn sessions(&self) -> Result<&Mapped<Session>> {
        once(&self.sessions, || {
            let least = self.policy().sessions * SIDES as u32;
            Mapped::of(self.open("SESSIONS", MapType::Array, size_of::<Session>(), least)?)
        })
    }

    /// Counters by session.
    pub fn counters(&self) -> Result<&PerCpuArray<MapData, PodCounters>> {
        once(&self.counters, || {
            let data =
                self.open("COUNTERS", MapType::PerCpuArray, size_of::<Counters>(), self.policy().sessions)?;
            Ok(PerCpuArray::try_from(Map::PerCpuArray(data))?)
        })
    }

    /// Counters by reason.
    pub fn reasons(&self) -> Result<&PerCpuArray<MapData, u64>> {
        once(&self.reasons, || {
            let data = self.open("REASONS", MapType::PerCpuArray, 8, abi::reason::NAMES.len() as u32)?;
            Ok(PerCpuArray::try_from(Map::PerCpuArray(data))?)
        })
    }

    /// The agent's sign of life.
    pub fn heartbeat(&self) -> Result<&Mapped<u64>> {
        once(&self.heartbeat, || Mapped::of(self.open("HEARTBEAT", MapType::Array, 8, 2)?))
    }

    /// A connection table. One thread at a time.
    pub fn connections(&self, table: Table) -> Result<MutexGuard<'_, Connections>> {
        let lock = once(&self.connections[table as usize], || {
            let data = self.open_connections(table)?;
            let map = match table {
                Table::Live => Map::HashMap(data),
                Table::Transient => Map::LruHashMap(data),
            };
            Ok(Mutex::new(HashMap::try_from(map)?))
        })?;
        Ok(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection, wherever it is.
    pub fn connection(&self, key: &ConnectionKey) -> Result<Option<Connection>> {
        for table in Table::ALL {
            if let Ok(found) = self.connections(table)?.get(&PodKey(*key), 0) {
                return Ok(Some(found.0));
            }
        }
        Ok(None)
    }

    /// Hands out every connection, and where it is.
    pub fn for_each_connection(
        &self,
        mut each: impl FnMut(Table, &ConnectionKey, &Connection),
    ) -> Result<()> {
        Table::ALL
            .into_iter()
            .try_for_each(|table| self.for_each_in(table, |key, connection| each(table, key, connection)))
    }

    /// Hands out every connection of a table.
    pub fn for_each_in(&self, table: Table, each: impl FnMut(&ConnectionKey, &Connection)) -> Result<()> {
        batch::walk(self.table(table)?, each).context("reading the connection table")
    }

    fn table(&self, table: Table) -> Result<&MapData> {
        once(&self.tables[table as usize], || self.open_connections(table))
    }

    fn open_connections(&self, table: Table) -> Result<MapData> {
        let (key, value) = (size_of::<ConnectionKey>(), size_of::<Connection>());
        let least = if table == Table::Live { self.meta.connections } else { 1 };
        self.open_keyed(table.map(), table.map_type(), key, value, least)
    }

    /// Packets that passed unread, by interface and kind ([`abi::unseen`]), over all CPUs.
    pub fn unseen(&self) -> Result<Vec<(UnseenKey, u64)>> {
        let map = once(&self.unseen, || {
            let data = self.open_keyed("UNSEEN", MapType::PerCpuHash, size_of::<UnseenKey>(), 8, 1)?;
            Ok(PerCpuHashMap::try_from(Map::PerCpuHashMap(data))?)
        })?;
        let sum = |found: Result<(PodUnseen, PerCpuValues<u64>), _>| {
            found.map(|(key, cpus)| (key.0, cpus.iter().sum()))
        };
        map.iter()
            .map(sum)
            .collect::<Result<_, aya::maps::MapError>>()
            .context("reading the packets that passed unread")
    }

    /// What comes in. One thread at a time.
    pub fn inbound(&self) -> Result<MutexGuard<'_, InboundTable>> {
        let lock = once(&self.inbound, || {
            let (key, value) = (size_of::<ConnectionKey>(), size_of::<Inbound>());
            let data = self.open_keyed("INBOUND", MapType::Hash, key, value, 1)?;
            Ok(Mutex::new(HashMap::try_from(Map::HashMap(data))?))
        })?;
        Ok(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The endpoints. Not kept open.
    pub fn endpoints(&self) -> Result<Endpoints> {
        endpoints(&self.root)
    }

    /// The policy in force when this was opened.
    fn policy(&self) -> &abi::Policy {
        &self.meta.policies[self.meta.side as usize & (SIDES - 1)]
    }

    /// The event ring. It has one reader: the agent.
    pub fn events(&self) -> Result<RingBuf<MapData>> {
        let data = self.open_keyed("EVENTS", MapType::RingBuf, 0, 0, 1)?;
        Ok(RingBuf::try_from(Map::RingBuf(data))?)
    }

    fn open(&self, name: &str, map_type: MapType, value: usize, least: u32) -> Result<MapData> {
        self.open_keyed(name, map_type, 4, value, least)
    }

    /// Opens a map of this shape with at least so many entries.
    fn open_keyed(
        &self,
        name: &str,
        map_type: MapType,
        key: usize,
        value: usize,
        least: u32,
    ) -> Result<MapData> {
        let path = self.root.map(name);
        let data = memory::open(&path, map_type, key, value)?;
        let found = data.info().with_context(|| format!("asking after {}", path.display()))?.max_entries();
        if found >= least {
            return Ok(data);
        }
        let text = format!(
            "adopting {}: it has {found} entries where {least} are needed: unload it with the program that loaded it",
            path.display()
        );
        Err(CliError::new(Code::Mismatch, text).into())
    }
}

/// The endpoints of a load.
pub fn endpoints(root: &PinRoot) -> Result<Endpoints> {
    let (key, value) = (size_of::<Key<EndpointKey>>(), size_of::<TargetWords>());
    Ok(LpmTrie::try_from(Map::LpmTrie(memory::open(&root.map("ENDPOINTS"), MapType::LpmTrie, key, value)?))?)
}

/// The numbers of CompIDs of a load.
pub fn comp_ids(root: &PinRoot) -> Result<CompIds> {
    let data = memory::open(&root.map("COMP_IDS"), MapType::Hash, size_of::<CompId>(), 4)?;
    Ok(HashMap::try_from(Map::HashMap(data))?)
}

/// The sessions at shared places of a load.
pub fn identities(root: &PinRoot) -> Result<Identities> {
    let data = memory::open(
        &root.map("IDENTITIES"),
        MapType::Hash,
        size_of::<IdentityKey>(),
        size_of::<TargetWords>(),
    )?;
    Ok(HashMap::try_from(Map::HashMap(data))?)
}

/// What a cell holds, made where it is empty.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => make().map(|made| cell.get_or_init(|| made)),
    }
}

/// The rings of all limits, read slot by slot: a search looks at a few of them, and mapping megabytes of rings to do so would make
/// them count as the reader's memory.
pub struct Times(Array<MapData, u64>);

impl Ring for &Times {
    fn read(&self, slot: u64) -> u64 {
        u32::try_from(slot).ok().and_then(|slot| self.0.get(&slot, 0).ok()).unwrap_or_default()
    }

    /// The kernel program alone writes the rings.
    fn write(&mut self, _: u64, _: u64) {}
}

/// Declares aya's `Pod` for a type of the layout.
macro_rules! pod {
    ($(#[$meta:meta])* $name:ident, $of:ty) => {
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        pub struct $name(pub $of);
        // SAFETY: plain old data, as bytemuck has checked.
        unsafe impl Pod for $name {}
    };
}
pod!(
    /// A key of the connection table.
    PodKey,
    ConnectionKey
);
pod!(
    /// A value of the connection table.
    PodConnection,
    Connection
);
pod!(
    /// A session's counters on one CPU.
    PodCounters,
    Counters
);
pod!(
    /// What came in on a connection.
    PodInbound,
    Inbound
);
pod!(
    /// A key of the packets that passed unread.
    PodUnseen,
    UnseenKey
);
pod!(
    /// A key of the sessions at shared places.
    PodIdentity,
    IdentityKey
);
