//! Attacks by an account without privileges, by a peer, and by senders of crafted frames. No order of theirs
//! crosses a limit or a trip, and no other traffic is withheld.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use aya::util::KernelVersion;
use breaker_common::abi::unseen;
use breaker_common::decide::SYN;
use breaker_tests::frame::{ACK, Frame, message, order};
use breaker_tests::packet_socket::PacketSocket;
use breaker_tests::receiver::Receiver;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;
use rustix::net::{AddressFamily, Protocol, SocketType, bind, connect, ipproto, listen, socket};

/// Time after which no more segments arrive.
const QUIET: Duration = Duration::from_millis(400);
/// An account without privileges.
const NOBODY: u32 = 65_534;

fn testbed(host: &str, keys: &str) -> (Testbed, Receiver) {
    let testbed =
        Testbed::load(&format!("{host}\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{keys}"));
    let receiver = testbed.listen(9001);
    (testbed, receiver)
}

const FIVE: &str = "limits = [{ class = \"order\", max = 5, per = \"total\" }]";

/// Number of orders at the venue, on all connections.
fn orders(receiver: &Receiver) -> usize {
    receiver
        .received()
        .iter()
        .map(|one| one.bytes.windows(6).filter(|window| window == b"\x0135=D\x01").count())
        .sum()
}

