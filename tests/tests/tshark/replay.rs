//! `breaker replay` against Wireshark, on captures of real connections.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use breaker_common::message::Class;
use breaker_tests::command::{CliOutput, breaker};
use breaker_tests::network;
use serde_json::Value;

use super::*;

/// Runs `breaker replay` over a capture.
fn replay(testbed: &Testbed, file: &Path) -> CliOutput {
    let config = testbed.config();
    breaker(&["replay", "--config", text(&config), text(file), "--json"])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Number of messages of session x1 by class, with those that would be withheld.
fn counted(view: &Value) -> [u64; 5] {
    Class::ALL.map(|class| {
        let messages = &view["sessions"][1]["messages"][class.name()];
        let verdict = |name: &str| messages[name].as_u64().unwrap_or_else(|| panic!("{messages}"));
        verdict("passed") + verdict("withheld")
    })
}

/// Converts a capture with a program of the package tshark, or with gzip.
fn convert(program: &str, args: &[&str], from: &Path, to: &str) -> PathBuf {
    let to = from.with_file_name(to);
    let ran = Command::new(program).args(args).args([from, &to]).output().expect("running a converter");
    assert!(ran.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    to
}

/// Drops a part of the connection's packets in a namespace.
fn lose(namespace: &Namespace, chain: &str, percent: u32) {
    let rules = format!(
        "add table inet loss\nadd chain inet loss lose {{ type filter hook {chain} priority 0; }}\n\
         add rule inet loss lose tcp dport 9001 numgen random mod 100 < {percent} drop\n"
    );
    let ran = namespace.run(|| Command::new("nft").args(["-f", "-"]).stdin(feed(&rules)).output());
    let ran = ran.expect("running nft");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// A pipe that holds a text.
fn feed(text: &str) -> Stdio {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(text.as_bytes()).expect("writing into a pipe");
    reader.into()
}

/// A capture of two connections to the venue, and the messages by class that crossed.
fn capture(testbed: &Testbed, venues: [IpAddr; 2], cuts: Cuts, file: &Path) -> [u64; 5] {
    let capture = Capture::start(&testbed.network.venue, file.to_owned());
    let sent = std::thread::scope(|scope| {
        let connections = venues.map(|venue| scope.spawn(move || converse(testbed, venue, cuts, 0xace)));
        connections.map(|connection| by_class(&connection.join().expect("a connection")))
    });
    let losses = capture.finish(&testbed.network.firm);
    assert!(losses.contains("/0 (pcap:0/dumpcap:0/"), "the capture has holes: {losses}");
    let sent = sent.into_iter().fold([0; 5], add);
    assert_eq!(dissected(file).values().map(by_class).fold([0; 5], add), sent, "Wireshark");
    sent
}

#[test]
fn a_replay_counts_as_wireshark_with_loss_and_reordering_in_every_file_format() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let directory = TempDir::new().expect("a directory");
    let pcapng = directory.path().join("venue.pcapng");
    // Packets that are lost before the capture arrive out of order, those lost behind it arrive twice.
    lose(&testbed.network.firm, "output", 2);
    lose(&testbed.network.venue, "input", 2);
    let cuts = Cuts { largest: 3_000, nodelay: true, messages: 4_000 };
    let sent = capture(&testbed, [TwoHosts::VENUE, TwoHosts::VENUE_V6], cuts, &pcapng);
    let pcap = convert("editcap", &["-F", "pcap"], &pcapng, "venue.pcap");
    let files = [
        convert("editcap", &["-F", "nsecpcap"], &pcapng, "venue-ns.pcap"),
        convert("sh", &["-c", "gzip < $0 > $1"], &pcap, "venue.pcap.gz"),
        convert("sh", &["-c", "gzip < $0 > $1"], &pcapng, "venue.pcapng.gz"),
        pcap,
        pcapng,
    ];
    for file in files {
        let view = replay(&testbed, &file).expect_exit(0).json();
        assert_eq!(counted(&view), sent, "{}: {view:#}", file.display());
        assert_eq!(view["exact"], true, "{view:#}");
        let resent = view["sessions"][1]["retransmitted"].as_u64().expect("a number");
        assert!(resent > 3, "{resent} segments were retransmitted");
    }
}

/// Form of a rewritten pcap file.
#[derive(Clone, Copy)]
struct Form {
    /// LINKTYPE_ of the packets.
    link: u32,
    /// Byte order of the file.
    is_big_endian: bool,
}

/// Writes a capture of Ethernet again as pcap, with these bytes for each packet.
fn rewrite(from: &Path, form: Form, packet: impl Fn(&[u8]) -> Vec<u8>, to: &str) -> PathBuf {
    let order = |word: u32| if form.is_big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
    let version = if form.is_big_endian { 0x0002_0004 } else { 0x0004_0002 };
    let mut packets = breaker_replay::capture::Capture::open(File::open(from).expect("opening the capture"))
        .expect("a capture");
    let mut written = [0xa1b2_3c4d_u32, version, 0, 0, 1 << 18, form.link].map(order).concat();
    while packets.advance() {
        let found = packets.packet().expect("a packet");
        let data = packet(found.data);
        let (time, length) = (found.time_ns.expect("a time"), data.len() as u32);
        let record = [(time / 1_000_000_000) as u32, (time % 1_000_000_000) as u32, length, length];
        written.extend(record.map(order).concat());
        written.extend(data);
    }
    let to = from.with_file_name(to);
    std::fs::write(&to, written).expect("writing the capture");
    to
}

/// Asserts that Wireshark and a replay count the messages of a capture.
#[track_caller]
fn expect_counts(testbed: &Testbed, file: &Path, sent: [u64; 5]) {
    assert_eq!(dissected(file).values().map(by_class).fold([0; 5], add), sent, "Wireshark: {file:?}");
    let view = replay(testbed, file).expect_exit(0).json();
    assert_eq!((counted(&view), &view["exact"]), (sent, &Value::Bool(true)), "{file:?}: {view:#}");
}

#[test]
fn a_replay_counts_as_wireshark_behind_one_and_two_vlan_tags() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("venue.pcapng");
    let cuts = Cuts { largest: 1_000, nodelay: true, messages: 1_000 };
    let sent = capture(&testbed, [TwoHosts::VENUE, TwoHosts::VENUE_V6], cuts, &file);
    // The kernel of a test machine need not have VLAN devices, so the tags are added to the packets.
    const INNER: [u8; 4] = [0x81, 0, 0, 7];
    const OUTER: [u8; 4] = [0x88, 0xa8, 0, 9];
    let form = Form { link: 1, is_big_endian: false };
    for (tags, name) in [(&[INNER][..], "tagged.pcap"), (&[OUTER, INNER], "twice.pcap")] {
        let tagged = |data: &[u8]| [&data[..12], &tags.concat(), &data[12..]].concat();
        expect_counts(&testbed, &rewrite(&file, form, tagged, name), sent);
    }
}

#[test]
fn a_replay_counts_as_wireshark_with_every_link_type_in_both_byte_orders() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("venue.pcapng");
    let cuts = Cuts { largest: 1_000, nodelay: true, messages: 500 };
    let sent = capture(&testbed, [TwoHosts::VENUE, TwoHosts::VENUE_V6], cuts, &file);
    // Protocol families of BSD, which Wireshark reads too.
    let family = |ethertype: &[u8]| if ethertype == [8, 0] { 2_u32 } else { 24 };
    let header = |link: u32, is_big_endian: bool, ethertype: &[u8]| match link {
        0 if is_big_endian => family(ethertype).to_be_bytes().to_vec(),
        0 => family(ethertype).to_le_bytes().to_vec(),
        108 => family(ethertype).to_be_bytes().to_vec(),
        // Received by the host, Ethernet, six bytes of address.
        113 => [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0], ethertype].concat(),
        276 => [ethertype, &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]].concat(),
        _ => Vec::new(),
    };
    for is_big_endian in [false, true] {
        for link in [0, 1, 101, 108, 113, 276] {
            let packet = |data: &[u8]| match link {
                1 => data.to_vec(),
                _ => [&header(link, is_big_endian, &data[12..14]), &data[14..]].concat(),
            };
            let name = format!("link-{link}-{is_big_endian}.pcap");
            expect_counts(&testbed, &rewrite(&file, Form { link, is_big_endian }, packet, &name), sent);
        }
    }
}

