//! A host in a fleet: a real etcd, a real agent, the command line, and orders on real connections.

use std::time::{Duration, Instant};

use breaker_tests::agent::Agent;
use breaker_tests::etcd::Cluster;
use breaker_tests::frame::message;
use breaker_tests::network::Network;
use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_user::testbed::TwoHosts;
use serde_json::Value;

/// A host of the fleet `desk`, with a cluster at its loopback.
struct Host {
    testbed: Testbed,
    cluster: Cluster,
}

/// An order.
fn order() -> Vec<u8> {
    message("FIX.4.4", "D", b"11=R-1\x0155=IBM\x0154=1\x0138=100\x01")
}

/// The policy after `[host]` and its interfaces.
fn policy(cluster: &Cluster, fleet: &str) -> String {
    let url = cluster.url(0);
    format!(
        "[[session]]\nname = \"x1\"\nremote = \"{}\"\n\
         [fleet]\nname = \"desk\"\nhost = \"router-1\"\nendpoints = [{url:?}]\n{fleet}",
        TwoHosts::venue_socket(9001)
    )
}

impl Host {
    /// Loads the policy, with more keys of `[fleet]`.
    fn load(fleet: &str) -> Self {
        let network = TwoHosts::new().expect("making namespaces");
        let cluster = network.host().run(|| Cluster::start(1));
        let testbed = Testbed::on(network, &policy(&cluster, fleet));
        testbed.load_cli();
        Self { testbed, cluster }
    }

    /// Runs a verb of the fleet.
    fn fleet(&self, words: &str) -> breaker_tests::command::CliOutput {
        self.testbed.cli(&format!("fleet {words} --config {}", self.testbed.config().display()))
    }

    /// Runs a verb with a scope; every host must do it.
    #[track_caller]
    fn switch(&self, verb: &str, scope: &str) {
        let output = self.fleet(&format!("{verb} {scope} --reason test"));
        output.expect_exit(0).expect_stdout("1 of 1 hosts");
    }

    fn add_to_inventory(&self) {
        self.fleet("inventory add router-1").expect_exit(0).expect_stdout("router-1");
    }

    fn etcdctl(&self, args: &[&str]) -> String {
        self.testbed.on_host(|| self.cluster.etcdctl(args))
    }

    /// The events of a kind that the running agent has logged.
    fn logged(&self, kind: &str) -> Vec<Value> {
        let log = self.testbed.cli("events --json").expect_exit(0).stdout;
        let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        events.filter(|event| event["kind"] == kind).collect()
    }

    /// Waits until the host has these causes.
    fn wait_for_causes(&self, scope: &str, causes: &[&str]) {
        wait_for("the causes", || (self.testbed.causes(scope) == causes).then_some(()));
    }
}

#[test]
fn a_trip_of_the_fleet_withholds_orders_until_the_fleet_resets_it() {
    require_root!();
    let host = Host::load("");
    let agent = Agent::start(&host.testbed);
    host.add_to_inventory();
    let venue = host.testbed.listen(9001);
    let mut connection = venue.connect(&host.testbed);
    connection.send_and_wait(&order());
    host.switch("trip", "all");
    assert_eq!(host.testbed.causes("host"), ["fleet"]);
    // The idle connection ends, and an order of the next one is withheld.
    connection.wait_for_reset();
    let mut connection = venue.connect(&host.testbed);
    connection.try_send(&order());
    assert_eq!(connection.wait_for_reset().complete("D"), 0);
    host.testbed.switch("reset", "host").expect_exit(4).expect_stderr("the fleet tripped it");
    host.fleet("reset session/x1 --reason test").expect_exit(4).expect_stderr("has not tripped exactly");
    assert_eq!(host.testbed.causes("host"), ["fleet"]);
    host.switch("reset", "all");
    assert_eq!(host.testbed.causes("host"), [""; 0]);
    let mut connection = venue.connect(&host.testbed);
    connection.send_and_wait(&order());
    let events = host.logged("tripped");
    assert_eq!((&events[0]["cause"], &events[0]["reason"]), (&"fleet".into(), &"test".into()));
    agent.stop();
}

