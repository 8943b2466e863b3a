//! What keeps the breaker from being in force is named, with its exit code, by every verb that would otherwise say that all is well.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use breaker_tests::frame::order;
use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_tests::sink::{End, Sink};
use breaker_user::testbed::{Namespace, TwoHosts, veth};
use serde_json::Value;

use super::host::{Host, POLICY};

/// A configuration like the usual one, for other interfaces.
fn on(rig: &Rig, interfaces: &str, policy: &str) -> String {
    let text = format!("[agent]\naudit = {:?}\n[host]\ninterfaces = [{interfaces}]\n{policy}", rig.audit());
    rig.configure("other.toml", &text).display().to_string()
}

/// A second interface of the host.
fn second(rig: &Rig) {
    rig.shell("ip link add eth2 type veth peer name far2; ip link set eth2 up; ip link set far2 up; ip address add 10.19.0.1/24 dev eth2");
}

/// The problems in what `status --json` says, by what they are and where.
fn problems(status: &Value) -> Vec<(&str, &str)> {
    let all = status["enforced"]["problems"].as_array().expect("problems");
    all.iter().filter_map(|problem| Some((problem["what"].as_str()?, problem["where"].as_str()?))).collect()
}

#[test]
fn a_session_that_is_routed_past_the_hook_is_told_by_each_verb() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    second(&rig);
    let file = on(&rig, "\"eth2\"", POLICY);
    let found = "ROUTE: session/x1: 10.9.0.2 is routed over eth1, where there is no hook";
    rig.types(&format!("check --config {file}")).expect_exit(8).because(found);
    rig.types(&format!("load --config {file}")).expect_exit(8).because(found);
    let status = rig.types("status --json").expect_exit(11).json();
    assert_eq!(problems(&status), [("route", "session/x1"), ("route", "session/x2")]);
    assert_eq!(status["enforced"]["ok"], false);
    rig.switch("trip", "session/x1").expect_exit(8).because(found);
    // Sockets tell too, whatever the tables say.
    let venue = SocketAddr::new(TwoHosts::VENUE, 9001);
    let sink = Sink::listen(&rig.wire.venue, venue);
    let mut stream = rig.inside(|| TcpStream::connect(venue)).expect("connecting");
    std::thread::sleep(Duration::from_millis(700));
    stream.write_all(&order(1)).expect("sending");
    sink.wait("the order", |all| all[0].whole("D") == 1);
    let said = rig.types("status").expect_exit(11);
    assert!(said.out.contains("has sent data that no hook has seen"), "{said:?}");
}

#[test]
fn a_route_that_is_not_taken_is_named_and_a_switch_holds_all_the_same() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.types("status").expect_exit(0);
    second(&rig);
    rig.types("status").expect_exit(0);
    for (add, remove) in [
        ("ip route add default via 10.19.0.2 metric 500", "ip route del default"),
        ("ip route add 10.9.0.0/16 via 10.19.0.2 table 77", "ip route flush table 77"),
    ] {
        rig.shell(add);
        let said = rig.types("status").expect_exit(11);
        assert!(
            said.out.contains("10.9.0.2 can be reached over eth2 too, where there is no hook"),
            "{add}: {said:?}"
        );
        rig.switch("trip", "session/x1").expect_exit(0);
        rig.switch("arm", "session/x1").expect_exit(0);
        rig.shell(remove);
        rig.types("status").expect_exit(10);
        rig.types("reset session/x1 --force --reason test").expect_exit(0);
        rig.types("status").expect_exit(0);
    }
    // A default route over what is covered is no way past it.
    rig.shell("ip route add default via 10.9.0.2");
    rig.types("status").expect_exit(0);
}

#[test]
fn packets_that_pass_unread_are_a_problem_unless_a_tunnel_of_the_host_sends_them() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    // IPv4 with VXLAN in it, from nobody knows whom.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    frame.extend([0x12, 0x34, 0x12, 0xb5, 0, 16, 0, 0, 8, 0, 0, 0, 0, 0, 5, 0]);
    rig.inject(&[frame]);
    let status = rig.types("status --json").expect_exit(11).json();
    assert_eq!(problems(&status), [("unseen", "eth1")]);
    rig.switch("trip", "session/x1").expect_exit(0);
    rig.types("reset session/x1 --force --reason test").expect_exit(0);
    rig.shell("ip link add vx0 type vxlan id 5 remote 10.9.0.2 dstport 4789; ip link set vx0 up");
    let said = rig.types("status").expect_exit(0);
    assert!(
        said.out.contains("note: eth1: ") && said.out.contains("of kind vxlan passed unread (vx0)"),
        "{said:?}"
    );
}

