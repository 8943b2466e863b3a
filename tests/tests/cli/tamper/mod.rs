//! Root removes, displaces or changes the breaker while a tripped session floods it. The agent detects the
//! tampering within a second and repairs the load where a repair is safe. The scope stays tripped.

mod devices;
mod flood;
mod maps;

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType};
use breaker_tests::agent::{Agent, metrics};
use breaker_tests::command::PIN_ROOT;
use breaker_tests::empty_program;
use breaker_tests::network::Network;
use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_user::testbed::{Namespace, TwoHosts};
use flood::Flood;
use serde_json::Value;

/// Longest time until the agent detects tampering.
const MAX_DETECTION: Duration = Duration::from_secs(1);

const POLICY: &str = r#"
on_trip = "drop"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
"#;

/// A host with an agent, and a tripped session.
struct Host<N = TwoHosts> {
    testbed: Testbed<N>,
    _agent: Agent,
}

impl<N: Network> Host<N> {
    fn with(testbed: Testbed<N>) -> Self {
        let agent = Agent::start(&testbed);
        testbed.trip("session/x1");
        Self { testbed, _agent: agent }
    }

    /// Returns the events of a kind in the audit log.
    fn events(&self, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.testbed.audit()).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["kind"] == kind).collect()
    }

    /// Waits for a number of events of a kind and returns the last one. Panics if the wait takes more than
    /// twice [`MAX_DETECTION`], which includes the time to write the log.
    #[track_caller]
    fn wait_for_event(&self, kind: &str, count: usize) -> Value {
        let start = Instant::now();
        let found = wait_for(&format!("{count} of {kind}"), || {
            Some(self.events(kind)).filter(|events| events.len() >= count)?.pop()
        });
        assert!(start.elapsed() < 2 * MAX_DETECTION, "{kind} after {:?}", start.elapsed());
        found
    }

    /// Returns the value of a metric.
    fn metric(&self, sample: &str) -> f64 {
        let text = metrics(&self.testbed);
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in {text}")).trim().parse().expect("a number")
    }

    /// Waits until `status` exits with a code.
    #[track_caller]
    fn wait_for_status(&self, code: i32) {
        wait_for(&format!("status {code}"), || {
            (self.testbed.cli("status").exit_code == Some(code)).then_some(())
        });
    }
}

impl Host {
    fn start(hook: &str) -> Self {
        Self::with(Testbed::unloaded(&format!("hook = \"{hook}\"\n{POLICY}")))
    }

    fn firm(&self) -> &Namespace {
        &self.testbed.network.firm
    }
}

/// Calls bpf(2) with an attribute of 64-bit words. Every address in the attribute must be valid.
#[track_caller]
fn bpf(command: libc::c_int, attr: &mut [u64]) -> libc::c_long {
    // SAFETY: the callers pass addresses of values that outlive the call and have the sizes of the map.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    assert!(done >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    done
}

/// Detaches a pinned link by its descriptor. The removal of its pin would not detach it, because the agent
/// holds the link open.
fn detach_link(link: &Path) {
    const BPF_OBJ_GET: libc::c_int = 7;
    const BPF_LINK_DETACH: libc::c_int = 34;
    let path = CString::new(link.as_os_str().as_bytes()).expect("a path");
    let link = bpf(BPF_OBJ_GET, &mut [path.as_ptr() as u64, 0]);
    bpf(BPF_LINK_DETACH, &mut [link as u64]);
    // SAFETY: the kernel has just opened this descriptor.
    drop(unsafe { OwnedFd::from_raw_fd(link as i32) });
}

/// Attaches a program that passes every packet in front of breaker's program. Dropping the value detaches
/// the program.
fn attach_in_front(host: &Host) -> Ebpf {
    host.testbed.on_host(|| {
        let mut object = empty_program::object("empty");
        let program: &mut SchedClassifier =
            object.program_mut("pass").expect("a program").try_into().expect("a program of tc");
        program.load().expect("loading it");
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options("eth1", TcAttachType::Egress, first).expect("attaching it");
        object
    })
}

fn report(what: &str, withheld: u64, leaked: u64) {
    println!("{what}: {withheld} frames of a tripped session withheld, {leaked} leaked");
    assert!(withheld > 0, "{what}: the flood reached the hook");
}

#[test]
fn a_detached_link_is_attached_again_at_most_three_times_a_minute() {
    require_root!();
    let host = Host::start("auto");
    let ((), withheld, leaked) = Flood::during(&host.testbed, |_| {
        for round in 1..=3 {
            host.testbed.on_host(|| detach_link(&Path::new(PIN_ROOT).join("link_0")));
            let entry = host.wait_for_event("reattached", round);
            assert!(entry["counts"]["gap_ms"].as_u64().is_some_and(|gap| gap <= 300), "{entry}");
            host.wait_for_status(10);
            // The agent writes at most one event per second about an interface.
            sleep(MAX_DETECTION);
        }
    });
    report("BPF_LINK_DETACH, three times", withheld, leaked);
    assert_eq!(host.metric("breaker_reattached_total{interface=\"eth1\"}"), 3.0);
    assert!(host.metric("breaker_tampered_total") >= 3.0);
    assert!(host.metric("breaker_unprotected_seconds_total{interface=\"eth1\"}") < 1.0);
    assert_eq!(host.testbed.causes("session/x1"), ["manual"]);
    // After the fourth detachment the link stays detached, and the agent reports a problem.
    host.testbed.on_host(|| detach_link(&Path::new(PIN_ROOT).join("link_0")));
    host.wait_for_status(11);
    let entry = wait_for("the end of the repairs", || {
        let is_last =
            |event: &Value| event["counts"]["found"].to_string().contains("3 times within a minute");
        host.events("tampered").into_iter().find(is_last)
    });
    println!("{entry}");
    sleep(Duration::from_millis(300));
    assert_eq!(host.events("reattached").len(), 3);
    assert_eq!(host.metric("breaker_problem{what=\"detached\",where=\"eth1\"}"), 1.0);
}

