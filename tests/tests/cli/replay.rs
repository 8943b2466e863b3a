//! `breaker replay` over crafted captures.

use std::fs;
use std::path::{Path, PathBuf};

use breaker_tests::command::{CliOutput, breaker};
use breaker_tests::frame::{message, order};
use breaker_tests::pcap_file::{PcapFile, Sender};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_tests::tmux::{PROMPT, Tmux};
use serde_json::{Value, json};
use tempfile::TempDir;

/// 30 November 2026, 09:30 UTC, ns since 1970.
const OPEN: u64 = 1_796_031_000_000_000_000;
const MS: u64 = 1_000_000;
const HOST: &str = "[host]\ninterfaces = [\"lo\"]\n";

/// A directory with a configuration and captures.
struct Files(TempDir);

impl Files {
    fn new(policy: &str) -> Self {
        let files = Self(TempDir::new().expect("a directory"));
        files.write("breaker.toml", format!("{HOST}{policy}").as_bytes());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("writing a file");
    }

    /// Runs `breaker replay` with these words behind the configuration.
    fn replay(&self, words: &[&str]) -> CliOutput {
        let config = self.path("breaker.toml");
        let words: Vec<_> = words
            .iter()
            .map(|word| match word.strip_prefix('@') {
                Some(name) => self.path(name).to_str().expect("UTF-8").to_owned(),
                None => (*word).to_owned(),
            })
            .collect();
        let words = words.iter().map(String::as_str);
        let fixed = ["replay", "--config", config.to_str().expect("UTF-8")];
        breaker(&fixed.into_iter().chain(words).collect::<Vec<_>>())
    }
}

fn open(file: &mut PcapFile, port: u16) -> Sender {
    let socket = |address: &str, port| format!("{address}:{port}").parse().expect("a socket address");
    Sender::open(file, OPEN, socket("10.9.0.1", 40_000 + port), socket("10.9.0.2", port))
}

/// A session that sends orders every 10 ms, goes wild for a tenth of a second, and goes on.
fn runaway() -> PcapFile {
    let mut file = PcapFile::default();
    let mut sender = open(&mut file, 9_001);
    sender.send(&mut file, OPEN + MS, &message("FIX.4.4", "A", b"98=0\x01108=30\x01"));
    for number in 0..400 {
        let at = OPEN + 1_000 * MS + u64::from(number) * 10 * MS;
        sender.send(&mut file, at, &order(number));
        if (200..210).contains(&number) {
            (1..=20).for_each(|i| sender.send(&mut file, at + u64::from(i) * MS / 4, &order(i)));
        }
    }
    sender.send(&mut file, OPEN + 6_000 * MS, &message("FIX.4.4", "F", b"11=C\x0141=R\x01"));
    file
}

