//! Commands as systemd runs them for a unit: an account without root, the capabilities of the unit, no new
//! privileges, and the unit's filter of system calls.

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

/// What a unit allows its process.
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

    /// Confines a command to this unit, as this account without groups.
    pub fn apply(&self, command: &mut Command, uid: u32) {
        let (capabilities, filter) = (self.capabilities, self.filter.clone());
        let confine = move || {
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
            for other in CapabilitySet::all().difference(capabilities).iter() {
                // A kernel may lack the newest capabilities.
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
        // SAFETY: the child of fork(2) changes its own rights only, and the C library allows it to allocate.
        unsafe { command.pre_exec(confine) };
    }
}

/// The names of the system calls that lines of `SystemCallFilter=` allow, as systemd.exec(5) combines them.
fn allowed_calls(lines: &[String]) -> BTreeSet<String> {
    let mut allowed = members("@default");
    assert!(lines.first().is_some_and(|line| !line.starts_with('~')), "no list of allowed calls: {lines:?}");
    for line in lines {
        let (names, is_denied) = line.strip_prefix('~').map_or((line.as_str(), false), |line| (line, true));
        for call in names.split_whitespace().flat_map(members) {
            if is_denied {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    allowed
}

/// The system calls of a set, as systemd has them; a name that is no set is a call.
fn members(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let output = output.expect("running systemd-analyze");
    assert!(output.status.success(), "{name}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().skip(1).map(str::trim);
    let found: BTreeSet<_> =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).flat_map(members).collect();
    assert!(!found.is_empty(), "{name} is empty");
    found
}

/// The filter that allows these calls, and ends every other one with EPERM.
fn filter(calls: &BTreeSet<String>) -> BpfProgram {
    // systemd knows the calls of every architecture.
    let numbers = calls.iter().filter_map(|name| Sysno::from_str(name).ok());
    let rules: BTreeMap<i64, Vec<_>> = numbers.map(|call| (i64::from(call.id()), Vec::new())).collect();
    assert!(rules.len() > 100, "{calls:?}");
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with a filter");
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch).expect("a filter");
    filter.try_into().expect("a program")
}
