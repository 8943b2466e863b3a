//! Damaged state files, and the initial state of the scopes after each damage.

mod restoration;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use breaker_common::abi::cause;
use jiff::civil::{Date, date};

use super::*;
use crate::config::UncleanBoot;
use crate::kernel::PinRoot;
use crate::kernel::durable::{ScopeState, Total};

/// A temporary directory, removed when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("breaker-state-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn store(&self) -> Store {
        Store::new(&self.0, &PinRoot::new("/sys/fs/bpf/breaker"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const TODAY: Date = date(2026, 11, 22);

fn tripped(causes: u64) -> ScopeState {
    ScopeState { causes, epoch: 3, resets: 1, armed: true, armed_by_policy: true, ..ScopeState::default() }
}

/// A state with one tripped session and an untripped host.
fn contents(generation: u64) -> Contents {
    let states = BTreeMap::from([
        ("host".to_owned(), ScopeState { armed: true, armed_by_policy: true, ..ScopeState::default() }),
        ("session/x1".to_owned(), tripped(cause::MANUAL)),
    ]);
    let scopes = merge(None, &states, TODAY);
    Contents {
        generation,
        loaded: true,
        scopes,
        written_at: jiff::Timestamp::UNIX_EPOCH,
        ..Contents::empty("/pins".to_owned(), "boot".to_owned())
    }
}

fn write(store: &Store, contents: &Contents) {
    let lock = store.lock(Duration::ZERO).expect("the lock");
    store.write(contents, &lock).expect("writing");
}

fn wanted() -> Wanted {
    let armed = [("host", true), ("session/x1", true), ("session/x2", false)];
    Wanted {
        armed: armed.into_iter().map(|(name, armed)| (name.to_owned(), armed)).collect(),
        unclean_boot: UncleanBoot::Trip,
        has_history: true,
        boot_id: "boot".to_owned(),
        today: TODAY,
    }
}

/// Returns true if the session is tripped, and every armed scope if the file is not reliable.
fn is_safe(found: &Found) -> bool {
    let plan = plan(found, &wanted());
    let causes = |name: &str| plan.states[name].causes;
    let closed = plan.closed.is_some();
    causes("session/x1") != 0 && causes("session/x2") == 0 && (causes("host") == cause::STATE) == closed
}

#[test]
fn a_written_state_is_read_back() {
    let directory = Directory::new();
    let store = directory.store();
    assert_eq!(store.read(), Found::Nothing);
    for generation in 1..4 {
        let contents = contents(generation);
        write(&store, &contents);
        assert_eq!(store.read(), Found::Whole(Box::new(contents)));
    }
    assert_eq!(Contents::decode(&fs::read(store.previous_path()).expect("a file")), Ok(contents(2)));
}

#[test]
fn every_truncation_is_detected_and_leaves_the_session_tripped() {
    let directory = Directory::new();
    let store = directory.store();
    write(&store, &contents(1));
    write(&store, &contents(2));
    let whole = fs::read(store.path()).expect("a file");
    for length in 0..whole.len() {
        assert!(Contents::decode(&whole[..length]).is_err(), "{length} bytes");
        fs::write(store.path(), &whole[..length]).expect("writing");
        let found = store.read();
        assert!(matches!(found, Found::Older(..)) && is_safe(&found), "{length} bytes: {found:?}");
    }
    fs::remove_file(store.previous_path()).expect("removing");
    for length in (0..whole.len()).step_by(7) {
        fs::write(store.path(), &whole[..length]).expect("writing");
        let found = store.read();
        assert!(matches!(found, Found::Damaged(_)) && is_safe(&found), "{length} bytes: {found:?}");
    }
}

#[test]
fn every_flipped_bit_is_detected_and_leaves_the_session_tripped() {
    let directory = Directory::new();
    let store = directory.store();
    write(&store, &contents(1));
    write(&store, &contents(2));
    let whole = fs::read(store.path()).expect("a file");
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Contents::decode(&flipped).is_err(), "bit {bit}");
        fs::write(store.path(), &flipped).expect("writing");
        let found = store.read();
        assert!(matches!(found, Found::Older(..)) && is_safe(&found), "bit {bit}: {found:?}");
    }
    // If the newest generation is whole, nothing depends on the previous generation.
    fs::write(store.path(), &whole).expect("writing");
    let previous = fs::read(store.previous_path()).expect("a file");
    for bit in (0..previous.len() * 8).step_by(13) {
        let mut flipped = previous.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(store.previous_path(), &flipped).expect("writing");
        assert_eq!(store.read(), Found::Whole(Box::new(contents(2))), "bit {bit}");
    }
}

