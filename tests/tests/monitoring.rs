//! The alerts and dashboards: with promtool, amtool, a real scrape and a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::agent::{Agent, metrics};
use breaker_tests::testbed::Testbed;
use breaker_tests::{require_root, slowness};
use serde_json::Value;
use tempfile::TempDir;

const POLICY: &str = "inbound = \"watch\"\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n\
                      limits = [{ class = \"order\", max = 5, per = \"2s\" }]\n";
/// Longest time until Prometheus has scraped and evaluated.
const PATIENCE: Duration = Duration::from_secs(30);

fn packaged(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(path)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a command, which must succeed. Returns its output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command:?}: {output}");
    output
}

fn dashboards() -> Vec<(String, Value)> {
    let files = fs::read_dir(packaged("grafana")).expect("the dashboards");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let value = serde_json::from_str(&text(&path)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        (path.display().to_string(), value)
    };
    paths.into_iter().map(read).collect()
}

/// The panels with data.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().expect("panels");
    panels.iter().filter(|panel| panel["type"] != "row").collect()
}

/// The queries of a dashboard, with values in place of its variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let targets =
        panels(dashboard).into_iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations");
    let found = targets.chain(annotations).map(|target| target["expr"].as_str().expect("a query").to_owned());
    let set = |query: String| {
        query
            .replace("$__rate_interval", "1m")
            .replace("$instance", "127.0.0.1:9469")
            .replace("$job", ".*")
            .replace("$session", ".*")
    };
    found.map(set).collect()
}

/// The names of metrics of breaker in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("breaker_")).collect()
}

#[test]
fn the_alerts_are_valid_and_each_has_a_test_that_holds() {
    run(Command::new("promtool").args(["check", "rules"]).arg(packaged("prometheus/rules.yml")));
    let tests = packaged("prometheus/rules_test.yml");
    run(Command::new("promtool").args(["test", "rules"]).arg(&tests));
    let (rules, tests) = (text(&packaged("prometheus/rules.yml")), text(&tests));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 16, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "{alert} has no test");
    }
}

#[test]
fn alerts_reach_the_person_on_call_by_severity() {
    let config = packaged("alertmanager/alertmanager.yml");
    run(Command::new("amtool").arg("check-config").arg(&config));
    for (severity, receiver) in [("critical", "on-call"), ("warning", "operators"), ("info", "operators")] {
        let mut routes = Command::new("amtool");
        routes.args(["config", "routes", "test"]).arg(format!("--config.file={}", config.display()));
        routes.args([format!("--verify.receivers={receiver}"), "alertname=BreakerTripped".to_owned()]);
        run(routes.arg(format!("severity={severity}")));
    }
}

#[test]
fn every_panel_has_the_chosen_data_source_and_a_unit() {
    let mut uids = BTreeSet::new();
    for (path, dashboard) in dashboards() {
        let uid = dashboard["uid"].as_str().expect("a fixed uid").to_owned();
        assert!(path.ends_with(&format!("/{uid}.json")) && uids.insert(uid), "{path}");
        assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource", "{path}");
        assert!(panels(&dashboard).len() > 10, "{path}");
        for panel in panels(&dashboard) {
            let title = &panel["title"];
            assert!(
                title.is_string() && panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{path}: {title}"
            );
            for target in panel["targets"].as_array().expect("targets") {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{path}: {title}");
            }
        }
    }
    assert_eq!(uids.len(), 2);
}

#[test]
fn every_metric_of_alerts_and_dashboards_is_in_a_real_scrape() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    // A problem, and its metric with it.
    testbed.switch("disarm", "host").expect_exit(0);
    let agent = Agent::start(&testbed);
    let scrape = metrics(&testbed);
    agent.stop();
    let served: BTreeSet<_> =
        scrape.lines().filter(|line| !line.starts_with('#')).flat_map(|line| names(line)).collect();
    let rules = text(&packaged("prometheus/rules.yml"));
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned);
    let used: Vec<String> = dashboards().iter().flat_map(|(_, dashboard)| queries(dashboard)).collect();
    let expressions: Vec<String> = expressions.chain(used).collect();
    assert!(expressions.len() > 60, "{}", expressions.len());
    for expression in &expressions {
        let missing: Vec<_> = names(expression).into_iter().filter(|name| !served.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?} in {expression}");
    }
}

/// A Prometheus in the namespace of the host. It is killed when the value is dropped.
struct Prometheus {
    child: Child,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts it with the lines that docs/monitoring.md says to add.
    fn start(testbed: &Testbed) -> Self {
        let page = text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring.md"));
        let lines =
            page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the lines");
        assert_eq!(lines.lines().count(), 4, "{lines}");
        let rules = packaged("prometheus/rules.yml").display().to_string();
        let added = lines.replace("/etc/prometheus/breaker-rules.yml", &rules).replace("HOST:", "127.0.0.1:");
        assert!(added.contains(&rules) && added.contains("127.0.0.1:9469"), "{added}");
        let directory = TempDir::new().expect("making a directory");
        let config = directory.path().join("prometheus.yml");
        let global = "global: { scrape_interval: 1s, evaluation_interval: 1s }\n";
        fs::write(&config, format!("{global}{added}")).expect("writing the configuration");
        run(Command::new("promtool").args(["check", "config"]).arg(&config));
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.args(["--web.listen-address=127.0.0.1:9090", "--log.level=error"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = testbed.on_host(|| command.spawn().expect("starting prometheus"));
        Self { child, _directory: directory }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The JSON of a path of Prometheus's API; `None` if there is no answer yet.
fn ask(testbed: &Testbed, path: &str) -> Option<Value> {
    let mut stream = testbed.on_host(|| TcpStream::connect("127.0.0.1:9090")).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// A query as part of a URL.
fn encoded(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The names and scopes of the alerts that fire.
fn firing(testbed: &Testbed) -> BTreeSet<(String, String)> {
    let answer = ask(testbed, "/api/v1/alerts").unwrap_or_default();
    let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
    let word = |alert: &Value, label: &str| alert["labels"][label].as_str().unwrap_or_default().to_owned();
    let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
    firing.map(|alert| (word(alert, "alertname"), word(alert, "scope"))).collect()
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE * slowness();
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_trip_fires_an_alert_in_a_real_prometheus_and_a_reset_ends_it() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let agent = Agent::start(&testbed);
    let _prometheus = Prometheus::start(&testbed);
    let scraped = || ask(&testbed, "/api/v1/query?query=breaker_enforced");
    wait_until("a scrape", || scraped().is_some_and(|answer| answer["data"]["result"][0]["value"][1] == "1"));
    assert_eq!(firing(&testbed), BTreeSet::new());
    testbed.trip("session/x1");
    let tripped = BTreeSet::from([("BreakerTripped".to_owned(), "session/x1".to_owned())]);
    wait_until("the alert fires", || firing(&testbed) == tripped);
    testbed.reset("session/x1");
    wait_until("the alert ends", || firing(&testbed).is_empty());
    for (path, dashboard) in dashboards() {
        for query in queries(&dashboard) {
            let answer =
                ask(&testbed, &format!("/api/v1/query?query={}", encoded(&query))).expect("an answer");
            assert_eq!(answer["status"], "success", "{path}: {query}: {answer}");
        }
    }
    agent.stop();
}
