//! The control socket with real users: the actions that each role may do, and their lines in the audit log.

use std::fs::DirEntry;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::agent::Agent;
use breaker_tests::cli::argument;
use breaker_tests::command::{CliOutput, PIN_ENVIRONMENT, binary};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_tests::users::{Group, User};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};
use serde_json::Value;

/// Returns a policy with two sessions and a `[people]` section.
fn policy(people: &str) -> String {
    let sessions = ["x1", "x2"].map(|name| {
        let port = if name == "x1" { 9001 } else { 9002 };
        format!("[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:{port}\"\n")
    });
    format!("{}\n[people]\n{people}", sessions.concat())
}

/// Loads a breaker in a directory that every user may enter, so that every user reaches the control socket.
fn testbed(people: &str) -> Testbed {
    let testbed = Testbed::unloaded(&policy(people));
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(testbed.state(), open).expect("opening the directory");
    testbed.load_cli();
    testbed
}

/// `breaker control` as systemd starts it while no agent runs.
struct Activated(Child);

impl Activated {
    /// Starts one service for all connections.
    fn service(testbed: &Testbed) -> Self {
        Self::with(testbed, &[])
    }

    /// Starts a process for each connection.
    fn for_each(testbed: &Testbed) -> Self {
        Self::with(testbed, &["--accept"])
    }