/// Connects from the trading host by another account, sends bytes, and closes.
fn send_as_another_account(testbed: &Testbed, port: u16, bytes: &str) {
    let script = format!("exec 3<>/dev/tcp/10.9.0.2/{port} && printf '{bytes}' >&3; sleep 0.1");
    let ran = testbed.on_host(|| Command::new("bash").args(["-c", &script]).uid(NOBODY).gid(NOBODY).output());
    let ran = ran.expect("running bash");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_second_syn_from_the_same_addresses_takes_nothing_over() {
    require_root!();
    for tripped in [false, true] {
        let (testbed, receiver) = testbed("", FIVE);
        if tripped {
            testbed.trip("session/x1");
        }
        let mut line = receiver.connect(&testbed);
        let from = line.stream.local_addr().expect("an address");
        for offset in [1 << 20, 1 << 30, u32::MAX / 2 + 9] {
            // The frame is as of a second socket with the same four addresses, which Linux allows an account
            // (SO_BINDTODEVICE).
            testbed.inject_frames(&[Frame::new(from, TwoHosts::venue_socket(9001), offset, b"")
                .with_flags(SYN)
                .bytes()]);
        }
        for id in 0..50 {
            line.try_send(&order(id));
            sleep(Duration::from_millis(1));
        }
        sleep(QUIET);
        assert_eq!(orders(&receiver), if tripped { 0 } else { 5 });
    }
}

#[test]
fn urgent_data_hides_nothing() {
    require_root!();
    let inner: Vec<u8> = (0..60).flat_map(order).collect();
    let heartbeat = message("FIX.4.4", "0", format!("58={}\x01", "x".repeat(1_100)).as_bytes());
    let digits = heartbeat.windows(3).position(|window| window == b"\x019=").expect("a length") + 3;
    for tripped in [false, true] {
        let (testbed, receiver) = testbed("", FIVE);
        if tripped {
            testbed.trip("session/x1");
        }
        let mut line = receiver.connect(&testbed);
        // One more digit of BodyLength, which the venue never receives, makes the orders look like the body
        // of the message.
        line.try_send(&heartbeat[..digits]);
        // SAFETY: a plain system call with a buffer of one byte.
        let sent = unsafe { libc::send(line.stream.as_raw_fd(), b"1".as_ptr().cast(), 1, libc::MSG_OOB) };
        assert!(sent == 1 || tripped, "sending it: {}", std::io::Error::last_os_error());
        line.try_send(&[&heartbeat[digits..], &inner].concat());
        sleep(QUIET);
        assert!(
            orders(&receiver) <= if tripped { 0 } else { 5 },
            "{} orders, tripped: {tripped}",
            orders(&receiver)
        );
    }
}

/// A file with these bytes, and its mapped pages.
struct Pages {
    file: std::fs::File,
    memory: *mut u8,
    length: usize,
}

impl Pages {
    fn new(bytes: &[u8]) -> Self {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writing");
        let (length, rights) = (bytes.len(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a plain system call; the file is as long as said.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), length, rights, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(memory, libc::MAP_FAILED, "mapping it");
        Self { file, memory: memory.cast(), length }
    }

    /// Overwrites the pages.
    fn overwrite(&self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.length);
        // SAFETY: a mapping of that length, which nothing else of this process reads.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory, self.length) };
    }
}

#[test]
fn pages_that_are_changed_after_they_were_sent_carry_no_orders() {
    require_root!();
    if KernelVersion::current().expect("a version") < KernelVersion::new(6, 2, 0) {
        println!("SKIP: this kernel cannot tell");
        return;
    }
    let orders_to_be: Vec<u8> = (0..40).flat_map(order).collect();
    let harmless =
        String::from_utf8(orders_to_be.clone()).expect("text").replace("\x0135=D\x01", "\x0135=0\x01");
    for tripped in [false, true] {
        let (testbed, receiver) = testbed("", FIVE);
        if tripped {
            testbed.trip("session/x1");
        }
        // Sent segments wait behind the hook.
        testbed.on_host(|| {
            let slow = [
                "qdisc", "add", "dev", "eth1", "root", "tbf", "rate", "100kbit", "burst", "5000", "limit",
                "1000000",
            ];
            assert!(Command::new("tc").args(slow).status().expect("running tc").success());
        });
        let line = receiver.connect(&testbed);
        let pages = Pages::new(harmless.as_bytes());
        let mut at = 0;
        // SAFETY: a plain system call with descriptors that are open.
        let sent = unsafe {
            libc::sendfile(line.stream.as_raw_fd(), pages.file.as_raw_fd(), &raw mut at, pages.length)
        };
        assert!(sent > 0 || tripped, "sending it: {}", std::io::Error::last_os_error());
        sleep(Duration::from_millis(50));
        pages.overwrite(&orders_to_be);
        sleep(3 * QUIET);
        assert_eq!(orders(&receiver), 0, "tripped: {tripped}");
        let counters = testbed.counters(1);
        assert!(counters.withheld[0] > 0, "its bytes count as orders: {counters:?}");
    }
}

/// A Multipath TCP socket (RFC 8684).
fn multipath_socket() -> OwnedFd {
    const MPTCP: u32 = 262;
    let protocol = Protocol::from_raw(MPTCP.try_into().expect("a number"));
    socket(AddressFamily::INET, SocketType::STREAM, Some(protocol)).expect("a Multipath TCP socket")
}

fn ip(words: &str) {
    let ran = Command::new("ip").args(words.split(' ')).output().expect("running ip");
    assert!(ran.status.success(), "{words}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_further_path_of_multipath_tcp_carries_nothing_past_a_reset() {
    require_root!();
    for on_trip in ["reset", "drop"] {
        let limit = "limits = [{ class = \"order\", max = 500, per = \"1s\" }]";
        let policy = format!(
            "on_trip = {on_trip:?}\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{limit}\n"
        );
        let testbed = Testbed::load(&policy);
        for namespace in [&testbed.network.firm, &testbed.network.venue] {
            namespace.run(|| ip("mptcp limits set subflow 8 add_addr_accepted 8"));
        }
        testbed.on_host(|| ip("addr add 10.9.0.11/24 dev eth1"));
        let at = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 2), 9001);
        let listener = testbed.network.venue.run(|| {
            let socket = multipath_socket();
            bind(&socket, &at)
                .and_then(|()| listen(&socket, 8))
                .map(|()| TcpListener::from(socket))
                .expect("listening")
        });
        let mut firm = testbed.on_host(|| {
            let socket = multipath_socket();
            connect(&socket, &at).map(|()| TcpStream::from(socket)).expect("connecting")
        });
        let (mut venue, _) = listener.accept().expect("accepting");
        venue.set_read_timeout(Some(Duration::from_secs(3))).expect("a time limit");
        let came = |venue: &mut TcpStream| {
            let mut bytes = vec![0; 1 << 16];
            venue
                .read(&mut bytes)
                .map_or(0, |length| bytes[..length].windows(6).filter(|at| at == b"\x0135=D\x01").count())
        };
        firm.write_all(&order(1)).expect("sending");
        assert_eq!(came(&mut venue), 1);
        testbed.trip("session/x1");
        for id in 2..12 {
            let _ = firm.write_all(&order(id));
        }
        sleep(QUIET);
        testbed.reset("session/x1");
        // An address comes up, as after a link flap: the kernel would send the undelivered bytes of the first
        // path again over it.
        testbed.on_host(|| ip("mptcp endpoint add 10.9.0.11 dev eth1 subflow"));
        assert_eq!(came(&mut venue), 0, "{on_trip}: stale orders after the reset");
    }
}