#[test]
fn the_fleet_and_the_host_reset_only_their_own_trips() {
    require_root!();
    let host = Host::load("");
    let agent = Agent::start(&host.testbed);
    host.add_to_inventory();
    host.testbed.trip("host");
    host.switch("trip", "host/router-1");
    host.switch("trip", "all");
    assert_eq!(host.testbed.causes("host"), ["manual", "fleet"]);
    // One of two trips of the fleet is lifted: the other one stands.
    host.fleet("reset all --reason test").expect_exit(0).expect_stdout("another trip of the fleet stands");
    assert_eq!(host.testbed.causes("host"), ["manual", "fleet"]);
    host.testbed.switch("reset", "host").expect_exit(1).expect_stderr("stays tripped by the fleet");
    assert_eq!(host.testbed.causes("host"), ["fleet"]);
    host.testbed.trip("host");
    host.switch("reset", "host/router-1");
    assert_eq!(host.testbed.causes("host"), ["manual"]);
    agent.stop();
}

#[test]
fn a_trip_while_the_agent_is_down_is_in_the_kernel_when_the_agent_is_ready() {
    require_root!();
    let host = Host::load("");
    host.add_to_inventory();
    host.fleet("trip session/x1 --reason test --timeout 300").expect_exit(12).expect_stdout("no answer");
    assert_eq!(host.testbed.tripped(), [""; 0]);
    let agent = Agent::start(&host.testbed);
    assert_eq!(host.testbed.causes("session/x1"), ["fleet"]);
    agent.stop();
}

#[test]
fn without_etcd_the_agent_keeps_the_trips_that_it_knows() {
    require_root!();
    let mut host = Host::load("");
    let agent = Agent::start(&host.testbed);
    host.add_to_inventory();
    host.switch("trip", "all");
    wait_for("the trip is on disk", || {
        let file = std::fs::read_dir(host.testbed.state())
            .expect("the state")
            .flatten()
            .find(|file| file.file_name().to_string_lossy().starts_with("fleet-"))?;
        let text = std::fs::read_to_string(file.path()).ok()?;
        text.contains("\"all\"").then_some(())
    });
    agent.stop();
    host.cluster.kill(0);
    let refused = host.fleet("trip all --reason test --timeout 500");
    refused.expect_exit(13).expect_stderr("breaker trip host --reason");
    // Root breaks the glass, and the agent trips again: the trip stands.
    host.testbed.cli("reset host --reason test --break-glass").expect_exit(0);
    assert_eq!(host.testbed.causes("host"), [""; 0]);
    let agent = Agent::start(&host.testbed);
    assert_eq!(host.testbed.causes("host"), ["fleet"]);
    agent.stop();
}

#[test]
fn a_lost_engine_trips_where_the_policy_says_so_and_the_fleet_resets_that() {
    require_root!();
    let mut host = Host::load("on_engine_loss = { after = \"1s\", action = \"trip\" }");
    let agent = Agent::start(&host.testbed);
    host.add_to_inventory();
    host.cluster.kill(0);
    let began = Instant::now();
    host.wait_for_causes("host", &["fleet"]);
    println!("tripped {:?} after the end of etcd", began.elapsed());
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(host.logged("fleet_lost").len(), 1);
    let Host { testbed, cluster } = &mut host;
    testbed.on_host(|| cluster.restart(0));
    wait_for("etcd has the trip", || {
        host.fleet("status").stdout.contains("TRIPPED: host/router-1").then_some(())
    });
    host.switch("reset", "host/router-1");
    assert_eq!(host.testbed.causes("host"), [""; 0]);
    agent.stop();
}

#[test]
fn a_record_that_cannot_be_read_trips_and_another_trip_in_its_place_can_be_reset() {
    require_root!();
    let host = Host::load("");
    let agent = Agent::start(&host.testbed);
    host.add_to_inventory();
    host.etcdctl(&["put", "/breaker/desk/reset/x", "no reset"]);
    host.etcdctl(&["put", "/breaker/desk/trip/session/x1", "\u{1}no trip"]);
    host.wait_for_causes("session/x1", &["fleet"]);
    host.fleet("reset session/x1 --reason test").expect_exit(4).expect_stderr("cannot be read");
    // A key that is deleted lifts nothing.
    host.etcdctl(&["del", "/breaker/desk/trip/session/x1"]);
    host.fleet("status").expect_exit(12);
    assert_eq!(host.testbed.causes("session/x1"), ["fleet"]);
    // A trip needs no reason, as on a host.
    host.fleet("trip session/x1").expect_exit(0).expect_stdout("1 of 1 hosts").expect_stderr("reason");
    host.switch("reset", "session/x1");
    assert_eq!(host.testbed.causes("session/x1"), [""; 0]);
    agent.stop();
}

