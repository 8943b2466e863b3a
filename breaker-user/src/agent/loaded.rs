//! The load that the agent serves: adopted or loaded, held open, and locked against a second agent. The agent
//! follows each change of its policy.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::{Context, Result, ensure};
use breaker_common::abi::{ABI_VERSION, Meta, SIDES};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;
use serde_json::json;

use crate::audit::{self, Actor, Entry};
use crate::cli_error::{self, CliError, Code};
use crate::config::{Policy, Scopes};
use crate::journal::{self, Action};
use crate::kernel::attachment::{Attachment, Chain, HeldAttachment};
use crate::kernel::held_pins::HeldPins;
use crate::kernel::memory::Mapped;
use crate::kernel::text::trim_padding;
use crate::kernel::{Breaker, PinRoot, load, reattach};
use crate::load_log::LoadLog;
use crate::state::{self, Restoring};

/// A load with all maps and links open: it stays readable and attached even if its pins are removed.
pub struct Loaded {
    /// True if the load existed before this agent.
    pub adopted: bool,
    in_force: RwLock<Arc<InForce>>,
    meta: Mapped<Meta>,
    hooks: RwLock<Vec<HeldAttachment>>,
    pins: RwLock<HeldPins>,
    lock: Mutex<File>,
}

/// The load with the policy that is in force.
pub struct InForce {
    /// The maps.
    pub breaker: Breaker,
    /// Names for the numbers in events, including those of scopes that a reload has removed.
    pub names: Scopes,
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
    /// Adopts what is pinned under the root, whatever its policy, or loads this policy if nothing is pinned.
    /// If the policy is invalid, loads the policy that was in force before, for example before a reboot.
    /// Returns entries about the load that are not logged yet.
    pub fn adopt_or_load(
        root: &PinRoot,
        policy: Result<&Policy, &anyhow::Error>,
    ) -> Result<(Self, Vec<Entry>)> {
        let adopted = root.exists();
        let mut unlogged = Vec::new();
        if !adopted {
            unlogged = match policy {
                Ok(policy) => load(root, policy)?,
                Err(error) => load(root, &last_policy(root, error)?)?,
            };
        }
        let breaker = Breaker::open(root)?;
        let in_force = InForce::open(root)?;
        let lock = lock(root)?;
        let made = Self {
            hooks: RwLock::new(breaker.hold_attachments()?),
            meta: Mapped::open(&root.map("META"))?,
            pins: RwLock::new(HeldPins::open(root)?),
            in_force: RwLock::new(Arc::new(in_force)),
            adopted,
            lock: Mutex::new(lock),
        };
        Ok((made, unlogged))
    }

    /// The load with the policy that was in force at the last [`Loaded::follow_policy`].
    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reopens the load if another policy is in force, or after an upgrade. Returns true if it was reopened.
    /// Without a change, only reads a few words of memory.
    pub fn follow_policy(&self) -> Result<bool> {
        let before = self.in_force();
        let meta = self.meta.get(0).context("META is empty")?;
        let policy = &meta.policies[meta.side as usize & (SIDES - 1)];
        let known = before.breaker.meta();
        let is_new_generation = meta.generation != known.generation;
        if policy.sha256 == before.breaker.policy().sha256 && meta.side == known.side && !is_new_generation {
            return Ok(false);
        }
        // The pins may belong to another load.
        if !before.breaker.is_pinned() {
            return Ok(false);
        }
        let in_force = InForce::open(before.breaker.root()).context("following the policy")?;
        if is_new_generation {
            self.hold(&in_force.breaker)?;
        }
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(in_force);
        Ok(true)
    }

    /// Returns an entry about the agent itself, with the current time.
    pub fn entry(&self, kind: &str, counts: serde_json::Value) -> Entry {
        Entry {
            time: Timestamp::now(),
            kind: kind.to_owned(),
            scope: None,
            cause: None,
            actor: Actor::this_process("agent"),
            reason: None,
            counts,
            policy: self.in_force().policy.clone(),
        }
    }