/// A tun device in a namespace: what is written to the file comes in there, and what leaves there is read from it.
fn tun(namespace: &Namespace) -> File {
    /// `TUNSETIFF`, and `IFF_TUN` with `IFF_NO_PI` (kernel `uapi/linux/if_tun.h`).
    const SET: libc::c_ulong = 0x4004_54ca;
    const FLAGS: i16 = 0x1001;
    namespace.run(|| {
        let file =
            OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("opening /dev/net/tun");
        let mut request = [0u8; 40];
        request[..4].copy_from_slice(b"tun0");
        request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
        // SAFETY: the request is as long as a `struct ifreq`.
        assert_eq!(unsafe { libc::ioctl(file.as_raw_fd(), SET, request.as_mut_ptr()) }, 0, "making tun0");
        file
    })
}

/// Carries packets from one file to another as long as both are open.
fn carry(mut from: File, mut to: File) {
    std::thread::spawn(move || {
        let mut packet = [0; 65_536];
        while let Ok(length) = from.read(&mut packet) {
            if length == 0 || to.write_all(&packet[..length]).is_err() {
                return;
            }
        }
    });
}

#[test]
fn a_device_whose_packets_begin_with_ip_is_enforced() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let (firm, venue) = (tun(&rig.wire.firm), tun(&rig.wire.venue));
    let up = |address: &str| format!("ip address add {address}/24 dev tun0; ip link set tun0 up");
    rig.shell(&up("10.8.0.1"));
    rig.wire
        .venue
        .run(|| std::process::Command::new("sh").args(["-c", &up("10.8.0.2")]).status())
        .expect("running sh");
    // Only a device that is up can be read from.
    let copy = |file: &File| file.try_clone().expect("a descriptor");
    carry(copy(&firm), copy(&venue));
    carry(venue, firm);
    let session = "[[session]]\nname = \"x1\"\nremote = \"10.8.0.2:9001\"\nlimits = [{ class = \"order\", max = 5, per = \"1h\" }]\n";
    let at: SocketAddr = "10.8.0.2:9001".parse().expect("an address");
    let sink = Sink::listen(&rig.wire.venue, at);
    for (turn, (name, hook)) in [("tcx", "auto"), ("clsact", "clsact")].into_iter().enumerate() {
        let file = on(
            &rig,
            &format!("\"tun0\"]\nhook = {hook:?}\ninbound = \"watch\"\nundeclared = \"ignore\"\nlimits = ["),
            session,
        );
        rig.types(&format!("load --config {file}")).expect_exit(0);
        assert_eq!(rig.types("status --json").expect_exit(0).json()["interfaces"][0]["hook"], name);
        let mut stream = rig.inside(|| TcpStream::connect(at)).expect("connecting");
        for id in 1..=10 {
            // The sixth finds the connection reset.
            let _ = stream.write_all(&order(id));
            std::thread::sleep(Duration::from_millis(2));
        }
        sink.wait("the reset", |all| all.get(turn).is_some_and(|one| one.end == End::Reset));
        assert_eq!(sink.last().whole("D"), 5, "{name}");
        rig.types("status").expect_exit(10);
        rig.types("unload --force").expect_exit(0);
    }
    // XDP reads Ethernet.
    let file = on(&rig, "\"tun0\"]\nmode = \"inline\"\nlimits = [", session);
    for verb in ["check", "load"] {
        rig.types(&format!("{verb} --config {file}"))
            .expect_exit(8)
            .because("tun0: its packets have no Ethernet header");
    }
}

#[test]
fn an_ingress_qdisc_in_the_place_of_clsact_is_refused() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(&format!("hook = \"clsact\"\n{POLICY}"));
    rig.shell("tc qdisc add dev eth1 ingress");
    for verb in ["check", "load"] {
        let said = rig.types(&format!("{verb} --config {}", rig.config().display())).expect_exit(4);
        said.because("it has a qdisc \"ingress\" in the place of clsact")
            .because("tc qdisc add dev eth1 clsact");
    }
    rig.shell("tc qdisc del dev eth1 ingress");
    rig.load();
}

