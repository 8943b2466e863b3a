//! The kernel programs of a load: the one that decides, and the one that reads what comes in where the policy wants that.

use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::programs::xdp::XdpAttachType;
use aya::programs::{ProgramInfo, SchedClassifier, Xdp};
use breaker_common::abi::{Interface, Meta, mode};

use super::hook::{self, Place};
use super::load::refused;
use super::pins::PinRoot;

/// The programs, loaded and pinned.
pub struct Programs {
    decides: Decides,
    reads: Option<SchedClassifier>,
}

/// The program that decides, by mode.
enum Decides {
    /// tc egress.
    Egress(SchedClassifier),
    /// XDP.
    Inline(Xdp),
}

impl Programs {
    /// Loads and pins what a policy needs.
    pub fn load(object: &mut Ebpf, meta: &Meta, root: &PinRoot) -> Result<Self> {
        let pin = root.program();
        let decides = if meta.mode == mode::INLINE {
            let program: &mut Xdp = find(object, "inline")?.try_into()?;
            program.load().map_err(refused)?;
            program.pin(&pin).context("pinning the program")?;
            Decides::Inline(Xdp::from_pin(&pin, XdpAttachType::Interface)?)
        } else {
            Decides::Egress(classifier(object, "egress", &pin)?)
        };
        let reads = match meta.inbound {
            0 => None,
            _ => Some(classifier(object, "inbound", &root.inbound_program())?),
        };
        Ok(Self { decides, reads })
    }

    /// The kernel's hash of the program that decides.
    pub fn tag(&self) -> Result<u64> {
        let info: ProgramInfo = match &self.decides {
            Decides::Egress(program) => program.info()?,
            Decides::Inline(program) => program.info()?,
        };
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
        let kind = match &mut self.decides {
            Decides::Egress(program) => {
                hook::attach(program, &Place::deciding(interface, root, position))?;
                interface.hook
            }
            Decides::Inline(program) => hook::attach_xdp(program, &Place::deciding(interface, root, position), generic_too)?,
        };
        if let Some(program) = &mut self.reads {
            hook::attach(program, &Place::reading(interface, root, position)?)?;
        }
        Ok(kind)
    }
}

fn find<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut aya::programs::Program> {
    object.program_mut(name).ok_or_else(|| anyhow!("the object has no program {name}"))
}

fn classifier(object: &mut Ebpf, name: &str, pin: &std::path::Path) -> Result<SchedClassifier> {
    let program: &mut SchedClassifier = find(object, name)?.try_into()?;
    program.load().map_err(refused)?;
    program.pin(pin).with_context(|| format!("pinning program {name}"))?;
    Ok(SchedClassifier::from_pin(pin)?)
}
