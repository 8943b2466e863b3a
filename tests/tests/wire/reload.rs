//! Reloads: another policy takes over between two packets, and no packet, window, epoch or fence is lost.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::frame::{message, order};
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::config::{self, Policy};
use breaker_user::kernel::reload::PolicyDiff;
use breaker_user::reload::reload;
use breaker_user::view::policy_diff;

const X1: &str = "[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n";

/// The configuration with other text behind `[host]` and its interfaces.
fn policy(testbed: &Testbed, text: &str) -> Policy {
    let whole = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let head = &whole[..whole.find("[\"eth1\"]\n").expect("the interfaces") + 9];
    config::parse("next", &format!("{head}{text}")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn reload_policy(testbed: &Testbed, policy: &Policy) -> PolicyDiff {
    let done = testbed.on_host(|| reload(policy, &Testbed::root(), |_, _| Ok(()))).expect("reloading");
    done.expect("the policy differs")
}

fn reload_text(testbed: &Testbed, text: &str) -> PolicyDiff {
    reload_policy(testbed, &policy(testbed, text))
}

fn limited(max: u32, per: &str) -> String {
    format!("{X1}limits = [{{ class = \"order\", max = {max}, per = \"{per}\" }}]\n")
}

/// Sends orders one by one until the connection is dead.
fn send_until_dead(stream: &mut TcpStream, most: u32) {
    for id in 0..most {
        if stream.write_all(&order(id)).is_err() {
            return;
        }
        sleep(Duration::from_micros(300));
    }
    panic!("{most} crossed");
}

/// Sends orders one by one; all of them cross.
fn send(stream: &mut TcpStream, count: u32) {
    for id in 0..count {
        stream.write_all(&order(id)).expect("it crosses");
        sleep(Duration::from_micros(300));
    }
}

/// Sends orders until `done` is set, up to a number. Returns how many were sent.
fn send_while(done: &AtomicBool, stream: &mut TcpStream, most: u32, pause_us: u64) -> u32 {
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) && sent < most {
        stream.write_all(&order(sent)).expect("it crosses");
        sent += 1;
        sleep(Duration::from_micros(pause_us));
    }
    sent
}

#[test]
fn two_hundred_reloads_under_a_blast_lose_no_count_and_no_window() {
    require_root!();
    // x1 keeps its limit and its ring. x2 has a coarser ring in every other policy. x3 sends about ten
    // thousand orders/s, with a limit that changes too.
    let text = |other: bool| {
        let limit = |max: u32| format!("{{ class = \"order\", max = {max}, per = \"60s\" }}");
        let session = |name: &str, port: u16, group: &str, limits: &str| {
            format!(
                "[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:{port}\"\ngroups = [\"{group}\"]\n\
                 limits = [{limits}]\n"
            )
        };
        let cancels = "{ class = \"cancel\", max = 9, per = \"1s\" }";
        let x1 = if other { format!("{cancels}, {}", limit(500)) } else { limit(500) };
        let x2 = session("x2", 9002, "a", &limit(if other { 2_100 } else { 1_500 }));
        let x3 = session(
            "x3",
            9003,
            if other { "b" } else { "a" },
            &limit(if other { 12_000_000 } else { 10_000_000 }),
        );
        let x1 = session("x1", 9001, if other { "b" } else { "a" }, &x1);
        let more = if other { session("more", 9009, "b", cancels) } else { String::new() };
        let groups = "[[group]]\nname = \"a\"\n[[group]]\nname = \"b\"\n";
        if other { format!("{groups}{more}{x3}{x2}{x1}") } else { format!("{groups}{x1}{x2}{x3}") }
    };
    let testbed = Testbed::load(&text(false));
    let policies = [policy(&testbed, &text(true)), policy(&testbed, &text(false))];
    let receivers = [9001, 9002, 9003].map(|port| testbed.listen(port));
    // Trips of the groups, so that the epoch sums of the sessions differ between the policies.
    testbed.trip("group/b");
    testbed.reset("group/b");
    let [mut slow, mut steady, mut blast] = [9001, 9002, 9003].map(|port| testbed.connect(port));
    let done = AtomicBool::new(false);
    let started = Instant::now();
    let (one, two, three) = std::thread::scope(|threads| {
        let one = threads.spawn(|| send_while(&done, &mut slow, 400, 5_000));
        let two = threads.spawn(|| send_while(&done, &mut steady, 1_300, 2_000));
        let three = threads.spawn(|| send_while(&done, &mut blast, u32::MAX, 30));
        let mut used = 0;
        for round in 0..200 {
            reload_policy(&testbed, &policies[round % 2]);
            let limits = testbed.scope("session/x1").limits;
            let limit = limits.iter().find(|limit| limit.class == "order").expect("the limit");
            assert!(limit.used >= used, "round {round}: {} used after {used}", limit.used);
            used = limit.used;
        }
        done.store(true, Ordering::Relaxed);
        (one.join().expect("x1"), two.join().expect("x2"), three.join().expect("x3"))
    });
    println!("200 reloads in {:?}; {three} orders meanwhile", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(50), "the windows must not have ended");
    for (receiver, sent) in receivers.iter().zip([one, two, three]) {
        receiver.wait("all of them", |all| all[0].complete("D") == sent as usize);
    }
    for (session, sent) in [one, two, three].into_iter().enumerate() {
        let counters = testbed.counters(session + 1);
        assert_eq!(counters.passed[0], u64::from(sent), "session {session}");
        assert_eq!((counters.withheld, counters.desyncs), ([0; 5], 0), "session {session}");
    }
    // The windows went on during the reloads, and the limits are unchanged.
    send_until_dead(&mut slow, 200);
    receivers[0].wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(receivers[0].last().complete("D"), 500);
    send_until_dead(&mut steady, 1_000);
    receivers[1].wait("the reset", |all| all[0].end == End::Reset);
    let crossed = receivers[1].last().complete("D");
    assert!((1_490..=1_500).contains(&crossed), "{crossed}");
    assert_eq!(testbed.status().packets["not_configured"], 0);
}

#[test]
fn a_raised_limit_lets_exactly_the_difference_through_and_a_lowered_one_trips() {
    require_root!();
    let testbed = Testbed::load(&limited(500, "30s"));
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    send(&mut stream, 500);
    let done = reload_text(&testbed, &limited(600, "30s"));
    assert_eq!(
        policy_diff::lines(&done.loosened),
        ["session/x1: 500 order per 30s becomes 600 order per 30s"]
    );
    assert_eq!(testbed.scope("session/x1").limits[0].used, 500);
    send_until_dead(&mut stream, 200);
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(receiver.last().complete("D"), 600);

    let testbed = Testbed::load(&limited(500, "30s"));
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    send(&mut stream, 300);
    receiver.wait("all of them", |all| all[0].complete("D") == 300);
    assert!(reload_text(&testbed, &limited(200, "30s")).loosened.is_empty());
    stream.write_all(&order(1)).expect("queueing");
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(receiver.last().count("D"), 300);
    assert_eq!(testbed.scope("session/x1").causes, ["rate"]);
}

#[test]
fn a_window_moved_to_another_ring_expires_in_time() {
    require_root!();
    let testbed = Testbed::load(&limited(100, "700ms"));
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    send(&mut stream, 90);
    reload_text(&testbed, &limited(300, "700ms"));
    let used = testbed.scope("session/x1").limits[0].used;
    assert!(used <= 90, "{used}");
    sleep(Duration::from_millis(750));
    assert_eq!(testbed.scope("session/x1").limits[0].used, 0);
    send(&mut stream, 100);
    reload_text(&testbed, &limited(100, "700ms"));
    sleep(Duration::from_millis(750));
    send(&mut stream, 100);
    receiver.wait("all of them", |all| all[0].complete("D") == 290);
    assert!(!testbed.scope("session/x1").tripped);
}

#[test]
fn orders_during_a_move_of_the_window_expire_in_time() {
    require_root!();
    let testbed = Testbed::load(&limited(1_500, "150ms"));
    let policies = [3_000, 1_500].map(|max| policy(&testbed, &limited(max, "150ms")));
    let _sink = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    for round in 0..20 {
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| send_while(&done, &mut stream, u32::MAX, 100));
            sleep(Duration::from_millis(20));
            reload_policy(&testbed, &policies[round % 2]);
            done.store(true, Ordering::Relaxed);
        });
        assert!(testbed.scope("session/x1").limits[0].used > 0);
        sleep(Duration::from_millis(160));
        let granule = [2, 1][round % 2];
        let used = testbed.scope("session/x1").limits[0].used;
        assert!(used < granule, "round {round}: {used}");
    }
}