#[test]
fn what_another_account_sends_is_not_the_sessions_of_a_user() {
    require_root!();
    let (testbed, receiver) = testbed("", &format!("user = \"root\"\non_desync = \"trip\"\n{FIVE}"));
    let mut line = receiver.connect(&testbed);
    line.send_and_wait(&order(1));
    // A port check, noise, and orders of another application.
    send_as_another_account(&testbed, 9001, "\\n");
    send_as_another_account(&testbed, 9001, &"x".repeat(300));
    let text = String::from_utf8(order(7)).expect("text").replace('\x01', "\\001");
    send_as_another_account(&testbed, 9001, &text.repeat(9));
    for id in 2..=5 {
        line.send_and_wait(&order(id));
    }
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[0], counters.desyncs), (5, 0));
    assert_eq!(testbed.cli("status").exit_code, Some(0), "nothing has tripped");
    line.try_send(&order(6));
    line.wait_for_reset();
}

#[test]
fn undeclared_orders_of_another_account_do_not_trip_the_host() {
    require_root!();
    let (testbed, receiver) = testbed("limits = [{ class = \"order\", max = 20, per = \"1s\" }]", "");
    let other = testbed.listen(7777);
    let mut line = receiver.connect(&testbed);
    line.send_and_wait(&order(1));
    let text = String::from_utf8(order(7)).expect("text").replace('\x01', "\\001");
    send_as_another_account(&testbed, 7777, &text.repeat(60));
    other.wait("their orders", |all| all[0].complete("D") == 60);
    line.send_and_wait(&order(2));
    assert_eq!(testbed.cli("status").exit_code, Some(0));
}

#[test]
fn nothing_takes_a_place_from_a_live_connection() {
    require_root!();
    let (testbed, receiver) = testbed("connections = 64", "");
    let other = testbed.listen(7777);
    let mut first = receiver.connect(&testbed);
    first.send_and_wait(&order(1));
    // Short connections with a FIX message to another port, short ones to the session itself, and unanswered
    // attempts.
    for _ in 0..100 {
        let mut line = other.connect(&testbed);
        line.send_and_wait(&message("FIX.4.4", "0", b""));
        let mut line = receiver.connect(&testbed);
        line.send_and_wait(&order(2));
    }
    let from = |port| SocketAddr::new(TwoHosts::FIRM, port);
    let syns = (20_000..20_300)
        .map(|port| Frame::new(from(port), TwoHosts::venue_socket(9001), 1, b"").with_flags(SYN).bytes());
    testbed.inject_frames(&syns.collect::<Vec<_>>());
    let mut fresh = receiver.connect(&testbed);
    for id in 0..10 {
        fresh.send_and_wait(&order(id));
        first.send_and_wait(&order(id));
    }
    assert_eq!(testbed.counters(1).passed[0], 121);
    assert_eq!(testbed.status().packets["table_full"], 0);
}

#[test]
fn a_connection_that_the_peer_opens_is_nobodys() {
    require_root!();
    for answer in [b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), (0..8).flat_map(order).collect()] {
        let testbed = Testbed::load(&format!(
            "on_desync = \"trip\"\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{FIVE}"
        ));
        let service = testbed.on_host(|| TcpListener::bind((TwoHosts::FIRM, 22))).expect("listening");
        let mut peer = testbed.network.venue.run(|| {
            let socket =
                socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP)).expect("a socket");
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 2), 9001)).expect("the session's port");
            connect(&socket, &SocketAddr::new(TwoHosts::FIRM, 22)).expect("connecting");
            TcpStream::from(socket)
        });
        let (mut here, _) = service.accept().expect("accepting");
        here.write_all(&answer).expect("answering");
        let mut came = vec![0; answer.len()];
        peer.read_exact(&mut came).expect("the answer");
        testbed.trip("session/x1");
        here.write_all(b"and on").expect("a trip is nothing to it");
        peer.read_exact(&mut [0; 6]).expect("the rest");
        assert_eq!(testbed.counters(1).packets_passed + testbed.counters(1).packets_withheld, 0);
    }
}

/// A frame with headers between its hardware addresses and its IP header.
fn with_headers(frame: &Frame, headers: &[u8], ethertype: u16) -> Vec<u8> {
    let bytes = frame.bytes();
    [&bytes[..12], headers, &ethertype.to_be_bytes(), &bytes[14..]].concat()
}

