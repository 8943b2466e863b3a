//! Leases, which show that a host is alive.

use etcd_client::LeaseGrantOptions;

use super::ask::{Members, Question, checked};
use super::error::{Failure, Kind, Result};

/// Makes a lease and returns its id. The client chooses the id, so that the request may be repeated.
pub(super) async fn grant(members: &Members, question: &Question<'_>, ttl_s: i64) -> Result<i64> {
    let id = fastrand::i64(1..);
    members
        .ask(question, |member| async move {
            let options = LeaseGrantOptions::new().with_id(id);
            let granted = member.client.lease_client().grant(ttl_s, Some(options)).await;
            match checked(members, granted) {
                Err(failure) if is_own(&failure) => Ok(id),
                other => other.map(|_| id),
            }
        })
        .await
}

/// Returns true if an earlier attempt has made the lease: ids of 63 random bits do not meet by chance.
fn is_own(failure: &Failure) -> bool {
    failure.kind == Kind::Refused && failure.reason.contains("lease already exists")
}

/// Renews a lease once.
pub(super) async fn keep_alive(members: &Members, question: &Question<'_>, id: i64) -> Result<()> {
    members
        .ask(question, |member| async move {
            // The call returns after the first answer, which has renewed the lease.
            member.client.lease_client().keep_alive(id).await.map(|_| ()).map_err(Failure::from)
        })
        .await
}