#[test]
fn a_limit_that_replaces_another_starts_empty() {
    require_root!();
    let with = |limits: &str| format!("{X1}limits = [{limits}]\n");
    let four = |class: &str, per: u32| {
        let limit = |n: u32| format!("{{ class = \"{class}\", max = 50, per = \"{}s\" }}", per + n);
        (0..4).map(limit).collect::<Vec<_>>().join(", ")
    };
    let testbed = Testbed::load(&with(&four("order", 30)));
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    send(&mut stream, 45);
    reload_text(&testbed, &with(&four("message", 40)));
    assert!(testbed.scope("session/x1").limits.iter().all(|limit| (limit.used, limit.peak) == (0, 0)));
    send_until_dead(&mut stream, 200);
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(receiver.last().complete("D"), 95);
}

#[test]
fn a_session_that_is_added_counts_from_its_next_packet_and_one_that_is_removed_is_undeclared() {
    require_root!();
    let testbed = Testbed::load(X1);
    let receivers = [9001, 9002].map(|port| testbed.listen(port));
    let mut streams = [9001, 9002].map(|port| testbed.connect(port));
    streams.iter_mut().for_each(|stream| send(stream, 3));
    assert_eq!([0, 1].map(|session| testbed.counters(session).passed[0]), [3, 3]);
    let x2 = "[[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\nlimits = [{ class = \"order\", max \
              = 7, per = \"total\" }]\n";
    let done = reload_text(&testbed, &format!("{x2}{X1}"));
    assert_eq!((done.added, done.loosened), (vec!["session/x2".to_owned()], vec![]));
    // The undeclared flow is read from mid-stream, and a new connection from its start.
    streams.iter_mut().for_each(|stream| send(stream, 2));
    let mut new_connection = testbed.connect(9002);
    send(&mut new_connection, 4);
    assert_eq!([0, 1, 2].map(|session| testbed.counters(session).passed[0]), [3, 5, 6]);
    // x1 is removed: its connections are undeclared from their next packet on. x2 continues to count.
    let done = reload_text(&testbed, x2);
    assert_eq!(policy_diff::lines(&done.loosened), ["session/x1: no longer declared"]);
    send(&mut streams[0], 2);
    send(&mut new_connection, 1);
    assert_eq!([0, 1, 2].map(|session| testbed.counters(session).passed[0]), [5, 5, 7]);
    send_until_dead(&mut new_connection, 5);
    receivers[1].wait("the reset", |all| all[1].end == End::Reset);
    assert_eq!(receivers[1].last().complete("D"), 5);
    // x1 returns with its old number.
    reload_text(&testbed, &format!("{X1}{x2}\n# again\n"));
    let mut new_connection = testbed.connect(9001);
    send(&mut new_connection, 1);
    assert_eq!(testbed.counters(1).passed[0], 6);
}

