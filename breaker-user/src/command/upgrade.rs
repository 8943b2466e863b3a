//! `breaker upgrade`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use breaker_common::abi::SIDES;
use serde_json::{Value, json};

use super::output::{enforcement_code, print};
use crate::cli::UpgradeArgs;
use crate::enforced::Enforced;
use crate::journal::{self, Action};
use crate::kernel::text::trim_padding;
use crate::kernel::upgrade::{Build, Upgrade, migrate, upgrade};
use crate::kernel::{Breaker, PinRoot};
use crate::load_log::LoadLog;

/// Replaces the attached programs by those of this binary, and shows the state that the kernel reports.
pub fn run(root: &PinRoot, args: &UpgradeArgs) -> Result<ExitCode> {
    let mut logged = None;
    let done = upgrade(root, args.force, migrate::KNOWN, |meta, upgrade| {
        let action = Action::on_load("upgraded", details(upgrade, args.force));
        let policy = &meta.policies[meta.side as usize & (SIDES - 1)];
        let (path, entry) =
            (PathBuf::from(trim_padding(&meta.audit)), action.entry(trim_padding(&policy.name)));
        journal::log_before(&path, "upgrading", entry.clone())?;
        logged = Some((path, entry));
        Ok(())
    });
    let done = done.inspect_err(|error| {
        if let Some((path, entry)) = &logged {
            journal::log_failure(path, "upgrade_failed", entry, error);
        }
    })?;
    let breaker = Breaker::open(root)?;
    LoadLog::open(&breaker).catch_up();
    let names: Vec<_> = breaker.interfaces().iter().map(|interface| trim_padding(&interface.name)).collect();
    let enforced = Enforced::read(&breaker, journal::problem(&breaker));
    print(&if args.json {
        let Upgrade { from, to } = &done;
        let view = json!({
            "from": view(from), "to": view(to), "interfaces": names, "enforced": enforced,
        });
        serde_json::to_string_pretty(&view)?
    } else {
        let Upgrade { from, to } = &done;
        format!("upgraded {}: {} was in force, {} is now", names.join(", "), words(from), words(to))
    })?;
    Ok(enforcement_code(&enforced))
}

/// Returns the details of the entry in the audit log.
fn details(upgrade: &Upgrade, force: bool) -> Value {
    json!({ "from": view(&upgrade.from), "to": view(&upgrade.to), "forced": force })
}

fn view(build: &Build) -> Value {
    json!({
        "version": build.version, "git": build.git, "abi": build.abi,
        "program_tag": format!("{:016x}", build.program_tag),
    })
}

fn words(build: &Build) -> String {
    format!("{} ({}, program {:016x})", build.version, build.git, build.program_tag)
}
