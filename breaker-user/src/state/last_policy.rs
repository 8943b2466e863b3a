//! The last policy in force on this host, from the copy beside the state file.

use std::env;
use std::path::PathBuf;

use super::store::Store;
use crate::config::{self, Policy};
use crate::kernel::PinRoot;

/// Directory of the state, which systemd passes to a unit with `StateDirectory=` (systemd.exec(5)).
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Returns the policy that was in force under a pin root at the last write of the state file, and the path of
/// its copy. Returns `None` after an `unload`, and if the copy is not the policy that the state file names.
///
/// Reads `$STATE_DIRECTORY` or the default directory, because a broken configuration names no directory.
pub fn last_policy(root: &PinRoot) -> Option<(Policy, PathBuf)> {
    let directory = env::var_os(STATE_DIRECTORY).map_or_else(|| config::DEFAULT_STATE.into(), PathBuf::from);
    let store = Store::new(directory, root);
    let found = store.read();
    let contents = found.contents().filter(|contents| contents.loaded)?;
    let path = store.policy_path();
    // The copy is read only if a trusted user owns it.
    if !store.has_policy(&contents.policy_sha256) {
        return None;
    }
    let policy = config::load(&path).ok()?.policy;
    (policy.sha256_hex() == contents.policy_sha256).then_some((policy, path))
}
