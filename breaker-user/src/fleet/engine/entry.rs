//! A key's value with its revisions.

use std::collections::BTreeMap;

use etcd_client::KeyValue;

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value, of any content.
    pub value: Vec<u8>,
    /// The revision of the last change.
    pub mod_revision: i64,
    /// The revision that created the key.
    pub create_revision: i64,
    /// The lease that the key ends with; 0 for none.
    pub lease: i64,
}

/// All keys with a prefix, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The revision of all entries.
    pub revision: i64,
    /// The entries by key. Bytes of a key that are not UTF-8 are replaced.
    pub entries: BTreeMap<String, Entry>,
}

/// The text of a key.
pub(super) fn key_of(pair: &KeyValue) -> String {
    String::from_utf8_lossy(pair.key()).into_owned()
}

impl From<&KeyValue> for Entry {
    fn from(pair: &KeyValue) -> Self {
        Self {
            value: pair.value().to_vec(),
            mod_revision: pair.mod_revision(),
            create_revision: pair.create_revision(),
            lease: pair.lease(),
        }
    }
}
