//! Problems that keep the breaker from enforcing: every verb that reports a state names them, with an exit
//! code.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use breaker_tests::frame::order;
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::{Namespace, TwoHosts, veth};
use serde_json::Value;

use super::POLICY;

/// A configuration for other interfaces.
fn on(testbed: &Testbed, interfaces: &str, policy: &str) -> String {
    let text = format!(
        "[agent]\naudit = {:?}\nstate = {:?}\ncontrol = {:?}\n[host]\ninterfaces = [{interfaces}]\n{policy}",
        testbed.audit(),
        testbed.state(),
        testbed.control()
    );
    testbed.write_config("other.toml", &text).display().to_string()
}

/// Adds a second interface to the host.
fn second(testbed: &Testbed) {
    testbed.shell(
        "ip link add eth2 type veth peer name far2; ip link set eth2 up; ip link set far2 up; \
                   ip address add 10.19.0.1/24 dev eth2",
    );
}

/// The problems in `status --json`: what and where.
fn problems(status: &Value) -> Vec<(&str, &str)> {
    let all = status["enforced"]["problems"].as_array().expect("problems");
    all.iter().filter_map(|problem| Some((problem["what"].as_str()?, problem["where"].as_str()?))).collect()
}

#[test]
fn every_verb_reports_a_session_routed_past_the_hook() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    second(&testbed);
    let file = on(&testbed, "\"eth2\"", POLICY);
    let found = "ROUTE: session/x1: 10.9.0.2 is routed over eth1, where there is no hook";
    testbed.cli(&format!("check --config {file}")).expect_exit(8).expect_stderr(found);
    testbed.cli(&format!("load --config {file}")).expect_exit(8).expect_stderr(found);
    let status = testbed.cli("status --json").expect_exit(11).json();
    assert_eq!(problems(&status), [("route", "session/x1"), ("route", "session/x2")]);
    assert_eq!(status["enforced"]["ok"], false);
    testbed.switch("trip", "session/x1").expect_exit(8).expect_stderr(found);
    // Sockets show the problem too, whatever the routing tables say.
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    std::thread::sleep(Duration::from_millis(700));
    stream.write_all(&order(1)).expect("sending");
    receiver.wait("the order", |all| all[0].complete("D") == 1);
    let output = testbed.cli("status").expect_exit(11);
    assert!(output.stdout.contains("has sent data that no hook has seen"), "{output:?}");
}

#[test]
fn an_unused_route_past_the_hook_is_reported_and_switches_hold() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.cli("status").expect_exit(0);
    second(&testbed);
    testbed.cli("status").expect_exit(0);
    for (add, remove) in [
        ("ip route add default via 10.19.0.2 metric 500", "ip route del default"),
        ("ip route add 10.9.0.0/16 via 10.19.0.2 table 77", "ip route flush table 77"),
    ] {
        testbed.shell(add);
        let output = testbed.cli("status").expect_exit(11);
        assert!(
            output.stdout.contains("10.9.0.2 can be reached over eth2 too, where there is no hook"),
            "{add}: {output:?}"
        );
        testbed.switch("trip", "session/x1").expect_exit(0);
        testbed.switch("arm", "session/x1").expect_exit(0);
        testbed.shell(remove);
        testbed.cli("status").expect_exit(10);
        testbed.cli("reset session/x1 --force --reason test").expect_exit(0);
        testbed.cli("status").expect_exit(0);
    }
    // A default route over an interface with a hook is not a problem.
    testbed.shell("ip route add default via 10.9.0.2");
    testbed.cli("status").expect_exit(0);
}