#[test]
fn invalid_content_with_a_valid_hash_is_refused() {
    let seal = |json: &str| {
        let digits: String = <sha2::Sha256 as sha2::Digest>::digest(json.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{json}sha256 {digits}\n").into_bytes()
    };
    let text = String::from_utf8(contents(7).encode().expect("JSON")).expect("UTF-8");
    let json = &text[..text.len() - "sha256 ".len() - 65];
    assert_eq!(Contents::decode(&seal(json)), Ok(contents(7)));
    for (from, to) in [
        ("\"epoch\": 3", "\"epoch\": 18446744073709551615"),
        ("\"epoch\": 3", "\"epoch\": -1"),
        ("\"epoch\": 3", "\"epoch\": 3.5"),
        ("\"format\": 1", "\"format\": 2"),
        ("\"manual\"", "7"),
        ("\"scopes\"", "\"places\""),
    ] {
        let changed = json.replace(from, to);
        assert_ne!(changed, json);
        assert!(Contents::decode(&seal(&changed)).is_err(), "{to}");
    }
    assert!(Contents::decode(&seal("")).is_err());
    assert!(Contents::decode(&seal(&"[".repeat(100_000))).is_err());
    // A cause of a later version keeps the scope tripped.
    let later = Contents::decode(&seal(&json.replace("\"manual\"", "\"eclipse\""))).expect("a state");
    assert_eq!(later.scopes["session/x1"].cause_bits(), cause::STATE);
}

#[test]
fn an_object_in_place_of_the_file_is_no_state_and_is_replaced() {
    let directory = Directory::new();
    let store = directory.store();
    let path = store.path();
    let elsewhere = directory.0.join("elsewhere");
    fs::write(&elsewhere, contents(9).encode().expect("JSON")).expect("writing");
    type Put<'a> = &'a dyn Fn(&Path);
    let put: [(&str, Put); 6] = [
        ("a FIFO", &|path| assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success())),
        ("a symbolic link", &|path| symlink(&elsewhere, path).expect("a link")),
        ("to nowhere", &|path| symlink("/nowhere", path).expect("a link")),
        ("huge", &|path| fs::File::create(path).and_then(|file| file.set_len(1 << 40)).expect("a file")),
        ("empty", &|path| fs::write(path, "").expect("a file")),
        ("everybody's", &|path| {
            fs::write(path, contents(9).encode().expect("JSON")).expect("a file");
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("permissions");
        }),
    ];
    for (what, put) in put {
        write(&store, &contents(1));
        write(&store, &contents(2));
        fs::remove_file(&path).expect("removing");
        put(&path);
        let begun = Instant::now();
        let found = store.read();
        assert!(matches!(found, Found::Older(..)) && is_safe(&found), "{what}: {found:?}");
        write(&store, &contents(3));
        assert_eq!(store.read(), Found::Whole(Box::new(contents(3))), "{what}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
        assert!(fs::symlink_metadata(&path).expect("a file").is_file(), "{what}");
        assert_eq!(fs::read(&elsewhere).expect("a file"), contents(9).encode().expect("JSON"));
        fs::remove_file(store.previous_path()).expect("removing");
    }
    fs::remove_file(&path).expect("removing");
    fs::create_dir(&path).expect("a directory");
    assert!(matches!(store.read(), Found::Damaged(_)));
    let lock = store.lock(Duration::ZERO).expect("the lock");
    store.write(&contents(1), &lock).expect_err("a directory is not replaced");
}

#[test]
fn a_file_of_another_user_is_not_trusted() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let directory = Directory::new();
    let store = directory.store();
    write(&store, &contents(1));
    write(&store, &contents(2));
    chown(store.path(), Some(65_534), None).expect("another owner");
    let found = store.read();
    assert!(
        matches!(&found, Found::Older(_, why) if why.contains("user 65534")) && is_safe(&found),
        "{found:?}"
    );
}

#[test]
fn an_older_file_put_back_is_detected() {
    let directory = Directory::new();
    let store = directory.store();
    write(&store, &contents(1));
    let old = fs::read(store.path()).expect("a file");
    write(&store, &contents(2));
    write(&store, &contents(3));
    fs::write(store.path(), old).expect("writing");
    let found = store.read();
    assert!(
        matches!(&found, Found::Older(older, _) if older.generation == 2) && is_safe(&found),
        "{found:?}"
    );
    fs::remove_file(store.path()).expect("removing");
    assert!(matches!(store.read(), Found::Older(..)));
}

#[test]
fn a_write_that_died_at_any_point_leaves_a_whole_state() {
    let directory = Directory::new();
    let store = directory.store();
    write(&store, &contents(1));
    write(&store, &contents(2));
    let next = directory.0.join(format!(".{}.next", store.path().file_name().expect("a name").display()));
    for length in [0, 10, 1000] {
        let bytes = contents(3).encode().expect("JSON");
        fs::write(&next, &bytes[..length.min(bytes.len())]).expect("writing");
        assert_eq!(store.read(), Found::Whole(Box::new(contents(2))));
    }
    // Between the exchange and the last rename, the older file has the name of the new file.
    fs::rename(store.path(), &next).expect("renaming");
    fs::write(store.path(), contents(3).encode().expect("JSON")).expect("writing");
    assert_eq!(store.read(), Found::Whole(Box::new(contents(3))));
    write(&store, &contents(4));
    assert_eq!(store.read(), Found::Whole(Box::new(contents(4))));
    assert!(!next.exists());
}

#[test]
fn the_wait_for_a_held_lock_ends_at_the_timeout() {
    let directory = Directory::new();
    let store = directory.store();
    let held = store.lock(Duration::ZERO).expect("the lock");
    let begun = Instant::now();
    assert!(store.lock(Duration::from_millis(50)).is_err());
    assert!(begun.elapsed() < Duration::from_millis(500));
    drop(held);
    store.lock(Duration::ZERO).expect("the lock");
}

#[test]
fn two_pin_roots_share_a_directory() {
    let directory = Directory::new();
    let other = Store::new(&directory.0, &PinRoot::new("/sys/fs/bpf/other"));
    write(&directory.store(), &contents(1));
    assert_eq!(other.read(), Found::Nothing);
    let default = Store::new(&directory.0, &PinRoot::new(crate::kernel::pins::DEFAULT));
    assert_eq!(default.path(), directory.0.join("state"));
}
