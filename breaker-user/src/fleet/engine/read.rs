//! Reads all keys with a prefix at one revision.

use etcd_client::{GetOptions, GetResponse};

use super::ask::{Members, Question, checked};
use super::entry::{Entry, Snapshot, key_of};
use super::error::{Failure, Kind, Result};

/// Keys in one answer.
const PAGE: i64 = 256;

/// A page, or a page whose revision was compacted before it was read.
enum Page {
    Read { answer: Box<GetResponse>, cluster_id: u64, revision: i64 },
    Compacted,
}

/// Reads all keys with a prefix.
pub(super) async fn snapshot(members: &Members, question: &Question<'_>, prefix: &str) -> Result<Snapshot> {
    // The next prefix of the same length. A prefix is text, and no byte of UTF-8 is 0xff.
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let mut snapshot = Snapshot::default();
    let mut from = prefix.as_bytes().to_vec();
    loop {
        let page = page(members, question, (&from, &end), snapshot.revision).await?;
        let Page::Read { answer, cluster_id, revision } = page else {
            snapshot = Snapshot::default();
            from = prefix.as_bytes().to_vec();
            continue;
        };
        // The header of a later page has the revision of its own moment.
        if snapshot.revision == 0 {
            (snapshot.cluster_id, snapshot.revision) = (cluster_id, revision);
        }
        snapshot.entries.extend(answer.kvs().iter().map(|pair| (key_of(pair), Entry::from(pair))));
        match answer.kvs().last() {
            Some(last) if answer.more() => from = [last.key(), &[0]].concat(),
            _ => return Ok(snapshot),
        }
    }
}

/// Reads one page of a range at a revision; 0 is the newest. Every read is linearizable.
async fn page(
    members: &Members,
    question: &Question<'_>,
    (from, end): (&[u8], &[u8]),
    revision: i64,
) -> Result<Page> {
    members
        .ask(question, |member| async move {
            let options = GetOptions::new().with_range(end).with_limit(PAGE).with_revision(revision);
            match checked(members, member.keys().get(from, Some(options)).await) {
                Ok((answer, revision)) => {
                    let cluster_id = answer.header().map_or(0, etcd_client::ResponseHeader::cluster_id);
                    Ok(Page::Read { answer: Box::new(answer), cluster_id, revision })
                }
                Err(failure) if is_compacted(&failure) => Ok(Page::Compacted),
                Err(failure) => Err(failure),
            }
        })
        .await
}

fn is_compacted(failure: &Failure) -> bool {
    failure.kind == Kind::Refused && failure.reason.contains("has been compacted")
}

/// Reads the revision of the last change of a key; 0 if the key does not exist.
pub(super) async fn mod_revision(members: &Members, question: &Question<'_>, key: &str) -> Result<i64> {
    members
        .ask(question, |member| async move {
            let (answer, _) = checked(members, member.keys().get(key, None).await)?;
            Ok(answer.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision))
        })
        .await
}
