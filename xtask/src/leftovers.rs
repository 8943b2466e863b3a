//! Detects network namespaces and pins that tests leave on the machine.
//!
//! Every privileged test removes what it created. Only names that begin with `breaker` are compared, because
//! other programs create and remove their own objects at the same time.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::path::Path;

/// The prefix of the names of breaker's network namespaces and pin roots.
const PREFIX: &str = "breaker";

/// The names of breaker's network namespaces and pinned BPF objects at one moment.
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Lists the names. A directory that is absent or not readable counts as empty.
    pub fn take() -> Self {
        let mut names = BTreeSet::new();
        // `ip netns list` lists this directory.
        for entry in own_entries(Path::new("/run/netns")) {
            names.insert(format!("network namespace {}", entry.file_name().to_string_lossy()));
        }
        for entry in own_entries(Path::new("/sys/fs/bpf")) {
            add_pins(&entry, &mut names);
        }
        Self(names)
    }

    /// Describes each name that was added since `before`, and each name that was removed.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let added = self.0.difference(&before.0).map(|name| format!("{name} was left behind"));
        let removed = before
            .0
            .difference(&self.0)
            .map(|name| format!("{name} was removed, and no test had created it"));
        added.chain(removed).collect()
    }
}

/// Returns the entries of a directory with the prefix.
fn own_entries(directory: &Path) -> impl Iterator<Item = DirEntry> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
}

/// Adds the path of a pin, and of a directory every path below.
fn add_pins(entry: &DirEntry, names: &mut BTreeSet<String>) {
    names.insert(entry.path().display().to_string());
    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        fs::read_dir(entry.path()).into_iter().flatten().flatten().for_each(|entry| add_pins(&entry, names));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(names: &[&str]) -> Snapshot {
        Snapshot(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn added_and_removed_names_are_listed() {
        let before = snapshot(&["network namespace mine"]);
        assert!(snapshot(&["network namespace mine"]).changes_since(&before).is_empty());
        assert_eq!(
            snapshot(&["/sys/fs/bpf/test"]).changes_since(&before),
            [
                "/sys/fs/bpf/test was left behind",
                "network namespace mine was removed, and no test had created it"
            ]
        );
    }

    #[test]
    fn names_without_the_prefix_are_ignored() {
        let directory = std::env::temp_dir().join(format!("leftovers-{}", std::process::id()));
        for name in ["breaker", "breaker-drill", "cilium", "hold1", ".breaker"] {
            fs::create_dir_all(directory.join(name).join("pin")).expect("a directory");
        }
        let mut names = BTreeSet::new();
        own_entries(&directory).for_each(|entry| add_pins(&entry, &mut names));
        let found: Vec<_> =
            names.iter().map(|name| name.trim_start_matches(&*directory.to_string_lossy())).collect();
        assert_eq!(found, ["/breaker", "/breaker-drill", "/breaker-drill/pin", "/breaker/pin"]);
        fs::remove_dir_all(&directory).expect("removing it");
    }
}
