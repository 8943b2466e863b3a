//! The audit log: what is written is read back, and whatever is done to it afterwards is found.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;

use breaker_user::audit::{Actor, Entry, Line, Reader, append, check_path, reserve, verify};
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

    /// Removes the note of its end.
    fn forget_end(&self) {
        let _ = fs::remove_file(self.directory.join(".audit.jsonl.end"));
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// The numbers and kinds of the lines that a reader gets.
    fn read(&self) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        let mut take = |text: &[u8]| {
            lines.extend(serde_json::from_slice::<Line>(text).map(|line| (line.seq, line.entry.kind)));
            Ok(())
        };
        Reader::new(self.path()).read_new(&mut take).unwrap();
        lines
    }

    /// What is wrong with the log when it is these bytes.
    fn wrong(&self, bytes: &[u8]) -> String {
        fs::write(self.path(), bytes).unwrap();
        match verify(&self.path()) {
            Ok(found) => {
                panic!("taken for whole, {} lines: {:?}", found.lines, String::from_utf8_lossy(bytes))
            }
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
        actor: Actor::this_process("cli"),
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
    append(&log.path(), &[entry("reset", "a"), entry("armed", "b\nc \u{1b}"), entry("unloaded", "ü")])
        .unwrap();
    append(&log.path(), &[]).unwrap();
    let kinds = ["loaded", "tripped", "reset", "armed", "unloaded"];
    let expected: Vec<_> = (1..).zip(kinds.map(str::to_owned)).collect();
    assert_eq!(log.read(), expected);
    assert_eq!(verify(&log.path()).unwrap().lines, 5);
    let keys =
        ["time", "seq", "kind", "scope", "cause", "actor", "reason", "counts", "policy", "prev", "hash"];
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
            // A file may begin with any line, where what was before it was rotated away; then the next one does not follow.
            let first = at.min(to) + 1;
            let next = (first == 1).then_some("line 2: ");
            assert!(
                found.contains(&format!("line {first}: ")) || next.is_some_and(|next| found.contains(next)),
                "{found}"
            );
        }
        let mut removed = lines.clone();
        removed.remove(at);
        let found = log.wrong(&removed.concat());
        if at == 0 {
            assert!(found.contains("line number 1 is missing"), "{found}");
        } else if at + 1 == lines.len() {
            assert!(found.contains("line number 5 is missing: they were cut off its end"), "{found}");
        } else {
            assert!(
                found.contains(&format!("line {}: its `prev` does not match the line before", at + 1)),
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
    log.forget_end();
    append(&log.path(), &[entry("loaded", "something else")]).unwrap();
    let found = log.wrong(&[log.bytes(), honest[1].clone()].concat());
    assert!(
        found.contains("line 2: its `prev` does not match the line before: a line was changed"),
        "{found}"
    );
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
        assert!(found.contains("line 3: the line is incomplete: its end was cut off"), "{found}");
        assert_eq!(log.read().len(), 2, "what is unfinished may still be being written");
        // A crash in mid-write comes before the note of the end.
        log.forget_end();
        append(&log.path(), &[entry("armed", "after")]).unwrap();
        let read = log.read();
        // Cut behind its last brace it is the whole line again; else it keeps its place, and no number.
        let expected = if cut == 1 { 4 } else { 3 };
        assert_eq!(read.last(), Some(&(expected, "armed".to_owned())), "{cut}");
        let found = verify(&log.path()).map_err(|error| error.to_string());
        match found {
            Ok(found) => assert_eq!((cut, found.lines), (1, 4)),
            Err(error) => assert!(error.contains("line 3: the line is not an event"), "{cut}: {error}"),
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
        reader.read_new(|text| {
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
    assert_eq!(read().unwrap(), [4]);
    // What was not read of it when it got another name is read first.
    log.append(&["loaded"]);
    fs::rename(log.path(), log.path().with_extension("older")).unwrap();
    assert_eq!(read().unwrap(), [5], "and there is no new one yet");
    log.append(&["armed", "reset"]);
    assert_eq!(read().unwrap(), [6, 7]);
    // Emptied, and longer again than it was.
    OpenOptions::new().write(true).open(log.path()).unwrap().set_len(0).unwrap();
    log.append(&["armed", "reset", "tripped"]);
    assert_eq!(read().unwrap(), [8, 9, 10]);
}

#[test]
fn a_rotated_log_is_one_chain_and_a_file_that_is_missing_is_told() {
    let log = Log::new("rotated");
    let beside = |name: &str| log.path().with_file_name(name);
    log.append(&["loaded", "tripped"]);
    fs::rename(log.path(), beside("audit.jsonl.2")).unwrap();
    assert_eq!(verify(&log.path()).unwrap().lines, 2, "nothing was written since");
    log.append(&["reset", "tripped", "reset"]);
    // By copying and emptying.
    fs::copy(log.path(), beside("audit-20261122.jsonl")).unwrap();
    OpenOptions::new().write(true).open(log.path()).unwrap().set_len(0).unwrap();
    assert_eq!(verify(&log.path()).unwrap().lines, 5);
    log.append(&["armed"]);
    // A copy of a part is not another log, and what is no log is nothing.
    fs::copy(log.path(), beside("audit.jsonl.copy")).unwrap();
    fs::write(beside("audit.jsonl.gz"), [0x1f, 0x8b]).unwrap();
    let whole = verify(&log.path()).unwrap();
    let files = [beside("audit.jsonl.2"), beside("audit-20261122.jsonl"), log.path()];
    assert_eq!((whole.lines, whole.first, &whole.files[..], &whole.apart[..]), (6, 1, &files[..], &[][..]));

    // The oldest may have had its time.
    fs::rename(beside("audit.jsonl.2"), beside("kept")).unwrap();
    let found = verify(&log.path()).unwrap();
    assert_eq!((found.lines, found.first), (4, 3));
    fs::rename(beside("kept"), beside("audit.jsonl.2")).unwrap();
    // The one between may not, nor may lines at its end.
    let between = fs::read(beside("audit-20261122.jsonl")).unwrap();
    fs::remove_file(beside("audit-20261122.jsonl")).unwrap();
    let error = verify(&log.path()).unwrap_err().to_string();
    assert!(error.contains("line numbers 3 to 5 are missing: a file is missing between it and "), "{error}");
    fs::write(beside("audit-20261122.jsonl"), lines(&between)[..2].concat()).unwrap();
    let error = verify(&log.path()).unwrap_err().to_string();
    assert!(error.contains("line number 5 is missing"), "{error}");
    let mut forged = between.clone();
    forged[40] ^= 1;
    fs::write(beside("audit-20261122.jsonl"), &forged).unwrap();
    verify(&log.path()).unwrap_err();
    fs::write(beside("audit-20261122.jsonl"), &between).unwrap();
    verify(&log.path()).unwrap();
    // A log that was begun anew is another one, and that is told.
    fs::rename(log.path(), beside("audit.jsonl.1")).unwrap();
    let error = verify(&log.path());
    assert_eq!(error.unwrap().lines, 6);
    log.forget_end();
    log.append(&["loaded"]);
    let found = verify(&log.path()).unwrap();
    assert_eq!((found.lines, found.apart.len()), (1, 4), "{found:?}");
    // The newest file gone, with its lines.
    log.append(&["tripped"]);
    fs::remove_file(log.path()).unwrap();
    let error = verify(&log.path()).unwrap_err().to_string();
    assert!(error.contains("line numbers 1 to 2 are missing"), "{error}");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let log = Log::new("kinds");
    fs::create_dir_all(&log.directory).unwrap();
    let place = log.path();
    let all_refuse = |found: &str| {
        for error in [
            append(&place, &[entry("loaded", "x")]).unwrap_err(),
            reserve(&place).unwrap_err(),
            check_path(&place).unwrap_err(),
        ] {
            assert!(format!("{error:#}").contains(found), "{error:#}");
        }
    };
    rustix::fs::mknodat(rustix::fs::CWD, &place, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    all_refuse("is a FIFO");
    verify(&place).unwrap_err();
    Reader::new(place.clone()).read_new(|_| Ok(())).unwrap_err();
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(log.directory.join("elsewhere"), &place).unwrap();
    all_refuse("is a symbolic link");
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    all_refuse("is a directory");
    fs::remove_dir(&place).unwrap();
    // Without an end of a line for as long as anybody would read.
    OpenOptions::new().write(true).create_new(true).open(&place).unwrap().set_len(1 << 40).unwrap();
    for error in [
        append(&place, &[entry("loaded", "x")]).unwrap_err(),
        verify(&place).unwrap_err(),
        Reader::new(place.clone()).read_new(|_| Ok(())).unwrap_err(),
    ] {
        assert!(format!("{error:#}").contains("this is no audit log"), "{error:#}");
    }
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