#[test]
fn a_runaway_trips_at_its_limit_and_everything_behind_it_is_withheld() {
    let files = Files::new(&super::POLICY.replace("max = 5,", "max = 250,"));
    files.write("day.pcap", runaway().bytes());
    let view = files.replay(&["@day.pcap", "--json"]).expect_exit(0).json();
    let session = &view["sessions"][1];
    assert_eq!(session["name"], "x1");
    let passed = session["messages"]["order"]["passed"].as_u64().expect("a number");
    assert_eq!(session["messages"]["order"], json!({ "passed": passed, "withheld": 600 - passed }));
    assert_eq!(session["messages"]["cancel"], json!({ "passed": 0, "withheld": 1 }));
    assert_eq!(session["messages"]["admin"], json!({ "passed": 1, "withheld": 0 }));
    // Steady trading has 200 orders in a window. Two bursts of 20 and 10 of the third one fill it up to 250.
    // By then the steady orders 0 to 202 have passed.
    assert_eq!(passed, 203 + 20 + 20 + 10);
    let trip = &view["trips"][0];
    assert_eq!((&trip["scope"], &trip["cause"]), (&json!("session/x1"), &json!("rate")));
    assert_eq!((&trip["used"], &trip["limit"]), (&json!(251), &json!("250 order per 2s")));
    assert_eq!(trip["at"], session["first_withheld"]);
    let limit = &view["scopes"][3]["limits"][0];
    assert_eq!((&limit["class"], &limit["max"], &limit["per"]), (&json!("order"), &json!(250), &json!("2s")));
    // Without the trip the whole burst is in a window.
    assert_eq!(limit["peak"], 400);
    assert_eq!(limit["exceeded"]["at"], trip["at"]);
    assert_eq!(limit["warned"][0]["level"], 125);
    assert_eq!(limit["times_exceeded"], 1);
    assert_eq!((&view["exact"], &view["packets"]["read"]), (&json!(true), &json!(603)));

    let text = files.replay(&["@day.pcap"]).expect_exit(0).stdout;
    for word in
        ["WOULD TRIP", "session/x1", "251 in the window of 250 order per 2s", "347 withheld", "09:30:03"]
    {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
}

#[test]
fn a_capture_within_the_limits_trips_nothing() {
    let files = Files::new(super::POLICY);
    let mut file = PcapFile::default();
    let mut sender = open(&mut file, 9_002);
    (0..5).for_each(|i| sender.send(&mut file, OPEN + u64::from(i) * MS, &order(i)));
    files.write("calm.pcap", file.bytes());
    let text = files.replay(&["@calm.pcap"]).expect_exit(0).stdout;
    assert!(text.contains("Nothing would have tripped.") && text.contains("exact   yes"), "{text}");
}

#[test]
fn a_capture_that_breaks_off_is_read_up_to_there_and_ends_with_9() {
    let files = Files::new(super::POLICY);
    let mut file = PcapFile::default();
    let mut sender = open(&mut file, 9_002);
    (0..3).for_each(|i| sender.send(&mut file, OPEN, &order(i)));
    let good = file.bytes().len();
    sender.send(&mut file, OPEN, &order(3));
    let whole = file.bytes();
    let mut damaged = whole.to_vec();
    damaged[good + 8..good + 12].copy_from_slice(&[0xff; 4]);
    for (name, bytes, found) in [
        ("inside.pcap", &whole[..good + 100], "ends inside a record, after 100 bytes"),
        ("header.pcap", &whole[..good + 7], "ends inside a record, after 7 bytes"),
        ("damaged.pcap", &damaged[..], "a record of 4294967311 bytes"),
    ] {
        files.write(name, bytes);
        let view = files.replay(&[&format!("@{name}"), "--json"]).expect_exit(9).json();
        let broken = &view["captures"][0]["broken"];
        assert_eq!((&broken["offset"], &broken["packet"]), (&json!(good), &json!(5)), "{view:#}");
        assert!(broken["found"].as_str().is_some_and(|text| text.contains(found)), "{broken}");
        assert_eq!(view["sessions"][2]["messages"]["order"]["passed"], 3, "everything before counts");
        let text = files.replay(&[&format!("@{name}")]).expect_exit(9).stdout;
        assert!(text.contains(&format!("at byte {good}, packet 5")), "{text}");
    }
}

#[test]
fn a_block_that_is_shorter_than_its_frame_is_damaged() {
    let files = Files::new(super::POLICY);
    let section = include_bytes!("../../../fuzz/corpus/replay/short-unknown-block");
    files.write("short.pcapng", section);
    let view = files.replay(&["@short.pcapng", "--json"]).expect_exit(9).json();
    let broken = &view["captures"][0]["broken"];
    assert_eq!((&broken["offset"], &broken["packet"]), (&json!(28), &json!(1)), "{view:#}");
    assert!(broken["found"].as_str().is_some_and(|text| text.contains("a block of 6 bytes")), "{broken}");
}

#[test]
fn a_file_that_is_no_capture_is_refused_with_its_first_bytes() {
    let files = Files::new(super::POLICY);
    for (name, bytes, found) in [
        ("text", &b"8=FIX.4.4|9=5|35=0|10=000|"[..], "starts with the bytes 38 3d 46 49"),
        ("empty", b"", "an empty file"),
        ("short", b"\xd4\xc3\xb2\xa1\x02", "only 5 bytes"),
    ] {
        files.write(name, bytes);
        let output = files.replay(&[&format!("@{name}")]).expect_exit(2);
        output.expect_stderr(found).expect_stderr("name a pcap or pcapng file");
    }
    files.replay(&["@missing"]).expect_exit(2).expect_stderr("No such file");
    files.replay(&["@."]).expect_exit(2).expect_stderr("it is a directory");
}

#[test]
fn captures_are_read_in_the_order_of_time() {
    let files = Files::new(super::POLICY);
    let (mut first, mut second) = (PcapFile::default(), PcapFile::default());
    let mut sender = open(&mut first, 9_002);
    for i in 0..10 {
        // Each file has every other segment.
        let file = if i % 2 == 0 { &mut first } else { &mut second };
        sender.send(file, OPEN + u64::from(i + 1) * MS, &order(i));
    }
    files.write("a.pcap", first.bytes());
    files.write("b.pcap", second.bytes());
    let view = files.replay(&["@b.pcap", "@a.pcap", "--json"]).expect_exit(0).json();
    assert_eq!(view["sessions"][2]["messages"]["order"]["passed"], 10, "{view:#}");
    assert_eq!((&view["exact"], &view["first"]), (&json!(true), &json!("2026-11-30T09:30:00Z")));
    let packets: Vec<_> = [0, 1].map(|i| view["captures"][i]["packets"].clone()).into();
    assert_eq!(packets, [json!(5), json!(6)]);
}

#[test]
fn bytes_that_the_capture_does_not_have_are_reported() {
    let files = Files::new(super::POLICY);
    let mut file = PcapFile::default();
    let mut sender = open(&mut file, 9_002);
    sender.send(&mut file, OPEN, &order(1));
    sender.send(&mut PcapFile::default(), OPEN, &order(2));
    (3..9).for_each(|i| sender.send(&mut file, OPEN + u64::from(i) * 1_000 * MS, &order(i)));
    files.write("gap.pcap", file.bytes());
    let view = files.replay(&["@gap.pcap", "--json"]).expect_exit(0).json();
    assert_eq!(view["exact"], false);
    assert!(view["notes"][0].as_str().is_some_and(|note| note.starts_with("1 gaps in streams")), "{view:#}");
    assert_eq!(view["sessions"][2]["messages"]["order"]["passed"], 7, "{view:#}");
}

#[test]
fn undeclared_flows_are_listed_with_their_comp_ids() {
    let files = Files::new(super::POLICY);
    let mut file = PcapFile::default();
    let mut sender = open(&mut file, 7_777);
    (0..4).for_each(|i| sender.send(&mut file, OPEN, &order(i)));
    files.write("day.pcap", file.bytes());
    let view = files.replay(&["@day.pcap", "--json"]).expect_exit(0).json();
    let flow: &Value = &view["undeclared"][0];
    assert_eq!(
        (&flow["remote"], &flow["sender"], &flow["target"]),
        (&json!("10.9.0.2:7777"), &json!("FIRM"), &json!("VENUE"))
    );
    assert_eq!(flow["messages"]["order"], json!({ "passed": 4, "withheld": 0 }));
}

/// The picture in the documents is the plot of the runaway.
#[test]
fn the_picture_in_the_documents_is_a_plot_of_the_current_version() {
    let files = Files::new(
        "[[session]]\nname = \"xnys-1\"\nremote = \"10.9.0.2:9001\"\n\
         limits = [{ class = \"order\", max = 250, per = \"2s\" }]\n",
    );
    files.write("day.pcap", runaway().bytes());
    files.replay(&["@day.pcap", "--plot", "@plot.svg"]).expect_exit(0);
    let svg = fs::read_to_string(files.path("plot.svg")).expect("the plot");
    assert!(svg.contains("session/xnys-1: 250 order per 2s; peak 400"), "{svg}");
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures/replay.svg");
    if std::env::var_os("BREAKER_RENEW_PICTURE").is_some() {
        fs::write(&picture, &svg).expect("writing the picture");
    }
    let known = fs::read_to_string(&picture).unwrap_or_default();
    assert!(
        known == svg,
        "{} is not the plot of this version: run this test with BREAKER_RENEW_PICTURE=1",
        picture.display()
    );
    files.replay(&["@day.pcap", "--plot", "@no/plot.svg"]).expect_exit(2).expect_stderr("writing the plot");
}

#[test]
fn a_terminal_shows_the_progress_in_ascii_and_is_clean_afterwards() {
    require_root!();
    let files = Files::new(super::POLICY);
    let file = runaway();
    let (header, packets) = file.bytes().split_at(24);
    // Long enough to see the progress.
    let long = [header, &packets.repeat(40_000_000 / packets.len())].concat();
    files.write("long.pcap", &long);
    let tmux = Tmux::start(&Testbed::unloaded(super::POLICY));
    let path = |name| files.path(name).display().to_string();
    let (config, capture, out) = (path("breaker.toml"), path("long.pcap"), path("out"));
    tmux.line(&format!("clear; breaker replay --config {config} {capture} > {out}"));
    let screen = tmux.wait_for("=>");
    let line = screen.lines().find(|line| line.contains("MiB/s")).unwrap_or_default();
    assert!(line.contains("=>") && line.contains("MiB/38.") && line.is_ascii(), "{screen}");
    let screen = tmux.wait_for(PROMPT);
    assert!(!screen.contains("MiB/s"), "{screen}");
    let out = fs::read_to_string(out).expect("the output");
    assert!(out.contains("packets") && !out.contains("MiB"), "{out}");
    // Without a terminal there is no progress.
    assert_eq!(files.replay(&["@long.pcap"]).expect_exit(0).stderr, "");
}
