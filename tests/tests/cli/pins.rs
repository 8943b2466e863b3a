//! Where a load is pinned: in a file system of breaker's own, that outlives the command, under a name that nobody else has taken.

use breaker_tests::privileged;
use breaker_tests::rig::{Rig, binary};

use super::host::{Host, POLICY};

/// Runs lines of shell on the host with process 1 and mounts of their own, so that those mounts are the ones of process 1. `$B` is the
/// binary, which is told no pin root, and `$C` the configuration.
fn booted(rig: &Rig, lines: &str) -> String {
    let set = format!(
        "unset BREAKER_PIN_ROOT BREAKER_PRIVATE_PINS; B={}; C={}",
        binary().display(),
        rig.config().display()
    );
    rig.shell(&format!(
        "unshare --pid --fork --mount-proc sh -c '{set}; mount -t tmpfs none /run; {lines}' 2>&1"
    ))
}

#[test]
fn without_a_pin_root_breaker_mounts_a_file_system_of_its_own() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let said = booted(
        &rig,
        "$B status; echo first $?; $B load --config $C >/dev/null; echo load $?; stat -f -c %T /run/breaker/bpf; stat -c %a /run/breaker \
         /run/breaker/bpf; ls /run/breaker/bpf; $B status >/dev/null; echo status $?; $B unload; ls -A /run/breaker/bpf; $B status; echo \
         last $?",
    );
    for found in ["first 3", "load 0", "bpf_fs\n755\n1700\nhost\n", "status 0", "unloaded:", "last 3"] {
        assert!(said.contains(found), "{found:?} is not in {said}");
    }
}

#[test]
fn pins_that_would_end_with_the_command_are_refused() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    // A mount namespace below that of process 1: as `ip netns exec`, a unit with private mounts and a container have one.
    let private = |lines: &str| booted(&rig, &format!("unshare -m sh -c \"{lines}\""));
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
        let said = private(&format!("{lines}; echo ended \\$?"));
        assert!(
            said.contains(found) && said.contains("ended 8") && said.contains("nsenter --net="),
            "{lines}: {said}"
        );
        rig.is_clean();
    }
    // In a file system that process 1 has too, it lasts; and a load that is to end with its mounts is said to.
    let said = private("$B load --config $C --pin-root /sys/fs/bpf/x >/dev/null; echo ended \\$?");
    assert!(said.contains("ended 0"), "{said}");
    rig.types("unload --pin-root /sys/fs/bpf/x").expect_exit(0);
    let said = private(
        "mount -t bpf bpf /mnt; export BREAKER_PIN_ROOT=/mnt/x; $B load --private-pins --config $C >/dev/null; echo load \\$?; $B status; echo \
         status \\$?; $B status --private-pins >/dev/null; echo private \\$?",
    );
    for found in
        ["load 0", "UNPINNED: host: /mnt/x is in a mount namespace of its own", "status 11", "private 0"]
    {
        assert!(said.contains(found), "{found:?} is not in {said}");
    }
    rig.is_clean();
}

#[test]
fn a_name_that_another_user_has_taken_is_told() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let load = format!("load --config {}", rig.config().display());
    rig.shell("chmod 1777 /sys/fs/bpf");
    for name in ["breaker", "breaker_next"] {
        rig.shell(&format!("{nobody} mkdir -p /sys/fs/bpf/{name}/x"));
        let found = format!("taking /sys/fs/bpf/{name}: user 65534 has made it");
        rig.types(&load).expect_exit(4).because(&found).because("rm -r");
        rig.shell(&format!("rm -r /sys/fs/bpf/{name}"));
    }
    rig.types(&load).expect_exit(0);
    rig.types("unload").expect_exit(0);
    rig.is_clean();
}

#[test]
fn another_breaker_in_the_chain_is_told() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.trip("session/x1");
    let audit = rig.audit();
    let text = format!("[host]\ninterfaces = [\"eth1\"]\n[agent]\naudit = {audit:?}\n");
    let second = rig.configure("second.toml", &text);
    let words = format!("load --pin-root /sys/fs/bpf/second --config {}", second.display());
    let said = rig.types(&words).expect_exit(0);
    assert!(
        said.out.contains("note: eth1: another breaker decides there too (program \"egress\""),
        "{said:?}"
    );
    rig.types("status --pin-root /sys/fs/bpf/third").expect_exit(3).because("(a breaker's program, id ");
    rig.types("unload --pin-root /sys/fs/bpf/second").expect_exit(0);
}
