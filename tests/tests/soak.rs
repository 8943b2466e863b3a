//! Soak test: an agent with 1,000 sessions under faults in an order that a seed determines. The agent's
//! memory, files and threads do not grow, each scrape is fast, and the audit log stays one chain.
//!
//! `BREAKER_SOAK_SECONDS` (default 60) sets the duration, and `BREAKER_SOAK_SEED` sets the order.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::agent::{Agent, metrics};
use breaker_tests::many_sessions::policy;
use breaker_tests::rng::Rng;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_tests::{require_root, slowness};
use breaker_user::testbed::TwoHosts;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, mount};
use rustix::process::Signal;

const SESSIONS: usize = 1_000;
const GROUPS: usize = 64;
/// Largest resident memory of the agent, in KiB, also in a scrape. Without optimization there is more text.
const MAX_RESIDENT: u64 = if cfg!(debug_assertions) { 44 << 10 } else { 28 << 10 };
/// Largest memory of the agent's own, in KiB: anonymous pages. The pages of its binary and of the mapped BPF
/// maps are those of files and of the kernel.
const MAX_OWN: u64 = 20 << 10;
/// Largest growth of this memory from the middle third of the run to the last third, in KiB.
const MAX_GROWTH: f64 = 2048.0;
/// Longest duration of a scrape.
const MAX_SCRAPE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });
/// Largest number of open connections that send nothing.
const MAX_IDLE: usize = 300;

/// Resource use of the agent's process at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    own: u64,
    rss: u64,
    files: usize,
    threads: u64,
}

impl Sample {
    /// Reads resident memory in KiB, open files without sockets, and threads.
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status of the agent");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
            line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").flatten();
        let links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        let files = links.filter(|link| !link.to_string_lossy().starts_with("socket:")).count();
        Self { own: number("RssAnon:"), rss: number("VmRSS:"), files, threads: number("Threads:") }
    }
}

/// The host under test.
struct Soak {
    testbed: Testbed,
    agent: Option<Agent>,
    log: PathBuf,
    good: Vec<u8>,
    idle: Vec<TcpStream>,
    rng: Rng,
    rotations: u32,
}

impl Soak {
    /// Loads a policy of 1,000 sessions with its audit log on a disk of 1 MB, and starts an agent.
    fn new(seed: u64) -> Self {
        let testbed = Testbed::unloaded(&policy(SESSIONS, GROUPS));
        let directory = testbed.audit().with_file_name("log");
        fs::create_dir(&directory).expect("a directory");
        let log = directory.join("audit.jsonl");
        let text = fs::read_to_string(testbed.config()).expect("the configuration");
        let text = text.replace(&testbed.audit().display().to_string(), &log.display().to_string());
        fs::write(testbed.config(), &text).expect("the configuration");
        let mount_small_disk = || mount("none", &directory, "tmpfs", MountFlags::empty(), Some(c"size=1m"));
        testbed.on_host(mount_small_disk).expect("a small disk");
        testbed.load_cli();
        let agent = Some(Agent::start(&testbed));
        let (good, idle, rng) = (text.into_bytes(), Vec::new(), Rng(seed));
        Self { testbed, agent, log, good, idle, rng, rotations: 0 }
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("an agent")
    }

