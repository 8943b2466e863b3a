//! The kernel programs of a load: the one that decides, and the one that reads what comes in where the policy wants that.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::programs::{Program, ProgramInfo, SchedClassifier, Xdp};
use breaker_common::abi::{Interface, Meta, mode};

use super::hook::{self, Place};
use super::load::refused;
use super::pins::PinRoot;

/// The programs, loaded and pinned.
pub struct Programs {
    object: Ebpf,
    inline: bool,
    reads: bool,
}

impl Programs {
    /// Loads and pins what a policy needs; with `ip` also what interfaces without a link header need.
    pub fn load(object: Ebpf, meta: &Meta, root: &PinRoot, ip: bool) -> Result<Self> {
        let mut made = Self { object, inline: meta.mode == mode::INLINE, reads: meta.inbound != 0 };
        if made.inline {
            let program = made.inline()?;
            program.load().map_err(refused)?;
            program.pin(root.program()).context("pinning the program")?;
        } else {
            load(made.classifier("egress")?, &root.program())?;
        }
        if made.reads {
            load(made.classifier("inbound")?, &root.inbound_program())?;
        }
        if ip {
            load(made.classifier("egress_ip")?, &root.program_ip())?;
        }
        if ip && made.reads {
            load(made.classifier("inbound_ip")?, &root.inbound_program_ip())?;
        }
        Ok(made)
    }

    /// The kernel's hash of the program that decides.
    pub fn tag(&mut self) -> Result<u64> {
        let info: ProgramInfo =
            if self.inline { self.inline()?.info()? } else { self.classifier("egress")?.info()? };
        Ok(info.tag())
    }

    /// Attaches them to an interface, and pins the links where there are some. Tells how the one that decides hangs on it.
    ///
    /// `generic_too`: XDP in the stack will do where the driver has none.
    pub fn attach(
        &mut self,
        interface: &Interface,
        root: &PinRoot,
        position: usize,
        generic_too: bool,
    ) -> Result<u32> {
        let place = Place::deciding(interface, root, position);
        let kind = if self.inline {
            hook::attach_xdp(self.inline()?, &place, generic_too)?
        } else {
            hook::attach(
                self.classifier(if interface.link_header == 0 { "egress_ip" } else { "egress" })?,
                &place,
            )?;
            interface.hook
        };
        if self.reads {
            let name = if interface.link_header == 0 { "inbound_ip" } else { "inbound" };
            hook::attach(self.classifier(name)?, &Place::reading(interface, root, position)?)?;
        }
        Ok(kind)
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
    program.load().map_err(refused)?;
    program.pin(pin).with_context(|| format!("pinning a program at {}", pin.display()))
}
