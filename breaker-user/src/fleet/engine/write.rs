//! Changes of keys. Each is a transaction that has no effect if it arrives a second time or late, so it may
//! be sent to several members.

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::ask::{Members, Question, checked};
use super::error::{Failure, Result};
use super::read;

/// The result of a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The key is new, with this value.
    New {
        /// The revision that created the key.
        revision: i64,
    },
    /// The key exists already, with another value.
    Exists {
        /// The revision of the last change of the key.
        revision: i64,
    },
}

/// The result of a transaction.
struct Outcome {
    /// Whether the transaction changed the keys.
    is_done: bool,
    /// The revision of the answer.
    revision: i64,
    /// Those of the keys that exist, if the transaction changed nothing.
    found: Vec<KeyValue>,
}

/// Creates all keys if the first one does not exist.
pub(super) async fn create(
    members: &Members,
    question: &Question<'_>,
    entries: &[(&str, &[u8])],
) -> Result<Created> {
    let (key, value) = entries[0];
    let absent = Compare::create_revision(key, CompareOp::Equal, 0);
    let outcome = commit(members, question, absent, (puts(entries, None), &[key])).await?;
    Ok(match outcome.found.first() {
        // An earlier attempt of this call has created the key.
        Some(found) if found.value() == value => Created::New { revision: found.create_revision() },
        Some(found) => Created::Exists { revision: found.mod_revision() },
        None => Created::New { revision: outcome.revision },
    })
}

/// Writes entries of which this client is the only writer. Returns their revision.
///
/// The condition is that the first key has not changed since this client last saw an answer. An attempt that
/// a frozen member delivers late therefore does not undo a later write.
pub(super) async fn put(
    members: &Members,
    question: &Question<'_>,
    entries: &[(&str, &[u8])],
    lease: Option<i64>,
) -> Result<i64> {
    let keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
    loop {
        let unchanged = Compare::mod_revision(keys[0], CompareOp::Less, members.revision() + 1);
        let outcome = commit(members, question, unchanged, (puts(entries, lease), &keys)).await?;
        if outcome.is_done {
            return Ok(outcome.revision);
        }
        // An earlier attempt of this call may have written the entries. Otherwise the answer has raised the
        // revision that this client has seen, and the next transaction has a later condition.
        let is_same = |(key, value): &(&str, &[u8])| {
            let mut found = outcome.found.iter().filter(|found| found.key() == key.as_bytes());
            found.any(|found| found.value() == *value && found.lease() == lease.unwrap_or(0))
        };
        if entries.iter().all(is_same) {
            return Ok(outcome.found.iter().map(KeyValue::mod_revision).max().unwrap_or(0));
        }
    }
}

/// Writes a value if the last change of the key has the expected revision. Returns whether it did; 0 expects
/// that the key does not exist.
pub(super) async fn compare_and_put(
    members: &Members,
    question: &Question<'_>,
    (key, value): (&str, &[u8]),
    expected: i64,
) -> Result<bool> {
    let same = Compare::mod_revision(key, CompareOp::Equal, expected);
    let outcome = commit(members, question, same, (puts(&[(key, value)], None), &[key])).await?;
    // An earlier attempt of this call may have written the value.
    let is_own = |found: &KeyValue| found.value() == value && found.mod_revision() > expected;
    Ok(outcome.is_done || outcome.found.iter().any(is_own))
}

/// Deletes a key.
pub(super) async fn delete(members: &Members, question: &Question<'_>, key: &str) -> Result<()> {
    loop {
        let revision = read::mod_revision(members, question, key).await?;
        if revision == 0 {
            return Ok(());
        }
        let same = Compare::mod_revision(key, CompareOp::Equal, revision);
        let deletion = vec![TxnOp::delete(key, None)];
        let outcome = commit(members, question, same, (deletion, &[key])).await?;
        if outcome.is_done || outcome.found.is_empty() {
            return Ok(());
        }
    }
}

fn puts(entries: &[(&str, &[u8])], lease: Option<i64>) -> Vec<TxnOp> {
    let options = lease.map(|lease| PutOptions::new().with_lease(lease));
    entries.iter().map(|(key, value)| TxnOp::put(*key, *value, options.clone())).collect()
}

/// Does the operations if the condition holds, and reads the keys if not.
async fn commit(
    members: &Members,
    question: &Question<'_>,
    condition: Compare,
    (operations, keys): (Vec<TxnOp>, &[&str]),
) -> Result<Outcome> {
    let reads: Vec<_> = keys.iter().map(|key| TxnOp::get(*key, None)).collect();
    let transaction = Txn::new().when([condition]).and_then(operations).or_else(reads);
    members
        .ask(question, |member| {
            let transaction = transaction.clone();
            async move {
                let (answer, revision) = checked(members, member.keys().txn(transaction).await)?;
                Ok::<_, Failure>(Outcome { is_done: answer.succeeded(), revision, found: found(&answer) })
            }
        })
        .await
}

/// The keys in the answer of a transaction.
fn found(answer: &TxnResponse) -> Vec<KeyValue> {
    let read = |response| match response {
        TxnOpResponse::Get(mut read) => read.take_kvs(),
        _ => Vec::new(),
    };
    answer.op_responses().into_iter().flat_map(read).collect()
}
