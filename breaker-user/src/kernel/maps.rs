//! The pinned maps of a load. Each is opened once, when it is first needed, and only if it has the expected
//! shape. An open map stays readable after its pin is removed.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapType, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf};
use breaker_common::abi::{
    self, CompId, Connection, ConnectionKey, Counters, Endpoint, IdentityKey, Inbound, Label, Meta, SIDES,
    Session, TargetWords, UnseenKey,
};
use breaker_common::window::Ring;

use super::batch;
use super::memory::{self, Mapped};
use super::pins::PinRoot;
use super::probe::Stamps;
use crate::cli_error::{CliError, Code};

/// The maps of a load, without META and SCOPES, which [`super::Switchboard`] holds.
pub struct Maps {
    root: PinRoot,
    meta: Meta,
    times: OnceLock<Times>,
    sessions: OnceLock<Mapped<Session>>,
    counters: OnceLock<PerCpuArray<MapData, PodCounters>>,
    reasons: OnceLock<PerCpuArray<MapData, u64>>,
    heartbeat: OnceLock<Mapped<u64>>,
    /// Both connection tables, for reading all entries.
    tables: [OnceLock<MapData>; 2],
    /// Both connection tables, for look-up and removal.
    connections: [OnceLock<Mutex<Connections>>; 2],
    inbound: OnceLock<Mutex<InboundTable>>,
    unseen: OnceLock<UnseenTable>,
    probes: OnceLock<Stamps>,
}

/// A connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Open connections of declared sessions. The table never evicts.
    Live,
    /// SYNs without an answer, closed and fenced connections, undeclared connections. The table evicts the
    /// least recently used entry.
    Transient,
}