#[test]
fn packets_that_pass_unread_are_a_problem_unless_a_tunnel_of_the_host_sends_them() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    // IPv4 with VXLAN, from an unknown sender.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    frame.extend([0x12, 0x34, 0x12, 0xb5, 0, 16, 0, 0, 8, 0, 0, 0, 0, 0, 5, 0]);
    testbed.inject_frames(&[frame]);
    let status = testbed.cli("status --json").expect_exit(11).json();
    assert_eq!(problems(&status), [("unseen", "eth1")]);
    testbed.switch("trip", "session/x1").expect_exit(0);
    testbed.cli("reset session/x1 --force --reason test").expect_exit(0);
    testbed.shell("ip link add vx0 type vxlan id 5 remote 10.9.0.2 dstport 4789; ip link set vx0 up");
    let output = testbed.cli("status").expect_exit(0);
    assert!(
        output.stdout.contains("note: eth1: ") && output.stdout.contains("of kind vxlan passed unread (vx0)"),
        "{output:?}"
    );
}

/// A tun device in a namespace: bytes written to the file arrive there, and packets that leave there are read
/// from it.
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

/// Copies packets from one file to the other as long as both are open.
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
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let (firm, venue) = (tun(&testbed.network.firm), tun(&testbed.network.venue));
    let up = |address: &str| format!("ip address add {address}/24 dev tun0; ip link set tun0 up");
    testbed.shell(&up("10.8.0.1"));
    testbed
        .network
        .venue
        .run(|| std::process::Command::new("sh").args(["-c", &up("10.8.0.2")]).status())
        .expect("running sh");
    // Only a device that is up can be read from.
    let copy = |file: &File| file.try_clone().expect("a descriptor");
    carry(copy(&firm), copy(&venue));
    carry(venue, firm);
    let session = "[[session]]\nname = \"x1\"\nremote = \"10.8.0.2:9001\"\nlimits = [{ class = \"order\", \
                   max = 5, per = \"1h\" }]\n";
    let at: SocketAddr = "10.8.0.2:9001".parse().expect("an address");
    let receiver = testbed.listen_at(at);
    for (turn, (name, hook)) in [("tcx", "auto"), ("clsact", "clsact")].into_iter().enumerate() {
        let file = on(
            &testbed,
            &format!("\"tun0\"]\nhook = {hook:?}\ninbound = \"watch\"\nundeclared = \"ignore\"\nlimits = ["),
            session,
        );
        testbed.cli(&format!("load --config {file}")).expect_exit(0);
        assert_eq!(testbed.cli("status --json").expect_exit(0).json()["interfaces"][0]["hook"], name);
        let mut stream = testbed.connect_to(at);
        for id in 1..=10 {
            // The sixth write may find the connection reset.
            let _ = stream.write_all(&order(id));
            std::thread::sleep(Duration::from_millis(2));
        }
        receiver.wait("the reset", |all| all.get(turn).is_some_and(|one| one.end == End::Reset));
        assert_eq!(receiver.last().complete("D"), 5, "{name}");
        testbed.cli("status").expect_exit(10);
        testbed.reset("session/x1");
        testbed.cli("unload").expect_exit(0);
    }
    // XDP reads Ethernet.
    let file = on(&testbed, "\"tun0\"]\nmode = \"inline\"\nlimits = [", session);
    for verb in ["check", "load"] {
        testbed
            .cli(&format!("{verb} --config {file}"))
            .expect_exit(8)
            .expect_stderr("tun0: its packets have no Ethernet header");
    }
}

#[test]
fn an_ingress_qdisc_in_the_place_of_clsact_is_refused() {
    require_root!();
    let testbed = Testbed::unloaded(&format!("hook = \"clsact\"\n{POLICY}"));
    testbed.shell("tc qdisc add dev eth1 ingress");
    for verb in ["check", "load"] {
        let output = testbed.cli(&format!("{verb} --config {}", testbed.config().display())).expect_exit(4);
        output
            .expect_stderr("it has a qdisc \"ingress\" in the place of clsact")
            .expect_stderr("tc qdisc add dev eth1 clsact");
    }
    testbed.shell("tc qdisc del dev eth1 ingress");
    testbed.load_cli();
}

