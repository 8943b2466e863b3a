//! Upgrades under traffic: a tripped session sends frames at full speed and all are withheld. A live session
//! sends orders, and every order arrives and is counted.

use std::net::SocketAddr;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_common::abi::{ABI_VERSION, Meta};
use breaker_tests::command::command;
use breaker_tests::frame::order;
use breaker_tests::gateway::{Gateway, Hook, Inline, Offloads};
use breaker_tests::network::Network;
use breaker_tests::other_layout::{OTHER, set_other_layout};
use breaker_tests::packet_socket::PacketSocket;
use breaker_tests::receiver::Receiver;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_tests::traffic::{Traffic, of_host, segment};
use breaker_user::kernel::clock;
use breaker_user::kernel::memory::Mapped;
use breaker_user::kernel::upgrade::{Upgrade, upgrade};
use breaker_user::testbed::TwoHosts;
use serde_json::Value;

/// Environment variable with the number of upgrades for each hook.
const COUNT: &str = "BREAKER_TESTS_UPGRADES";
/// A live session and a session that the tests trip. Every segment of the tripped session is dropped, SYN
/// included.
const POLICY: &str = r#"
limits = [{ class = "order", max = 9000000, per = "total" }]
[[session]]
name = "live"
remote = "10.9.0.2:9001"
[[session]]
name = "dead"
remote = "10.9.0.2:9002"
on_trip = "drop"
while_tripped = "isolate"
"#;

fn upgrades() -> u64 {
    std::env::var(COUNT).map_or(30, |text| text.parse().expect("a number of upgrades"))
}

/// Loads the policy on the trading host itself.
pub fn on_host(hook: &str) -> Testbed {
    let testbed = Testbed::unloaded(&format!("hook = \"{hook}\"\n{POLICY}"));
    run(&testbed, &["load", "--config", &testbed.config().display().to_string()], 0);
    testbed
}

/// Returns the traffic through a gateway: an engine with its own TCP stack sends the frames.
fn gateway_traffic(testbed: &Inline) -> Traffic<'_> {
    let socket = PacketSocket::bypass_qdisc(&testbed.network.firm, TwoHosts::INTERFACE);
    let mut frame = segment(SocketAddr::new(Gateway::ENGINE[0], 7777));
    let own = testbed.network.firm.hardware_address(TwoHosts::INTERFACE).expect("an address of its own");
    frame.hardware = [own, testbed.network.gateway.hardware_address(Gateway::INSIDE).expect("the gateway's")];
    let frame = frame.bytes();
    let flood = move || {
        socket.send(&frame);
        false
    };
    Traffic { firm: &testbed.network.firm, venue: &testbed.network.venue, flood: Box::new(flood) }
}

/// Runs a verb and returns its output.
#[track_caller]
fn run<N: Network>(testbed: &Testbed<N>, args: &[&str], code: i32) -> String {
    testbed.cli_args(args).expect_exit(code).stdout
}

fn status<N: Network>(testbed: &Testbed<N>, code: i32) -> Value {
    serde_json::from_str(&run(testbed, &["status", "--json"], code)).expect("JSON")
}

/// Returns the object in a list whose `key` is `name`.
fn entry_named<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    list.as_array().expect("a list").iter().find(|one| one[key] == name).expect("the one of this name")
}

