//! Attacks by an account of the trading host without privileges.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use aya::util::KernelVersion;
use breaker_common::decide::SYN;
use breaker_tests::frame::{Frame, message, order};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;
use rustix::net::{AddressFamily, Protocol, SocketType, bind, connect, listen, socket};

use super::{FIVE, QUIET, orders, testbed};

/// An account without privileges.
const NOBODY: u32 = 65_534;

/// Connects from the trading host by another account, sends bytes, and closes.
fn send_as_another_account(testbed: &Testbed, port: u16, bytes: &str) {
    let script = format!("exec 3<>/dev/tcp/10.9.0.2/{port} && printf '{bytes}' >&3; sleep 0.1");
    let ran = testbed.on_host(|| Command::new("bash").args(["-c", &script]).uid(NOBODY).gid(NOBODY).output());
    let ran = ran.expect("running bash");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn urgent_data_hides_no_order() {
    require_root!();
    let inner: Vec<u8> = (0..60).flat_map(order).collect();
    let heartbeat = message("FIX.4.4", "0", format!("58={}\x01", "x".repeat(1_100)).as_bytes());
    let digits = heartbeat.windows(3).position(|window| window == b"\x019=").expect("a length") + 3;
    for tripped in [false, true] {
        let (testbed, receiver) = testbed("", FIVE);
        if tripped {
            testbed.trip("session/x1");
        }
        let mut connection = receiver.connect(&testbed);
        // One more digit of BodyLength, which the venue never receives, makes the orders look like the body
        // of the message.
        connection.try_send(&heartbeat[..digits]);
        // SAFETY: the buffer has one byte.
        let sent =
            unsafe { libc::send(connection.stream.as_raw_fd(), b"1".as_ptr().cast(), 1, libc::MSG_OOB) };
        assert!(sent == 1 || tripped, "sending it: {}", std::io::Error::last_os_error());
        connection.try_send(&[&heartbeat[digits..], &inner].concat());
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
        // SAFETY: the file has the mapped length.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), length, rights, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(memory, libc::MAP_FAILED, "mapping it");
        Self { file, memory: memory.cast(), length }
    }

    /// Overwrites the pages.
    fn overwrite(&self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.length);
        // SAFETY: the mapping has that length, and no other code of this process reads it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory, self.length) };
    }
}

#[test]
fn pages_changed_after_the_send_carry_no_orders() {
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
        let connection = receiver.connect(&testbed);
        let pages = Pages::new(harmless.as_bytes());
        let mut at = 0;
        // SAFETY: the descriptors are open.
        let sent = unsafe {
            libc::sendfile(connection.stream.as_raw_fd(), pages.file.as_raw_fd(), &raw mut at, pages.length)
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
        venue.set_read_timeout(Some(Duration::from_secs(3))).expect("setting a timeout");
        let received = |venue: &mut TcpStream| {
            let mut bytes = vec![0; 1 << 16];
            venue
                .read(&mut bytes)
                .map_or(0, |length| bytes[..length].windows(6).filter(|at| at == b"\x0135=D\x01").count())
        };
        firm.write_all(&order(1)).expect("sending");
        assert_eq!(received(&mut venue), 1);
        testbed.trip("session/x1");
        for id in 2..12 {
            let _ = firm.write_all(&order(id));
        }
        sleep(QUIET);
        testbed.reset("session/x1");
        // An address comes up, as after a link flap: the kernel would send the undelivered bytes of the first
        // path again over it.
        testbed.on_host(|| ip("mptcp endpoint add 10.9.0.11 dev eth1 subflow"));
        assert_eq!(received(&mut venue), 0, "{on_trip}: stale orders after the reset");
    }
}

#[test]
fn traffic_of_another_account_does_not_count_for_a_session_with_a_user() {
    require_root!();
    let (testbed, receiver) = testbed("", &format!("user = \"root\"\non_desync = \"trip\"\n{FIVE}"));
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&order(1));
    // A port check, noise, and orders of another application.
    send_as_another_account(&testbed, 9001, "\\n");
    send_as_another_account(&testbed, 9001, &"x".repeat(300));
    let text = String::from_utf8(order(7)).expect("text").replace('\x01', "\\001");
    send_as_another_account(&testbed, 9001, &text.repeat(9));
    for id in 2..=5 {
        connection.send_and_wait(&order(id));
    }
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[0], counters.desyncs), (5, 0));
    assert_eq!(testbed.cli("status").exit_code, Some(0), "nothing has tripped");
    connection.try_send(&order(6));
    connection.wait_for_reset();
}

#[test]
fn undeclared_orders_of_another_account_do_not_trip_the_host() {
    require_root!();
    let (testbed, receiver) = testbed("limits = [{ class = \"order\", max = 20, per = \"1s\" }]", "");
    let other = testbed.listen(7777);
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&order(1));
    let text = String::from_utf8(order(7)).expect("text").replace('\x01', "\\001");
    send_as_another_account(&testbed, 7777, &text.repeat(60));
    other.wait("their orders", |all| all[0].complete("D") == 60);
    connection.send_and_wait(&order(2));
    assert_eq!(testbed.cli("status").exit_code, Some(0));
}

#[test]
fn no_other_connection_evicts_a_live_one() {
    require_root!();
    let (testbed, receiver) = testbed("connections = 64", "");
    let other = testbed.listen(7777);
    let mut first = receiver.connect(&testbed);
    first.send_and_wait(&order(1));
    // Short connections with a FIX message to another port, short ones to the session itself, and unanswered
    // attempts.
    for _ in 0..100 {
        let mut connection = other.connect(&testbed);
        connection.send_and_wait(&message("FIX.4.4", "0", b""));
        let mut connection = receiver.connect(&testbed);
        connection.send_and_wait(&order(2));
    }
    let from = |port| SocketAddr::new(TwoHosts::FIRM, port);
    let syns = (20_000..20_300)
        .map(|port| Frame::new(from(port), TwoHosts::venue_socket(9001), 1, b"").with_flags(SYN).bytes());
    testbed.inject_frames(&syns.collect::<Vec<_>>());
    let mut new_connection = receiver.connect(&testbed);
    for id in 0..10 {
        new_connection.send_and_wait(&order(id));
        first.send_and_wait(&order(id));
    }
    assert_eq!(testbed.counters(1).passed[0], 121);
    assert_eq!(testbed.status().packets["table_full"], 0);
}
