//! `breaker verify`: the attestation, and each gap that it names.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use aya::programs::SchedClassifier;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifierLinkId, TcAttachOptions};
use breaker_tests::command::binary;
use breaker_tests::empty_program::EmptyProgram;
use breaker_tests::frame::order;
use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_user::testbed::{TwoHosts, veth};
use serde_json::Value;

use super::POLICY;

/// The gaps of an attestation: what and where.
fn gaps(attestation: &Value) -> Vec<(&str, &str)> {
    let all = attestation["gaps"].as_array().expect("gaps");
    all.iter().filter_map(|gap| Some((gap["what"].as_str()?, gap["where"].as_str()?))).collect()
}

/// Runs `verify`, which must find gaps. Returns the JSON.
#[track_caller]
fn verify_fails(testbed: &Testbed) -> Value {
    testbed.cli("verify --json").expect_exit(11).json()
}

/// The text of the gap of a kind.
#[track_caller]
fn gap<'a>(attestation: &'a Value, what: &str, place: &str) -> &'a str {
    let all = attestation["gaps"].as_array().expect("gaps");
    let found = all.iter().find(|gap| gap["what"] == what && gap["where"] == place);
    found.and_then(|gap| gap["found"].as_str()).unwrap_or_else(|| panic!("no {what} at {place}: {all:#?}"))
}

#[test]
fn an_attestation_has_the_hashes_and_tags_that_other_programs_compute() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    stream.write_all(&order(1)).expect("sending");
    receiver.wait("the order", |all| all[0].complete("D") == 1);
    let found = testbed.cli("verify --json").expect_exit(0).json();
    assert_eq!((&found["ok"], gaps(&found)), (&Value::Bool(true), vec![]));
    assert_eq!(found["connections_compared"], 1);
    let sha256 = |path: &Path| testbed.shell(&format!("sha256sum {} | cut -d' ' -f1", path.display()));
    assert_eq!(found["binary"]["sha256"], sha256(&binary()).trim());
    assert_eq!(found["policy"]["sha256"], sha256(&testbed.config()).trim());
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/breaker.o");
    assert_eq!(found["binary"]["object_sha256"], sha256(&object).trim());
    let status = testbed.cli("status --json").expect_exit(0).json();
    let program = &found["programs"][0];
    assert_eq!(program["name"], "egress");
    for tag in [&program["tag"], &program["own_tag"], &found["breaker"]["program_tag"]] {
        assert_eq!(*tag, status["breaker"]["program_tag"]);
    }
    assert_eq!(found["interfaces"][0]["first"], true);
    let text = testbed.cli("verify").expect_exit(0).stdout;
    assert!(text.contains("as in this binary") && text.ends_with("gaps: 0\n"), "{text}");
}

#[test]
fn every_program_of_a_load_is_compared() {
    require_root!();
    for (settings, names) in
        [("inbound = \"watch\"\n", &["egress", "inbound"][..]), ("mode = \"inline\"\n", &["inline"])]
    {
        let testbed = Testbed::load(&format!("{settings}{POLICY}"));
        let found = testbed.cli("verify --json").expect_exit(0).json();
        let programs = found["programs"].as_array().expect("programs");
        assert_eq!(programs.iter().map(|one| &one["name"]).collect::<Vec<_>>(), names);
        assert!(programs.iter().all(|one| one["tag"] == one["own_tag"]), "{programs:?}");
    }
}

#[test]
fn on_a_gateway_the_interfaces_are_attested_and_the_sockets_named_as_unchecked() {
    require_root!();
    let testbed = Testbed::load(&format!("mode = \"inline\"\n{POLICY}"));
    let found = testbed.cli("verify --json").expect_exit(0).json();
    let place = &found["interfaces"][0];
    assert_eq!((&place["name"], &place["hook"]), (&"eth1".into(), &"generic".into()), "{found:#}");
    assert_eq!((&place["attached"], &found["connections_compared"]), (&true.into(), &0.into()));
    let notes = found["notes"].to_string();
    assert!(notes.contains("they are on the hosts behind this gateway"), "{notes}");
    testbed.on_host(|| std::fs::remove_file(Testbed::root().link(0)).expect("removing the pin of the link"));
    let found = verify_fails(&testbed);
    assert!(gaps(&found).iter().any(|(_, place)| *place == "eth1"), "{found:#}");
}

#[test]
fn nothing_loaded_ends_with_3() {
    require_root!();
    Testbed::unloaded(POLICY).cli("verify").expect_exit(3);
}

