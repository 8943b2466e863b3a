//! Runs commands with the restrictions of a systemd unit: an unprivileged account, the unit's capabilities
//! and system-call filter, and no new privileges.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use syscalls::Sysno;

/// The capabilities and system calls that a unit allows.
pub struct Confinement {
    capabilities: CapabilitySet,
    filter: BpfProgram,
}

impl Confinement {
    /// Reads a unit file.
    ///
    /// # Panics
    /// If the unit does not limit capabilities and system calls, or allows new privileges.
    #[track_caller]
    pub fn of_unit(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a unit file");
        let values = |key: &str| -> Vec<String> {
            let value = |line: &str| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned());
            text.lines().filter_map(value).collect()
        };
        assert_eq!(values("NoNewPrivileges"), ["yes"]);
        assert_eq!(values("SystemCallErrorNumber"), ["EPERM"]);
        assert_eq!(values("AmbientCapabilities"), values("CapabilityBoundingSet"));
        let [names] = &values("CapabilityBoundingSet")[..] else { panic!("one CapabilityBoundingSet") };
        let capabilities = names.split_whitespace().map(|name| {
            let name = name.strip_prefix("CAP_").expect("a capability");
            CapabilitySet::from_name(name).unwrap_or_else(|| panic!("no capability {name}"))
        });
        Self {
            capabilities: capabilities.collect(),
            filter: filter(&allowed_calls(&values("SystemCallFilter"))),
        }
    }

    /// Confines a command to the rights of the unit. The command runs as `uid` without supplementary groups.
    pub fn apply(&self, command: &mut Command, uid: u32) {
        let (capabilities, filter) = (self.capabilities, self.filter.clone());
        let confine = move || {
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
            for other in CapabilitySet::all().difference(capabilities).iter() {
                // The call fails for a capability that the kernel does not know.
                let _ = remove_capability_from_bounding_set(other);
            }
            set_thread_groups(&[])?;
            set_thread_res_gid(group, group, group)?;
            set_keep_capabilities(true)?;
            set_thread_res_uid(user, user, user)?;
            let sets = CapabilitySets {
                effective: capabilities,
                permitted: capabilities,
                inheritable: capabilities,
            };
            set_capabilities(None, sets)?;
            for capability in capabilities.iter() {
                configure_capability_in_ambient_set(capability, true)?;
            }
            set_no_new_privs(true)?;
            apply_filter(&filter).map_err(io::Error::other)
        };
        // SAFETY: the child of fork(2) changes only its own rights, and the C library allows it to allocate.
        unsafe { command.pre_exec(confine) };
    }
}

/// Returns the system calls that the lines of `SystemCallFilter=` allow, combined as in systemd.exec(5).
fn allowed_calls(lines: &[String]) -> BTreeSet<String> {
    let mut allowed = expand("@default");
    assert!(lines.first().is_some_and(|line| !line.starts_with('~')), "no list of allowed calls: {lines:?}");
    for line in lines {
        let (names, is_denied) = line.strip_prefix('~').map_or((line.as_str(), false), |line| (line, true));
        for call in names.split_whitespace().flat_map(expand) {
            if is_denied {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    allowed
}

/// Expands a set of system calls by `systemd-analyze syscall-filter`. Returns any other name unchanged.
fn expand(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let output = output.expect("running systemd-analyze");
    assert!(output.status.success(), "{name}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().skip(1).map(str::trim);
    let found: BTreeSet<_> =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).flat_map(expand).collect();
    assert!(!found.is_empty(), "{name} is empty");
    found
}

/// Builds the filter that allows these calls and denies every other call with EPERM.
fn filter(calls: &BTreeSet<String>) -> BpfProgram {
    // systemd's sets include calls of other architectures, which have no number here.
    let numbers = calls.iter().filter_map(|name| Sysno::from_str(name).ok());
    let rules: BTreeMap<i64, Vec<_>> = numbers.map(|call| (i64::from(call.id()), Vec::new())).collect();
    assert!(rules.len() > 100, "{calls:?}");
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with a filter");
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch).expect("a filter");
    filter.try_into().expect("a program")
}
