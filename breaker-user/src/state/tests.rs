//! The state file, damaged in every way, and how scopes come up then.

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

/// A directory that goes with it.
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

/// The session is tripped, and where the file is in doubt every armed scope is.
fn is_safe(found: &Found) -> bool {
    let plan = plan(found, &wanted());
    let causes = |name: &str| plan.states[name].causes;
    let closed = plan.closed.is_some();
    causes("session/x1") != 0 && causes("session/x2") == 0 && (causes("host") == cause::STATE) == closed
}

#[test]
fn what_is_written_is_read() {
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
fn every_truncation_is_seen_and_leaves_the_session_tripped() {
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
fn every_flipped_bit_is_seen_and_leaves_the_session_tripped() {
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
    // With the newest whole, nothing depends on the generation before it.
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
fn content_that_no_write_gives_is_refused_also_under_a_right_hash() {
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
fn whatever_stands_in_place_of_the_file_is_no_state_and_is_replaced() {
    let directory = Directory::new();
    let store = directory.store();
    let path = store.path();
    let elsewhere = directory.0.join("elsewhere");
    fs::write(&elsewhere, contents(9).encode().expect("JSON")).expect("writing");
    let put: [(&str, &dyn Fn(&Path)); 6] = [
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
fn a_file_of_another_user_is_not_believed() {
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
fn an_older_file_put_back_is_seen() {
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
    // Between the exchange and the last rename the older one bears the name of the next.
    fs::rename(store.path(), &next).expect("renaming");
    fs::write(store.path(), contents(3).encode().expect("JSON")).expect("writing");
    assert_eq!(store.read(), Found::Whole(Box::new(contents(3))));
    write(&store, &contents(4));
    assert_eq!(store.read(), Found::Whole(Box::new(contents(4))));
    assert!(!next.exists());
}

#[test]
fn a_lock_that_is_held_is_waited_for_only_so_long() {
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

#[test]
fn a_host_without_a_history_comes_up_as_its_policy_says() {
    let fresh = Wanted { has_history: false, ..wanted() };
    let plan = plan(&Found::Nothing, &fresh);
    assert_eq!((plan.closed, plan.restored, plan.absent, plan.notes), Default::default());
    assert!(plan.states.values().all(|state| state.causes == 0));
    assert!(!plan.states["session/x2"].armed && plan.states["host"].armed);
}

#[test]
fn a_missing_file_on_a_host_with_a_history_trips_what_is_armed() {
    let plan = plan(&Found::Nothing, &wanted());
    assert_eq!(plan.closed_scopes().collect::<Vec<_>>(), ["host", "session/x1"]);
    assert!(plan.closed.is_some_and(|found| found.contains("missing")));
}

#[test]
fn another_boot_without_an_end_of_the_agent_trips_what_is_armed() {
    use AgentRun::{Ended, Never, Running};
    let rebooted = |agent, loaded, unclean_boot| {
        let found = Found::Whole(Box::new(Contents { agent, loaded, ..contents(1) }));
        plan(&found, &Wanted { boot_id: "other".to_owned(), unclean_boot, ..wanted() })
    };
    let (trip, pass) = (UncleanBoot::Trip, UncleanBoot::Pass);
    for (agent, loaded, unclean_boot, closed, notes) in [
        (Running, true, trip, true, 0),
        (Running, true, pass, false, 1),
        (Running, false, trip, false, 0),
        (Ended, true, trip, false, 0),
        (Never, true, trip, false, 1),
        (Never, true, pass, false, 1),
    ] {
        let plan = rebooted(agent, loaded, unclean_boot);
        assert_eq!((plan.closed.is_some(), plan.notes.len()), (closed, notes), "{agent:?} {loaded}");
        assert_eq!(plan.states["host"].causes, if closed { cause::STATE } else { 0 });
        assert_eq!(plan.states["session/x1"].causes & cause::MANUAL, cause::MANUAL);
    }
    let same = Found::Whole(Box::new(Contents { agent: Running, ..contents(1) }));
    assert_eq!(plan(&same, &wanted()).closed, None, "the same boot");
}

#[test]
fn a_persons_decision_to_arm_holds_until_the_policy_says_something_new() {
    for (armed, by_policy_then, by_policy_now, expected) in [
        (false, true, true, false),
        (true, true, true, true),
        (true, false, false, true),
        (false, true, false, false),
        (true, true, false, false),
        (false, false, true, true),
    ] {
        let scope = Scope { armed, armed_by_policy: by_policy_then, ..Scope::default() };
        let scopes = BTreeMap::from([("host".to_owned(), scope)]);
        let found = Found::Whole(Box::new(Contents { scopes, ..contents(1) }));
        let armed = BTreeMap::from([("host".to_owned(), by_policy_now)]);
        let state = &plan(&found, &Wanted { armed, ..wanted() }).states["host"];
        assert_eq!((state.armed, state.armed_by_policy), (expected, by_policy_now));
    }
}

#[test]
fn the_guard_against_replays_ends_with_its_day_unless_the_scope_is_tripped() {
    for (causes, day, expected) in [
        (0, date(2026, 11, 21), false),
        (0, TODAY, true),
        (0, date(2026, 11, 23), true),
        (cause::RATE, date(2026, 11, 1), true),
    ] {
        let scope = Scope::of(&ScopeState { guarded: true, ..tripped(causes) }, Some(day));
        let scopes = BTreeMap::from([("session/x1".to_owned(), scope)]);
        let found = Found::Whole(Box::new(Contents { scopes, ..contents(1) }));
        assert_eq!(plan(&found, &wanted()).states["session/x1"].guarded, expected, "{causes} {day}");
    }
    // The day is that of the last trip or reset.
    let state = |epoch| ScopeState { guarded: true, epoch, ..ScopeState::default() };
    let states = |epoch| BTreeMap::from([("session/x1".to_owned(), state(epoch))]);
    let before = Contents { scopes: merge(None, &states(4), TODAY), ..contents(1) };
    // A trip of the host counts for its sessions.
    let mut with_host = states(4);
    with_host.insert("host".to_owned(), tripped(0));
    assert_eq!(
        merge(Some(&before), &with_host, date(2026, 11, 23))["session/x1"].replay_guard,
        Some(date(2026, 11, 23))
    );
    let tomorrow = date(2026, 11, 23);
    for (epoch, expected) in [(4, TODAY), (5, tomorrow)] {
        let merged = merge(Some(&before), &states(epoch), tomorrow);
        assert_eq!(merged["session/x1"].replay_guard, Some(expected));
    }
}

#[test]
fn a_scope_that_the_policy_lost_is_kept_where_it_says_something() {
    let total = |used| vec![Total { class: 0, per_fill: false, used, fills: 0 }];
    let states = BTreeMap::from([
        ("group/tripped".to_owned(), tripped(cause::RATE)),
        ("group/used".to_owned(), ScopeState { totals: total(5), ..ScopeState::default() }),
        ("group/disarmed".to_owned(), ScopeState { armed_by_policy: true, ..ScopeState::default() }),
        ("group/untouched".to_owned(), ScopeState { totals: total(0), ..ScopeState::default() }),
    ]);
    let before = Contents { scopes: merge(None, &states, TODAY), ..contents(1) };
    let host = BTreeMap::from([("host".to_owned(), ScopeState::default())]);
    let merged = merge(Some(&before), &host, TODAY);
    assert_eq!(merged.keys().collect::<Vec<_>>(), ["group/disarmed", "group/tripped", "group/used", "host"]);
    let found = Found::Whole(Box::new(Contents { scopes: merged, ..contents(1) }));
    let plan = plan(&found, &wanted());
    assert_eq!(plan.absent, [("group/tripped".to_owned(), cause::RATE)]);
    // A later policy that has it again finds it as it was.
    let armed = BTreeMap::from([("group/tripped".to_owned(), true), ("group/used".to_owned(), false)]);
    let again = super::plan(&found, &Wanted { armed, ..wanted() });
    assert_eq!(again.states["group/tripped"].causes, cause::RATE);
    assert_eq!(again.states["group/used"].totals, total(5));
}