#[test]
fn frames_of_other_kinds_are_read_or_counted_as_unseen() {
    require_root!();
    let (testbed, _sink) = testbed("on_trip = \"drop\"", FIVE);
    testbed.trip("session/x1");
    let (from, to) = (SocketAddr::new(TwoHosts::FIRM, 40_000), TwoHosts::venue_socket(9001));
    testbed.inject_frames(&[
        Frame::new(from, to, 999, b"").with_flags(SYN).bytes(),
        Frame::new(from, to, 1_000, b"").with_flags(ACK).bytes(),
    ]);
    let order = Frame::new(from, to, 1_000, &order(1));
    let plain = order.bytes();
    let ppp = {
        let length = (plain.len() - 14 + 2) as u16;
        [&plain[..12], &[0x88, 0x64, 0x11, 0, 0, 1], &length.to_be_bytes(), &[0, 0x21], &plain[14..]].concat()
    };
    let read = [
        ("three VLAN tags", with_headers(&order, &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3], 0x0800)),
        ("the tag 0x9100", with_headers(&order, &[0x91, 0, 0, 1, 0x81, 0, 0, 2], 0x0800)),
        (
            "two MPLS labels",
            [&with_headers(&order, &[], 0x8847)[..14], &[0, 1, 0x10, 64, 0, 2, 0x11, 64], &plain[14..]]
                .concat(),
        ),
        ("PPPoE", ppp),
        ("a header alone in the first fragment", order.fragments(24)[0].clone()),
        ("eight bytes in the first fragment", order.fragments(8)[0].clone()),
    ];
    let hook = PacketSocket::send_only(&testbed.network.firm, TwoHosts::INTERFACE);
    for (what, frame) in &read {
        assert!(!hook.send(frame), "{what}: it passes while tripped");
    }
    let other = |frame: &[u8], protocol: u8| {
        let mut frame = frame.to_vec();
        frame[23] = protocol;
        frame
    };
    let mut vxlan = other(&plain, 17);
    vxlan[36..38].copy_from_slice(&4789u16.to_be_bytes());
    let unread = [
        (unseen::VLAN, with_headers(&order, &[0x81, 0, 0, 1].repeat(7), 0x0800)),
        (
            unseen::MPLS,
            [&with_headers(&order, &[], 0x8847)[..14], &[0, 1, 0x10, 64].repeat(7)[..], &plain[14..]]
                .concat(),
        ),
        (unseen::IP_IN_IP, other(&plain, 4)),
        (unseen::GRE, other(&plain, 47)),
        (unseen::ESP, other(&plain, 50)),
        (unseen::VXLAN, vxlan),
        (unseen::LLC, [&plain[..12], &[0, 60, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &plain[14..]].concat()),
    ];
    for (kind, frame) in &unread {
        assert!(hook.send(frame), "kind {kind} passes");
    }
    let counted = testbed.with_breaker(|breaker| breaker.maps().unseen().expect("the counters"));
    let index = testbed.network.firm.index(TwoHosts::INTERFACE).expect("the interface");
    for (kind, _) in &unread {
        let of = counted.iter().find(|(key, _)| (key.ifindex, key.kind) == (index, *kind));
        assert!(of.is_some_and(|(_, packets)| *packets == 1), "kind {kind}: {counted:?}");
    }
    let shown = testbed.status_json();
    let problems = shown["enforced"]["problems"].as_array().expect("problems");
    assert!(problems.iter().any(|problem| problem["what"] == "unseen"), "{problems:?}");
}

#[test]
fn tcp_behind_more_extension_headers_than_are_read_does_not_reach_a_session() {
    require_root!();
    let testbed =
        Testbed::load("on_trip = \"drop\"\n[[session]]\nname = \"x1\"\nremote = \"[fd09::2]:9001\"\n");
    testbed.trip("session/x1");
    let hook = PacketSocket::send_only(&testbed.network.firm, TwoHosts::INTERFACE);
    let to = |address: &str| SocketAddr::new(address.parse().expect("an address"), 9001);
    let from = SocketAddr::new(TwoHosts::FIRM_V6, 40_000);
    let with_options = |to: SocketAddr, headers: usize| {
        let bytes = Frame::new(from, to, 1_000, &order(1)).bytes();
        let next = |n: usize| if n + 1 == headers { 6 } else { 60 };
        let options: Vec<u8> = (0..headers).flat_map(|n| [next(n), 0, 1, 4, 0, 0, 0, 0]).collect();
        let length = (bytes.len() - 54 + options.len()) as u16;
        let ip =
            [&bytes[14..18], &length.to_be_bytes()[..], &[if headers == 0 { 6 } else { 60 }], &bytes[21..54]]
                .concat();
        [&bytes[..14], &ip, &options, &bytes[54..]].concat()
    };
    for headers in [0, 1, 5, 12, 13, 30] {
        assert!(!hook.send(&with_options(to("fd09::2"), headers)), "{headers} headers pass");
        assert!(
            hook.send(&with_options(to("fd09::3"), headers)),
            "{headers} headers to another address are withheld"
        );
    }
}