    /// Applies one random fault to the host and returns its name. The agent is killed only if `may_kill`.
    fn disturb(&mut self, may_kill: bool) -> &'static str {
        match self.rng.below(8) {
            0 if may_kill => {
                // The drop kills the agent.
                self.agent = None;
                self.agent = Some(Agent::start(&self.testbed));
                "kill -9"
            }
            1 => self.fill_the_disk(),
            2 => self.rotate_by_rename(),
            3 => self.rotate_by_truncation(),
            4 => {
                let host = &self.testbed.network.firm;
                host.set_down(TwoHosts::INTERFACE).expect("taking it down");
                host.set_up(TwoHosts::INTERFACE).expect("bringing it up");
                "flap"
            }
            5 => self.reload_a_bad_file(),
            6 => {
                let to = "127.0.0.1:9469";
                let more =
                    (0..60).map(|_| self.testbed.on_host(|| TcpStream::connect(to)).expect("connecting"));
                self.idle.extend(more);
                let excess = self.idle.len().saturating_sub(MAX_IDLE);
                self.idle.drain(..excess);
                "mute clients"
            }
            _ => {
                let session = format!("session/s{}", self.rng.below(SESSIONS as u64));
                self.testbed.trip(&session);
                self.testbed.reset(&session);
                "trip and reset"
            }
        }
    }

    /// Fills the disk, trips a session, and frees the space.
    fn fill_the_disk(&mut self) -> &'static str {
        let full = self.log.with_file_name("full");
        self.testbed.on_host(|| {
            let mut file = fs::File::create(&full).expect("a file");
            while file.write_all(&[0; 4096]).is_ok() {}
        });
        self.testbed.trip(&format!("session/s{}", self.rng.below(SESSIONS as u64)));
        sleep(Duration::from_millis(300));
        self.testbed.on_host(|| fs::remove_file(&full)).expect("freeing space");
        "disk full"
    }

    fn rotate_by_rename(&mut self) -> &'static str {
        let old = self.log.with_extension("jsonl.1");
        // The log does not exist if nothing was written since the last rotation.
        self.testbed.on_host(|| drop(fs::rename(&self.log, old)));
        self.rotations += 1;
        "renamed log"
    }

    fn rotate_by_truncation(&mut self) -> &'static str {
        let old = self.log.with_extension("jsonl.1");
        self.testbed.on_host(|| {
            let Ok(log) = fs::OpenOptions::new().read(true).write(true).open(&self.log) else { return };
            // Without the lock a line written between the copy and the truncation would be lost.
            flock(&log, FlockOperation::LockExclusive).expect("locking it");
            if fs::copy(&self.log, old).is_ok() {
                log.set_len(0).expect("truncating it");
            }
        });
        self.rotations += 1;
        "truncated log"
    }

    fn reload_a_bad_file(&mut self) -> &'static str {
        let path = self.testbed.config();
        fs::remove_file(&path).expect("removing the configuration");
        match self.rng.below(5) {
            0 => {}
            1 => fs::write(&path, "[host]\ninterfaces = 7\n").expect("a file"),
            2 => fs::write(&path, vec![b'x'; 16 << 20]).expect("a file"),
            3 => symlink(&path, &path).expect("a link"),
            _ => fs::write(&path, [0xff; 4096]).expect("a file"),
        }
        self.agent().signal(Signal::HUP);
        sleep(Duration::from_millis(200));
        // In the first case no file exists.
        let _ = fs::remove_file(&path);
        fs::write(&path, &self.good).expect("the configuration");
        "SIGHUP of a bad file"
    }

    /// Scrapes once and returns the duration.
    fn scrape(&self) -> Duration {
        let start = Instant::now();
        let text = metrics(&self.testbed);
        assert!(text.contains("breaker_build_info"), "{text:.300}");
        start.elapsed()
    }

    /// Waits for an empty queue, stops the agent, and verifies that the log is one chain.
    fn finish(mut self) {
        self.idle.clear();
        let pending = || metrics(&self.testbed).contains("\nbreaker_audit_pending 0\n").then_some(());
        wait_for("an empty queue", pending);
        self.agent.take().expect("an agent").stop();
        let found = self.testbed.cli("audit verify --json").expect_exit(0).json();
        println!("{} rotations; the log: {found}", self.rotations);
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn mean(samples: &[Sample], figure: impl Fn(&Sample) -> u64) -> f64 {
    samples.iter().map(figure).sum::<u64>() as f64 / samples.len() as f64
}

#[test]
fn under_faults_memory_files_and_threads_do_not_grow_and_the_log_stays_valid() {
    require_root!();
    let length = Duration::from_secs(variable("BREAKER_SOAK_SECONDS", 60));
    let seed = variable("BREAKER_SOAK_SEED", 0x50a4).max(1);
    println!("seed {seed}, {length:?}");
    let mut soak = Soak::new(seed);
    let (start, mut samples, mut slowest) = (Instant::now(), Vec::new(), Duration::ZERO);
    let mut done = std::collections::BTreeMap::<&str, u32>::new();
    while start.elapsed() < length {
        // The last two thirds are compared, so one agent must run through both.
        let what = soak.disturb(start.elapsed() < length / 3);
        *done.entry(what).or_default() += 1;
        let took = soak.scrape();
        assert!(took < MAX_SCRAPE * slowness(), "{took:?} after {what}");
        slowest = slowest.max(took);
        samples.push((start.elapsed(), Sample::of(soak.agent().id())));
    }
    let third = |number: u32| -> Vec<Sample> {
        let within = |at: &Duration| *at >= length / 3 * number && *at < length / 3 * (number + 1);
        samples.iter().filter(|(at, _)| within(at)).map(|(_, sample)| *sample).collect()
    };
    let (middle, last) = (third(1), third(2));
    let [before, after] = [&middle, &last].map(|samples| mean(samples, |sample| sample.own));
    let most =
        |figure: fn(&Sample) -> u64| samples.iter().map(|(_, sample)| figure(sample)).max().unwrap_or(0);
    let most_of =
        |samples: &[Sample], figure: fn(&Sample) -> u64| samples.iter().map(figure).max().unwrap_or(0);
    println!(
        "{done:?}; slowest scrape {slowest:?}; at most {} KiB of its own, {} KiB resident",
        most(|sample| sample.own),
        most(|sample| sample.rss)
    );
    for (name, samples) in [("middle", &middle), ("last", &last)] {
        println!(
            "{name} third: {:.0} KiB, files at most {}, threads at most {}, {} samples",
            mean(samples, |sample| sample.own),
            most_of(samples, |sample| sample.files as u64),
            most_of(samples, |sample| sample.threads),
            samples.len()
        );
    }
    assert!(most(|sample| sample.own) < MAX_OWN, "{} KiB of its own", most(|sample| sample.own));
    assert!(most(|sample| sample.rss) < MAX_RESIDENT, "{} KiB", most(|sample| sample.rss));
    assert!(after <= before + MAX_GROWTH, "memory grows from {before:.0} to {after:.0} KiB");
    for (what, figure) in [
        ("files", (|sample| sample.files as u64) as fn(&Sample) -> u64),
        ("threads", |sample| sample.threads),
    ] {
        let (before, after) = (most_of(&middle, figure), most_of(&last, figure));
        assert!(after <= before + 3, "{what} grow from {before} to {after}");
    }
    soak.finish();
}
