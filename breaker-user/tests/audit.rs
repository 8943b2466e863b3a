//! The audit log: entries are read back as written, and every later change is found.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;

use breaker_user::audit::{Actor, Entry, Line, Reader, append, check_path, reserve, verify};
use jiff::Timestamp;
use serde_json::json;

/// A log in a directory of its own, which is removed at the end.
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

    /// Appends entries of these kinds, one at a time.
    fn append(&self, kinds: &[&str]) {
        kinds.iter().for_each(|kind| append(&self.path(), &[entry(kind, "why not")]).unwrap());
    }

    /// Removes the anchor.
    fn remove_anchor(&self) {
        let _ = fs::remove_file(self.directory.join(".audit.jsonl.end"));
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// Numbers and kinds of the lines that a reader returns.
    fn read(&self) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        let mut take = |text: &[u8]| {
            lines.extend(serde_json::from_slice::<Line>(text).map(|line| (line.seq, line.entry.kind)));
            Ok(())
        };
        Reader::new(self.path()).read_new(&mut take).unwrap();
        lines
    }

    /// Replaces the content of the log, and returns the error of its verification.
    fn error_for(&self, bytes: &[u8]) -> String {
        fs::write(self.path(), bytes).unwrap();
        match verify(&self.path()) {
            Ok(found) => {
                panic!("verified as valid, {} lines: {:?}", found.lines, String::from_utf8_lossy(bytes))
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
fn entries_are_numbered_chained_and_read_back() {
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
fn no_bit_can_be_changed_and_no_byte_added_or_removed() {
    let log = Log::new("bits");
    log.append(&["loaded", "tripped"]);
    let bytes = log.bytes();
    for at in 0..bytes.len() {
        // The lowest bit, the bit of the letter case, and the highest bit.
        for bit in [0, 5, 7] {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            log.error_for(&changed);
        }
        for added in [b' ', b'\r'] {
            let mut changed = bytes.clone();
            changed.insert(at, added);
            log.error_for(&changed);
        }
        let mut changed = bytes.clone();
        changed.remove(at);
        log.error_for(&changed);
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
        assert!(log.error_for(&repeated.concat()).contains(&format!("line {}: ", at + 2)));
        for to in (0..lines.len()).filter(|to| *to != at) {
            let mut moved = lines.clone();
            moved.swap(at, to);
            let found = log.error_for(&moved.concat());
            // A file may begin with any line, because earlier lines may be in a rotated file. The next line
            // fails then.
            let first = at.min(to) + 1;
            let next = (first == 1).then_some("line 2: ");
            assert!(
                found.contains(&format!("line {first}: ")) || next.is_some_and(|next| found.contains(next)),
                "{found}"
            );
        }
        let mut removed = lines.clone();
        removed.remove(at);
        let found = log.error_for(&removed.concat());
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
    // A valid line of another log is no continuation.
    let other = Log::new("lines-other");
    other.append(&["loaded"]);
    log.error_for(&[lines.concat(), other.bytes()].concat());
}

#[test]
fn a_forged_line_with_a_valid_hash_breaks_the_next_line() {
    let log = Log::new("forged");
    log.append(&["loaded", "tripped"]);
    let honest = lines(&log.bytes());
    fs::remove_file(log.path()).unwrap();
    log.remove_anchor();
    append(&log.path(), &[entry("loaded", "something else")]).unwrap();
    let found = log.error_for(&[log.bytes(), honest[1].clone()].concat());
    assert!(
        found.contains("line 2: its `prev` does not match the line before: a line was changed"),
        "{found}"
    );
}

#[test]
fn a_torn_last_line_is_found_and_does_not_stop_later_lines() {
    let log = Log::new("torn");
    log.append(&["loaded", "tripped", "reset"]);
    let bytes = log.bytes();
    let last = lines(&bytes)[2].len();
    for cut in 1..last {
        let torn = &bytes[..bytes.len() - cut];
        let found = log.error_for(torn);
        assert!(found.contains("line 3: the line is incomplete: its end was cut off"), "{found}");
        assert_eq!(log.read().len(), 2, "an unfinished line may still be being written");
        // A crash during the write comes before the anchor.
        log.remove_anchor();
        append(&log.path(), &[entry("armed", "after")]).unwrap();
        let read = log.read();
        // Without its newline only, the line is complete again. Otherwise it stays, without a number.
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
fn lines_longer_than_the_read_buffer_are_chained() {
    let log = Log::new("long");
    let long = "x".repeat(700_000);
    for reason in [&long, "short", &long, &long] {
        append(&log.path(), &[entry("tripped", reason)]).unwrap();
    }
    append(&log.path(), &[entry("reset", "short")]).unwrap();
    assert_eq!(verify(&log.path()).unwrap().lines, 5);
}

#[test]
fn concurrent_writers_take_turns() {
    let log = Log::new("turns");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| log.append(&["tripped"])));
        }
    });
    assert_eq!(verify(&log.path()).unwrap().lines, 200);
}

#[test]
fn a_reader_continues_after_its_last_line_and_in_a_new_file() {
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
    assert_eq!(read().unwrap(), [0u64; 0], "the log does not exist yet");
    log.append(&["loaded", "tripped"]);
    assert_eq!(read().unwrap(), [1, 2]);
    assert_eq!(read().unwrap(), [0u64; 0]);
    // Half a line is read later.
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
    // The unread rest of a renamed file is read first.
    log.append(&["loaded"]);
    fs::rename(log.path(), log.path().with_extension("older")).unwrap();
    assert_eq!(read().unwrap(), [5], "the new file does not exist yet");
    log.append(&["armed", "reset"]);
    assert_eq!(read().unwrap(), [6, 7]);
    // Truncated, and longer than before.
    OpenOptions::new().write(true).open(log.path()).unwrap().set_len(0).unwrap();
    log.append(&["armed", "reset", "tripped"]);
    assert_eq!(read().unwrap(), [8, 9, 10]);
}

#[test]
fn a_rotated_log_is_one_chain_and_a_missing_file_is_reported() {
    let log = Log::new("rotated");
    let beside = |name: &str| log.path().with_file_name(name);
    log.append(&["loaded", "tripped"]);
    fs::rename(log.path(), beside("audit.jsonl.2")).unwrap();
    assert_eq!(verify(&log.path()).unwrap().lines, 2, "nothing was written since");
    log.append(&["reset", "tripped", "reset"]);
    // Rotated by copying and truncation.
    fs::copy(log.path(), beside("audit-20261122.jsonl")).unwrap();
    OpenOptions::new().write(true).open(log.path()).unwrap().set_len(0).unwrap();
    assert_eq!(verify(&log.path()).unwrap().lines, 5);
    log.append(&["armed"]);
    // A copy of a file is not another log, and a file that is no log is ignored.
    fs::copy(log.path(), beside("audit.jsonl.copy")).unwrap();
    fs::write(beside("audit.jsonl.gz"), [0x1f, 0x8b]).unwrap();
    let whole = verify(&log.path()).unwrap();
    let files = [beside("audit.jsonl.2"), beside("audit-20261122.jsonl"), log.path()];
    assert_eq!((whole.lines, whole.first, &whole.files[..], &whole.apart[..]), (6, 1, &files[..], &[][..]));

    // The oldest file may have been deleted.
    fs::rename(beside("audit.jsonl.2"), beside("kept")).unwrap();
    let found = verify(&log.path()).unwrap();
    assert_eq!((found.lines, found.first), (4, 3));
    fs::rename(beside("kept"), beside("audit.jsonl.2")).unwrap();
    // The file between may not be missing, nor lines at its end.
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
    // A log with a new start is another log, and is reported.
    fs::rename(log.path(), beside("audit.jsonl.1")).unwrap();
    let error = verify(&log.path());
    assert_eq!(error.unwrap().lines, 6);
    log.remove_anchor();
    log.append(&["loaded"]);
    let found = verify(&log.path()).unwrap();
    assert_eq!((found.lines, found.apart.len()), (1, 4), "{found:?}");
    // The newest file is missing, with its lines.
    log.append(&["tripped"]);
    fs::remove_file(log.path()).unwrap();
    let error = verify(&log.path()).unwrap_err().to_string();
    assert!(error.contains("line numbers 1 to 2 are missing"), "{error}");
}

#[test]
fn a_path_without_a_regular_file_is_refused_at_once() {
    let log = Log::new("kinds");
    fs::create_dir_all(&log.directory).unwrap();
    let path = log.path();
    let all_refuse = |found: &str| {
        for error in [
            append(&path, &[entry("loaded", "x")]).unwrap_err(),
            reserve(&path).unwrap_err(),
            check_path(&path).unwrap_err(),
        ] {
            assert!(format!("{error:#}").contains(found), "{error:#}");
        }
    };
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    all_refuse("is a FIFO");
    verify(&path).unwrap_err();
    Reader::new(path.clone()).read_new(|_| Ok(())).unwrap_err();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(log.directory.join("elsewhere"), &path).unwrap();
    all_refuse("is a symbolic link");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    all_refuse("is a directory");
    fs::remove_dir(&path).unwrap();
    // A sparse file without a newline.
    OpenOptions::new().write(true).create_new(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    for error in [
        append(&path, &[entry("loaded", "x")]).unwrap_err(),
        verify(&path).unwrap_err(),
        Reader::new(path.clone()).read_new(|_| Ok(())).unwrap_err(),
    ] {
        assert!(format!("{error:#}").contains("this is no audit log"), "{error:#}");
    }
}

#[test]
fn space_is_reserved_without_changing_the_log() {
    let log = Log::new("room");
    log.append(&["loaded"]);
    let before = log.bytes();
    reserve(&log.path()).unwrap();
    assert_eq!(log.bytes(), before, "the log has the same length");
    log.append(&["reset"]);
    assert_eq!(verify(&log.path()).unwrap().lines, 2);
    reserve("/proc/breaker/audit.jsonl".as_ref()).unwrap_err();
    // Devices without an end or without content are no logs.
    for device in ["/dev/full", "/dev/zero", "/dev/null"].map(std::path::Path::new) {
        append(device, &[entry("loaded", "x")]).unwrap_err();
        reserve(device).unwrap_err();
        verify(device).unwrap_err();
    }
}