impl Table {
    /// Both tables.
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

/// The content of a connection table.
pub type Connections = HashMap<MapData, PodKey, PodConnection>;
/// The endpoints, by longest prefix.
pub type Endpoints = LpmTrie<MapData, PodEndpoint, TargetWords>;
/// The state of inbound streams, by connection.
pub type InboundTable = HashMap<MapData, PodKey, PodInbound>;
/// Counters of packets that passed unread.
type UnseenTable = PerCpuHashMap<MapData, PodUnseen, u64>;
/// Numbers of CompIDs.
pub type CompIds = HashMap<MapData, CompId, u32>;
/// Sessions of shared endpoints.
pub type Identities = HashMap<MapData, PodIdentity, TargetWords>;

impl Maps {
    /// The maps under a root. Opens no map.
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
            probes: OnceLock::new(),
        }
    }

    /// Opens all maps. Also checks the shape of maps that are not kept open.
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
        self.probes()?;
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
        get_or_try_init(&self.times, || {
            let data = self.open("TIMES", MapType::Array, 8, 1)?;
            Ok(Times(Array::try_from(Map::Array(data))?))
        })
    }

    /// The sessions.
    pub fn sessions(&self) -> Result<&Mapped<Session>> {
        get_or_try_init(&self.sessions, || {
            let min_entries = self.policy().sessions * SIDES as u32;
            Mapped::from_map(self.open("SESSIONS", MapType::Array, size_of::<Session>(), min_entries)?)
        })
    }

    /// Counters by session.
    pub fn counters(&self) -> Result<&PerCpuArray<MapData, PodCounters>> {
        get_or_try_init(&self.counters, || {
            let data =
                self.open("COUNTERS", MapType::PerCpuArray, size_of::<Counters>(), self.policy().sessions)?;
            Ok(PerCpuArray::try_from(Map::PerCpuArray(data))?)
        })
    }

    /// Counters by reason.
    pub fn reasons(&self) -> Result<&PerCpuArray<MapData, u64>> {
        get_or_try_init(&self.reasons, || {
            let data = self.open("REASONS", MapType::PerCpuArray, 8, abi::reason::NAMES.len() as u32)?;
            Ok(PerCpuArray::try_from(Map::PerCpuArray(data))?)
        })
    }

    /// The agent's heartbeat.
    pub fn heartbeat(&self) -> Result<&Mapped<u64>> {
        get_or_try_init(&self.heartbeat, || Mapped::from_map(self.open("HEARTBEAT", MapType::Array, 8, 2)?))
    }

    /// A connection table, locked for this thread.
    pub fn connections(&self, table: Table) -> Result<MutexGuard<'_, Connections>> {
        let lock = get_or_try_init(&self.connections[table as usize], || {
            let data = self.open_connections(table)?;
            let map = match table {
                Table::Live => Map::HashMap(data),
                Table::Transient => Map::LruHashMap(data),
            };
            Ok(Mutex::new(HashMap::try_from(map)?))
        })?;
        Ok(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Finds a connection in either table.
    pub fn connection(&self, key: &ConnectionKey) -> Result<Option<Connection>> {
        for table in Table::ALL {
            if let Ok(found) = self.connections(table)?.get(&PodKey(*key), 0) {
                return Ok(Some(found.0));
            }
        }
        Ok(None)
    }

    /// Calls `visit` for every connection, with its table.
    pub fn for_each_connection(
        &self,
        mut visit: impl FnMut(Table, &ConnectionKey, &Connection),
    ) -> Result<()> {
        Table::ALL
            .into_iter()
            .try_for_each(|table| self.for_each_in(table, |key, connection| visit(table, key, connection)))
    }

    /// Calls `visit` for every connection of a table.
    pub fn for_each_in(&self, table: Table, visit: impl FnMut(&ConnectionKey, &Connection)) -> Result<()> {
        batch::for_each(self.table(table)?, visit).context("reading the connection table")
    }

    fn table(&self, table: Table) -> Result<&MapData> {
        get_or_try_init(&self.tables[table as usize], || self.open_connections(table))
    }

    fn open_connections(&self, table: Table) -> Result<MapData> {
        let (key, value) = (size_of::<ConnectionKey>(), size_of::<Connection>());
        let min_entries = if table == Table::Live { self.meta.connections } else { 1 };
        self.open_keyed(table.map(), table.map_type(), key, value, min_entries)
    }

    /// Packets that passed unread, by interface and kind ([`abi::unseen`]), over all CPUs.
    pub fn unseen(&self) -> Result<Vec<(UnseenKey, u64)>> {
        let map = get_or_try_init(&self.unseen, || {
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

    /// The stamps of probe frames.
    pub fn probes(&self) -> Result<&Stamps> {
        get_or_try_init(&self.probes, || Stamps::open(&self.root))
    }

    /// The state of inbound streams, locked for this thread.
    pub fn inbound(&self) -> Result<MutexGuard<'_, InboundTable>> {
        let lock = get_or_try_init(&self.inbound, || {
            let (key, value) = (size_of::<ConnectionKey>(), size_of::<Inbound>());
            let data = self.open_keyed("INBOUND", MapType::Hash, key, value, 1)?;
            Ok(Mutex::new(HashMap::try_from(Map::HashMap(data))?))
        })?;
        Ok(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The endpoints. The map is not kept open.
    pub fn endpoints(&self) -> Result<Endpoints> {
        endpoints(&self.root)
    }

    /// The policy that was in force at the open.
    fn policy(&self) -> &abi::Policy {
        &self.meta.policies[self.meta.side as usize & (SIDES - 1)]
    }

    /// The event ring. The agent is its only reader.
    pub fn events(&self) -> Result<RingBuf<MapData>> {
        let data = self.open_keyed("EVENTS", MapType::RingBuf, 0, 0, 1)?;
        Ok(RingBuf::try_from(Map::RingBuf(data))?)
    }

    fn open(&self, name: &str, map_type: MapType, value: usize, min_entries: u32) -> Result<MapData> {
        self.open_keyed(name, map_type, 4, value, min_entries)
    }

    /// Opens a map of this shape with at least `min_entries`.
    fn open_keyed(
        &self,
        name: &str,
        map_type: MapType,
        key: usize,
        value: usize,
        min_entries: u32,
    ) -> Result<MapData> {
        let path = self.root.map(name);
        let data = memory::open(&path, map_type, key, value)?;
        let found =
            data.info().with_context(|| format!("reading the size of {}", path.display()))?.max_entries();
        if found >= min_entries {
            return Ok(data);
        }
        let text = format!(
            "adopting {}: it has {found} entries where {min_entries} are needed: unload it with the program \
             that loaded it",
            path.display()
        );
        Err(CliError::new(Code::Mismatch, text).into())
    }
}

/// Opens the endpoints of a load.
pub fn endpoints(root: &PinRoot) -> Result<Endpoints> {
    let (key, value) = (size_of::<Key<PodEndpoint>>(), size_of::<TargetWords>());
    Ok(LpmTrie::try_from(Map::LpmTrie(memory::open(&root.map("ENDPOINTS"), MapType::LpmTrie, key, value)?))?)
}

/// Opens the numbers of CompIDs of a load.
pub fn comp_ids(root: &PinRoot) -> Result<CompIds> {
    let data = memory::open(&root.map("COMP_IDS"), MapType::Hash, size_of::<CompId>(), 4)?;
    Ok(HashMap::try_from(Map::HashMap(data))?)
}

/// Opens the sessions of shared endpoints of a load.
pub fn identities(root: &PinRoot) -> Result<Identities> {
    let data = memory::open(
        &root.map("IDENTITIES"),
        MapType::Hash,
        size_of::<IdentityKey>(),
        size_of::<TargetWords>(),
    )?;
    Ok(HashMap::try_from(Map::HashMap(data))?)
}

/// Returns the value of a cell. Makes it if the cell is empty.
fn get_or_try_init<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => make().map(|made| cell.get_or_init(|| made)),
    }
}

/// The rings of all limits, read slot by slot. A search reads a few slots. A mapping of all rings would add
/// megabytes to the resident memory of the reader.
pub struct Times(Array<MapData, u64>);

impl Ring for &Times {
    fn read(&self, slot: u64) -> u64 {
        u32::try_from(slot).ok().and_then(|slot| self.0.get(&slot, 0).ok()).unwrap_or_default()
    }

    /// Does nothing: only the kernel program writes the rings.
    fn write(&mut self, _: u64, _: u64) {}
}

/// Declares aya's `Pod` for a type of the layout.
macro_rules! pod {
    ($(#[$meta:meta])* $name:ident, $inner:ty) => {
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        pub struct $name(pub $inner);
        // SAFETY: bytemuck has checked that the type is plain old data.
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
    /// A key of the endpoints.
    PodEndpoint,
    Endpoint
);
pod!(
    /// The state of an inbound stream.
    PodInbound,
    Inbound
);
pod!(
    /// A key of the packets that passed unread.
    PodUnseen,
    UnseenKey
);
pod!(
    /// A key of the sessions of shared endpoints.
    PodIdentity,
    IdentityKey
);