/// Upgrades repeatedly under traffic. No frame of the tripped session passes, no order of the live session is
/// lost, and every packet is counted.
fn assert_upgrades_lose_nothing<N: Network>(testbed: &Testbed<N>, traffic: &Traffic) {
    run(testbed, &["trip", "session/dead", "--reason", "test"], 0);
    let before = status(testbed, 10);
    let count = upgrades();
    let seen = traffic.run(|| {
        for _ in 0..count {
            run(testbed, &["upgrade"], 0);
        }
    });
    println!("{count} upgrades: {seen:?}");
    let after = status(testbed, 10);
    assert_eq!(seen.orders[0], seen.orders[1], "orders that arrived");
    assert!(seen.frames[0] > 1_000 && seen.frames[1] == 0, "frames that passed: {seen:?}");
    let [live, dead] = ["live", "dead"].map(|name| entry_named(&after["sessions"], "name", name));
    assert_eq!(live["messages"]["order"]["passed"], seen.orders[0], "orders that were counted");
    assert_eq!((&live["packets"]["withheld"], &live["desyncs"]), (&0.into(), &0.into()));
    assert_eq!(dead["packets"]["passed"], 0);
    assert!(dead["packets"]["withheld"].as_u64() > Some(1_000), "{dead}");
    let host = entry_named(&after["scopes"], "scope", "host");
    assert_eq!(host["limits"][0]["used"], seen.orders[0], "the window goes on");
    for name in ["host", "session/live", "session/dead"] {
        let [before, after] = [&before, &after].map(|shown| entry_named(&shown["scopes"], "scope", name));
        for key in ["tripped", "causes", "epoch", "armed"] {
            assert_eq!(before[key], after[key], "{name}: {key}");
        }
    }
    let undecided =
        testbed.with_breaker(|breaker| breaker.reason(breaker_common::abi::reason::NOT_CONFIGURED));
    assert_eq!(undecided.expect("the reasons"), 0, "packets that were not decided on");
    run(testbed, &["reset", "session/dead", "--reason", "test", "--force"], 0);
    run(testbed, &["unload"], 0);
}

#[test]
fn upgrades_under_a_flood_leak_nothing_and_lose_nothing_at_tcx() {
    require_root!();
    let testbed = on_host("tcx");
    assert_upgrades_lose_nothing(&testbed, &of_host(&testbed.network));
}

#[test]
fn upgrades_under_a_flood_leak_nothing_and_lose_nothing_at_clsact() {
    require_root!();
    let testbed = on_host("clsact");
    assert_upgrades_lose_nothing(&testbed, &of_host(&testbed.network));
}

#[test]
fn upgrades_under_a_flood_leak_nothing_and_lose_nothing_at_xdp() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = Inline::inline(hook, Offloads::None, POLICY);
        assert_upgrades_lose_nothing(&testbed, &gateway_traffic(&testbed));
    }
}

#[test]
fn a_killed_upgrade_leaves_a_complete_program_attached() {
    require_root!();
    for hook in ["tcx", "clsact"] {
        let testbed = on_host(hook);
        run(&testbed, &["trip", "session/dead", "--reason", "test"], 0);
        // The kills are spread over the duration of an upgrade on this machine.
        let begun = Instant::now();
        run(&testbed, &["upgrade"], 0);
        let whole = begun.elapsed();
        let moments = 40;
        let seen = of_host(&testbed.network).run(|| {
            for moment in 0..moments {
                let mut child = testbed.on_host(|| {
                    let mut command = command();
                    command.arg("upgrade").stdout(Stdio::null()).stderr(Stdio::null());
                    command.spawn().expect("starting breaker")
                });
                // The verifier takes most of the duration, and the changes come last.
                let part = if moment % 2 == 0 { moment } else { moments - moment / 8 };
                sleep(whole * part / moments);
                child.kill().expect("killing it");
                child.wait().expect("its end");
                let shown = status(&testbed, 10);
                assert_eq!(shown["enforced"]["ok"], true, "moment {moment}: {shown}");
            }
        });
        assert_eq!((seen.orders[0], seen.frames[1]), (seen.orders[1], 0), "{seen:?}");
        run(&testbed, &["upgrade"], 0);
        let pins = testbed.on_host(|| {
            std::fs::read_dir(Testbed::root().path()).expect("the pins").flatten().collect::<Vec<_>>()
        });
        let is_left = |name: &str| name.ends_with("_next");
        assert!(!pins.iter().any(|pin| is_left(&pin.file_name().to_string_lossy())), "{pins:?}");
        run(&testbed, &["reset", "session/dead", "--reason", "test", "--force"], 0);
        run(&testbed, &["unload"], 0);
    }
}