#[test]
fn another_pinned_program_is_a_gap() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let mut other = EmptyProgram::open();
    testbed.on_host(|| {
        let pin = Testbed::root().program();
        std::fs::remove_file(&pin).expect("removing the pin");
        other.classifier().pin(&pin).expect("pinning another program");
    });
    let found = verify_fails(&testbed);
    assert!(gap(&found, "program", "egress").contains("the pinned program has the tag"), "{found}");
    assert!(gaps(&found).contains(&("detached", "eth1")), "{found}");
}

#[test]
fn a_program_in_front_is_a_gap_and_named_in_order() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let mut other = EmptyProgram::open();
    let _link: SchedClassifierLinkId = testbed.on_host(|| {
        let program: &mut SchedClassifier = other.classifier();
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let egress = aya::programs::TcAttachType::Egress;
        program.attach_with_options("eth1", egress, options).expect("attaching it")
    });
    let found = verify_fails(&testbed);
    assert_eq!(gaps(&found), [("displaced", "eth1")]);
    let ahead = found["interfaces"][0]["ahead"].as_array().expect("what decides before");
    assert!(ahead.len() == 1 && ahead[0].as_str().is_some_and(|text| text.contains("egress")), "{ahead:?}");
}

#[test]
fn an_interface_with_a_route_and_without_a_hook_is_a_gap() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.shell(
        "ip link add eth2 type veth peer name far2; ip link set eth2 up; ip link set far2 up; ip address add \
         10.19.0.1/24 dev eth2; ip route add default via 10.19.0.2 metric 500",
    );
    let found = verify_fails(&testbed);
    assert!(gap(&found, "route", "session/x1").contains("can be reached over eth2"), "{found}");
}

#[test]
fn bytes_that_took_another_path_are_a_gap() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    stream.write_all(&order(1)).expect("sending");
    receiver.wait("the first order", |all| all[0].complete("D") == 1);
    let network = &testbed.network;
    veth(&network.firm, "eth2", &network.venue, "eth2").expect("a second cable");
    let ends = [&network.firm, &network.venue];
    ends.iter().for_each(|end| end.set_up("eth2").expect("setting eth2 up"));
    ends.iter().for_each(|end| end.wait_until_up("eth2").expect("eth2 is up"));
    testbed.cli("verify").expect_exit(0);
    testbed.shell("ip route add 10.9.0.2/32 dev eth2 src 10.9.0.1");
    let message = order(2);
    stream.write_all(&message).expect("sending");
    receiver.wait("the second order", |all| all[0].complete("D") == 2);
    // The route is removed, so that only the bytes show the path.
    testbed.shell("ip route del 10.9.0.2/32 dev eth2");
    let found = wait_for("the acknowledgement", || {
        let output = testbed.cli("verify --json");
        (output.exit_code == Some(11)).then(|| output.json())
    });
    assert_eq!(gaps(&found), [("route", "session/x1")]);
    let expected = format!("the peer has acknowledged {} bytes that the hook has not passed", message.len());
    assert!(gap(&found, "route", "session/x1").contains(&expected), "{found}");
}

/// Starts a process on the host that maps a library of this name, and has a connection as its standard input.
fn start_with_library(testbed: &Testbed, name: &str, connection: Option<TcpStream>) -> Running {
    let path = testbed.config().with_file_name(name);
    // Any library will do: only its name is looked at.
    let library = "/lib/x86_64-linux-gnu/libm.so.6";
    std::fs::copy(library, &path).expect("copying a library");
    let stdin = connection.map_or_else(Stdio::null, |stream| OwnedFd::from(stream).into());
    let mut command = Command::new("sleep");
    command.arg("1000").env("LD_PRELOAD", &path).stdin(stdin);
    let process = Running(testbed.on_host(|| command.spawn().expect("starting a process")));
    let maps = format!("/proc/{}/maps", process.0.id());
    wait_for("the library", || std::fs::read_to_string(&maps).ok()?.contains(name).then_some(()));
    process
}

#[test]
fn a_bypass_library_in_the_process_of_a_session_is_a_gap() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let process = start_with_library(&testbed, "libonload.so", None);
    let found = testbed.cli("verify --json").expect_exit(0).json();
    let notes = found["notes"].to_string();
    assert!(notes.contains("libonload.so mapped (OpenOnload)"), "without a socket it is a note: {notes}");
    drop(process);
    let _receiver = testbed.listen(9001);
    let process = start_with_library(&testbed, "libonload.so", Some(testbed.connect(9001)));
    let found = verify_fails(&testbed);
    let text = gap(&found, "kernel bypass", "session/x1");
    assert!(text.contains(&format!("process {} ", process.0.id())), "{text}");
    assert!(text.contains("and owns connection 10.9.0.1:"), "{text}");
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().expect("ending it");
        self.0.wait().expect("waiting for its end");
    }
}