#[test]
fn removed_clsact_filters_and_qdiscs_are_added_again() {
    require_root!();
    let host = Host::start("clsact");
    let ((), withheld, leaked) = Flood::during(&host.testbed, |_| {
        for (round, removal) in
            ["tc filter del dev eth1 egress", "tc qdisc del dev eth1 clsact"].into_iter().enumerate()
        {
            host.testbed.shell(removal);
            let entry = host.wait_for_event("reattached", round + 1);
            assert!(entry["counts"]["gap_ms"].as_u64().is_some_and(|gap| gap <= 300), "{removal}: {entry}");
            host.wait_for_status(10);
            sleep(MAX_DETECTION);
        }
    });
    report("tc filter del, tc qdisc del", withheld, leaked);
    assert!(host.metric("breaker_tampered_total") >= 2.0);
}

#[test]
fn removed_pins_are_pinned_again_without_a_leak() {
    require_root!();
    let host = Host::start("auto");
    let ((), withheld, leaked) = Flood::during(&host.testbed, |_| {
        for (round, removal) in ["link_0", "scopes", "program"].into_iter().enumerate() {
            host.testbed.shell(&format!("rm {PIN_ROOT}/{removal}"));
            host.wait_for_event("tampered", round + 1);
            host.wait_for_status(10);
            sleep(MAX_DETECTION);
        }
    });
    report("rm of pins", withheld, leaked);
    assert_eq!(leaked, 0);
    assert!(host.events("reattached").is_empty());
    assert_eq!(host.metric("breaker_tampered_total"), 3.0);
}

#[test]
fn a_program_in_front_is_reported_and_fails_the_probe() {
    require_root!();
    let host = Host::start("auto");
    let ((), withheld, leaked) = Flood::during(&host.testbed, |flood| {
        host.wait_for_status(10);
        let before = flood.leaked();
        let other = attach_in_front(&host);
        host.wait_for_event("displaced", 1);
        let entry = host.wait_for_event("tampered", 1);
        assert_eq!(entry["counts"]["interface"], "eth1", "{entry}");
        assert!(entry["counts"]["after"].as_u64() > entry["counts"]["before"].as_u64(), "{entry}");
        host.wait_for_event("probe_failed", 1);
        let output = host.testbed.cli("status").expect_exit(11);
        assert!(
            output.stdout.contains("DISPLACED: eth1") && output.stdout.contains("PROBE: eth1"),
            "{output:?}"
        );
        assert!(flood.leaked() > before, "the program in front passes packets");
        drop(other);
        host.wait_for_event("link_restored", 1);
        host.wait_for_event("probe_restored", 1);
        host.wait_for_status(10);
    });
    report("a program in front", withheld, leaked);
}

#[test]
fn each_bypass_of_five_milliseconds_is_detected() {
    require_root!();
    const WINDOWS: u32 = 20;
    let host = Host::start("auto");
    let before = host.metric("breaker_tampered_total");
    let ((), withheld, leaked) = Flood::during(&host.testbed, |_| {
        for _ in 0..WINDOWS {
            let other = attach_in_front(&host);
            sleep(Duration::from_millis(5));
            drop(other);
            sleep(Duration::from_millis(500));
        }
    });
    report("20 windows of 5 ms", withheld, leaked);
    sleep(MAX_DETECTION);
    assert_eq!(host.metric("breaker_tampered_total") - before, f64::from(WINDOWS));
    let logged: u64 = host
        .events("tampered")
        .iter()
        .map(|event| 1 + event["counts"]["suppressed"].as_u64().unwrap_or_default())
        .sum();
    assert!(logged >= u64::from(WINDOWS), "{logged} windows in the log");
}

#[test]
fn breakers_own_actions_are_not_reported_as_tampering() {
    require_root!();
    let host = Host::start("auto");
    sleep(2 * MAX_DETECTION);
    host.testbed.reset("session/x1");
    for verb in ["disarm", "arm"] {
        host.testbed.switch(verb, "session/x1").expect_exit(0);
    }
    host.testbed.trip("host");
    host.testbed.reset("host");
    let text = std::fs::read_to_string(host.testbed.config()).expect("the configuration");
    for round in 0..5 {
        let text =
            format!("{text}\n[[session]]\nname = \"y{round}\"\nremote = \"10.9.0.2:{}\"\n", 9100 + round);
        let file = host.testbed.write_config("next.toml", &text);
        host.testbed.cli(&format!("reload --config {}", file.display())).expect_exit(0);
        sleep(Duration::from_millis(700));
    }
    host.testbed.cli("status").expect_exit(0);
    sleep(2 * MAX_DETECTION);
    assert!(host.events("tampered").is_empty(), "{:?}", host.events("tampered"));
    assert!(host.events("probe_failed").is_empty());
    host.testbed.cli("unload").expect_exit(0);
    host.wait_for_event("agent_stopped", 1);
    assert!(host.events("tampered").is_empty(), "{:?}", host.events("tampered"));
}
