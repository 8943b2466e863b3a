//! `breaker check`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use serde_json::json;

use super::output::{print, warn};
use crate::audit;
use crate::cli::ConfigArgs;
use crate::cli_error::{CliError, Code};
use crate::config::{self, Inbound, Mode, Policy, Word};
use crate::enforced::{Enforced, Facts};
use crate::kernel::attach_plan::AttachPlan;
use crate::kernel::attach_point::hook_name;
use crate::kernel::routes::{self, Remote};
use crate::kernel::{links, load, rights};

/// Validates a configuration, and this host for it. Prints the summary of the file even if the host is
/// unsuitable.
pub fn run(args: &ConfigArgs) -> Result<ExitCode> {
    let policy = policy(args)?;
    let tables = load::tables(&policy)?;
    let host = host(&policy);
    // Per-CPU maps have a slot for every possible CPU, present or not.
    let cpus =
        aya::util::nr_cpus().map_err(|(path, error)| anyhow!(error).context(format!("reading {path}")))?;
    let inbound = policy.host().inbound == Inbound::Watch;
    let memory = tables.capacity().memory(policy.host().connections.get(), inbound, cpus);
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
        print(&serde_json::to_string_pretty(&view)?)?;
    } else {
        print(&format!(
            "{}: policy {} is valid; sessions: {}, groups: {}, limits: {limits}; kernel memory: at most {} \
             KiB",
            args.config.display(),
            policy.name(),
            policy.sessions().len(),
            policy.groups().len(),
            memory.div_ceil(1024)
        ))?;
        if let Ok(hook) = host {
            print(&format!("this host can enforce it: by {hook} on {}", interfaces.join(", ")))?;
        }
    }
    host?;
    bypasses(&policy)
}

/// Warns of routes that bypass the hook: packets on such a route are not seen.
fn bypasses(policy: &Policy) -> Result<ExitCode> {
    if policy.host().mode == Mode::Inline {
        return Ok(ExitCode::SUCCESS);
    }
    let remotes = policy.sessions().iter().flat_map(|session| {
        session.remotes.iter().map(|remote| Remote {
            sessions: vec![format!("session/{}", session.name)],
            address: remote.prefix().address(),
            length: remote.prefix().length(),
            local: session.local,
        })
    });
    let covered = policy
        .host()
        .interfaces
        .iter()
        .map(|name| links::ifindex(name.as_str()))
        .collect::<Result<Vec<_>>>()?;
    let bypasses = routes::bypasses(&remotes.collect::<Vec<_>>(), &covered)?;
    let enforced = Enforced::judge(Facts { bypasses, ..Facts::default() });
    enforced.problems.iter().for_each(|problem| warn(&format!("breaker: {}", problem.line())));
    Ok(if enforced.is_open() { Code::Interface.into() } else { ExitCode::SUCCESS })
}

/// The hook that this host provides for a policy; the error says why it cannot enforce the policy.
fn host(policy: &Policy) -> Result<&'static str> {
    audit::check_path(policy.agent().audit.as_path())?;
    rights::require_rights()?;
    Ok(hook_name(AttachPlan::new(policy.host())?.hook))
}

/// Reads the policy in a file, and prints its warnings on standard error.
pub fn policy(args: &ConfigArgs) -> Result<Policy> {
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let loaded = config::load(&args.config).map_err(|errors| {
        CliError::new(
            Code::Usage,
            format!("the configuration is refused\n{}", errors.diagnostics().render(colour)),
        )
    })?;
    let policy = loaded.policy;
    if !policy.warnings().is_empty() {
        warn(&policy.warnings().render(colour));
    }
    Ok(policy)
}
