//! Resets that one person has requested and that wait for a second person. The requests are kept in the state
//! directory, so they outlive the process of the first person.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::store::Store;
use crate::kernel::clock;

/// How long a request waits for the second person.
pub const VALID: Duration = Duration::from_secs(600);
/// Longest wait for the lock of the state directory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// A request of one person to reset a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRequest {
    /// The scope.
    pub scope: String,
    /// Epoch of the scope at the request. After another trip or reset the request is void.
    pub epoch: u64,
    /// Whether the person wants a reset by force.
    pub force: bool,
    /// User id of the person.
    pub uid: u32,
    /// Name of the person.
    pub user: String,
    /// Reason of the person.
    pub reason: String,
    /// Time of the request, in ns of the kernel's monotonic clock: a change of the time of day has no effect.
    pub at_ns: u64,
    /// Boot id of the kernel whose clock `at_ns` is.
    pub boot: String,
}

impl ResetRequest {
    /// Makes a request with the current time.
    pub fn new(scope: &str, epoch: u64, force: bool, (uid, user): (u32, &str), reason: &str) -> Self {
        Self {
            scope: scope.to_owned(),
            epoch,
            force,
            uid,
            user: user.to_owned(),
            reason: reason.to_owned(),
            at_ns: clock::now_ns(),
            boot: super::now::boot_id(),
        }
    }

    fn is_valid(&self, now: &Self) -> bool {
        let age = now.at_ns.checked_sub(self.at_ns);
        self.boot == now.boot && age.is_some_and(|age| u128::from(age) < VALID.as_nanos())
    }

    fn is_for_same_reset(&self, other: &Self) -> bool {
        (&self.scope, self.epoch, self.force) == (&other.scope, other.epoch, other.force)
    }
}

/// Returns the valid request of another person for the same reset. Without one, keeps this request.
pub fn second(store: &Store, request: &ResetRequest) -> Result<Option<ResetRequest>> {
    let lock = store.lock(LOCK_TIMEOUT)?;
    let (first, kept) = match_request(read(store), request);
    store.write_pending(&serde_json::to_vec(&kept).context("writing the request")?, &lock)?;
    Ok(first)
}

/// Removes the requests for a scope.
pub fn withdraw(store: &Store, scope: &str) -> Result<()> {
    let lock = store.lock(LOCK_TIMEOUT)?;
    let mut kept = read(store);
    kept.retain(|found| found.scope != scope);
    store.write_pending(&serde_json::to_vec(&kept).context("writing the requests")?, &lock)
}

/// Reads the requests. A file that cannot be read counts as empty: the first person requests again.
fn read(store: &Store) -> Vec<ResetRequest> {
    store.pending().ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Finds the request of another person, and the requests to keep.
fn match_request(
    mut found: Vec<ResetRequest>,
    request: &ResetRequest,
) -> (Option<ResetRequest>, Vec<ResetRequest>) {
    found.retain(|found| found.is_valid(request));
    let first = found.iter().find(|found| found.is_for_same_reset(request) && found.uid != request.uid);
    let first = first.cloned();
    if first.is_none() {
        // One request a person and scope: a repeated request replaces the earlier one.
        found.retain(|found| found.scope != request.scope || found.uid != request.uid);
        found.push(request.clone());
    }
    (first, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uid: u32, at_s: u64) -> ResetRequest {
        ResetRequest {
            scope: "host".to_owned(),
            epoch: 3,
            force: false,
            uid,
            user: uid.to_string(),
            reason: "x".to_owned(),
            at_ns: at_s * 1_000_000_000,
            boot: "b".to_owned(),
        }
    }

    #[test]
    fn two_people_within_ten_minutes_are_needed_for_the_same_reset() {
        let first = request(1, 1000);
        let (found, kept) = match_request(Vec::new(), &first);
        assert_eq!((found, kept.as_slice()), (None, &[first.clone()][..]));
        // The same person, at a later time, stays alone.
        let (found, kept) = match_request(kept, &request(1, 1100));
        assert_eq!((found, kept), (None, vec![request(1, 1100)]));
        let other = request(2, 1599);
        assert_eq!(match_request(vec![first.clone()], &other).0, Some(first.clone()));
        for other in [
            request(2, 1600),
            // A time before the request is invalid: the monotonic clock never goes back.
            request(2, 999),
            ResetRequest { epoch: 4, ..other.clone() },
            ResetRequest { force: true, ..other.clone() },
            ResetRequest { scope: "session/x".to_owned(), ..other.clone() },
            ResetRequest { boot: "c".to_owned(), ..other.clone() },
        ] {
            assert_eq!(match_request(vec![first.clone()], &other).0, None, "{other:?}");
        }
    }
}
