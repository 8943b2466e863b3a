//! What the agent serves: a load that it adopted or made, held open, with no second agent beside it. Its policy may be replaced by
//! anybody at any time, and the agent follows.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result, ensure};
use breaker_common::abi::{ABI_VERSION, Meta, SIDES};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;
use serde_json::json;

use crate::audit::{self, Actor, Entry};
use crate::cli_error::{self, CliError, Code};
use crate::config::{Policy, Scopes};
use crate::journal::{self, Deed};
use crate::kernel::attachment::{Attachment, HeldAttachment};
use crate::kernel::memory::Mapped;
use crate::kernel::tables::trim_padding;
use crate::kernel::{Breaker, PinRoot, load, reattach};

/// A load, all maps and links open: it stays readable and attached where somebody removes its pins.
pub struct Loaded {
    /// Tag of its program.
    pub tag: u64,
    /// It was there before this agent.
    pub adopted: bool,
    now: RwLock<Arc<InForce>>,
    meta: Mapped<Meta>,
    hooks: RwLock<Vec<HeldAttachment>>,
    _lock: File,
}

/// The load with the policy that is in force.
pub struct InForce {
    /// Its maps.
    pub breaker: Breaker,
    /// What the numbers in its events stand for, which may be older than the policy.
    pub names: Scopes,
    /// Name of the policy.
    pub policy: String,
}

impl InForce {
    fn open(root: &PinRoot) -> Result<Self> {
        let breaker = Breaker::open(root)?;
        breaker.maps().open_all()?;
        Ok(Self { names: breaker.all_names()?, policy: trim_padding(&breaker.policy().name), breaker })
    }
}

impl Loaded {
    /// Adopts what is pinned under the root, whatever policy that is, and loads this one where nothing is. What the log could not yet be told of
    /// that comes with it.
    pub fn adopt_or_load(
        root: &PinRoot,
        policy: Result<&Policy, &anyhow::Error>,
    ) -> Result<(Self, Option<Entry>)> {
        let adopted = root.exists();
        let mut untold = None;
        if !adopted {
            let policy = policy
                .map_err(|error| CliError::new(cli_error::code_of(error), cli_error::text_of(error)))?;
            untold = load(root, policy)?;
        }
        let breaker = Breaker::open(root)?;
        let now = InForce::open(root)?;
        let lock = lock(root)?;
        let program = breaker.program()?;
        let made = Self {
            hooks: RwLock::new(breaker.hold_attachments()?),
            tag: program.tag(),
            meta: Mapped::open(&root.map("META"))?,
            now: RwLock::new(Arc::new(now)),
            adopted,
            _lock: lock,
        };
        Ok((made, untold))
    }

    /// The load with the policy that was in force at the last [`Loaded::follow`].
    pub fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens it anew where another policy is in force. True where that is so. Costs two words of memory where it is not.
    pub fn follow(&self) -> Result<bool> {
        let before = self.now();
        let meta = self.meta.get(0).context("META is empty")?;
        let policy = &meta.policies[meta.side as usize & (SIDES - 1)];
        if policy.sha256 == before.breaker.policy().sha256 && meta.side == before.breaker.meta().side {
            return Ok(false);
        }
        // By its pins, which may have become another load's.
        if !before.breaker.is_pinned() {
            return Ok(false);
        }
        let now = InForce::open(before.breaker.root()).context("following the policy")?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
        Ok(true)
    }

    /// Something that the agent did or found, at this moment, for the audit log.
    pub fn entry(&self, kind: &str, counts: serde_json::Value) -> Entry {
        Entry {
            time: Timestamp::now(),
            kind: kind.to_owned(),
            scope: None,
            cause: None,
            actor: Actor::this("agent"),
            reason: None,
            counts,
            policy: self.now().policy.clone(),
        }
    }

    /// What is attached, as the kernel has it now.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.hooks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(HeldAttachment::inspect)
            .collect()
    }

    /// Attaches the programs to an interface that was made again: by its position in [`Meta::interfaces`].
    pub fn reattach(&self, position: usize) -> Result<u32> {
        let before = self.now();
        ensure!(before.breaker.is_pinned(), "its pins are not there any more");
        let ifindex = reattach::reattach(before.breaker.root(), position)?;
        let now = InForce::open(before.breaker.root()).context("following the attachment")?;
        *self.hooks.write().unwrap_or_else(PoisonError::into_inner) = now.breaker.hold_attachments()?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
        Ok(ifindex)
    }

    /// True once `unload` has been here: no pin of it is left, and no link. Pins alone may be removed by anyone.
    pub fn is_unloaded(&self, attachments: &[Attachment]) -> bool {
        // Of a filter of clsact nothing cheap tells whether it is still there.
        let severed = |found: &Attachment| !found.attached || found.hook == "clsact";
        attachments.iter().all(severed) && !self.now().breaker.is_pinned()
    }
}

/// Loads a policy, and notes it first. A host whose log cannot be written is protected all the same: then the entry is still to be told.
fn load(root: &PinRoot, policy: &Policy) -> Result<Option<Entry>> {
    audit::require(policy.agent().audit.as_path())?;
    load::preflight(policy, root)?;
    let path = policy.agent().audit.as_path();
    let deed = Deed::of_all("loaded", json!({ "abi": ABI_VERSION }));
    let entry = Entry { actor: Actor::this("agent"), ..deed.entry(policy.name().to_string()) };
    let written = audit::append(path, std::slice::from_ref(&entry));
    load::load(policy, root).inspect_err(|error| journal::failed(path, "loading_failed", &entry, error))?;
    Ok(written.is_err().then_some(entry))
}

/// Keeps a second agent of the same root out for as long as the file is open: of two, each would get half of the events. The lock is
/// on the pin root itself, so it needs no other place to agree on, and ends with the process.
fn lock(root: &PinRoot) -> Result<File> {
    let path = root.path();
    let directory = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(Errno::WOULDBLOCK) => {
            let holder =
                holder(&directory).map_or_else(|| "of unknown pid".to_owned(), |pid| format!("pid {pid}"));
            let text = format!(
                "starting the agent: one serves {} already, {holder}: stop that one first, or choose another --pin-root",
                path.display()
            );
            Err(CliError::new(Code::Refused, text).into())
        }
        Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// The process that holds a lock on the file: see proc_locks(5).
fn holder(file: &File) -> Option<u32> {
    let found = file.metadata().ok()?;
    let device = found.dev();
    let place = format!("{:02x}:{:02x}:{}", major(device), minor(device), found.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of = |words: Vec<&str>| {
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&place.as_str()))
            .then(|| words[4].parse().ok())?
    };
    line.filter_map(of).find(|pid| *pid != 0)
}
