//! `upgrade` and `attach`: output, refusals, and the state that a killed command leaves.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use breaker_common::abi::Meta;
use breaker_tests::cli::scope;
use breaker_tests::command::{CliOutput, PIN_ENVIRONMENT, binary};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::detach_link::detach_link;
use breaker_user::kernel::memory::Mapped;
use breaker_user::testbed::veth;
use serde_json::Value;

use super::POLICY;

/// Changes the pinned META map.
pub fn patch_meta(testbed: &Testbed, change: impl FnOnce(&mut Meta) + Send) {
    testbed.on_host(|| {
        let map = Mapped::<Meta>::open(&Testbed::root().map("META")).expect("META");
        let mut meta = map.get(0).expect("a value");
        change(&mut meta);
        map.set(0, meta).expect("writing META");
    });
}

fn meta(testbed: &Testbed) -> Meta {
    testbed.with_breaker(|breaker| *breaker.meta())
}

fn detach(testbed: &Testbed, pin: &std::path::Path) {
    testbed.on_host(|| detach_link(pin)).expect("detaching");
}

fn events(testbed: &Testbed) -> Vec<Value> {
    let text = fs::read_to_string(testbed.audit()).expect("the log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn event_kinds(testbed: &Testbed) -> Vec<String> {
    events(testbed).iter().map(|event| event["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// Loads a breaker on two interfaces with inbound programs: four hooks and two programs.
fn two_interfaces(hook: &str) -> Testbed {
    let testbed = Testbed::unloaded(&format!("hook = \"{hook}\"\ninbound = \"watch\"\n{POLICY}"));
    veth(&testbed.network.firm, "eth2", &testbed.network.venue, "eth2").expect("a second cable");
    let text = fs::read_to_string(testbed.config()).expect("the configuration");
    fs::write(testbed.config(), text.replace("[\"eth1\"]", "[\"eth1\", \"eth2\"]")).expect("writing it");
    testbed.load_cli();
    testbed
}

#[test]
fn an_upgrade_keeps_the_trip_and_reports_the_replaced_program() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    testbed.switch("trip", "session/x1").expect_exit(0);
    testbed.switch("disarm", "session/x2").expect_exit(0);
    patch_meta(&testbed, |meta| {
        meta.version = *b"0.0.9\0\0\0\0\0\0\0\0\0\0\0";
        meta.git = *b"abcdef012345\0\0\0\0";
    });
    let before = testbed.cli("status --json").expect_exit(10).json();
    let program = testbed.with_breaker(|breaker| breaker.program().expect("the program").id());
    let output = testbed.cli("upgrade").expect_exit(0);
    assert!(
        output.stdout.starts_with("upgraded eth1: 0.0.9 (abcdef012345, program ")
            && output.stdout.contains(&format!(" was in force, {} (", breaker_user::VERSION)),
        "{output:?}"
    );
    assert_ne!(testbed.with_breaker(|breaker| breaker.program().expect("the program").id()), program);
    let after = testbed.cli("status --json").expect_exit(10).json();
    for name in ["host", "group/desk", "session/x1", "session/x2"] {
        assert_eq!(scope(&after, name), scope(&before, name));
    }
    assert_eq!(after["breaker"]["version"], breaker_user::VERSION);
    assert_eq!((meta(&testbed).generation, testbed.tcx_programs("eth1")), (2, 1));
    let event = events(&testbed).pop().expect("an event");
    assert_eq!((&event["kind"], &event["counts"]["from"]["version"]), (&"upgraded".into(), &"0.0.9".into()));
    assert_eq!(event["counts"]["to"]["version"], breaker_user::VERSION);
    assert_eq!(event["counts"]["to"]["program_tag"], after["breaker"]["program_tag"]);
    let output = testbed.cli("upgrade --json").expect_exit(0).json();
    assert_eq!(
        (&output["from"], &output["enforced"]["ok"]),
        (&output["to"], &false.into()),
        "x2 is disarmed"
    );
    testbed.switch("reset", "session/x1").expect_exit(0);
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn an_older_version_upgrades_a_newer_one_only_by_force() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.cli("upgrade").expect_exit(3);
    testbed.load_cli();
    patch_meta(&testbed, |meta| meta.version = *b"99.1.0\0\0\0\0\0\0\0\0\0\0");
    let program = || testbed.with_breaker(|breaker| breaker.program().expect("the program").id());
    let before = (program(), meta(&testbed));
    testbed.cli("upgrade").expect_exit(4).expect_stderr("version 99.1.0 is loaded").expect_stderr("--force");
    assert_eq!((program(), meta(&testbed)), before);
    testbed.cli("upgrade --force").expect_exit(0);
    assert_ne!(program(), before.0);
    assert_eq!(events(&testbed).pop().expect("an event")["counts"]["forced"], true);
}

#[test]
fn an_upgrade_that_cannot_be_logged_is_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    fs::rename(testbed.audit(), testbed.audit().with_extension("old")).expect("the log away");
    fs::create_dir(testbed.audit()).expect("a directory where the log should be");
    let program = || testbed.with_breaker(|breaker| breaker.program().expect("the program").id());
    let before = (program(), meta(&testbed));
    testbed.cli("upgrade").expect_exit(4).expect_stderr("the audit log cannot be written (");
    assert_eq!((program(), meta(&testbed)), before);
    assert!(!testbed.shell("ls /sys/fs/bpf/breaker").contains("_next"));
    fs::remove_dir(testbed.audit()).expect("the directory away");
    testbed.shell(
        "mkdir -p /sys/fs/bpf/breaker_next && \
         (flock /sys/fs/bpf/breaker_next sleep 3 >/dev/null 2>&1 &) ; sleep 0.5",
    );
    testbed.cli("upgrade").expect_exit(4).expect_stderr("another load, unload or reload of it is running");
}

#[test]
fn a_detached_hook_blocks_an_upgrade_until_it_is_attached_again() {
    require_root!();
    for hook in ["tcx", "clsact"] {
        let testbed = two_interfaces(hook);
        testbed.switch("trip", "session/x1").expect_exit(0);
        let program = || testbed.with_breaker(|breaker| breaker.program().expect("the program").id());
        let before = program();
        let losses: [(&str, &dyn Fn()); 3] = [
            ("eth2: detached", &|| match hook {
                "tcx" => detach(&testbed, &Testbed::root().link(1)),
                _ => drop(testbed.shell("tc filter del dev eth2 egress")),
            }),
            ("eth2: detached", &|| match hook {
                "tcx" => detach(&testbed, &Testbed::root().inbound_link(1)),
                _ => drop(testbed.shell("tc filter del dev eth2 ingress")),
            }),
            ("eth2: the interface was made again", &|| {
                testbed.network.firm.remove("eth2").expect("removing it");
                veth(&testbed.network.firm, "eth2", &testbed.network.venue, "eth2").expect("a cable again");
            }),
        ];
        for (found, break_hook) in losses {
            break_hook();
            testbed.cli("status").expect_exit(11);
            testbed.cli("upgrade").expect_exit(8).expect_stderr(found).expect_stderr("`breaker attach`");
            assert_eq!(program(), before);
            let output = testbed.cli("attach").expect_exit(0);
            assert_eq!(output.stdout, "attached again: eth2\n");
            let shown = testbed.cli("status --json").expect_exit(10).json();
            assert_eq!(shown["enforced"]["ok"], true, "{shown}");
            assert_eq!(scope(&shown, "session/x1")["causes"][0], "manual");
            assert_eq!(program(), before, "nothing is verified again");
        }
        testbed.cli("upgrade").expect_exit(0);
        testbed.network.firm.remove("eth2").expect("removing it");
        testbed.cli("upgrade").expect_exit(8).expect_stderr("eth2: detached");
        testbed.cli("attach").expect_exit(8).expect_stderr("there is no such interface here");
        assert!(event_kinds(&testbed).ends_with(&["reattached".to_owned(), "reattach_failed".to_owned()]));
        testbed.cli("unload --force").expect_exit(0);
        testbed.assert_clean();
    }
}

#[test]
fn attach_changes_nothing_if_nothing_is_detached() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.cli("attach").expect_exit(3);
    testbed.load_cli();
    let before = (meta(&testbed), event_kinds(&testbed));
    let output = testbed.cli("attach").expect_exit(0);
    assert_eq!(output.stdout, "nothing is detached: nothing is changed\n");
    assert_eq!((meta(&testbed), event_kinds(&testbed)), before);
}

#[test]
fn upgrade_and_attach_work_from_another_network_namespace() {
    require_root!();
    for hook in ["tcx", "clsact"] {
        let testbed = two_interfaces(hook);
        let elsewhere = |words: &str| {
            testbed.shell(&format!("unshare --net {} {words}; echo \"ended $?\"", binary().display()))
        };
        assert!(elsewhere("upgrade").contains("ended 0"));
        testbed.network.firm.remove("eth2").expect("removing it");
        veth(&testbed.network.firm, "eth2", &testbed.network.venue, "eth2").expect("a cable again");
        assert!(elsewhere("upgrade").contains("ended 8"));
        assert!(elsewhere("attach").contains("ended 0"));
        assert!(elsewhere("upgrade").contains("ended 0"));
        testbed.cli("status").expect_exit(0);
        testbed.cli("unload").expect_exit(0);
        testbed.assert_clean();
    }
}

/// System calls with effects outside the process of an upgrade.
const CALLS: &str = "bpf,rename,unlink,sendto,sendmsg,mmap,fsync,fdatasync";

/// Runs an upgrade under strace with injected faults. Returns its output and the system calls that it made.
fn run_traced(testbed: &Testbed, inject: &[String]) -> (CliOutput, Vec<String>) {
    let trace = testbed.config().with_file_name("trace");
    let ran = testbed.on_host(|| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&trace).args(["-e", &format!("trace={CALLS}")]);
        command.args(inject.iter().flat_map(|inject| ["-e", inject])).arg(binary()).arg("upgrade");
        command.envs(PIN_ENVIRONMENT).output().expect("running strace")
    });
    let text = fs::read_to_string(trace).expect("the trace");
    let call = |line: &str| {
        let line = line.split_once(' ')?.1.trim_start();
        Some(line.split_once('(')?.0.to_owned())
    };
    (CliOutput::new(ran), text.lines().filter_map(call).collect())
}