#[test]
fn on_a_veth_the_stack_runs_xdp_and_a_busy_hook_is_named() {
    require_root!();
    let testbed = Testbed::unloaded(&format!("mode = \"inline\"\n{POLICY}"));
    testbed.load_cli();
    assert_eq!(testbed.cli("status --json").expect_exit(0).json()["interfaces"][0]["hook"], "generic");
    let words = format!("load --pin-root /sys/fs/bpf/second --config {}", testbed.config().display());
    testbed.cli(&words).expect_exit(4).expect_stderr("another XDP program is attached (program \"inline\"");
}

#[test]
fn verbs_in_another_network_namespace_work_on_the_one_of_the_load() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let _idle = testbed.connect(9001);
    receiver.wait("the connection", |all| all.len() == 1);
    let elsewhere = |words: &str| {
        let line = format!("unshare --net {} {words}", breaker_tests::command::binary().display());
        testbed.shell(&format!("{line}; echo \"ended $?\""))
    };
    let output = elsewhere("status");
    assert!(output.contains("attached, first in its chain") && output.contains("ended 0"), "{output}");
    assert!(output.contains("note: judged in the network namespace of the load"), "{output}");
    let output = elsewhere("trip session/x1 --reason test");
    assert!(output.contains("connections ended: 1") && output.contains("ended 0"), "{output}");
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    let output = elsewhere("unload --force");
    assert!(output.contains("ended 0"), "{output}");
    testbed.assert_clean();
}

#[test]
fn a_reset_ends_the_connections_that_it_fences() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9002);
    let _idle = testbed.connect(9002);
    receiver.wait("the connection", |all| all.len() == 1);
    // A trip by the kernel does not end idle connections.
    testbed.with_breaker(|breaker| {
        let scope = breaker.find("group/desk").expect("the group");
        breaker.trip(scope, breaker_common::abi::cause::RATE).expect("tripping it");
    });
    let output = testbed.switch("reset", "group/desk").expect_exit(0);
    assert!(output.stdout.contains("connections ended: 1"), "{output:?}");
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    let mut new_connection = testbed.connect(9002);
    new_connection.write_all(&order(1)).expect("sending");
    receiver.wait("the order of the new connection", |all| all.len() == 2 && all[1].complete("D") == 1);
}

#[test]
fn a_trip_ends_an_idle_connection_of_a_container() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let container = Namespace::new().expect("a namespace");
    veth(&container, "eth0", &testbed.network.firm, "veth0").expect("a cable");
    let in_namespace = |namespace: &Namespace, line: &str| {
        let ran = namespace.run(|| std::process::Command::new("sh").args(["-c", line]).status());
        assert!(ran.expect("running sh").success(), "{line}");
    };
    in_namespace(
        &testbed.network.firm,
        "ip address add 172.17.0.1/24 dev veth0; ip link set veth0 up; echo 1 > \
         /proc/sys/net/ipv4/ip_forward",
    );
    in_namespace(
        &container,
        "ip address add 172.17.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 172.17.0.1",
    );
    in_namespace(&testbed.network.venue, "ip route add 172.17.0.0/24 via 10.9.0.1");
    let receiver = testbed.listen(9001);
    let mut idle = container.run(|| TcpStream::connect(TwoHosts::venue_socket(9001))).expect("connecting");
    idle.write_all(&order(1)).expect("sending");
    receiver.wait("the order", |all| all[0].complete("D") == 1);
    // A namespace is found by a process in it; a thread of this process does not count.
    let mut held =
        container.run(|| std::process::Command::new("sleep").arg("60").spawn()).expect("a process");
    let output = testbed.switch("trip", "session/x1");
    held.kill().expect("ending it");
    held.wait().expect("waiting for its end");
    assert!(output.expect_exit(0).stdout.contains("connections ended: 1"));
    receiver.wait("the reset", |all| all[0].end == End::Reset);
}
