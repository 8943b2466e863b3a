//! The counts of breaker compared with those of Wireshark's FIX dissector, on the packets at the venue.
//!
//! The dissector is wrong on data fields with SOH, and on captures with gaps. These captures have neither.

#[path = "tshark/replay.rs"]
mod replay;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use breaker_common::class::{self};
use breaker_common::fix::MsgType;
use breaker_common::message::Class;
use breaker_tests::frame::message;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::{Namespace, TwoHosts};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
"#;
/// Every class, types of one and of two characters, and two in no dictionary.
const TYPES: [&str; 20] = [
    "D", "D", "D", "G", "E", "AB", "s", "U1", "UXYZ", "F", "F", "q", "R", "AE", "H", "V", "8", "0", "1", "n",
];

/// Number of messages of each MsgType.
type Counts = BTreeMap<String, u64>;

/// Pseudo-random numbers (xorshift), the same in each run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// dumpcap, of the package tshark, at the venue's interface. The process ends when the value is dropped.
struct Capture {
    child: Child,
    stderr: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Capture {
    /// Starts the capture, and returns when it has begun.
    fn start(venue: &Namespace, file: PathBuf) -> Self {
        let mut command = Command::new("dumpcap");
        // -B is in MiB: room for the whole capture, so that nothing is lost while dumpcap gets no CPU. With
        // -a it ends also if the test was killed.
        command
            .args([
                "-i",
                TwoHosts::INTERFACE,
                "-f",
                "tcp port 9001 or udp port 9001",
                "-s",
                "0",
                "-B",
                "128",
                "-a",
                "duration:600",
                "-w",
            ])
            .arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let spawned = venue.run(|| command.spawn());
        let mut child =
            spawned.unwrap_or_else(|error| panic!("running dumpcap: {error}: install the package tshark"));
        let mut stderr = BufReader::new(child.stderr.take().expect("its messages"));
        let mut so_far = String::new();
        while !so_far.contains("File: ") {
            assert!(
                stderr.read_line(&mut so_far).expect("reading from dumpcap") > 0,
                "dumpcap ended: {so_far}"
            );
        }
        Self { child, stderr, file }
    }

    /// Stops the capture when it holds a last datagram. Returns the line on losses.
    fn finish(mut self, firm: &Namespace) -> String {
        const LAST: &[u8] = b"that was all of it";
        let until = Instant::now() + Duration::from_secs(60);
        while !self.holds(LAST) {
            assert!(Instant::now() < until, "the last datagram is not in the capture");
            firm.run(|| {
                UdpSocket::bind((TwoHosts::FIRM, 0))
                    .and_then(|socket| socket.send_to(LAST, (TwoHosts::VENUE, 9001)))
            })
            .expect("sending the last datagram");
            std::thread::sleep(Duration::from_millis(100));
        }
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("ending dumpcap");
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).expect("reading from dumpcap");
        stderr
    }

    /// Returns true if the end of the file contains these bytes.
    fn holds(&self, needle: &[u8]) -> bool {
        let mut file = File::open(&self.file).expect("opening the capture");
        let length = file.metadata().expect("its length").len();
        file.seek(SeekFrom::Start(length.saturating_sub(65_536))).expect("seeking");
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).expect("reading the capture");
        tail.windows(needle.len()).any(|window| window == needle)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Messages of all types, FIX 4.2 to 5.0, of 60 to 700 bytes, and the number of each type.
fn mixed(messages: usize, rng: &mut Rng) -> (Vec<u8>, Counts) {
    let (mut bytes, mut counts) = (Vec::new(), Counts::new());
    for id in 0..messages {
        let msg_type = TYPES[rng.below(TYPES.len())];
        let begin = ["FIX.4.2", "FIX.4.4", "FIXT.1.1"][rng.below(3)];
        let fields = format!("11=R-{id}\x0158={}\x01", "x".repeat(rng.below(600)));
        bytes.extend_from_slice(&message(begin, msg_type, fields.as_bytes()));
        *counts.entry(msg_type.to_owned()).or_default() += 1;
    }
    (bytes, counts)
}

/// How the bytes of a connection are cut into segments.
#[derive(Clone, Copy, Debug)]
struct Cuts {
    /// Largest write, bytes; the smallest is 1.
    largest: usize,
    /// False: Nagle's algorithm joins small writes.
    nodelay: bool,
    messages: usize,
}

/// Sends mixed messages to the venue over one connection. Returns the number of each type that arrived.
fn converse(testbed: &Testbed, venue: IpAddr, cuts: Cuts, seed: u64) -> Counts {
    let mut rng = Rng(seed);
    let (bytes, counts) = mixed(cuts.messages, &mut rng);
    let to = SocketAddr::new(venue, 9001);
    let listener = testbed.network.venue.run(|| TcpListener::bind(to)).expect("listening");
    let mut stream = testbed.connect_to(to);
    stream.set_nodelay(cuts.nodelay).expect("the option");
    let reader = std::thread::spawn(move || {
        let mut came = Vec::new();
        listener.accept().expect("accepting").0.read_to_end(&mut came).map(|_| came)
    });
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + rng.below(cuts.largest)).min(rest.len()));
        stream.write_all(now).expect("sending");
        rest = later;
    }
    drop(stream);
    let came = reader.join().expect("the reader").expect("receiving");
    assert!(came == bytes, "what came is not what was sent");
    counts
}

