//! What is in force before an upgrade and after it.

use breaker_common::abi::{ABI_VERSION, Meta};

use super::super::text::trim_padding;

/// A program and the version of breaker that put it in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The version.
    pub version: String,
    /// The commit.
    pub git: String,
    /// The tag that the kernel gave the program that decides.
    pub program_tag: u64,
    /// The layout of its maps.
    pub abi: u32,
}

impl Build {
    /// The build that META names.
    pub(super) fn recorded(meta: &Meta) -> Self {
        Self {
            version: trim_padding(&meta.version),
            git: trim_padding(&meta.git),
            program_tag: meta.program_tag,
            abi: meta.abi,
        }
    }

    /// This binary, with its program loaded.
    pub(super) fn own(program_tag: u64) -> Self {
        Self { version: crate::VERSION.to_owned(), git: crate::GIT.to_owned(), program_tag, abi: ABI_VERSION }
    }
}

/// What an upgrade does, or has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// What was in force.
    pub from: Build,
    /// What takes over.
    pub to: Build,
}
