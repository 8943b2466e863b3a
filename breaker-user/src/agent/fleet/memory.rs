//! What the agent remembers of its fleet through a restart: the cluster, the last revision, the trips.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::fleet::record::Trip;
use crate::fleet::standing::Standing;
use crate::kernel::Breaker;
use crate::state;

/// Longest wait for the lock of the state directory.
const LOCK: Duration = Duration::from_secs(2);

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Id of the cluster; 0 before the first contact.
    pub cluster_id: u64,
    /// Revision up to which the records are applied.
    pub revision: i64,
    /// The trips.
    pub standing: Standing,
    /// Trip of this host for lost contact, which etcd does not have yet.
    pub unpublished: Option<Trip>,
    /// Why the cluster is not trusted; `None` if it is trusted.
    pub distrusted: Option<String>,
}

impl Memory {
    /// Reads the file. Returns an empty memory and the reason if it cannot be read.
    pub fn read(breaker: &Breaker) -> (Self, Option<String>) {
        let bytes = match state::store(breaker).fleet() {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return (Self::default(), None),
            Err(error) => return (Self::default(), Some(format!("{error:#}"))),
        };
        match serde_json::from_slice(&bytes) {
            Ok(memory) => (memory, None),
            Err(error) => (Self::default(), Some(error.to_string())),
        }
    }

    /// Writes the file.
    pub fn write(&self, breaker: &Breaker) -> Result<()> {
        let store = state::store(breaker);
        let lock = store.lock(LOCK)?;
        let bytes = serde_json::to_vec(self).context("encoding what is known of the fleet")?;
        store.write_fleet(&bytes, &lock)
    }

    /// Compares a reading of the cluster with what was known when the reading began: an older revision or
    /// another id means that the cluster was restored from a backup, or is another one. Its resets and
    /// policies do not count from then on.
    pub fn meet(&mut self, cluster_id: u64, revision: i64, known: i64) {
        if self.distrusted.is_some() {
            return;
        }
        if self.cluster_id == 0 {
            self.cluster_id = cluster_id;
        } else if self.cluster_id != cluster_id {
            self.distrusted = Some(format!(
                "the cluster has the id {cluster_id:016x}, and {:016x} was known",
                self.cluster_id
            ));
        } else if revision < known {
            self.distrusted = Some(format!(
                "the cluster is at revision {revision}, and {known} was known: it was restored from a backup"
            ));
        }
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_or_an_older_cluster_is_not_trusted() {
        let mut memory = Memory::default();
        memory.meet(7, 100, 0);
        memory.meet(7, 100, 100);
        memory.meet(7, 101, 100);
        assert_eq!((memory.cluster_id, memory.distrusted.clone()), (7, None));
        let mut other = memory.clone();
        other.meet(8, 200, 101);
        assert!(other.distrusted.expect("another cluster").contains("0000000000000008"));
        memory.meet(7, 99, 101);
        let found = memory.distrusted.clone().expect("an older one");
        assert!(found.contains("revision 99, and 101 was known"), "{found}");
        memory.meet(7, 98, 101);
        assert_eq!(memory.distrusted, Some(found), "it is reported once");
    }
}
