//! The capabilities and kernel features that a load needs, and the errors that name a missing one.

use std::io::ErrorKind;

use anyhow::Result;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};
use rustix::thread::{CapabilitySet, capabilities};

use crate::cli_error::{CliError, Code};

/// The capabilities that a load needs; CAP_SYS_ADMIN includes all of them.
const RIGHTS: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];

/// Fails if this process lacks a capability for a load, and names each missing one.
pub fn require_rights() -> Result<()> {
    // Without an answer the attempt to load shows what is missing.
    let Ok(effective) = capabilities(None).map(|sets| sets.effective) else { return Ok(()) };
    let is_missing =
        |right: &&(CapabilitySet, &str)| !effective.intersects(right.0 | CapabilitySet::SYS_ADMIN);
    let missing: Vec<_> = RIGHTS.iter().filter(is_missing).map(|right| right.1).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text =
        format!("loading: this process lacks {}: run as root, or grant what is missing", missing.join(", "));
    Err(CliError::new(Code::Permission, text).into())
}

/// The error for a load that the kernel denied.
pub fn missing_rights() -> anyhow::Error {
    let text = "loading: the kernel refused, though no capability is missing: load outside of containers and \
                user namespaces";
    require_rights().err().unwrap_or_else(|| CliError::new(Code::Permission, text).into())
}

/// The error for a program that the kernel refused.
pub fn refused_program(error: ProgramError) -> anyhow::Error {
    if is_denied(&error) {
        return missing_rights();
    }
    let missing = missing_features(&error);
    let text = if missing.is_empty() {
        format!("loading the program: this kernel refuses it: breaker needs Linux 6.1 or newer: {error}")
    } else {
        format!("loading the program: this kernel lacks {}: boot Linux 6.1 or newer", missing.join(", "))
    };
    CliError::new(Code::Kernel, text).into()
}

/// Returns true if a capability was missing. A refusal by the verifier also has EACCES, and comes with a log.
fn is_denied(error: &ProgramError) -> bool {
    let is_denied = |error: &std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            is_denied(io_error) && verifier_log.to_string().trim().is_empty()
        }
        ProgramError::SyscallError(error) => is_denied(&error.io_error),
        _ => false,
    }
}

/// Helpers newer than Linux 5.10 that the programs call, by type of program.
const HELPERS: [(ProgramType, BpfHelper, &str); 3] = [
    (
        ProgramType::SchedClassifier,
        BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
        "the helper bpf_ktime_get_coarse_ns",
    ),
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_load_bytes, "the helper bpf_xdp_load_bytes"),
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_store_bytes, "the helper bpf_xdp_store_bytes"),
];

/// Names the features that a kernel lacks which has refused a program.
fn missing_features(error: &ProgramError) -> Vec<&'static str> {
    // A verifier before Linux 5.12 says this about an atomic operation that returns the old value. There is
    // no other way to query it.
    const NO_ATOMICS: &str = "BPF_STX uses reserved fields";
    let log = match error {
        ProgramError::LoadError { verifier_log, .. } => verifier_log.to_string(),
        _ => String::new(),
    };
    let atomics = log.contains(NO_ATOMICS).then_some("atomic operations with a result");
    let helpers =
        HELPERS.iter().filter(|(kind, helper, _)| matches!(is_helper_supported(*kind, *helper), Ok(false)));
    atomics.into_iter().chain(helpers.map(|(.., name)| *name)).collect()
}
