//! `verify`: what is enforced, as evidence to keep. The field names are a contract with scripts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::coverage::{check_sockets, program_gaps};
use super::expectation::Difference;
use super::status::{self, Build, Policy};
use crate::display::hex;
use crate::enforced::{Enforced, Problem, ProblemKind};
use crate::journal;
use crate::kernel::attachment::Attachment;
use crate::kernel::{Breaker, bpffs, object};

/// What is enforced on this host.
#[derive(Debug, Serialize)]
pub struct Attestation {
    /// Time of the checks.
    pub at: Timestamp,
    /// There is no gap and no difference.
    pub ok: bool,
    /// This binary.
    pub binary: Binary,
    /// What is loaded.
    pub breaker: Build,
    /// The programs, compared with those of this binary.
    pub programs: Vec<Program>,
    /// The policy in force.
    pub policy: Policy,
    /// The host.
    pub host: Host,
    /// The pins.
    pub pins: Pins,
    /// The attachments.
    pub interfaces: Vec<Place>,
    /// Number of connections whose bytes were compared.
    pub connections_compared: usize,
    /// What keeps the breaker from enforcing everything.
    pub gaps: Vec<Problem>,
    /// Differences from an earlier attestation; null without one.
    pub differences: Option<Vec<Difference>>,
    /// Facts that are no gap, and checks that were not possible.
    pub notes: Vec<String>,
}

/// This binary.
#[derive(Debug, Serialize)]
pub struct Binary {
    /// Version.
    pub version: &'static str,
    /// Git commit.
    pub git: &'static str,
    /// SHA-256 of the running file.
    pub sha256: String,
    /// SHA-256 of the kernel object inside.
    pub object_sha256: String,
}

/// A program of the load.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Name in the object.
    pub name: &'static str,
    /// Tag of the pinned program, as the kernel computed it.
    pub tag: String,
    /// Tag that the kernel computes for the program of this binary.
    pub own_tag: String,
}

/// The host.
#[derive(Debug, Serialize)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Machine architecture.
    pub machine: String,
}

/// The pins of the load.
#[derive(Debug, Serialize)]
pub struct Pins {
    /// The pin root.
    pub path: String,
    /// They end with a mount namespace that is not that of process 1.
    pub private: bool,
}

/// An attachment and what decides before it.
#[derive(Debug, Serialize)]
pub struct Place {
    /// The attachment.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The programs and filters that run before the program.
    pub ahead: Vec<String>,
}

impl Attestation {
    /// Makes all checks. A check that fails is a gap.
    pub fn read(breaker: &Breaker) -> Result<Self> {
        let enforced = Enforced::read(breaker, journal::problem(breaker));
        let (mut gaps, mut notes) = (enforced.problems, enforced.notes);
        let programs = breaker.program_tags().unwrap_or_else(|error| {
            gaps.push(unchecked(ProblemKind::Program, "the programs", &error));
            Vec::new()
        });
        gaps.extend(program_gaps(&programs));
        let coverage = check_sockets(breaker).unwrap_or_else(|error| {
            gaps.push(unchecked(ProblemKind::Route, "the sockets", &error));
            Default::default()
        });
        gaps.extend(coverage.gaps);
        notes.extend(coverage.notes);
        let path = breaker.root().path();
        let place = |attachment: Attachment| Place { ahead: attachment.ahead.clone(), attachment };
        Ok(Self {
            at: Timestamp::now(),
            ok: gaps.is_empty(),
            binary: Binary::read()?,
            breaker: status::build(breaker)?,
            programs: programs
                .iter()
                .map(|tags| Program {
                    name: tags.name,
                    tag: format!("{:016x}", tags.pinned),
                    own_tag: format!("{:016x}", tags.own),
                })
                .collect(),
            policy: status::policy(breaker.policy()),
            host: Host::read(),
            pins: Pins { path: path.display().to_string(), private: bpffs::is_private(path) },
            interfaces: breaker.attachments().unwrap_or_default().into_iter().map(place).collect(),
            connections_compared: coverage.compared,
            gaps,
            differences: None,
            notes,
        })
    }

    /// Records the differences from an earlier attestation.
    pub fn set_differences(&mut self, differences: Vec<Difference>) {
        self.ok &= differences.is_empty();
        self.differences = Some(differences);
    }

    /// Formats the attestation as text.
    pub fn text(&self) -> String {
        let (binary, build) = (&self.binary, &self.breaker);
        let mut lines = vec![
            format!("attested    {:.0} on {}, Linux {}", self.at, self.host.name, self.host.kernel),
            format!("binary      {} ({}), sha256 {}", binary.version, binary.git, binary.sha256),
            format!("object      sha256 {}", binary.object_sha256),
            format!("loaded      {} ({}), layout {}", build.version, build.git, build.abi),
            format!("policy      {}, sha256 {}", self.policy.name, self.policy.sha256),
            format!("pins        {}{}", self.pins.path, if self.pins.private { ", private" } else { "" }),
        ];
        lines.extend(self.programs.iter().map(|program| {
            let same =
                if program.tag == program.own_tag { "as in this binary" } else { "NOT of this binary" };
            format!("program     {} {}, {same}", program.name, program.tag)
        }));
        lines.extend(self.interfaces.iter().map(Place::line));
        lines.push(format!("connections {} compared byte by byte", self.connections_compared));
        lines.push(String::new());
        for gap in &self.gaps {
            lines.push(format!("GAP: {}: {}: {}", gap.kind.name(), gap.location, gap.found));
            lines.push(format!("  to do: {}", gap.cure));
        }
        lines.extend(self.differences.iter().flatten().map(Difference::line));
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        let differing = self.differences.as_ref().map_or_else(String::new, |all| {
            format!(", differences from the expected attestation: {}", all.len())
        });
        lines.push(format!("gaps: {}{differing}", self.gaps.len()));
        lines.join("\n")
    }
}

impl Place {
    fn line(&self) -> String {
        let Attachment { name, mode, hook, attached, first, pinned, .. } = &self.attachment;
        let yes = |is: &bool, what: &str| if *is { what.to_owned() } else { format!("NOT {what}") };
        let order = match &self.ahead[..] {
            [] => yes(first, "first"),
            ahead => format!("NOT first, behind {}", ahead.join(", ")),
        };
        format!(
            "interface   {name} {mode} by {hook}: {}, {order}, {}",
            yes(attached, "attached"),
            yes(pinned, "pinned")
        )
    }
}

impl Binary {
    /// Hashes the running file and names its version.
    pub fn read() -> Result<Self> {
        let path = Path::new("/proc/self/exe");
        let hashing = || format!("hashing {}", path.display());
        let file = fs::read(path).with_context(hashing)?;
        Ok(Self {
            version: crate::VERSION,
            git: crate::GIT,
            sha256: hex(&Sha256::digest(file)),
            object_sha256: hex(&object::sha256()),
        })
    }
}

impl Host {
    /// Names this host and its kernel.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
        Self { name: text(uname.nodename()), kernel: text(uname.release()), machine: text(uname.machine()) }
    }
}

/// The gap of a check that was not possible.
fn unchecked(kind: ProblemKind, what: &str, error: &anyhow::Error) -> Problem {
    let found = format!("{what} could not be checked: {error:#}");
    Problem::new(kind, "host", found, "run `verify` as root, in the network namespace of the load")
}
