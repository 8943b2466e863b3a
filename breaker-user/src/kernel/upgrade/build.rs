//! The builds before and after an upgrade.

use breaker_common::abi::{ABI_VERSION, Meta};

use super::super::text::trim_padding;

/// A program and the version of breaker that put it in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Version of breaker.
    pub version: String,
    /// Git commit of breaker.
    pub git: String,
    /// Tag that the kernel gave the enforcing program.
    pub program_tag: u64,
    /// Number of the layout of the maps.
    pub abi: u32,
}

impl Build {
    /// Returns the build that META names.
    pub(super) fn recorded(meta: &Meta) -> Self {
        Self {
            version: trim_padding(&meta.version),
            git: trim_padding(&meta.git),
            program_tag: meta.program_tag,
            abi: meta.abi,
        }
    }

    /// Returns the build of this binary, with the tag of its loaded program.
    pub(super) fn own(program_tag: u64) -> Self {
        Self { version: crate::VERSION.to_owned(), git: crate::GIT.to_owned(), program_tag, abi: ABI_VERSION }
    }
}

/// A planned or completed upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The build before the upgrade.
    pub from: Build,
    /// The build after the upgrade.
    pub to: Build,
}
