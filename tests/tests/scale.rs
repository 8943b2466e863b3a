//! A policy of many sessions and a full connection table: memory, cost of a packet, and time of `status`.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use breaker_tests::agent::{Agent, metrics};
use breaker_tests::many_sessions::{ManySessions, policy};
use breaker_tests::require_root;
use breaker_tests::rng::Rng;
use breaker_tests::slowness;
use breaker_tests::testbed::Testbed;

const SESSIONS: usize = 1_000;
const GROUPS: usize = 64;
const CONNECTIONS: usize = 60_000;
/// Largest ratio of a packet's cost. Look-ups are by number or by hash, never by a search.
const FLAT: f64 = 1.5;
/// Largest ratio if the memory of the connection, of three scopes and of their limits' rings is in no cache.
const COLD: f64 = 10.0;
const ROUNDS: usize = 7;
const SINGLES: usize = 3_000;
/// Largest time of `status`. A build without optimisation is several times slower, and runs beside other
/// tests.
const LOOK: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3_000 } else { 100 });

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_packet_costs_the_same_with_many_sessions_and_connections() {
    require_root!();
    let (mut one, mut many_sessions) = (ManySessions::new(1, 1, 1), ManySessions::new(SESSIONS, GROUPS, 1));
    let (mut many_connections, mut many_of_both) =
        (ManySessions::new(1, 1, CONNECTIONS), ManySessions::new(SESSIONS, GROUPS, CONNECTIONS));
    let mut rng = Rng(0x5ca1e);
    let mut ratios: [Vec<f64>; 5] = Default::default();
    let mut zero = Vec::new();
    for _ in 0..ROUNDS {
        let base = median(one.orders(SINGLES, || 0));
        zero.push(base);
        ratios[0].push(median(many_sessions.orders(SINGLES, || 0)) / base);
        ratios[1].push(median(many_of_both.orders(SINGLES, || 59_999)) / base);
        ratios[2]
            .push(median(many_connections.orders(SINGLES, || rng.below(CONNECTIONS as u64) as usize)) / base);
        ratios[3].push(median(many_of_both.orders(SINGLES, || rng.below(SESSIONS as u64) as usize)) / base);
        ratios[4]
            .push(median(many_of_both.orders(SINGLES, || rng.below(CONNECTIONS as u64) as usize)) / base);
    }
    let [sessions, connections, connections_spread, sessions_spread, spread] = ratios.map(median);
    println!(
        "an order: {:.0} ns with one session and one connection; of {SESSIONS} sessions {sessions:.2} times \
         that, in a table of \
         {CONNECTIONS} {connections:.2} times",
        median(zero)
    );
    println!(
        "each order on any connection, with nothing of it in the caches: of {CONNECTIONS} of one session \
         {connections_spread:.2} times; of one \
         each of {SESSIONS} sessions {sessions_spread:.2} times; of {CONNECTIONS} of {SESSIONS} sessions \
         {spread:.2} times"
    );
    assert!(sessions < FLAT && connections < FLAT, "{sessions:.2}, {connections:.2}");
    let cold = connections_spread.max(sessions_spread).max(spread);
    assert!(cold < COLD, "{cold:.2}");
    assert_eq!(
        [&one, &many_sessions, &many_connections, &many_of_both].map(ManySessions::counted),
        [1, 1, 1, 3].map(|each| each * (ROUNDS * SINGLES) as u64),
        "each of them was counted"
    );
}

