//! A table of connections with an index.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use breaker_common::abi::ConnectionKey;
use foldhash::fast::RandomState;

/// The key of a connection, hashed in words, which needs no call.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key(ConnectionKey);

impl Hash for Key {
    #[inline(always)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ConnectionKey { local, remote, local_port, remote_port } = self.0;
        for word in [local, remote].map(bytemuck::cast::<_, [u64; 2]>).as_flattened() {
            state.write_u64(*word);
        }
        state.write_u32((local_port as u32) << 16 | remote_port as u32);
    }
}

/// An entry of a table.
#[derive(Clone, Debug)]
struct Entry<V> {
    key: ConnectionKey,
    value: V,
    /// Number of the last access.
    used: u64,
}

/// Values by connection. An entry keeps its index until an entry is removed.
#[derive(Clone)]
pub struct Connections<V> {
    index: HashMap<Key, u32, RandomState>,
    entries: Vec<Entry<V>>,
    accesses: u64,
}

impl<V> Default for Connections<V> {
    fn default() -> Self {
        Self { index: HashMap::default(), entries: Vec::new(), accesses: 0 }
    }
}

impl<V> Connections<V> {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns all entries.
    pub fn iter(&self) -> impl Iterator<Item = (&ConnectionKey, &V)> {
        self.entries.iter().map(|entry| (&entry.key, &entry.value))
    }

    /// Returns the index of a connection.
    #[inline(always)]
    pub fn find(&self, key: &ConnectionKey) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        self.index.get(&Key(*key)).map(|index| *index as usize)
    }

    /// Returns the value of a connection.
    pub fn get(&self, key: &ConnectionKey) -> Option<&V> {
        Some(&self.entries[self.find(key)?].value)
    }

    /// Returns the value of a connection, to be changed.
    pub fn get_mut(&mut self, key: &ConnectionKey) -> Option<&mut V> {
        let index = self.find(key)?;
        Some(self.at_mut(index))
    }

    /// Returns the value at an index of [`Self::find`].
    #[inline(always)]
    pub fn at(&self, index: usize) -> &V {
        &self.entries[index].value
    }

    /// Returns the value at an index of [`Self::find`], to be changed, and marks it as used.
    #[inline(always)]
    pub fn at_mut(&mut self, index: usize) -> &mut V {
        self.accesses += 1;
        let entry = &mut self.entries[index];
        entry.used = self.accesses;
        &mut entry.value
    }

    /// Inserts or replaces a value. Returns its index.
    pub fn insert(&mut self, key: &ConnectionKey, value: V) -> usize {
        if let Some(index) = self.find(key) {
            *self.at_mut(index) = value;
            return index;
        }
        self.accesses += 1;
        self.index.insert(Key(*key), self.entries.len() as u32);
        self.entries.push(Entry { key: *key, value, used: self.accesses });
        self.entries.len() - 1
    }

    /// Removes a connection. The last entry takes its index.
    pub fn remove(&mut self, key: &ConnectionKey) {
        let Some(index) = self.index.remove(&Key(*key)) else { return };
        self.entries.swap_remove(index as usize);
        if let Some(moved) = self.entries.get(index as usize) {
            self.index.insert(Key(moved.key), index);
        }
    }

    /// Makes room in a full table: removes the eighth of the entries that was not used for the longest time.
    /// Returns their keys.
    pub fn evict(&mut self, capacity: usize) -> Vec<ConnectionKey> {
        if self.entries.len() < capacity || self.entries.is_empty() {
            return Vec::new();
        }
        let mut used: Vec<u64> = self.entries.iter().map(|entry| entry.used).collect();
        let eighth = used.len() / 8;
        let (_, oldest, _) = used.select_nth_unstable(eighth);
        let oldest = *oldest;
        let keys = self.entries.iter().filter(|entry| entry.used <= oldest).map(|entry| entry.key);
        let evicted: Vec<_> = keys.collect();
        evicted.iter().for_each(|key| self.remove(key));
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(local_port: u16) -> ConnectionKey {
        ConnectionKey { local: [1; 4], remote: [2; 4], local_port, remote_port: 9 }
    }

    #[test]
    fn a_full_table_evicts_the_entries_that_were_used_least_recently() {
        let mut table = Connections::default();
        for port in 0..64 {
            assert_eq!(table.insert(&key(port), port), port as usize);
        }
        assert!(table.evict(65).is_empty());
        *table.get_mut(&key(3)).expect("an entry") += 100;
        let evicted = table.evict(64);
        assert_eq!(evicted, [0, 1, 2, 4, 5, 6, 7, 8, 9].map(key));
        assert_eq!((table.len(), table.get(&key(3)), table.get(&key(4))), (55, Some(&103), None));
        (10..64).for_each(|port| assert_eq!(table.get(&key(port)), Some(&port)));
    }
}