#[test]
fn a_short_snaplen_counts_exactly_where_headers_are_there_and_says_where_not() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let directory = TempDir::new().expect("a directory");
    let whole = directory.path().join("venue.pcapng");
    let capture_all = Capture::start(&testbed.network.venue, whole.clone());
    let to = SocketAddr::new(TwoHosts::VENUE, 9001);
    let listener = testbed.network.venue.run(|| TcpListener::bind(to)).expect("listening");
    let mut stream = network::connect(&testbed.network, to);
    let (mut peer, _) = listener.accept().expect("accepting");
    let mut all = Counts::new();
    for id in 0..200 {
        let (bytes, counts) = mixed(1, &mut Rng(id + 1));
        stream.write_all(&bytes).expect("sending");
        peer.read_exact(&mut vec![0; bytes.len()]).expect("receiving");
        counts.into_iter().for_each(|(msg_type, count)| *all.entry(msg_type).or_default() += count);
        std::thread::sleep(Duration::from_micros(200));
    }
    drop((stream, peer, listener));
    capture_all.finish(&testbed.network.firm);
    // 66 bytes of headers, then the header of the message.
    let cut = convert("editcap", &["-s", "104"], &whole, "cut.pcapng");
    let view = replay(&testbed, &cut).expect_exit(0).json();
    let found: Counts = dissected(&whole).into_values().next().expect("a stream");
    assert_eq!((&found, counted(&view)), (&all, by_class(&all)), "{view:#}");
    assert_eq!((&view["exact"], view["packets"]["cut"].as_u64() > Some(100)), (&Value::Bool(true), true));

    // Several messages in a segment: only the first header is there.
    let joined = directory.path().join("joined.pcapng");
    let cuts = Cuts { largest: 70_000, nodelay: true, messages: 2_000 };
    let sent = capture(&testbed, [TwoHosts::VENUE, TwoHosts::VENUE_V6], cuts, &joined);
    let cut = convert("editcap", &["-s", "104"], &joined, "joined-cut.pcapng");
    let view = replay(&testbed, &cut).expect_exit(0).json();
    assert_eq!(view["exact"], false);
    let notes = view["notes"].to_string();
    assert!(notes.contains("cut by the snaplen where a message may start"), "{notes}");
    assert!(counted(&view)[0] >= sent[0], "bytes count as no fewer orders than they have: {view:#}");
}
