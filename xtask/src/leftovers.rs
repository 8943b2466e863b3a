//! What tests may leave behind on the machine: every privileged test removes what it made, and this sees that it did.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names of the machine's network namespaces and pinned BPF objects.
pub struct Machine(BTreeSet<String>);

impl Machine {
    /// As it is now. Directories that are absent or closed to us hold nothing of ours.
    pub fn now() -> Self {
        let mut names = BTreeSet::new();
        // Where `ip netns list` looks.
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            names.insert(format!("network namespace {}", entry.file_name().to_string_lossy()));
        }
        pins(Path::new("/sys/fs/bpf"), &mut names);
        Self(names)
    }

    /// What is there now and was not in `before`, and what was and is not.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let left = self.0.difference(&before.0).map(|name| format!("{name} was left behind"));
        let gone = before.0.difference(&self.0).map(|name| format!("{name}, not of the tests, is gone"));
        left.chain(gone).collect()
    }
}

fn pins(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        names.insert(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pins(&entry.path(), names);
        }
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
}
