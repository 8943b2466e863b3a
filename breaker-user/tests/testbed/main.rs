//! The testbed on this host's kernel: namespaces, interfaces, FIX sessions. Needs root; prints SKIP without
//! it.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod namespaces;
mod sessions;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, thread};

use breaker_user::testbed::TwoHosts;
use breaker_user::testbed::fix::{Acceptor, AcceptorSettings, Initiator, InitiatorSettings};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Serializes the tests, because each compares what the process has open before and after.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a test in a testbed, and checks that the testbed leaves nothing behind.
fn in_testbed(test: impl FnOnce(&TwoHosts)) {
    if !rustix::process::geteuid().is_root() {
        return skip("not root");
    }
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = Footprint::now();
    test(&TwoHosts::new().unwrap());
    let clean = eventually(|| Footprint::now() == before);
    assert!(clean, "left behind: {:?}, before: {before:?}", Footprint::now());
}

fn skip(why: &str) {
    // Not with a macro: the test runner would capture the output.
    let mut stderr = io::stderr();
    writeln!(stderr, "SKIP {}: {why}", thread::current().name().unwrap_or_default()).unwrap();
}

/// What the process has open.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    /// Threads of the testbed.
    threads: usize,
    files: usize,
    /// Mounts at the two places where a namespace has its own.
    mounts: Vec<String>,
}

impl Footprint {
    fn now() -> Self {
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = |line: &&str| matches!(line.split(' ').nth(4), Some("/sys" | "/sys/fs/bpf"));
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| name(task.unwrap()));
        Self {
            threads: tasks.filter(|name| name.trim() == "breaker-testbed").count(),
            files: fs::read_dir("/proc/self/fd").unwrap().count(),
            mounts: mounts.lines().filter(own).map(str::to_owned).collect(),
        }
    }
}

fn names(directory: &str) -> BTreeSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn eventually(mut met: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !met() {
        if start.elapsed() > TIMEOUT {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

fn acceptor(hosts: &TwoHosts, settings: AcceptorSettings) -> Acceptor {
    hosts.venue.run(|| Acceptor::listen(TwoHosts::venue_socket(9001), settings)).unwrap()
}

fn engine(hosts: &TwoHosts) -> Initiator {
    let engine = Initiator::new(InitiatorSettings::new(TwoHosts::venue_socket(9001)));
    log_on(hosts, &engine);
    engine
}

/// An engine with a short patience for writes.
fn impatient_engine(hosts: &TwoHosts) -> Initiator {
    let settings = InitiatorSettings::new(TwoHosts::venue_socket(9001));
    let engine = Initiator::new(InitiatorSettings { patience: Duration::from_secs(1), ..settings });
    log_on(hosts, &engine);
    engine
}

fn log_on(hosts: &TwoHosts, engine: &Initiator) {
    hosts.firm.run(|| engine.connect()).unwrap();
    engine.logon().unwrap();
}
