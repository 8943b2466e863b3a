//! `breaker check`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use serde_json::json;

use super::{say, warn};
use crate::audit;
use crate::cli::ConfigArgs;
use crate::config::{self, Inbound, Policy, Word};
use crate::fault::{Code, Fault};
use crate::kernel::{hook, load};

/// Validates a configuration, and this host for it. What the file says is told even where the host is wrong.
pub fn run(args: &ConfigArgs) -> Result<ExitCode> {
    let policy = policy(args)?;
    let tables = load::tables(&policy)?;
    let host = host(&policy);
    // Maps have room for every CPU that may yet be plugged in.
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow!(error).context(format!("reading {path}")))?;
    let inbound = policy.host().inbound == Inbound::Watch;
    let memory = tables.room().memory(policy.host().connections.get(), inbound, cpus);
    let limits: usize = policy.scopes().iter().map(|scope| policy.limits(scope).len()).sum();
    let interfaces: Vec<_> = policy.host().interfaces.iter().map(|interface| interface.as_str()).collect();
    if args.json {
        let view = json!({
            "policy": { "name": policy.name().as_str(), "sha256": policy.sha256_hex() },
            "interfaces": interfaces,
            "mode": policy.host().mode.word(),
            "hook": host.as_ref().ok(),
            "groups": policy.groups().len(),
            "sessions": policy.sessions().len(),
            "limits": limits,
            "kernel_memory_bytes": memory,
        });
        say(&serde_json::to_string_pretty(&view)?)?;
    } else {
        say(&format!(
            "{}: policy {} is valid; sessions: {}, groups: {}, limits: {limits}; kernel memory: at most {} KiB",
            args.config.display(),
            policy.name(),
            policy.sessions().len(),
            policy.groups().len(),
            memory.div_ceil(1024)
        ))?;
        if let Ok(hook) = host {
            say(&format!("this host can enforce it: by {hook} on {}", interfaces.join(", ")))?;
        }
    }
    host.map(|_| ExitCode::SUCCESS)
}

/// The hook that this host has for a policy, or why it cannot enforce it.
fn host(policy: &Policy) -> Result<&'static str> {
    audit::require(policy.agent().audit.as_path())?;
    load::require_rights()?;
    Ok(hook::word(hook::Way::of(policy.host())?.kind))
}

/// The policy in a file; what it warns of goes to standard error.
pub fn policy(args: &ConfigArgs) -> Result<Policy> {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let loaded = config::load(&args.config).map_err(|errors| {
        Fault::new(Code::Usage, format!("the configuration is refused\n{}", errors.diagnostics().render(colour)))
    })?;
    let policy = loaded.policy;
    if !policy.warnings().is_empty() {
        warn(&policy.warnings().render(colour));
    }
    Ok(policy)
}