    fn with(testbed: &Testbed, options: &[&str]) -> Self {
        let mut command = Command::new("systemd-socket-activate");
        command.args(options).args(["--seqpacket", "--listen", argument(&testbed.control())]);
        for (name, value) in PIN_ENVIRONMENT {
            command.arg(format!("--setenv={name}={value}"));
        }
        command.arg(binary()).args(["control", "--config"]).arg(testbed.config());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = testbed.on_host(|| command.spawn().expect("starting systemd-socket-activate"));
        let until = Instant::now() + Duration::from_secs(10);
        // The path of the socket exists before the socket listens.
        while try_connection(testbed).is_err() {
            assert!(Instant::now() < until, "no socket appears");
            sleep(Duration::from_millis(10));
        }
        let open = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(testbed.control(), open).expect("opening the socket");
        Self(child)
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a verb with a reason as a user.
fn run_verb(user: &User, testbed: &Testbed, verb: &str, scope: &str) -> CliOutput {
    user.cli(testbed, &[verb, scope, "--reason", "because"])
}

/// Returns the last event of the audit log.
fn last_event(testbed: &Testbed) -> Value {
    let text = std::fs::read_to_string(testbed.audit()).expect("the log");
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

/// Runs every verb as every role over the socket that `serve` opens.
fn each_role_may_do_what_the_policy_says<S>(serve: impl Fn(&Testbed) -> S) {
    let (desk, risks) = (Group::new(), Group::new());
    let operator = User::new(&[&desk]);
    let risk = User::new(&[&risks]);
    let algo = User::new(&[&desk, &risks]);
    let no_role = User::new(&[]);
    let people = format!(
        "operators = [\"%{}\"]\nrisk = [\"%{}\"]\nbarred = [\"{}\"]",
        desk.name, risks.name, algo.name
    );
    let testbed = testbed(&people);
    // Without a socket the command opens the pins itself, which fails.
    run_verb(&risk, &testbed, "trip", "host").expect_exit(6).expect_stderr("ermission denied");
    let _served = serve(&testbed);
    for (user, verbs) in [
        (&no_role, [("trip", 6), ("arm", 6), ("disarm", 6), ("reset", 6)]),
        (&algo, [("trip", 0), ("arm", 6), ("disarm", 6), ("reset", 6)]),
        (&operator, [("trip", 0), ("arm", 0), ("disarm", 6), ("reset", 6)]),
        (&risk, [("trip", 0), ("arm", 0), ("disarm", 4), ("reset", 0)]),
    ] {
        for (name, code) in verbs {
            let output = run_verb(user, &testbed, name, "session/x1").expect_exit(code);
            let event = last_event(&testbed);
            let kind = match (name, code) {
                (_, 6) => "denied",
                ("trip", _) => "tripped",
                ("arm", _) => "armed",
                ("reset", _) => "reset",
                // A tripped scope cannot be disarmed by any role.
                _ => continue,
            };
            assert_eq!(event["kind"], kind, "{output:?}");
            assert_eq!(event["actor"]["uid"], user.uid);
            assert_eq!(event["actor"]["user"], user.name.as_str());
            assert_eq!(event["actor"]["via"], "control");
            assert_eq!(event["reason"], "because");
            assert_eq!(event["scope"], "session/x1");
            if code == 6 {
                assert_eq!(event["counts"]["verb"], name);
                assert!(output.stderr.contains("refused, nothing is changed"), "{output:?}");
            }
        }
    }
    run_verb(&risk, &testbed, "disarm", "session/x1").expect_exit(0);
    for (user, code) in [(&no_role, 6), (&algo, 6), (&operator, 11), (&risk, 11)] {
        let output = user.cli(&testbed, &["status", "--json"]).expect_exit(code);
        assert_eq!(output.stdout.is_empty(), code == 6);
    }
    for (user, code) in [(&no_role, 6), (&algo, 0), (&operator, 0), (&risk, 0)] {
        let output = user.cli(&testbed, &["trip", "session/x2", "--explain"]).expect_exit(code);
        assert_eq!(output.stdout.contains("which is not done now"), code == 0, "{output:?}");
    }
    assert!(testbed.causes("session/x2").is_empty(), "an explanation trips nothing");
    for (user, code) in [(&no_role, 6), (&algo, 6), (&operator, 6), (&risk, 0)] {
        let config = testbed.config();
        user.cli(&testbed, &["reload", "--config", argument(&config)]).expect_exit(code);
    }
    // A user may reload only the configuration file of the load.
    risk.cli(&testbed, &["reload", "--config", "/tmp/other.toml"]).expect_exit(2);
    // The socket serves one load, and refuses a request for another pin root.
    risk.cli(&testbed, &["trip", "host", "--pin-root", "/sys/fs/bpf/other"])
        .expect_exit(3)
        .expect_stderr("nothing is loaded there");
    assert!(testbed.tripped().is_empty());
}

#[test]
fn each_role_may_do_what_the_policy_says_through_the_agent() {
    require_root!();
    each_role_may_do_what_the_policy_says(Agent::start);
}

#[test]
fn each_role_may_do_what_the_policy_says_without_an_agent() {
    require_root!();
    each_role_may_do_what_the_policy_says(Activated::for_each);
}

#[test]
fn a_reset_needs_two_people_of_risk() {
    require_root!();
    let risks = Group::new();
    let (ann, bob) = (User::new(&[&risks]), User::new(&[&risks]));
    let operator = User::new(&[]);
    let people =
        format!("operators = [\"{}\"]\nrisk = [\"%{}\"]\ntwo_person = true", operator.name, risks.name);
    let testbed = testbed(&people);
    // Each request runs in its own process, and the first request is kept after its process has ended.
    let _served = Activated::service(&testbed);
    testbed.trip("session/x1");
    run_verb(&operator, &testbed, "reset", "session/x1").expect_exit(6);
    let expected = format!("{} is the first: the request is kept", ann.name);
    run_verb(&ann, &testbed, "reset", "session/x1").expect_exit(4).expect_stderr(&expected);
    let event = last_event(&testbed);
    assert_eq!((&event["kind"], &event["actor"]["uid"]), (&"reset_requested".into(), &ann.uid.into()));
    // The request is not confirmed by the same person, a forced reset or a reset of another scope.
    run_verb(&ann, &testbed, "reset", "session/x1").expect_exit(4);
    bob.cli(&testbed, &["reset", "session/x1", "--reason", "x", "--force"]).expect_exit(4);
    testbed.trip("session/x2");
    run_verb(&bob, &testbed, "reset", "session/x2").expect_exit(4);
    assert_eq!(testbed.tripped(), ["session/x1", "session/x2"]);
    run_verb(&bob, &testbed, "reset", "session/x1").expect_exit(0);
    let event = last_event(&testbed);
    assert_eq!((&event["kind"], &event["actor"]["uid"]), (&"reset".into(), &bob.uid.into()));
    let first = &event["counts"]["requested_by"];
    assert_eq!((&first["uid"], &first["reason"]), (&ann.uid.into(), &"because".into()));
    // A further trip invalidates the request.
    testbed.trip("session/x1");
    run_verb(&ann, &testbed, "reset", "session/x1").expect_exit(4);
    testbed.trip("session/x1");
    run_verb(&bob, &testbed, "reset", "session/x1").expect_exit(4);
    assert_eq!(testbed.tripped(), ["session/x1", "session/x2"]);
}

#[test]
fn root_resets_alone_only_by_breaking_the_glass() {
    require_root!();
    let risk = User::new(&[]);
    let testbed = testbed(&format!("risk = [\"{}\"]\ntwo_person = true", risk.name));
    let _served = Activated::service(&testbed);
    testbed.trip("host");
    testbed.cli("reset host --reason x").expect_exit(4).expect_stderr("--break-glass");
    // Only root may use --break-glass.
    risk.cli(&testbed, &["reset", "host", "--reason", "x", "--break-glass"]).expect_exit(4);
    assert_eq!(testbed.tripped(), ["host"]);
    testbed.cli("reset host --reason x --break-glass").expect_exit(0);
    assert!(testbed.tripped().is_empty());
    let kinds: Vec<_> = testbed.events().iter().map(|event| event["kind"].clone()).collect();
    let broken = kinds.iter().position(|kind| kind == "break_glass").expect("an event");
    assert_eq!(kinds[broken + 1], "reset");
}

#[test]
fn a_changed_copy_of_the_policy_leaves_the_need_for_two_people() {
    require_root!();
    let testbed = testbed("two_person = true");
    let mut files = std::fs::read_dir(testbed.state()).expect("the state directory").flatten();
    let is_copy = |file: &DirEntry| file.file_name().to_string_lossy().starts_with("policy");
    let copy = files.find(is_copy).expect("a copy of the policy").path();
    let text = std::fs::read_to_string(&copy).expect("the copy of the policy");
    let without = text.replace("two_person = true", "two_person = false");
    assert_ne!(text, without);
    testbed.trip("host");
    for changed in [without.as_bytes(), b"", b"\xff"] {
        std::fs::write(&copy, changed).expect("changing the copy");
        testbed.cli("reset host --reason x").expect_exit(4).expect_stderr("two_person is unproven");
        assert_eq!(testbed.tripped(), ["host"]);
    }
    std::fs::write(&copy, &text).expect("the copy");
    testbed.cli("reset host --reason x").expect_exit(4).expect_stderr("the policy demands two people");
    testbed.cli("reset host --reason x --break-glass").expect_exit(0);
}

#[test]
fn each_role_may_do_what_the_policy_says_at_the_service() {
    require_root!();
    each_role_may_do_what_the_policy_says(Activated::service);
}

/// Connects to the control socket.
fn connection(testbed: &Testbed) -> OwnedFd {
    try_connection(testbed).expect("connecting")
}

fn try_connection(testbed: &Testbed) -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(testbed.control())?)?;
    Ok(socket)
}

/// Sends bytes as a request. Returns the text of the answer, and its exit code if the answer has one.
fn send_request(testbed: &Testbed, request: &[u8]) -> (String, Option<u64>) {
    let socket = connection(testbed);
    send(&socket, request, SendFlags::NOSIGNAL).expect("sending");
    let mut text = String::new();
    loop {
        let mut bytes = vec![0; 1 << 16];
        let (_, length) = recv(&socket, bytes.as_mut_slice(), RecvFlags::empty()).expect("an answer");
        assert!(length <= 4096, "{length}");
        if length == 0 {
            return (text, None);
        }
        let answer: Value = serde_json::from_slice(&bytes[..length]).expect("JSON");
        if let Some(code) = answer["exit"].as_u64() {
            return (text, Some(code));
        }
        text += answer["stdout"].as_str().or(answer["stderr"].as_str()).expect("a text");
    }
}

#[test]
fn idle_connections_do_not_delay_a_trip() {
    require_root!();
    let operator = User::new(&[]);
    let testbed = testbed(&format!("operators = [\"{}\"]", operator.name));
    let trip_is_immediate = |kind: &str| {
        let idle: Vec<_> = (0..300).map(|_| connection(&testbed)).collect();
        let start = Instant::now();
        run_verb(&operator, &testbed, "trip", "host").expect_exit(0);
        let took = start.elapsed();
        assert_eq!(testbed.tripped(), ["host"]);
        assert!(took < Duration::from_secs(1) * breaker_tests::slowness(), "{kind}: {took:?}");
        drop(idle);
        testbed.reset("host");
    };
    let agent = Agent::start(&testbed);
    trip_is_immediate("agent");
    agent.stop();
    assert!(!testbed.control().exists(), "the agent has left its socket");
    let _served = Activated::service(&testbed);
    trip_is_immediate("service");
}

#[test]
fn a_malformed_request_changes_nothing_and_is_logged() {
    require_root!();
    let testbed = testbed("");
    let _served = Activated::service(&testbed);
    let long = format!("{{\"verb\":\"trip\",\"scope\":\"host\",\"reason\":\"{}\"}}", "x".repeat(4096));
    for (request, found) in [
        (long.as_str(), "longer than 4 KB"),
        ("not JSON", "it is no request"),
        ("{}", "missing field `verb`"),
        ("{\"verb\":\"destroy\"}", "unknown variant"),
        ("{\"verb\":\"trip\"}", "it has no scope"),
        ("{\"verb\":\"trip\",\"scope\":\"host\",\"as\":\"root\"}", "unknown field"),
        ("{\"verb\":\"reset\",\"scope\":\"host\"}", "its reason: it is empty"),
        ("{\"verb\":\"reset\",\"scope\":\"host\",\"reason\":\" \\t\"}", "its reason: it is empty"),
    ] {
        let (text, code) = send_request(&testbed, request.as_bytes());
        assert_eq!(code, Some(2), "{request:.80}: {text}");
        assert!(text.contains(found) && text.contains("nothing is changed"), "{request:.80}: {text}");
        let event = last_event(&testbed);
        assert_eq!((&event["kind"], &event["actor"]["via"]), (&"denied".into(), &"control".into()));
    }
    assert!(testbed.tripped().is_empty());
    // A reason may contain any character, but `events` prints no control character of it.
    let reason = "{\"verb\":\"trip\",\"scope\":\"host\",\"reason\":\"a\\u001b[2J\\nb\"}";
    let (text, code) = send_request(&testbed, reason.as_bytes());
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(last_event(&testbed)["reason"], "a\u{1b}[2J\nb");
    for words in ["events", "events --json"] {
        let output = testbed.cli(words).expect_exit(0);
        assert!(!output.stdout.contains('\u{1b}'), "{output:?}");
        assert!(output.stdout.lines().last().expect("a line").contains("[2J"), "{output:?}");
    }
    testbed.cli("audit verify").expect_exit(0);
}

#[test]
fn denied_requests_of_a_user_do_not_fill_the_log() {
    require_root!();
    let testbed = testbed("two_person = true\n");
    let _agent = Agent::start(&testbed);
    let log = || std::fs::read_to_string(testbed.audit()).expect("the log");
    let denied = || log().matches("\"kind\":\"denied\"").count();
    for _ in 0..40 {
        let (text, code) = send_request(&testbed, b"not JSON");
        assert_eq!(code, Some(2), "{text}");
    }
    assert_eq!(denied(), 20);
    // Another user's denied request is logged, and a trip is logged whoever makes it.
    let user = User::new(&[]);
    run_verb(&user, &testbed, "reset", "host").expect_exit(6);
    assert_eq!(denied(), 21);
    let trip = b"{\"verb\":\"trip\",\"scope\":\"host\",\"reason\":\"test\"}";
    assert_eq!(send_request(&testbed, trip).1, Some(0));
    assert_eq!(last_event(&testbed)["kind"], "tripped");
    testbed.cli("audit verify").expect_exit(0);
}
