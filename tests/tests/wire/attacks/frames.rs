//! Attacks by the peer, and by senders of crafted frames.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use breaker_common::abi::unseen;
use breaker_common::decide::SYN;
use breaker_tests::frame::{ACK, Frame, order};
use breaker_tests::packet_socket::PacketSocket;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, socket};

use super::{FIVE, QUIET, orders, testbed};

#[test]
fn a_second_syn_from_the_same_addresses_does_not_replace_the_connection() {
    require_root!();
    for tripped in [false, true] {
        let (testbed, receiver) = testbed("", FIVE);
        if tripped {
            testbed.trip("session/x1");
        }
        let mut connection = receiver.connect(&testbed);
        let from = connection.stream.local_addr().expect("an address");
        for offset in [1 << 20, 1 << 30, u32::MAX / 2 + 9] {
            // The frame is as of a second socket with the same four addresses, which Linux allows an account
            // (SO_BINDTODEVICE).
            testbed.inject_frames(&[Frame::new(from, TwoHosts::venue_socket(9001), offset, b"")
                .with_flags(SYN)
                .bytes()]);
        }
        for id in 0..50 {
            connection.try_send(&order(id));
            sleep(Duration::from_millis(1));
        }
        sleep(QUIET);
        assert_eq!(orders(&receiver), if tripped { 0 } else { 5 });
    }
}

#[test]
fn a_connection_opened_by_the_peer_belongs_to_no_session() {
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
        let mut received = vec![0; answer.len()];
        peer.read_exact(&mut received).expect("the answer");
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

/// A tripped session with a crafted connection, the next order of the connection, and a socket at the hook.
fn tripped_session() -> (Testbed, Frame, PacketSocket) {
    let testbed = Testbed::load(&format!(
        "on_trip = \"drop\"\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{FIVE}"
    ));
    testbed.trip("session/x1");
    let (from, to) = (SocketAddr::new(TwoHosts::FIRM, 40_000), TwoHosts::venue_socket(9001));
    testbed.inject_frames(&[
        Frame::new(from, to, 999, b"").with_flags(SYN).bytes(),
        Frame::new(from, to, 1_000, b"").with_flags(ACK).bytes(),
    ]);
    let hook = PacketSocket::send_only(&testbed.network.firm, TwoHosts::INTERFACE);
    (testbed, Frame::new(from, to, 1_000, &order(1)), hook)
}

#[test]
fn frames_with_tags_labels_or_fragments_are_read() {
    require_root!();
    let (_testbed, order, hook) = tripped_session();
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
    for (what, frame) in &read {
        assert!(!hook.send(frame), "{what}: it passes while tripped");
    }
}

#[test]
fn frames_of_other_kinds_are_counted_as_unseen() {
    require_root!();
    let (testbed, order, hook) = tripped_session();
    let plain = order.bytes();
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
    let status = testbed.status_json();
    let problems = status["enforced"]["problems"].as_array().expect("problems");
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
