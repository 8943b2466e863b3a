//! A file that is not a configuration: a starting agent adopts the load, and a SIGHUP keeps the policy in
//! force. Both report the cause.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, mknodat};
use rustix::process::Signal;

use crate::host::{Host, THREE, privileged};

/// Creates a file at the path of the configuration.
type CreateFile = fn(&Path);

/// The name of each case, the function that creates the file, and the agent's message about the file.
const FILES: [(&str, CreateFile, &str); 9] = [
    ("missing", |_| {}, "cannot be read: No such file or directory"),
    ("empty", |path| fs::write(path, "").expect("a file"), "the configuration is refused"),
    ("binary", |path| fs::write(path, [0x7f, b'E', b'L', b'F', 0, 1, 2, 3]).expect("a file"), "is refused"),
    ("not UTF-8", |path| fs::write(path, b"policy = \"\xff\xfe\"\n").expect("a file"), "not UTF-8"),
    ("huge", |path| fs::write(path, vec![b'x'; 16 << 20]).expect("a file"), "is longer than 4 MiB"),
    ("FIFO", |path| mknodat(CWD, path, FileType::Fifo, 0o600.into(), 0).expect("a FIFO"), "it is a FIFO"),
    ("symlink loop", |path| symlink(path, path).expect("a link"), "it is a symbolic link"),
    ("directory", |path| fs::create_dir(path).expect("a directory"), "it is a directory"),
    (
        "device",
        |path| mknodat(CWD, path, FileType::CharacterDevice, 0o600.into(), 0x105).expect("a device"),
        "it is a character device",
    ),
];

/// Removes a file or an empty directory.
fn clear(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
}

#[test]
fn a_file_that_is_not_a_configuration_changes_nothing_and_is_reported() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    host.load();
    let good = fs::read(host.config()).expect("the configuration");
    let in_force = || host.breaker(|breaker| (breaker.policy().sha256, breaker.meta().side));
    let loaded = in_force();
    let found = |number: usize| {
        let entry = host.wait_for("policy_refused", number).pop().expect("one");
        entry.counts["found"].as_str().expect("what was found").to_owned()
    };
    let mut refused = 0;
    for (what, make, expected) in FILES {
        let agent = host.agent();
        clear(&host.config());
        make(&host.config());
        let start = Instant::now();
        agent.signal(Signal::HUP);
        refused += 1;
        let text = found(refused);
        assert!(text.contains(expected), "{what}: {text}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
        assert_eq!(in_force(), loaded, "{what}");
        let stderr = agent.stop();
        assert!(stderr.contains("is not put in force, the previous policy stays"), "{what}: {stderr}");

        let agent = host.agent();
        assert!(agent.line.contains("THE FILE IS NOT IN FORCE"), "{what}: {}", agent.line);
        refused += 1;
        let text = found(refused);
        assert!(text.contains(expected), "{what}: {text}");
        clear(&host.config());
        fs::write(host.config(), &good).expect("the configuration");
        agent.signal(Signal::HUP);
        let stderr = agent.stop();
        assert!(stderr.contains("stays in force"), "{what}: {stderr}");
        assert_eq!(in_force(), loaded, "{what}");
    }
    host.verify();
}
