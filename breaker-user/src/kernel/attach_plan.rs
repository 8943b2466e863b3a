//! Chooses the hook for a policy, and checks its interfaces before a load.

use anyhow::{Context, Result};
use aya::util::KernelVersion;
use breaker_common::abi::hook;

use super::{clsact, links};
use crate::cli_error::{CliError, Code};
use crate::config::{Hook, Host, Mode};

/// The first kernel with tcx.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// How the programs of a policy are attached on this host.
pub struct AttachPlan {
    /// One of [`hook`]. Only an attempt to attach shows whether an interface has native XDP.
    pub hook: u32,
    /// Bytes of the link header of each interface, in the order of the policy.
    pub link_headers: Vec<u32>,
}

impl AttachPlan {
    /// The plan for a policy's host.
    ///
    /// # Errors
    /// An interface is missing, its packets have a header that the program does not read, or another qdisc
    /// takes the place of clsact.
    pub fn new(host: &Host) -> Result<Self> {
        let hook = wanted_hook(host)?;
        links::require_interfaces(&host.interfaces)?;
        let link_headers = links::link_headers(host)?;
        if hook == hook::CLSACT {
            host.interfaces.iter().try_for_each(|name| require_clsact(name.as_str()))?;
        }
        Ok(Self { hook, link_headers })
    }
}

/// Refuses an interface whose `ingress` qdisc takes the place of clsact. It has no egress: filters for egress
/// would see inbound packets.
fn require_clsact(name: &str) -> Result<()> {
    let qdisc =
        clsact::qdisc_kind(links::ifindex(name)?).with_context(|| format!("listing the qdiscs of {name}"))?;
    match qdisc {
        Some(other) if other != clsact::KIND => {
            let text = format!(
                "attaching to the egress of {name}: it has a qdisc {other:?} in the place of clsact, and \
                 that has no egress: `tc qdisc del dev {name} {other}` and `tc qdisc add dev {name} clsact`, \
                 and put its filters there; or, on Linux 6.6 and newer, write [host].hook = \"tcx\""
            );
            Err(CliError::new(Code::Refused, text).into())
        }
        _ => Ok(()),
    }
}

/// The hook of the enforcing program.
fn wanted_hook(host: &Host) -> Result<u32> {
    match (host.mode, host.hook) {
        (Mode::Egress, wanted) => tc_hook(wanted),
        (Mode::Inline, Hook::Generic) => Ok(hook::XDP_GENERIC),
        (Mode::Inline, _) => Ok(hook::XDP_NATIVE),
    }
}

/// The tc hook of this kernel: the wanted one if the kernel has it.
pub fn tc_hook(wanted: Hook) -> Result<u32> {
    choose_tc_hook(wanted, KernelVersion::current().context("reading the version of the kernel")?)
}

fn choose_tc_hook(wanted: Hook, version: KernelVersion) -> Result<u32> {
    match (wanted, version >= TCX_SINCE) {
        (Hook::Clsact, _) => Ok(hook::CLSACT),
        (Hook::Tcx, false) => {
            let text = "attaching: this kernel has no tcx, which came with Linux 6.6: write [host].hook = \
                        \"auto\" or \"clsact\"";
            Err(CliError::new(Code::Kernel, text).into())
        }
        (_, false) => Ok(hook::CLSACT),
        (_, true) => Ok(hook::TCX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli_error::code_of;

    #[test]
    fn a_kernel_without_tcx_gets_clsact_or_an_error() {
        let (old, new) = (KernelVersion::new(6, 5, 255), KernelVersion::new(6, 6, 0));
        for (wanted, version, expected) in [
            (Hook::Auto, old, Ok(hook::CLSACT)),
            (Hook::Auto, new, Ok(hook::TCX)),
            (Hook::Tcx, old, Err(Code::Kernel)),
            (Hook::Tcx, new, Ok(hook::TCX)),
            (Hook::Clsact, old, Ok(hook::CLSACT)),
            (Hook::Clsact, new, Ok(hook::CLSACT)),
        ] {
            assert_eq!(
                choose_tc_hook(wanted, version).map_err(|error| code_of(&error)),
                expected,
                "{wanted} on {version:?}"
            );
        }
    }
}
