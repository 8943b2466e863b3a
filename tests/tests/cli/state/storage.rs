//! Storage of the state file that is full, read-only or locked.

use std::fs;

use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, mount};

use super::{POLICY, causes, load, remove_pins, state_file, status};

#[test]
fn on_a_full_disk_a_trip_works_and_a_reset_is_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let state = testbed.state().join("small");
    fs::create_dir(&state).expect("a directory");
    let text = fs::read_to_string(testbed.config()).expect("the configuration");
    let (own, small) = (format!("state = {:?}", testbed.state()), format!("state = {state:?}"));
    fs::write(testbed.config(), text.replace(&own, &small)).expect("writing");
    testbed
        .on_host(|| mount("none", &state, "tmpfs", MountFlags::empty(), Some(c"size=1m")))
        .expect("a tmpfs");
    load(&testbed);
    testbed.trip("host");
    testbed.shell(&format!("dd if=/dev/zero of={}/fill bs=4k 2>/dev/null || true", state.display()));
    let output = testbed.switch("trip", "session/x1").expect_exit(0);
    assert!(output.stderr.contains("but the state file does not contain it"), "{output:?}");
    testbed.switch("reset", "host").expect_exit(4).expect_stderr("the state file cannot be written");
    testbed.switch("disarm", "session/x2").expect_exit(4).expect_stderr("the state file cannot be written");
    assert_eq!(causes(&testbed, "host"), ["manual"]);
    let found = status(&testbed);
    assert_eq!((&found["state"]["ok"], &found["enforced"]["ok"]), (&false.into(), &true.into()), "{found}");
    testbed.cli("unload --force").expect_exit(4).expect_stderr("the state file cannot be written");
    testbed.shell(&format!("rm {}/fill", state.display()));
    testbed.reset("host");
    remove_pins(&testbed);
    load(&testbed);
    assert_eq!(
        (causes(&testbed, "host"), causes(&testbed, "session/x1")),
        (vec![], vec!["manual".to_owned()])
    );
}

#[test]
fn in_a_read_only_directory_a_load_enforces_and_reports_the_missing_state_file() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let state = testbed.state().join("fixed");
    fs::create_dir(&state).expect("a directory");
    let text = fs::read_to_string(testbed.config()).expect("the configuration");
    let (own, fixed) = (format!("state = {:?}", testbed.state()), format!("state = {state:?}"));
    fs::write(testbed.config(), text.replace(&own, &fixed)).expect("writing");
    testbed.on_host(|| mount("none", &state, "tmpfs", MountFlags::RDONLY, None)).expect("a tmpfs");
    load(&testbed).expect_stderr("the policy is loaded, but the state file does not contain it");
    let output = testbed.cli("status").expect_exit(0);
    assert!(
        output.stdout.contains("NOT OK: it is missing") && output.stdout.contains("note: the state file"),
        "{output:?}"
    );
    testbed.switch("trip", "host").expect_exit(0);
    testbed.switch("reset", "host").expect_exit(4);
}

#[test]
fn a_held_lock_prevents_no_trip_and_the_state_file_contains_the_trip_later() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    load(&testbed);
    let file = state_file(&testbed);
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let lock = fs::File::open(file.with_file_name(format!(".{name}.lock"))).expect("the lock");
    flock(&lock, FlockOperation::LockExclusive).expect("locking");
    let output =
        testbed.switch("trip", "host").expect_exit(0).expect_stderr("the state file is not written yet");
    assert!(output.stdout.starts_with("host: TRIPPED"), "{output:?}");
    let found = status(&testbed)["state"].clone();
    assert!(found["found"].as_str().is_some_and(|text| text.contains("host (manual)")), "{found}");
    drop(lock);
    wait_for("a change", || (status(&testbed)["state"]["ok"] == true).then_some(()));
}
