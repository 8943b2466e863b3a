//! The tags that the running kernel gives the programs of this binary. The kernel computes them at a load, so
//! the programs are loaded, and attached to nothing.

use anyhow::{Context, Result};
use aya::programs::{Program, ProgramInfo};
use aya::{EbpfLoader, VerifierLogLevel};
use breaker_common::abi::mode;

use super::memory::open_error;
use super::pins::PinRoot;
use super::rights::refused_program;
use super::{Breaker, object, rights};

/// A program of a load, compared with the same program of this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramTags {
    /// Name of the program in the object.
    pub name: &'static str,
    /// Tag of the pinned program.
    pub pinned: u64,
    /// Tag of the program of this binary on this kernel.
    pub own: u64,
}

impl Breaker {
    /// Loads every program of this load from this binary, and returns both tags of each.
    pub fn program_tags(&self) -> Result<Vec<ProgramTags>> {
        rights::require_rights()?;
        let kernel_object = object::for_running_kernel();
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(VerifierLogLevel::STATS);
        // The tag does not depend on the maps (kernel `bpf_prog_calc_tag`), so the smallest ones suffice.
        let mut own = loader.load(&kernel_object.bytes).context("creating maps for a comparison")?;
        let mut tags = Vec::new();
        for (name, path) in self.pinned_programs() {
            let pinned = ProgramInfo::from_pin(&path).map_err(|error| open_error(&path, error))?.tag();
            let program =
                own.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
            let info = match program {
                Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
                Program::Xdp(program) => program.load().and_then(|()| program.info()),
                _ => continue,
            };
            tags.push(ProgramTags { name, pinned, own: info.map_err(refused_program)?.tag() });
        }
        Ok(tags)
    }

    /// The programs of this load and their pins.
    fn pinned_programs(&self) -> Vec<(&'static str, std::path::PathBuf)> {
        let (meta, root): (_, &PinRoot) = (self.meta(), self.root());
        let is_inline = meta.mode == mode::INLINE;
        let without_link_header = self.interfaces().iter().any(|interface| interface.link_header == 0);
        let reads_inbound = meta.inbound != 0;
        let enforcing = if is_inline { "inline" } else { "egress" };
        [
            (enforcing, root.program(), true),
            ("inbound", root.inbound_program(), reads_inbound),
            ("egress_ip", root.program_ip(), without_link_header),
            ("inbound_ip", root.inbound_program_ip(), without_link_header && reads_inbound),
        ]
        .into_iter()
        .filter(|(_, _, is_loaded)| *is_loaded)
        .map(|(name, path, _)| (name, path))
        .collect()
    }
}