#[test]
fn a_policy_is_published_then_activated_and_only_same_hosts_arm() {
    require_root!();
    let host = Host::load("");
    let agent = Agent::start(&host.testbed);
    host.add_to_inventory();
    host.fleet("activate --reason test").expect_exit(4).expect_stderr("no policy is published");
    host.fleet("arm all --reason test").expect_exit(12).expect_stderr("policy: wanted an active one");
    let text = std::fs::read_to_string(host.testbed.config()).expect("the configuration");
    let next = host.testbed.write_config("next.toml", &format!("policy = \"next\"\n{text}"));
    let bad = host.testbed.write_config("bad.toml", &text.replace("[\"eth1\"]", "[\"eth7\"]"));
    let publish = |file: &std::path::Path| host.fleet(&format!("publish {} --reason test", file.display()));
    publish(&bad).expect_exit(12).expect_stdout("0 of 1 hosts");
    host.fleet("activate --reason test").expect_exit(12).expect_stderr("router-1: ");
    publish(&next).expect_exit(0).expect_stdout("1 of 1 hosts");
    assert_eq!(host.testbed.status().policy.name, "unnamed");
    host.fleet("activate --reason test").expect_exit(0).expect_stdout("activated policy next: 1 of 1 hosts");
    assert_eq!(host.testbed.status().policy.name, "next");
    wait_for("the host is the same", || (host.fleet("verify").exit_code == Some(0)).then_some(()));
    host.switch("disarm", "session/x1");
    host.switch("arm", "all");
    // A person reloads the old file on the host: the host differs.
    let config = host.testbed.config();
    host.testbed.cli(&format!("reload --config {}", config.display())).expect_exit(0);
    wait_for("the host differs", || (host.fleet("verify").exit_code == Some(12)).then_some(()));
    host.fleet("verify").expect_stdout("DIFFERS: router-1: policy: wanted ");
    host.fleet("arm all --reason test").expect_exit(12).expect_stderr("router-1: policy");
    let status: Value = host.fleet("status --json").json();
    assert_eq!((&status["is_same"], &status["hosts"][0]["live"]), (&false.into(), &true.into()));
    agent.stop();
    // A new agent puts the active policy in force again.
    let agent = Agent::start(&host.testbed);
    wait_for("the host is the same", || (host.fleet("verify").exit_code == Some(0)).then_some(()));
    agent.stop();
    wait_for("the agent's lease ends", || {
        host.fleet("status").stdout.contains("agent: wanted an answer within 5s").then_some(())
    });
}

#[test]
fn a_cluster_from_a_backup_trips_and_lifts_nothing() {
    require_root!();
    let mut host = Host::load("");
    let agent = Agent::start(&host.testbed);
    host.add_to_inventory();
    let backup = host.cluster.directory().join("backup");
    host.switch("trip", "session/x1");
    host.switch("reset", "session/x1");
    host.testbed.on_host(|| host.cluster.save(&backup));
    host.switch("trip", "all");
    host.switch("reset", "all");
    host.switch("trip", "host/router-1");
    agent.stop();
    let Host { testbed, cluster } = &mut host;
    testbed.on_host(|| cluster.restore(&backup));
    let agent = Agent::start(&host.testbed);
    wait_for("it is reported", || (!host.logged("fleet_distrusted").is_empty()).then_some(()));
    // The trip that the backup does not have stands; those that were lifted before stay lifted.
    assert_eq!(host.testbed.causes("host"), ["fleet"]);
    assert_eq!(host.testbed.causes("session/x1"), [""; 0]);
    host.fleet("trip session/x1 --reason test").expect_exit(0);
    host.fleet("reset session/x1 --reason test --timeout 500").expect_exit(12);
    assert_eq!(host.testbed.causes("session/x1"), ["fleet"]);
    agent.stop();
}

#[test]
fn a_verb_without_a_fleet_or_with_a_wrong_scope_says_what_to_do() {
    require_root!();
    let host = Host::load("");
    let without = host.testbed.write_config("without.toml", "[host]\ninterfaces = [\"eth1\"]\n");
    host.testbed
        .cli(&format!("fleet status --config {}", without.display()))
        .expect_exit(2)
        .expect_stderr("has no [fleet]");
    host.fleet("trip everything --reason test").expect_exit(2).expect_stderr("write all, host/NAME");
    host.fleet("trip group/none --reason test").expect_exit(12).expect_stdout("0 of 0 hosts");
    host.fleet("inventory remove router-9").expect_exit(4).expect_stderr("not in the inventory");
    host.fleet("inventory add router-9 --ssh -oProxyCommand=x").expect_exit(2);
}