#[test]
fn on_a_veth_the_stack_runs_xdp_and_a_busy_hook_is_named() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(&format!("mode = \"inline\"\n{POLICY}"));
    rig.load();
    assert_eq!(rig.types("status --json").expect_exit(0).json()["interfaces"][0]["hook"], "generic");
    let words = format!("load --pin-root /sys/fs/bpf/second --config {}", rig.config().display());
    rig.types(&words).expect_exit(4).because("another XDP program is there (program \"inline\"");
}

#[test]
fn another_network_namespace_judges_and_switches_as_the_one_of_the_load() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    let venue = SocketAddr::new(TwoHosts::VENUE, 9001);
    let sink = Sink::listen(&rig.wire.venue, venue);
    let _idle = rig.inside(|| TcpStream::connect(venue)).expect("connecting");
    sink.wait("the connection", |all| all.len() == 1);
    let elsewhere = |words: &str| {
        let line = format!("unshare --net {} {words}", breaker_tests::rig::binary().display());
        rig.shell(&format!("{line}; echo \"ended $?\""))
    };
    let said = elsewhere("status");
    assert!(said.contains("attached, first in its chain") && said.contains("ended 0"), "{said}");
    assert!(said.contains("note: judged in the network namespace of the load"), "{said}");
    let said = elsewhere("trip session/x1 --reason test");
    assert!(said.contains("connections ended: 1") && said.contains("ended 0"), "{said}");
    sink.wait("the reset", |all| all[0].end == End::Reset);
    let said = elsewhere("unload --force");
    assert!(said.contains("ended 0"), "{said}");
    rig.is_clean();
}

#[test]
fn a_reset_ends_the_connections_that_it_fences() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    let venue = SocketAddr::new(TwoHosts::VENUE, 9002);
    let sink = Sink::listen(&rig.wire.venue, venue);
    let _idle = rig.inside(|| TcpStream::connect(venue)).expect("connecting");
    sink.wait("the connection", |all| all.len() == 1);
    // As the kernel trips: nobody ends what is idle.
    rig.breaker(|breaker| {
        let scope = breaker.find("group/desk").expect("the group");
        breaker.trip(scope, breaker_common::abi::cause::RATE).expect("tripping it");
    });
    let said = rig.switch("reset", "group/desk").expect_exit(0);
    assert!(said.out.contains("connections ended: 1"), "{said:?}");
    sink.wait("the reset", |all| all[0].end == End::Reset);
    let mut fresh = rig.inside(|| TcpStream::connect(venue)).expect("connecting");
    fresh.write_all(&order(1)).expect("sending");
    sink.wait("the order of the new connection", |all| all.len() == 2 && all[1].whole("D") == 1);
}

#[test]
fn a_trip_ends_an_idle_connection_of_a_container() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    let container = Namespace::new().expect("a namespace");
    veth(&container, "eth0", &rig.wire.firm, "veth0").expect("a cable");
    let in_namespace = |namespace: &Namespace, line: &str| {
        let ran = namespace.run(|| std::process::Command::new("sh").args(["-c", line]).status());
        assert!(ran.expect("running sh").success(), "{line}");
    };
    in_namespace(
        &rig.wire.firm,
        "ip address add 172.17.0.1/24 dev veth0; ip link set veth0 up; echo 1 > /proc/sys/net/ipv4/ip_forward",
    );
    in_namespace(
        &container,
        "ip address add 172.17.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 172.17.0.1",
    );
    in_namespace(&rig.wire.venue, "ip route add 172.17.0.0/24 via 10.9.0.1");
    let venue = SocketAddr::new(TwoHosts::VENUE, 9001);
    let sink = Sink::listen(&rig.wire.venue, venue);
    let mut idle = container.run(|| TcpStream::connect(venue)).expect("connecting");
    idle.write_all(&order(1)).expect("sending");
    sink.wait("the order", |all| all[0].whole("D") == 1);
    // A namespace is found by a process in it: the thread of this one is none.
    let mut held =
        container.run(|| std::process::Command::new("sleep").arg("60").spawn()).expect("a process");
    let said = rig.switch("trip", "session/x1");
    held.kill().expect("ending it");
    held.wait().expect("its end");
    assert!(said.expect_exit(0).out.contains("connections ended: 1"));
    sink.wait("the reset", |all| all[0].end == End::Reset);
}