#[test]
fn tls_on_a_session_that_is_declared_as_fix_is_a_gap() {
    require_root!();
    // TLS counts as orders by its bytes.
    let testbed = Testbed::load(&POLICY.replace("max = 5,", "max = 100000,"));
    let directory = testbed.config().parent().expect("a directory").display().to_string();
    testbed.shell(&format!(
        "cd {directory} && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj \
         /CN=venue 2>/dev/null"
    ));
    let start = |line: String| {
        let mut command = Command::new("sh");
        command.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().expect("running sh"))
    };
    let serve =
        format!("cd {directory} && exec openssl s_server -port 9001 -cert cert.pem -key key.pem -quiet");
    let _server = testbed.network.venue.run(|| start(serve));
    wait_for("the server", || {
        testbed.on_host(|| TcpStream::connect(TwoHosts::venue_socket(9001))).ok().map(drop)
    });
    let client = "exec openssl s_client -connect 10.9.0.2:9001 -quiet".to_owned();
    let mut client = testbed.on_host(|| start(client));
    let mut input = client.0.stdin.take().expect("its standard input");
    std::thread::spawn(move || {
        while input.write_all(b"an order\n").is_ok() {
            sleep(Duration::from_millis(50))
        }
    });
    let found = wait_for("the records", || {
        let found = testbed.cli("verify --json").json();
        gaps(&found).contains(&("tls", "session/x1")).then_some(found)
    });
    assert!(gap(&found, "tls", "session/x1").contains("a segment begins with a TLS record"), "{found}");
    drop(client);
    // Another session that is not FIX either is blind, and no TLS.
    let receiver = testbed.listen(9002);
    let mut stream = testbed.connect(9002);
    stream.write_all(&[b'x'; 300]).expect("sending");
    receiver.wait("the bytes", |all| all[0].bytes.len() == 300);
    let found = verify_fails(&testbed);
    assert!(!gaps(&found).contains(&("tls", "session/x2")), "{found}");
    assert!(gaps(&found).contains(&("blind", "session/x2")), "{found}");
    assert!(found["notes"].to_string().contains("no FIX message was ever read: TLS is possible"), "{found}");
}

#[test]
fn pins_in_a_private_mount_namespace_are_a_gap() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    assert_eq!(testbed.cli("verify --json").expect_exit(0).json()["pins"]["private"], true);
    let line = format!("env -u BREAKER_PRIVATE_PINS {} verify; echo \"ended $?\"", binary().display());
    let output = testbed.shell(&line);
    assert!(output.contains("GAP: unpinned: host: ") && output.contains("ended 11"), "{output}");
}

#[test]
fn a_difference_from_an_earlier_attestation_is_named_with_both_sides() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let earlier = testbed.write_config("earlier.json", &testbed.cli("verify --json").expect_exit(0).stdout);
    let words = format!("verify --expect {}", earlier.display());
    let output = testbed.cli(&words).expect_exit(0);
    assert!(output.stdout.contains("differences from the expected attestation: 0"), "{output:?}");
    let before = testbed.cli("status --json").json()["policy"]["sha256"].as_str().map(str::to_owned);
    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    std::fs::write(testbed.config(), text.replace("max = 1000", "max = 999")).expect("writing it");
    testbed.cli(&format!("reload --config {}", testbed.config().display())).expect_exit(0);
    let output = testbed.cli(&words).expect_exit(11);
    let after = testbed.cli("status --json").json()["policy"]["sha256"].as_str().map(str::to_owned);
    let expected = format!(
        "DIFFERENT: policy.sha256: expected {}, found {}\n",
        before.expect("a hash"),
        after.expect("a hash")
    );
    assert!(output.stdout.contains(&expected), "{output:?}");
    let json = testbed.cli(&format!("{words} --json")).expect_exit(11).json();
    assert_eq!((&json["ok"], gaps(&json)), (&Value::Bool(false), vec![]));
    assert_eq!(json["differences"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_expected_attestation_that_is_none_is_refused() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let other = testbed.write_config("status.json", &testbed.cli("status --json").stdout);
    testbed
        .cli(&format!("verify --expect {}", other.display()))
        .expect_exit(2)
        .expect_stderr("it has no binary");
    testbed.cli("verify --expect /nowhere.json").expect_exit(2).expect_stderr("No such file");
}
