//! What tests may leave behind on the machine: every privileged test removes what it made, and this sees that it did. It looks at names of
//! breaker's own only: whatever else comes and goes meanwhile is other programs'.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::path::Path;

/// How the names of breaker's own network namespaces and pin roots begin.
const OWN: &str = "breaker";

/// Names of breaker's own network namespaces and pinned BPF objects on the machine.
pub struct Machine(BTreeSet<String>);

impl Machine {
    /// As it is now. Directories that are absent or closed to us hold nothing of ours.
    pub fn now() -> Self {
        let mut names = BTreeSet::new();
        // Where `ip netns list` looks.
        for entry in own(Path::new("/run/netns")) {
            names.insert(format!("network namespace {}", entry.file_name().to_string_lossy()));
        }
        for entry in own(Path::new("/sys/fs/bpf")) {
            pin(&entry, &mut names);
        }
        Self(names)
    }

    /// What is there now and was not in `before`, and what was and is not.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let left = self.0.difference(&before.0).map(|name| format!("{name} was left behind"));
        let gone = before.0.difference(&self.0).map(|name| format!("{name}, not of the tests, is gone"));
        left.chain(gone).collect()
    }
}

/// What a directory holds under a name of breaker's own.
fn own(directory: &Path) -> impl Iterator<Item = DirEntry> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(OWN))
}

/// A pin, and where it is a directory all that is in it.
fn pin(entry: &DirEntry, names: &mut BTreeSet<String>) {
    names.insert(entry.path().display().to_string());
    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        fs::read_dir(entry.path()).into_iter().flatten().flatten().for_each(|entry| pin(&entry, names));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(names: &[&str]) -> Machine {
        Machine(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_what_came_and_what_went() {
        let before = machine(&["network namespace mine"]);
        assert!(machine(&["network namespace mine"]).changes_since(&before).is_empty());
        assert_eq!(
            machine(&["/sys/fs/bpf/test"]).changes_since(&before),
            ["/sys/fs/bpf/test was left behind", "network namespace mine, not of the tests, is gone"]
        );
    }
    #[test]
    fn what_is_not_called_after_breaker_is_not_looked_at() {
        let directory = std::env::temp_dir().join(format!("leftovers-{}", std::process::id()));
        for name in ["breaker", "breaker-drill", "cilium", "hold1", ".breaker"] {
            fs::create_dir_all(directory.join(name).join("pin")).expect("a directory");
        }
        let mut names = BTreeSet::new();
        own(&directory).for_each(|entry| pin(&entry, &mut names));
        let found: Vec<_> =
            names.iter().map(|name| name.trim_start_matches(&*directory.to_string_lossy())).collect();
        assert_eq!(found, ["/breaker", "/breaker-drill", "/breaker-drill/pin", "/breaker/pin"]);
        fs::remove_dir_all(&directory).expect("removing it");
    }
}
