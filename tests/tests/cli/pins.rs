//! The pins of a load: in a BPF file system of breaker's own that outlives the command, under a name that no
//! other user has taken.

use breaker_tests::command::binary;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

use super::POLICY;

/// Runs lines of shell on the host with a PID namespace and mounts of their own, so that these mounts are
/// those of process 1. `$B` is the binary, without a pin root in its environment, and `$C` the configuration.
fn booted(testbed: &Testbed, lines: &str) -> String {
    let set = format!(
        "unset BREAKER_PIN_ROOT BREAKER_PRIVATE_PINS; B={}; C={}",
        binary().display(),
        testbed.config().display()
    );
    testbed.shell(&format!(
        "unshare --pid --fork --mount-proc sh -c '{set}; mount -t tmpfs none /run; {lines}' 2>&1"
    ))
}

#[test]
fn without_a_pin_root_breaker_mounts_a_file_system_of_its_own() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let output = booted(
        &testbed,
        "$B status; echo first $?; $B load --config $C >/dev/null; echo load $?; stat -f -c %T \
         /run/breaker/bpf; stat -c %a /run/breaker \
         /run/breaker/bpf; ls /run/breaker/bpf; $B status >/dev/null; echo status $?; $B unload; ls -A \
         /run/breaker/bpf; $B status; echo \
         last $?",
    );
    for found in ["first 3", "load 0", "bpf_fs\n755\n1700\nhost\n", "status 0", "unloaded:", "last 3"] {
        assert!(output.contains(found), "{found:?} is not in {output}");
    }
}

#[test]
fn pins_that_would_end_with_the_command_are_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    // A mount namespace below that of process 1, as in `ip netns exec`, a unit with private mounts, or a
    // container.
    let private = |lines: &str| booted(&testbed, &format!("unshare -m sh -c \"{lines}\""));
    for (lines, found) in [
        (
            "$B load --config $C",
            "mounting a BPF file system at /run/breaker/bpf: this process has a mount namespace of its own",
        ),
        (
            "umount /sys/fs/bpf; $B load --config $C --pin-root /sys/fs/bpf/x",
            "mounting a BPF file system at /sys/fs/bpf",
        ),
        (
            "mount -t bpf bpf /mnt; $B load --config $C --pin-root /mnt/x",
            "/mnt/x is in a mount namespace of its own",
        ),
        (
            "mount -t bpf bpf /sys/fs/bpf; $B agent --config $C --pin-root /sys/fs/bpf/x",
            "is in a mount namespace of its own",
        ),
    ] {
        let output = private(&format!("{lines}; echo ended \\$?"));
        assert!(
            output.contains(found) && output.contains("ended 8") && output.contains("nsenter --net="),
            "{lines}: {output}"
        );
        testbed.assert_clean();
    }
    // Pins in a file system that process 1 has too persist. The option `--private-pins` allows pins that end
    // with their mounts.
    let output = private("$B load --config $C --pin-root /sys/fs/bpf/x >/dev/null; echo ended \\$?");
    assert!(output.contains("ended 0"), "{output}");
    testbed.cli("unload --pin-root /sys/fs/bpf/x").expect_exit(0);
    let output = private(
        "mount -t bpf bpf /mnt; export BREAKER_PIN_ROOT=/mnt/x; $B load --private-pins --config $C \
         >/dev/null; echo load \\$?; $B status; echo \
         status \\$?; $B status --private-pins >/dev/null; echo private \\$?",
    );
    for found in
        ["load 0", "UNPINNED: host: /mnt/x is in a mount namespace of its own", "status 11", "private 0"]
    {
        assert!(output.contains(found), "{found:?} is not in {output}");
    }
    testbed.assert_clean();
}

#[test]
fn a_pin_root_of_another_user_is_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let load = format!("load --config {}", testbed.config().display());
    testbed.shell("chmod 1777 /sys/fs/bpf");
    for name in ["breaker", "breaker_next"] {
        testbed.shell(&format!("{nobody} mkdir -p /sys/fs/bpf/{name}/x"));
        let found = format!("taking /sys/fs/bpf/{name}: user 65534 has made it");
        testbed.cli(&load).expect_exit(4).expect_stderr(&found).expect_stderr("rm -r");
        testbed.shell(&format!("rm -r /sys/fs/bpf/{name}"));
    }
    testbed.cli(&load).expect_exit(0);
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn another_breaker_in_the_chain_is_reported() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("session/x1");
    let (audit, state) = (testbed.state().join("second.jsonl"), testbed.state());
    let text = format!("[host]\ninterfaces = [\"eth1\"]\n[agent]\naudit = {audit:?}\nstate = {state:?}\n");
    let second = testbed.write_config("second.toml", &text);
    let words = format!("load --pin-root /sys/fs/bpf/second --config {}", second.display());
    let output = testbed.cli(&words).expect_exit(0);
    assert!(
        output.stdout.contains("note: eth1: another breaker decides there too (program \"egress\""),
        "{output:?}"
    );
    testbed
        .cli("status --pin-root /sys/fs/bpf/third")
        .expect_exit(3)
        .expect_stderr("(a breaker's program, id ");
    testbed.cli("unload --pin-root /sys/fs/bpf/second").expect_exit(0);
}
