//! Edge cases of earlier faults: short first segments, a full table, and late or large segments that cannot
//! be read.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use breaker_common::decide::SYN;
use breaker_tests::frame::{Frame, order};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;

#[test]
fn undeclared_fix_is_blocked_however_short_its_first_segment() {
    require_root!();
    for cut in 5..=12 {
        let testbed = Testbed::load("undeclared = \"block\"\n");
        let receiver = testbed.listen(9005);
        let mut connection = receiver.connect(&testbed);
        for id in 0..3 {
            let order = order(id);
            connection.try_send(&order[..cut]);
            sleep(Duration::from_millis(5));
            connection.try_send(&order[cut..]);
            sleep(Duration::from_millis(5));
        }
        let received = connection.received();
        assert_eq!((received.complete("D"), received.bytes.len()), (0, 0), "first segments of {cut} bytes");
    }
}

#[test]
fn a_full_table_withholds_no_segment_of_a_disarmed_session() {
    require_root!();
    let testbed = Testbed::load(
        "connections = 64\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\narmed = false\n",
    );
    let receiver = testbed.listen(9001);
    let mut connections: Vec<_> = (0..80).map(|_| receiver.connect(&testbed)).collect();
    connections.iter_mut().for_each(|connection| connection.send_and_wait(&order(1)));
}

#[test]
fn an_undeclared_flow_has_one_event_with_a_full_table_too() {
    require_root!();
    for policy in ["pass", "block"] {
        let testbed = Testbed::load(&format!(
            "connections = 64\non_table_full = \"{policy}\"\n[[session]]\nname = \"x1\"\nremote = \
             \"10.9.0.2:9001\"\n"
        ));
        let receivers = [9001, 9005].map(|port| testbed.listen(port));
        let _full: Vec<_> = (0..70).map(|_| receivers[0].connect(&testbed)).collect();
        let mut connection = receivers[1].connect(&testbed);
        for id in 0..100 {
            connection.try_send(&order(id));
            sleep(Duration::from_millis(2));
        }
        let events = testbed.events().into_iter().filter(|event| event["kind"] == "undeclared").count();
        assert!(events <= 1, "{policy}: {events} lines for one connection");
    }
}

#[test]
fn late_unreadable_segments_count_as_orders_without_a_desync() {
    require_root!();
    let testbed = Testbed::load(
        "on_desync = \"trip\"\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\nwire = \"opaque\"\n",
    );
    let (from, to) = (SocketAddr::new(TwoHosts::FIRM, 40_000), TwoHosts::venue_socket(9001));
    let frame = |seq, length| Frame::new(from, to, seq, &vec![0x17; length]).bytes();
    let syn = Frame::new(from, to, 999, b"").with_flags(SYN).bytes();
    // The two segments ahead of the gap are withheld: TCP sends them again.
    testbed.inject_frames(&[syn, frame(1_000, 100), frame(1_400, 100), frame(1_300, 100), frame(1_100, 200)]);
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[0], counters.desyncs), (2, 0), "{counters:?}");
    testbed.inject_frames(&[frame(1_300, 100), frame(1_400, 100)]);
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[0], counters.desyncs), (4, 0), "{counters:?}");
    assert!(testbed.status().scopes.iter().all(|scope| !scope.tripped));
}

#[test]
fn a_large_packet_without_a_segment_count_counts_as_its_segments() {
    require_root!();
    let testbed =
        Testbed::load("[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\nwire = \"opaque\"\n");
    let (from, to) = (SocketAddr::new(TwoHosts::FIRM, 40_000), TwoHosts::venue_socket(9001));
    testbed.inject_frames(&[Frame::new(from, to, 999, b"").with_flags(2).bytes()]);
    let frame = Frame::new(from, to, 1_000, &[0x17; 14_480]).bytes();
    let index = testbed.network.firm.index(TwoHosts::INTERFACE).expect("the interface");
    // Frames as from a virtual machine's network card: `struct virtio_net_hdr` gives 1,448 bytes a segment,
    // and not their number.
    let mut packet = vec![1, 1];
    packet.extend([54u16, 1_448, 34, 16].iter().flat_map(|word| word.to_ne_bytes()));
    packet.extend(&frame);
    testbed.on_host(|| {
        const PACKET_VNET_HDR: i32 = 15;
        let one = 1i32;
        // SAFETY: the buffers have the given lengths, and outlive the calls.
        unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
            let set = libc::setsockopt(socket, libc::SOL_PACKET, PACKET_VNET_HDR, (&raw const one).cast(), 4);
            assert_eq!(set, 0, "the option: {}", std::io::Error::last_os_error());
            let mut to: libc::sockaddr_ll = std::mem::zeroed();
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_protocol = 0x0800u16.to_be();
            to.sll_ifindex = index as i32;
            let length = size_of::<libc::sockaddr_ll>() as u32;
            let sent =
                libc::sendto(socket, packet.as_ptr().cast(), packet.len(), 0, (&raw const to).cast(), length);
            assert_eq!(sent, packet.len() as isize, "sending: {}", std::io::Error::last_os_error());
            libc::close(socket);
        }
    });
    assert_eq!(testbed.counters(1).passed[0], 10);
}