#[test]
fn a_live_flow_stays_live_when_its_session_is_declared() {
    require_root!();
    let before = "[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n";
    let testbed = Testbed::load(before);
    let receiver = testbed.listen(9002);
    // A trip before the session was declared does not fence it.
    testbed.trip("host");
    testbed.reset("host");
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&order(1));
    reload_text(&testbed, &format!("{before}[[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\n"));
    for id in 2..6 {
        connection.send_and_wait(&order(id));
    }
    assert_eq!(testbed.counters(2).passed[0], 4);
    testbed.trip("session/x2");
    connection.wait_for_reset();
}

#[test]
fn tripped_scopes_and_fenced_connections_stay_so_across_reloads() {
    require_root!();
    let groups = "[[group]]\nname = \"a\"\n[[group]]\nname = \"b\"\n";
    let text = |of: &str| format!("on_trip = \"drop\"\n{groups}{X1}groups = [{of}]\n");
    let testbed = Testbed::load(&text("\"a\""));
    let receiver = testbed.listen(9001);
    let mut old = testbed.connect(9001);
    send(&mut old, 1);
    receiver.wait("the first", |all| all[0].complete("D") == 1);
    for group in ["group/a", "group/b"] {
        testbed.trip(group);
    }
    // Joining a group loosens nothing.
    reload_text(&testbed, &text("\"a\", \"b\""));
    let state = |name: &str| {
        let scope = testbed.scope(name);
        (scope.tripped, scope.epoch)
    };
    assert_eq!([state("group/a"), state("group/b"), state("session/x1")], [(true, 1), (true, 1), (false, 0)]);
    let refused = testbed
        .on_host(|| reload(&policy(&testbed, &text("\"b\"")), &Testbed::root(), |_, _| Ok(())))
        .expect_err("a refusal");
    assert!(refused.to_string().contains("session/x1: no longer in group/a"), "{refused:#}");
    for group in ["group/a", "group/b"] {
        testbed.reset(group);
    }
    let mut young = testbed.connect(9001);
    send(&mut young, 1);
    // Whatever trips the groups had, a fenced connection stays fenced, and a live one is not fenced.
    for (round, of) in ["", "\"b\"", "\"a\", \"b\"", "\"a\"", ""].iter().enumerate() {
        reload_text(&testbed, &format!("{}# {round}\n", text(of)));
        old.write_all(&order(9)).expect("queueing");
        send(&mut young, 1);
    }
    receiver.wait("those of the young one", |all| all.len() == 2 && all[1].complete("D") == 6);
    sleep(Duration::from_millis(50));
    assert_eq!(receiver.received()[0].complete("D"), 1);
    // The same if its session is removed or returns.
    reload_text(&testbed, &format!("on_trip = \"drop\"\n{groups}"));
    old.write_all(&order(9)).expect("queueing");
    send(&mut young, 1);
    receiver.wait("what is undeclared now", |all| all[1].complete("D") == 7);
    reload_text(&testbed, &text("\"b\""));
    old.write_all(&order(9)).expect("queueing");
    // Longer than the current retransmission timeout.
    sleep(Duration::from_millis(700));
    assert_eq!(receiver.received()[0].complete("D"), 1);
}

