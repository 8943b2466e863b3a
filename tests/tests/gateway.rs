//! The gateway testbed without breaker: both kinds of sender reach the venue, and the path behaves like a
//! wire.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use breaker_tests::frame::{Frame, order};
use breaker_tests::gateway::{Gateway, Offloads};
use breaker_tests::packet_socket::PacketSocket;
use breaker_tests::receiver::{End, Receiver};
use breaker_tests::require_root;
use breaker_tests::user_tcp::UserTcp;
use breaker_user::testbed::TwoHosts;

const PORT: u16 = 9001;
const PATIENCE: Duration = Duration::from_secs(2);

fn lay(offloads: Offloads) -> Gateway {
    Gateway::new(offloads).expect("making namespaces")
}

#[test]
fn sockets_reach_the_venue_and_the_gateway_sees_frames_as_on_a_wire() {
    require_root!();
    for offloads in Offloads::ALL {
        let network = lay(offloads);
        for venue in Gateway::VENUE.map(|address| SocketAddr::new(address, PORT)) {
            let receiver = Receiver::listen(&network.venue, venue);
            let inside = PacketSocket::open(&network.gateway, Gateway::INSIDE);
            let start = Instant::now();
            let mut stream = network.firm.run(|| TcpStream::connect(venue)).expect("connecting");
            assert!(
                start.elapsed() < Duration::from_millis(500),
                "no packet is lost on the way: {:?}",
                start.elapsed()
            );
            stream.write_all(&vec![b'x'; 100_000]).expect("sending");
            receiver.wait("all of it", |all| all[0].bytes.len() == 100_000);
            drop(stream);
            receiver.wait("the end", |all| all[0].end == End::Closed);
            let mut lengths = Vec::new();
            while let Some((length, frame, right)) = inside.wait(Duration::from_millis(10), |bytes| {
                let (frame, right) = Frame::parse(bytes)?;
                (frame.to == venue).then_some((bytes.len(), frame, right))
            }) {
                assert_eq!(right, offloads == Offloads::None, "{offloads:?}: the checksum of {frame:?}");
                lengths.push(length);
            }
            let longest = *lengths.iter().max().expect("frames");
            assert_eq!(longest > 1514, offloads == Offloads::Segments, "{offloads:?}: {lengths:?}");
        }
    }
}

#[test]
fn a_tcp_in_user_space_reaches_the_venue_without_answers_of_its_host() {
    require_root!();
    let network = lay(Offloads::None);
    for venue in Gateway::VENUE.map(|address| SocketAddr::new(address, PORT)) {
        let receiver = Receiver::listen(&network.venue, venue);
        let mut engine = UserTcp::connect(&network, 40_000, venue);
        engine.options = 12;
        // The third and the fourth frame in reverse order, the second twice, and the fifth in two fragments.
        let mut frames = engine.next(&(0..6).map(order).collect::<Vec<_>>());
        frames.swap(2, 3);
        frames.insert(2, frames[1].clone());
        engine.transmit(&frames[..5]);
        engine.transmit_bytes(&frames[5].fragments(64));
        engine.transmit(&frames[6..]);
        receiver.wait("six orders", |all| all[0].complete("D") == 6);
        assert_eq!(receiver.last().bytes, (0..6).flat_map(order).collect::<Vec<_>>());
        let mut acknowledged = false;
        while let Some(heard) = engine.receive(Duration::from_millis(300)) {
            acknowledged |= heard.ack == engine.seq;
        }
        assert!(acknowledged, "the venue acknowledges all of it");
        assert!(engine.ping(), "{venue} answers a ping");
        assert_eq!(receiver.last().end, End::Open);
        engine.transmit(&[engine.segment(engine.seq, b"").with_flags(breaker_common::decide::RST)]);
        receiver.wait("the reset", |all| all[0].end == End::Reset);
    }
}

#[test]
fn a_tcp_in_user_space_receives_data_and_resets_with_right_checksums_only() {
    require_root!();
    let network = lay(Offloads::None);
    let venue = SocketAddr::new(TwoHosts::VENUE, PORT);
    let listener = network.venue.run(|| std::net::TcpListener::bind(venue)).expect("listening");
    let mut engine = UserTcp::connect(&network, 40_000, venue);
    let (mut accepted, from) = listener.accept().expect("accepting");
    assert_eq!(from, SocketAddr::new(Gateway::ENGINE[0], 40_000));
    accepted.write_all(b"fill").expect("sending");
    assert_eq!(engine.read(PATIENCE).as_deref(), Some(&b"fill"[..]));
    engine.send(b"order");
    accepted.read_exact(&mut [0; 5]).expect("what was sent");
    // A close with unread data sends a reset.
    engine.send(b"unread");
    accepted.set_read_timeout(Some(PATIENCE)).expect("setting a timeout");
    accepted.peek(&mut [0; 1]).expect("it is there");
    drop(accepted);
    assert!(engine.is_reset(PATIENCE));

    let mut engine = UserTcp::connect(&network, 40_001, venue);
    let gateway = PacketSocket::open(&network.gateway, Gateway::INSIDE);
    let mut forged = engine.segment(engine.ack, b"").with_flags(breaker_common::decide::RST);
    (forged.from, forged.to) = (forged.to, forged.from);
    forged.hardware.reverse();
    let mut wrong = forged.bytes();
    *wrong.last_mut().expect("bytes") ^= 1;
    gateway.send(&wrong);
    assert!(!engine.is_reset(Duration::from_millis(50)), "a wrong checksum");
    gateway.send(&forged.bytes());
    assert!(engine.is_reset(PATIENCE));
}

#[test]
fn no_interface_of_the_gateway_remains_on_the_host() {
    require_root!();
    let network = lay(Offloads::None);
    for interface in [Gateway::INSIDE, Gateway::OUTSIDE] {
        assert!(network.gateway.index(interface).is_ok());
        assert!(!std::path::Path::new("/sys/class/net").join(interface).exists());
    }
    let Gateway { firm, gateway, venue, .. } = network;
    drop(gateway);
    // An interface is removed with the namespace at its other end, which the kernel removes later.
    let until = Instant::now() + Duration::from_secs(10);
    while [&firm, &venue].iter().any(|end| end.index(TwoHosts::INTERFACE).is_ok()) {
        assert!(Instant::now() < until, "the gateway is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}
