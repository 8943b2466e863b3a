//! The audit log: what is written is read back, and whatever is done to it afterwards is found.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;

use breaker_user::audit::{Actor, Entry, Line, Reader, append, reserve, verify};
use jiff::Timestamp;
use serde_json::json;

/// A log in a directory of its own, which goes with it.
struct Log {
    directory: PathBuf,
}

impl Log {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("breaker-audit-{name}-{}", std::process::id()));
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("audit.jsonl")
    }

    /// Writes these kinds of entries, one a turn.
    fn append(&self, kinds: &[&str]) {
        kinds.iter().for_each(|kind| append(&self.path(), &[entry(kind, "why not")]).unwrap());
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// The numbers and kinds of the lines that a reader gets.
    fn read(&self) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        let mut take = |text: &[u8]| {
            lines.extend(serde_json::from_slice::<Line>(text).map(|line| (line.seq, line.kind)));
            Ok(())
        };
        Reader::new(self.path()).read_on(&mut take).unwrap();
        lines
    }

    /// What is wrong with the log when it is these bytes.
    fn wrong(&self, bytes: &[u8]) -> String {
        fs::write(self.path(), bytes).unwrap();
        match verify(&self.path()) {
            Ok(found) => panic!("taken for whole, {} lines: {:?}", found.lines, String::from_utf8_lossy(bytes)),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn entry(kind: &str, reason: &str) -> Entry {
    Entry {
        time: Timestamp::now(),
        kind: kind.to_owned(),
        scope: Some("session/x1".to_owned()),
        cause: Some("manual".to_owned()),
        actor: Actor::this("cli"),
        reason: Some(reason.to_owned()),
        counts: json!({ "epoch": 1 }),
        policy: "p".to_owned(),
    }
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn what_is_appended_is_numbered_chained_and_read_back() {
    let log = Log::new("appended");
    log.append(&["loaded", "tripped"]);
    append(&log.path(), &[entry("reset", "a"), entry("armed", "b\nc \u{1b}"), entry("unloaded", "ü")]).unwrap();
    append(&log.path(), &[]).unwrap();
    let kinds = ["loaded", "tripped", "reset", "armed", "unloaded"];
    let expected: Vec<_> = (1..).zip(kinds.map(str::to_owned)).collect();
    assert_eq!(log.read(), expected);
    assert_eq!(verify(&log.path()).unwrap().lines, 5);
    let keys = ["time", "seq", "kind", "scope", "cause", "actor", "reason", "counts", "policy", "prev", "hash"];
    for line in lines(&log.bytes()) {
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let found: Vec<_> = line.as_object().unwrap().keys().collect();
        assert!(
            keys.iter().all(|key| found.iter().any(|found| found == key)) && found.len() == keys.len(),
            "{found:?}"
        );
    }
}

#[test]
fn no_bit_of_it_can_be_turned_and_no_byte_added_or_taken() {
    let log = Log::new("bits");
    log.append(&["loaded", "tripped"]);
    let bytes = log.bytes();
    for at in 0..bytes.len() {
        // The lowest, the one between cases, and the highest.
        for bit in [0, 5, 7] {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            log.wrong(&changed);
        }
        for added in [b' ', b'\r'] {
            let mut changed = bytes.clone();
            changed.insert(at, added);
            log.wrong(&changed);
        }
        let mut changed = bytes.clone();
        changed.remove(at);
        log.wrong(&changed);
    }
}

#[test]
fn no_line_can_be_removed_repeated_or_moved() {
    let log = Log::new("lines");
    log.append(&["loaded", "tripped", "reset", "tripped", "unloaded"]);
    let lines = lines(&log.bytes());
    for at in 0..lines.len() {
        let mut repeated = lines.clone();
        repeated.insert(at, lines[at].clone());
        assert!(log.wrong(&repeated.concat()).contains(&format!("line {}: ", at + 2)));
        for to in (0..lines.len()).filter(|to| *to != at) {
            let mut moved = lines.clone();
            moved.swap(at, to);
            let found = log.wrong(&moved.concat());
            assert!(found.contains(&format!("line {}: ", at.min(to) + 1)), "{found}");
        }
        // But for the last: of a line that is cut off whole only a note of the hash tells.
        if at + 1 < lines.len() {
            let mut removed = lines.clone();
            removed.remove(at);
            let found = log.wrong(&removed.concat());
            assert!(
                found.contains(&format!("line {}: its `prev` is not the hash of the line before", at + 1)),
                "{found}"
            );
        }
    }
    // A whole other log, of good lines, is no continuation.
    let other = Log::new("lines-other");
    other.append(&["loaded"]);
    log.wrong(&[lines.concat(), other.bytes()].concat());
}

#[test]
fn a_forged_line_with_a_right_hash_of_its_own_breaks_the_next() {
    let log = Log::new("forged");
    log.append(&["loaded", "tripped"]);
    let honest = lines(&log.bytes());
    fs::remove_file(log.path()).unwrap();
    append(&log.path(), &[entry("loaded", "something else")]).unwrap();
    let found = log.wrong(&[log.bytes(), honest[1].clone()].concat());
    assert!(found.contains("line 2: its `prev` is not the hash of the line before: a line was changed"), "{found}");
}

#[test]
fn a_torn_last_line_is_found_and_stops_no_later_one() {
    let log = Log::new("torn");
    log.append(&["loaded", "tripped", "reset"]);
    let bytes = log.bytes();
    let last = lines(&bytes)[2].len();
    for cut in 1..last {
        let torn = &bytes[..bytes.len() - cut];
        let found = log.wrong(torn);
        assert!(found.contains("line 3: it is unfinished: its end was cut off"), "{found}");
        assert_eq!(log.read().len(), 2, "what is unfinished may still be being written");
        append(&log.path(), &[entry("armed", "after")]).unwrap();
        let read = log.read();
        // Cut behind its last brace it is the whole line again; else it keeps its place, and no number.
        let expected = if cut == 1 { 4 } else { 3 };
        assert_eq!(read.last(), Some(&(expected, "armed".to_owned())), "{cut}");
        let found = verify(&log.path()).map_err(|error| error.to_string());
        match found {
            Ok(found) => assert_eq!((cut, found.lines), (1, 4)),
            Err(error) => assert!(error.contains("line 3: it is no event"), "{cut}: {error}"),
        }
    }
}

#[test]
fn lines_longer_than_any_buffer_are_chained_too() {
    let log = Log::new("long");
    let long = "x".repeat(700_000);
    for reason in [&long, "short", &long, &long] {
        append(&log.path(), &[entry("tripped", reason)]).unwrap();
    }
    append(&log.path(), &[entry("reset", "short")]).unwrap();
    assert_eq!(verify(&log.path()).unwrap().lines, 5);
}

#[test]
fn writers_at_the_same_time_take_turns() {
    let log = Log::new("turns");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| log.append(&["tripped"])));
        }
    });
    assert_eq!(verify(&log.path()).unwrap().lines, 200);
}