    /// The attachments as the kernel has them now.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.hooks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(HeldAttachment::inspect)
            .collect()
    }

    /// Attaches the programs to an interface that was recreated, given by its index in [`Meta::interfaces`].
    pub fn reattach(&self, position: usize) -> Result<u32> {
        let before = self.in_force();
        ensure!(before.breaker.is_pinned(), "its pins were removed");
        let ifindex = reattach::reattach(before.breaker.root(), position)?;
        let in_force = InForce::open(before.breaker.root()).context("following the attachment")?;
        self.hold(&in_force.breaker)?;
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(in_force);
        Ok(ifindex)
    }

    /// Holds the links and pins of a load open from now on.
    fn hold(&self, breaker: &Breaker) -> Result<()> {
        let (hooks, pins) = (breaker.hold_attachments()?, HeldPins::open(breaker.root())?);
        *self.hooks.write().unwrap_or_else(PoisonError::into_inner) = hooks;
        *self.pins.write().unwrap_or_else(PoisonError::into_inner) = pins;
        Ok(())
    }

    /// The chains of tcx programs of the attachments, in their order; `None` at another hook.
    pub fn chains(&self) -> Vec<Option<Chain>> {
        let hooks = self.hooks.read().unwrap_or_else(PoisonError::into_inner);
        hooks.iter().map(HeldAttachment::chain).collect()
    }

    /// Returns the current generation of the load.
    pub fn generation(&self) -> u64 {
        self.meta.get(0).map_or(0, |meta| meta.generation)
    }

    /// Returns the names of removed pins.
    pub fn missing_pins(&self) -> Vec<String> {
        self.pins.read().unwrap_or_else(PoisonError::into_inner).missing()
    }

    /// Restores removed pins, and locks a new pin root against a second agent.
    pub fn restore_pins(&self) -> Result<()> {
        self.pins.read().unwrap_or_else(PoisonError::into_inner).restore()?;
        let in_force = self.in_force();
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let root = in_force.breaker.root();
        let id = |found: fs::Metadata| (found.dev(), found.ino());
        if id(held.metadata()?) != id(fs::metadata(root.path())?) {
            *held = lock(root)?;
        }
        Ok(())
    }

    /// Returns true if an `unload` is in progress or has ended.
    pub fn was_unloaded(&self) -> bool {
        self.meta.get(0).is_some_and(|meta| meta.unloading != 0)
    }

    /// Returns true if no pin and no link is left. Missing pins alone do not prove an `unload`.
    pub fn is_removed(&self, attachments: &[Attachment]) -> bool {
        // There is no cheap check whether a clsact filter still exists.
        let detached = |found: &Attachment| !found.attached || found.hook == "clsact";
        attachments.iter().all(detached) && !self.in_force().breaker.is_pinned()
    }
}

/// Returns the policy that was in force before, in place of a policy that is invalid for this reason.
fn last_policy(root: &PinRoot, invalid: &anyhow::Error) -> Result<Policy> {
    let Some((policy, path)) = state::last_policy(root) else {
        return Err(CliError::new(cli_error::code_of(invalid), cli_error::text_of(invalid)).into());
    };
    super::notice(&format!(
        "policy {} was in force before, and is loaded from {}",
        policy.name(),
        path.display()
    ));
    Ok(policy)
}

/// Logs a load and performs it. If the log cannot be written, loads nevertheless. Returns entries that
/// are not logged yet.
fn load(root: &PinRoot, policy: &Policy) -> Result<Vec<Entry>> {
    audit::check_path(policy.agent().audit.as_path())?;
    load::preflight(policy, root)?;
    let path = policy.agent().audit.as_path();
    let mut restoring = Restoring::begin(policy, root);
    let counts = json!({ "abi": ABI_VERSION, "state": restoring.path() });
    let action = Action::on_load("loaded", counts);
    let entry = Entry { actor: Actor::this_process("agent"), ..action.entry(policy.name().to_string()) };
    let written = audit::append(path, std::slice::from_ref(&entry));
    restoring.load(root).inspect_err(|error| journal::log_failure(path, "loading_failed", &entry, error))?;
    restoring.lines().iter().for_each(|line| super::notice(line));
    let breaker = Breaker::open(root)?;
    LoadLog::open(&breaker).catch_up();
    if let Err(error) = restoring.save(&breaker) {
        super::notice(&format!(
            "the state file is not written: {error:#}: free space, or correct [agent].state"
        ));
    }
    Ok(written.is_err().then_some(entry).into_iter().chain(restoring.entries("agent")).collect())
}

/// Locks the pin root against a second agent, because two agents would each read only some of the events. The
/// lock needs no other file, and ends with the process.
fn lock(root: &PinRoot) -> Result<File> {
    let path = root.path();
    let directory = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(Errno::WOULDBLOCK) => {
            let holder =
                holder(&directory).map_or_else(|| "of unknown pid".to_owned(), |pid| format!("pid {pid}"));
            let text = format!(
                "starting the agent: {} already has an agent, {holder}: stop that agent, or choose another \
                 --pin-root",
                path.display()
            );
            Err(CliError::new(Code::Refused, text).into())
        }
        Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Returns the pid of the process that holds a lock on the file, see proc_locks(5).
fn holder(file: &File) -> Option<u32> {
    let found = file.metadata().ok()?;
    let device = found.dev();
    let file_id = format!("{:02x}:{:02x}:{}", major(device), minor(device), found.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let pid_of_lock = |words: Vec<&str>| {
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&file_id.as_str()))
            .then(|| words[4].parse().ok())?
    };
    line.filter_map(pid_of_lock).find(|pid| *pid != 0)
}
