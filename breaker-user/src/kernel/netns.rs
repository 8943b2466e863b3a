//! Network namespaces of this host: the one of this thread, all that can be found, and calls in another one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread::{self, Builder};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cli_error::{CliError, Code};

/// Identity of a namespace: device and inode of its file in nsfs (proc_pid_ns(5)).
pub type Id = [u64; 2];

/// A network namespace, held open.
pub struct Netns {
    /// Its identity.
    pub id: Id,
    /// The file by which it was found.
    pub path: PathBuf,
    file: File,
}

/// Returns the namespace of this thread.
pub fn current() -> Result<Id> {
    let path = "/proc/thread-self/ns/net";
    fs::metadata(path).map(|found| id(&found)).with_context(|| format!("reading {path}"))
}

fn id(found: &fs::Metadata) -> Id {
    [found.dev(), found.ino()]
}

/// Returns the name of a namespace as `readlink` shows it: `net:[4026531840]`.
pub fn name(id: Id) -> String {
    format!("net:[{}]", id[1])
}

/// Lists every namespace with a name in /run/netns or a process, as far as this process may read them. A
/// namespace with a name has the path of its name.
pub fn all() -> Vec<Netns> {
    let mut found = HashMap::new();
    let named = list("/run/netns").into_iter().chain(list("/var/run/netns"));
    let processes = list("/proc").into_iter().filter(|path| is_number(path)).map(|path| path.join("ns/net"));
    for path in named.chain(processes) {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let id = id(&metadata);
        // A plain file in /run/netns is left over from a deleted namespace.
        if !found.contains_key(&id)
            && let Ok(file) = File::open(&path)
            && is_namespace(&file)
        {
            found.insert(id, Netns { id, path, file });
        }
    }
    found.into_values().collect()
}

fn list(directory: &str) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    entries.unwrap_or_default()
}

fn is_number(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

fn is_namespace(file: &File) -> bool {
    /// `NSFS_MAGIC` (kernel `magic.h`).
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    rustix::fs::fstatfs(file).is_ok_and(|found| found.f_type == NSFS_MAGIC)
}

impl Netns {
    /// Calls a function in this namespace, on a thread of its own.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Result<R> {
        let inside = || -> io::Result<R> {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        };
        thread::scope(|threads| {
            let started = Builder::new().name("breaker-netns".to_owned()).spawn_scoped(threads, inside);
            let thread = started.context("starting a thread")?;
            let done = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            done.with_context(|| format!("entering the network namespace {}", self.path.display()))
        })
    }
}

/// Calls a function in a namespace. Calls it on this thread if that is the namespace of this thread, or if
/// the namespace is not known (`[0, 0]`).
pub fn run_in<R: Send>(id: Id, f: impl FnOnce() -> R + Send) -> Result<R> {
    if id == Id::default() || current()? == id {
        return Ok(f());
    }
    find(id)?.run(f)
}

/// Finds a namespace.
fn find(id: Id) -> Result<Netns> {
    let found = all().into_iter().find(|netns| netns.id == id);
    found.ok_or_else(|| {
        let text = format!(
            "entering the network namespace {} of the load: this process finds no name and no process of it: \
             run breaker in it, or unload with --force if it no longer exists",
            name(id)
        );
        CliError::new(Code::Interface, text).into()
    })
}