#[test]
fn the_dead_mans_time_starts_with_the_policy_that_sets_it() {
    require_root!();
    let testbed = Testbed::load(X1);
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    sleep(Duration::from_millis(500));
    reload_text(&testbed, &format!("deadman = {{ after = \"400ms\", action = \"trip\" }}\n{X1}"));
    send(&mut stream, 3);
    receiver.wait("all of them", |all| all[0].complete("D") == 3);
    sleep(Duration::from_millis(500));
    stream.write_all(&order(9)).expect("queueing");
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(testbed.scope("host").causes, ["deadman"]);
}

#[test]
fn at_an_endpoint_that_becomes_shared_new_connections_are_identified() {
    require_root!();
    let session = |name: &str, sender: &str| {
        format!("[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:9001\"\nsender = \"{sender}\"\n")
    };
    let testbed = Testbed::load(&session("x1", "FIRM"));
    let receiver = testbed.listen(9001);
    let mut before = testbed.connect(9001);
    before.write_all(&message("FIX.4.4", "A", b"")).expect("logging on");
    send(&mut before, 1);
    reload_text(&testbed, &format!("{}{}", session("x1", "FIRM"), session("x2", "OTHER")));
    send(&mut before, 1);
    let mut after = testbed.connect(9001);
    after.write_all(&message("FIX.4.4", "A", b"")).expect("logging on");
    send(&mut after, 1);
    let mut other = testbed.connect(9001);
    let text = String::from_utf8(message("FIX.4.4", "A", b""))
        .expect("text")
        .replace("49=FIRM\u{1}", "49=OTHER\u{1}");
    let body = text.find("35=").expect("a body")..text.find("10=").expect("a sum");
    let length = body.len();
    let fixed = format!("8=FIX.4.4\u{1}9={length}\u{1}{}10=000\u{1}", &text[body]);
    other.write_all(fixed.as_bytes()).expect("logging on");
    send(&mut other, 4);
    receiver.wait("all of them", |all| all.len() == 3 && all[2].count("D") == 4);
    assert_eq!([0, 1, 2].map(|session| testbed.counters(session).passed[0]), [0, 3, 4]);
}