/// Number of messages of each type that Wireshark finds, by TCP stream.
fn dissected(file: &Path) -> BTreeMap<u32, Counts> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-d", "tcp.port==9001,fix", "-Y", "fix"]);
    command.args(["-o", "tcp.reassemble_out_of_order:TRUE", "-o", "tcp.desegment_tcp_streams:TRUE"]);
    command.args(["-T", "fields", "-E", "occurrence=a", "-e", "tcp.stream", "-e", "fix.MsgType"]);
    let ran = command
        .output()
        .unwrap_or_else(|error| panic!("running tshark: {error}: install the package tshark"));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let mut streams = BTreeMap::<u32, Counts>::new();
    for line in String::from_utf8(ran.stdout).expect("text").lines() {
        let (stream, types) = line.split_once('\t').expect("two fields");
        let counts = streams.entry(stream.parse().expect("a number")).or_default();
        for msg_type in types.split(',') {
            *counts.entry(msg_type.to_owned()).or_default() += 1;
        }
    }
    streams
}

fn by_class(counts: &Counts) -> [u64; 5] {
    let mut classes = [0; 5];
    for (msg_type, count) in counts {
        let class: Class = class::default_class(MsgType::new(msg_type).expect("a type of up to 8 bytes"));
        classes[class as usize] += count;
    }
    classes
}

fn add(a: [u64; 5], b: [u64; 5]) -> [u64; 5] {
    std::array::from_fn(|class| a[class] + b[class])
}

#[test]
fn the_kernels_counts_equal_those_of_wireshark_however_the_stream_is_cut() {
    require_root!();
    let cuts = |largest, nodelay, messages| Cuts { largest, nodelay, messages };
    for cuts in
        [cuts(20, true, 300), cuts(1_000, true, 5_000), cuts(70_000, true, 20_000), cuts(300, false, 20_000)]
    {
        let testbed = Testbed::load(POLICY);
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("venue.pcapng");
        let capture = Capture::start(&testbed.network.venue, file.clone());
        let mut sent: Vec<Counts> = std::thread::scope(|scope| {
            let v4 = scope.spawn(|| converse(&testbed, TwoHosts::VENUE, cuts, 0x5eed));
            let v6 = scope.spawn(|| converse(&testbed, TwoHosts::VENUE_V6, cuts, 0xfeed));
            [v4, v6].map(|connection| connection.join().expect("a connection")).into()
        });
        let losses = capture.finish(&testbed.network.firm);
        assert!(losses.contains("/0 (pcap:0/dumpcap:0/"), "the capture has holes: {losses}");

        let mut found: Vec<Counts> = dissected(&file).into_values().collect();
        let counters = testbed.counters(1);
        println!("{cuts:?}: {:?} in {} segments", counters.passed, counters.packets_passed);
        assert_eq!(found.iter().map(by_class).fold([0; 5], add), counters.passed, "{cuts:?}");
        assert_eq!((counters.withheld, counters.desyncs), ([0; 5], 0));
        // The order of the connections is not known.
        sent.sort();
        found.sort();
        assert_eq!(found, sent, "{cuts:?}");
    }
}
