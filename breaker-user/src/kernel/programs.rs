//! The kernel programs of a load: the enforcing one, and the one that reads inbound traffic if the policy
//! needs it.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::programs::{Program, ProgramInfo, SchedClassifier, Xdp};
use breaker_common::abi::{Interface, Meta, mode};

use super::attach;
use super::attach_point::AttachPoint;
use super::pins::PinRoot;
use super::rights::refused_program;

/// The programs, loaded and pinned.
pub struct Programs {
    object: Ebpf,
    inline: bool,
    reads_inbound: bool,
}

impl Programs {
    /// Loads and pins the programs of a policy. `without_link_header`: an interface has packets that begin
    /// with IP.
    pub fn load(object: Ebpf, meta: &Meta, root: &PinRoot, without_link_header: bool) -> Result<Self> {
        let (inline, reads_inbound) = (meta.mode == mode::INLINE, meta.inbound != 0);
        let mut made = Self { object, inline, reads_inbound };
        if inline {
            let program = made.inline()?;
            program.load().map_err(refused_program)?;
            program.pin(root.program()).context("pinning the program")?;
        } else {
            load(made.classifier("egress")?, &root.program())?;
        }
        if reads_inbound {
            load(made.classifier("inbound")?, &root.inbound_program())?;
        }
        if without_link_header {
            load(made.classifier("egress_ip")?, &root.program_ip())?;
        }
        if without_link_header && reads_inbound {
            load(made.classifier("inbound_ip")?, &root.inbound_program_ip())?;
        }
        Ok(made)
    }

    /// The kernel's tag (hash) of the enforcing program.
    pub fn tag(&mut self) -> Result<u64> {
        let info: ProgramInfo =
            if self.inline { self.inline()?.info()? } else { self.classifier("egress")?.info()? };
        Ok(info.tag())
    }

    /// Attaches the programs to an interface and pins the links. Returns the hook of the enforcing program.
    ///
    /// `generic_too`: generic XDP is acceptable if the driver has no native XDP.
    pub fn attach(
        &mut self,
        interface: &Interface,
        root: &PinRoot,
        position: usize,
        generic_too: bool,
    ) -> Result<u32> {
        let begins_with_ip = interface.link_header == 0;
        let point = AttachPoint::enforcing(interface, root, position);
        let hook = if self.inline {
            attach::attach_xdp(self.inline()?, &point, generic_too)?
        } else {
            let name = if begins_with_ip { "egress_ip" } else { "egress" };
            attach::attach_tc(self.classifier(name)?, &point)?;
            interface.hook
        };
        if self.reads_inbound {
            let name = if begins_with_ip { "inbound_ip" } else { "inbound" };
            attach::attach_tc(self.classifier(name)?, &AttachPoint::inbound(interface, root, position)?)?;
        }
        Ok(hook)
    }

    fn inline(&mut self) -> Result<&mut Xdp> {
        Ok(self.find("inline")?.try_into()?)
    }

    fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        Ok(self.find(name)?.try_into()?)
    }

    fn find(&mut self, name: &str) -> Result<&mut Program> {
        self.object.program_mut(name).ok_or_else(|| anyhow!("the object has no program {name}"))
    }
}

fn load(program: &mut SchedClassifier, pin: &Path) -> Result<()> {
    program.load().map_err(refused_program)?;
    program.pin(pin).with_context(|| format!("pinning a program at {}", pin.display()))
}