/// Upgrades from another layout repeatedly under traffic. No connection, order, counter or trip is lost.
fn assert_takeover_loses_nothing<N: Network>(testbed: &Testbed<N>, traffic: &Traffic) {
    run(testbed, &["trip", "session/dead", "--reason", "test"], 0);
    let before = status(testbed, 10);
    let mut held = Duration::ZERO;
    let rounds = 5;
    let seen = traffic.run(|| {
        for _ in 0..rounds {
            sleep(Duration::from_millis(200));
            set_other_layout(testbed);
            run(testbed, &["upgrade"], 5);
            let begun = Instant::now();
            let done = testbed.on_host(|| {
                let noted = |_: &Meta, _: &Upgrade| Ok(());
                upgrade(&Testbed::root(), false, &[OTHER], noted)
            });
            held = held.max(begun.elapsed());
            let done = done.expect("an upgrade");
            assert_eq!((done.from.abi, done.to.abi), (OTHER.from, ABI_VERSION));
            let shown = status(testbed, 10);
            assert_eq!(shown["enforced"]["ok"], true, "{shown}");
        }
    });
    println!("{rounds} layouts: {seen:?}, at most {held:?} each");
    let after = status(testbed, 10);
    assert_eq!((seen.orders[0], seen.frames[1]), (seen.orders[1], 0), "{seen:?}");
    let live = entry_named(&after["sessions"], "name", "live");
    assert_eq!(live["messages"]["order"]["passed"], seen.orders[0], "orders that were counted");
    assert_eq!((&live["desyncs"], &live["blind"], &live["fenced"]), (&0.into(), &0.into(), &0.into()));
    assert_eq!(entry_named(&after["scopes"], "scope", "host")["limits"][0]["used"], seen.orders[0]);
    for name in ["host", "session/live", "session/dead"] {
        let [before, after] = [&before, &after].map(|shown| entry_named(&shown["scopes"], "scope", name));
        assert_eq!((&before["causes"], &before["epoch"]), (&after["causes"], &after["epoch"]), "{name}");
    }
    let meta = testbed.with_breaker(|breaker| *breaker.meta());
    assert_eq!((meta.abi, meta.hold, meta.generation), (ABI_VERSION, 0, 1 + rounds));
    run(testbed, &["reset", "session/dead", "--reason", "test", "--force"], 0);
    run(testbed, &["unload"], 0);
    let pins =
        testbed.on_host(|| std::fs::read_dir("/sys/fs/bpf").expect("the pins").flatten().collect::<Vec<_>>());
    // The kernel creates the .debug files itself.
    assert!(pins.iter().all(|pin| pin.file_name().to_string_lossy().ends_with(".debug")), "{pins:?}");
}

#[test]
fn an_upgrade_from_another_layout_under_a_flood_loses_nothing() {
    require_root!();
    for hook in ["tcx", "clsact"] {
        let testbed = on_host(hook);
        assert_takeover_loses_nothing(&testbed, &of_host(&testbed.network));
    }
    for hook in Hook::ALL {
        let testbed = Inline::inline(hook, Offloads::None, POLICY);
        assert_takeover_loses_nothing(&testbed, &gateway_traffic(&testbed));
    }
}

#[test]
fn a_hold_ends_by_itself() {
    require_root!();
    let testbed = on_host("tcx");
    let receiver = Receiver::listen(&testbed.network.venue, TwoHosts::venue_socket(9001));
    let mut line = receiver.connect(&testbed);
    line.send_and_wait(&order(1));
    let until = clock::now_ns() / 1_000_000_000 + 2;
    testbed.on_host(|| {
        let map = Mapped::<Meta>::open(&Testbed::root().map("META")).expect("META");
        map.set(0, Meta { hold: until as u32, ..map.get(0).expect("a value") }).expect("writing META");
    });
    assert!(line.try_send(&order(2)));
    sleep(Duration::from_millis(600));
    assert_eq!(line.received().complete("D"), 1, "a held order does not leave");
    receiver.wait("the second order", |all| all[0].complete("D") == 2);
    assert!(clock::now_ns() >= until * 1_000_000_000, "it is held to the end");
    let live = &status(&testbed, 0)["sessions"][1];
    assert_eq!((&live["messages"]["order"]["passed"], &live["desyncs"]), (&2.into(), &0.into()));
    run(&testbed, &["unload"], 0);
}
