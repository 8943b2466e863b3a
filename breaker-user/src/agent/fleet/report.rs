//! What this host's kernel enforces, as the fleet sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;

use crate::agent::loaded::Loaded;
use crate::agent::monitor::Monitor;
use crate::display::{causes, hex};
use crate::enforced::Problem;
use crate::fleet::record::{HostState, InterfaceState};
use crate::kernel::text::trim_padding;
use crate::kernel::{object, recorded};

/// Reads the state of this host back from the kernel.
pub fn read(loaded: &Arc<Loaded>, monitor: &Monitor, revision: i64) -> Result<HostState> {
    let now = loaded.in_force();
    let breaker = &now.breaker;
    let enforced = monitor.enforced();
    let (mut tripped, mut disarmed, mut scopes) = (BTreeMap::new(), Vec::new(), Vec::new());
    for index in breaker.names().iter() {
        let name = breaker.names().name(index).to_string();
        let scope = breaker.scope(index)?;
        if scope.switch.causes != 0 {
            tripped
                .insert(name.clone(), causes(scope.switch.causes).into_iter().map(str::to_owned).collect());
        }
        if scope.armed == 0 {
            disarmed.push(name.clone());
        }
        scopes.push(name);
    }
    let interfaces = loaded
        .attachments()
        .into_iter()
        .filter(|found| found.mode != "inbound")
        .map(|found| (found.name, InterfaceState { attached: found.attached, first: found.first }));
    let program = breaker.program()?;
    Ok(HostState {
        version: crate::VERSION.to_owned(),
        object_sha256: hex(&object::sha256()),
        program_tag: format!("{:016x}", program.tag()),
        tag_is_recorded: recorded::is_recorded(breaker.root(), &program)?,
        layout: breaker.meta().abi,
        policy_sha256: hex(&breaker.policy().sha256),
        policy: trim_padding(&breaker.policy().name),
        interfaces: interfaces.collect(),
        enforced: enforced.ok,
        problems: enforced.problems.iter().map(Problem::line).collect(),
        tripped,
        disarmed,
        scopes,
        revision,
    })
}