#[test]
fn a_reader_goes_on_where_it_was_and_begins_again_in_a_new_file() {
    let log = Log::new("reader");
    let mut reader = Reader::new(log.path());
    let mut read = || {
        let mut seen = Vec::new();
        reader.read_on(|text| {
            seen.push(serde_json::from_slice::<Line>(text)?.seq);
            Ok(())
        })?;
        anyhow::Ok(seen)
    };
    assert_eq!(read().unwrap(), [0u64; 0], "there is no log yet");
    log.append(&["loaded", "tripped"]);
    assert_eq!(read().unwrap(), [1, 2]);
    assert_eq!(read().unwrap(), [0u64; 0]);
    // Half a line is for the next time.
    let whole = log.bytes();
    log.append(&["reset"]);
    let more = log.bytes()[whole.len()..].to_vec();
    fs::write(log.path(), [&whole, &more[..20]].concat()).unwrap();
    assert_eq!(read().unwrap(), [0u64; 0]);
    OpenOptions::new().append(true).open(log.path()).unwrap().write_all(&more[20..]).unwrap();
    assert_eq!(read().unwrap(), [3]);
    fs::rename(log.path(), log.path().with_extension("old")).unwrap();
    log.append(&["armed"]);
    assert_eq!(read().unwrap(), [1]);
}

#[test]
fn room_is_set_aside_before_what_must_not_go_unseen() {
    let log = Log::new("room");
    log.append(&["loaded"]);
    let before = log.bytes();
    reserve(&log.path()).unwrap();
    assert_eq!(log.bytes(), before, "and the log is as long as it was");
    log.append(&["reset"]);
    assert_eq!(verify(&log.path()).unwrap().lines, 2);
    reserve("/proc/breaker/audit.jsonl".as_ref()).unwrap_err();
    // What has no end, and what has no beginning, is no log.
    for device in ["/dev/full", "/dev/zero", "/dev/null"].map(std::path::Path::new) {
        append(device, &[entry("loaded", "x")]).unwrap_err();
        reserve(device).unwrap_err();
        verify(device).unwrap_err();
    }
}
