//! Network namespaces of this host: which one a thread is in, which ones can be found, and doing something in another one.

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

/// Device and inode of a namespace's file in nsfs: proc_pid_ns(5).
pub type Id = [u64; 2];

/// A network namespace, held open.
pub struct Netns {
    /// Which one.
    pub id: Id,
    /// Where it was found.
    pub path: PathBuf,
    file: File,
}

/// The namespace of this thread.
pub fn own() -> Result<Id> {
    let path = "/proc/thread-self/ns/net";
    fs::metadata(path).map(|found| id(&found)).with_context(|| format!("looking at {path}"))
}

fn id(found: &fs::Metadata) -> Id {
    [found.dev(), found.ino()]
}

/// As `readlink` and `lsns` show it.
pub fn name(id: Id) -> String {
    format!("net:[{}]", id[1])
}

/// Every namespace that has a name in /run/netns or a process, as far as this process may look: those with a name first.
pub fn all() -> Vec<Netns> {
    let mut found = HashMap::new();
    let named = list("/run/netns").into_iter().chain(list("/var/run/netns"));
    let processes = list("/proc").into_iter().filter(|path| is_number(path)).map(|path| path.join("ns/net"));
    for path in named.chain(processes) {
        let Ok(of) = fs::metadata(&path) else { continue };
        let id = id(&of);
        // A plain file in /run/netns is one whose namespace is gone.
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
    /// Does something in this namespace, on a thread of its own.
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

/// Does something in the namespace of a load: here, where that is this thread's, or where nobody knows which it was.
pub fn within<R: Send>(of: Id, f: impl FnOnce() -> R + Send) -> Result<R> {
    if of == Id::default() || own()? == of {
        return Ok(f());
    }
    find(of)?.run(f)
}

/// Finds a namespace.
pub fn find(of: Id) -> Result<Netns> {
    let found = all().into_iter().find(|netns| netns.id == of);
    found.ok_or_else(|| {
        let text = format!(
            "entering the network namespace {} of the load: no name and no process that this one may look at has it: run breaker in it, \
             or unload with --force where it is gone",
            name(of)
        );
        CliError::new(Code::Interface, text).into()
    })
}