#[test]
fn the_maps_take_at_most_the_memory_that_check_reports() {
    require_root!();
    for (sessions, groups, more) in
        [(SESSIONS, GROUPS, ""), (1, 1, ""), (SESSIONS, GROUPS, "inbound = \"watch\"\n")]
    {
        let mut text = policy(sessions, groups);
        if more.is_empty() {
            text = text.replace(", { class = \"reject\", max = 50, per = \"1m\" }", "");
        }
        let load = ManySessions::with_policy(&format!("{more}{text}"), sessions, CONNECTIONS);
        let config = load.testbed.config();
        let output = load.testbed.cli(&format!("check --json --config {}", config.display()));
        let said = output.json()["kernel_memory_bytes"].as_u64().expect("a number");
        let taken: u64 = load.memory().iter().map(|(_, bytes)| bytes).sum();
        println!("{sessions} sessions {more:?}: {} KiB taken, {} KiB said", taken / 1024, said / 1024);
        assert!(taken <= said, "{taken} bytes are used, but check reported {said}");
        assert!(
            said < 2 * taken,
            "check reported {said} bytes, but {taken} are used: more than twice as many"
        );
    }
}

/// The fastest of five runs.
fn fastest<R>(mut look: impl FnMut() -> R) -> (Duration, R) {
    let tries = (0..5).map(|_| {
        let start = Instant::now();
        let seen = look();
        (start.elapsed(), seen)
    });
    tries.min_by_key(|(took, _)| *took).expect("a try")
}

#[test]
fn status_and_metrics_of_a_large_policy_are_fast() {
    require_root!();
    let load = ManySessions::new(SESSIONS, GROUPS, CONNECTIONS);
    let (took, status) = fastest(|| load.testbed.cli("status --json"));
    let status = status.json();
    let live: u64 = status["sessions"]
        .as_array()
        .expect("sessions")
        .iter()
        .filter_map(|one| one["connections"].as_u64())
        .sum();
    assert_eq!(live, CONNECTIONS as u64);
    println!("status --json of {SESSIONS} sessions and {CONNECTIONS} connections: {took:?}");
    assert!(took < LOOK, "status took {took:?}");

    let agent = Agent::start(&load.testbed);
    let (took, answer) = fastest(|| metrics(&load.testbed));
    let ready = agent.ready.clone();
    agent.stop();
    assert!(
        answer.contains(&format!("breaker_connection_table_used {CONNECTIONS}\n")),
        "{ready}{answer:.300}"
    );
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    println!("/metrics of the same, {} KiB: {took:?}", body.len() / 1024);
    assert!(took < LOOK, "/metrics took {took:?}");
    for series in [
        "breaker_inbound_messages_total{session=\"s999\",kind=\"fill\"} 0\n",
        "breaker_limit_used{scope=\"group/g63\",",
    ] {
        assert!(body.contains(series), "{series}");
    }
    check_metrics(body);
}

/// Runs promtool on the metrics.
fn check_metrics(metrics: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("starting promtool (package prometheus)");
    promtool.stdin.take().expect("its input").write_all(metrics.as_bytes()).expect("handing it the metrics");
    let found = promtool.wait_with_output().expect("its verdict");
    let text = String::from_utf8_lossy(&found.stdout).into_owned() + &String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success() && text.is_empty(), "promtool: {text:.500}");
}

/// Measures sends of 64 KB that cannot be read, with the kernel's run-time statistics.
#[test]
fn unreadable_bytes_cost_little() {
    require_root!();
    const SENDS: usize = 400;
    const BYTES: usize = 1 << 16;
    let testbed = Testbed::load("[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n");
    let receiver = testbed.listen(9001);
    for (what, bytes) in
        [("noise", vec![0xfe; BYTES]), ("beginnings", b"8=FIX.4.4\x019=5\x01".repeat(BYTES / 14))]
    {
        let mut line = receiver.connect(&testbed);
        let _stats = enable_stats(Stats::RunTime).expect("the kernel's own count");
        let taken = || {
            let program = testbed.with_breaker(|breaker| breaker.program().expect("the program"));
            (program.run_time(), program.run_count())
        };
        let before = taken();
        for _ in 0..SENDS {
            line.send_and_wait(&bytes);
        }
        let after = taken();
        let each = (after.0 - before.0) / SENDS as u32;
        println!("{what}: {each:?} for a send of {} bytes, in {} packets", bytes.len(), after.1 - before.1);
        assert!(each < Duration::from_micros(100) * slowness(), "{what}: {each:?}");
    }
}