/// Runs one upgrade for each of the last system calls, with a fault injected at that call.
fn disturb_each_call(hook: &str, how: &str, check: impl Fn(&CliOutput, &[String], &str)) {
    let testbed = two_interfaces(hook);
    testbed.switch("trip", "session/x1").expect_exit(0);
    let (output, calls) = run_traced(&testbed, &[]);
    assert_eq!(output.exit_code, Some(0), "{output:?}");
    // strace's `when=` counts the calls of one name.
    let mut turns = BTreeMap::<&str, usize>::new();
    let all: Vec<_> = calls
        .iter()
        .map(|call| {
            let turn = turns.entry(call).or_default();
            *turn += 1;
            (call.as_str(), *turn)
        })
        .collect();
    let loaded = all.iter().rposition(|(call, _)| call.ends_with("sync")).expect("the line in the log");
    let renamed = all.iter().rposition(|(call, _)| *call == "rename").expect("the pins of the new programs");
    // Every call that changes the load is between these two calls.
    let changing = &all[loaded.saturating_sub(2)..(renamed + 3).min(all.len())];
    assert!(changing.len() > 10, "{changing:?}");
    println!("{hook}: {how} at each of {} calls", changing.len());
    for (call, turn) in changing {
        let logged = event_kinds(&testbed).len();
        let (output, _) = run_traced(&testbed, &[format!("inject={call}:{how}:when={turn}")]);
        let what = format!("{hook}: {call} {turn}: {output:?}");
        let shown = testbed.cli("status --json");
        assert_eq!(shown.exit_code, Some(10), "{what}: {shown:?}");
        let shown = shown.json();
        assert_eq!(shown["enforced"]["ok"], true, "{what}: {shown}");
        assert_eq!(scope(&shown, "session/x1")["epoch"], 1, "{what}");
        check(&output, &event_kinds(&testbed).split_off(logged), &what);
    }
    testbed.cli("upgrade").expect_exit(0);
    assert!(!testbed.shell("ls /sys/fs/bpf/breaker").contains("_next"));
    testbed.cli("status").expect_exit(10);
    testbed.switch("reset", "session/x1").expect_exit(0);
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn an_upgrade_killed_at_any_call_leaves_a_complete_program_at_each_hook() {
    require_root!();
    for hook in ["tcx", "clsact"] {
        disturb_each_call(hook, "signal=SIGKILL", |_, _, _| {});
    }
}

#[test]
fn a_failed_call_of_an_upgrade_keeps_the_previous_program_and_is_logged() {
    require_root!();
    for hook in ["tcx", "clsact"] {
        disturb_each_call(hook, "error=ENOMEM", |output, logged, what| {
            let is_noted = logged.first().is_some_and(|kind| kind == "upgraded");
            let is_corrected = logged.last().is_some_and(|kind| kind == "upgrade_failed");
            match output.exit_code {
                Some(0) => assert!(is_noted && !is_corrected, "{what}: {logged:?}"),
                _ => assert_eq!(is_noted, is_corrected, "{what}: {logged:?}"),
            }
        });
    }
}

#[test]
fn an_unload_removes_the_pins_of_a_killed_upgrade() {
    require_root!();
    for hook in ["tcx", "clsact"] {
        let testbed = two_interfaces(hook);
        let (_, calls) = run_traced(&testbed, &[]);
        let renames = calls.iter().filter(|call| *call == "rename").count();
        run_traced(&testbed, &[format!("inject=rename:signal=SIGKILL:when={}", renames - 1)]);
        assert!(testbed.shell("ls /sys/fs/bpf/breaker").contains("_next"));
        testbed.cli("status").expect_exit(0);
        testbed.cli("unload").expect_exit(0);
        testbed.assert_clean();
    }
}
