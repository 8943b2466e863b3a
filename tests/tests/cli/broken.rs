//! Pin directories that do not match this version: exit 5, with the values of both sides.

use breaker_common::abi::{ABI_VERSION, Label, Meta, label};
use breaker_tests::cli::scope;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::memory::Mapped;
use breaker_user::kernel::object::for_running_kernel;

use super::POLICY;

const VERBS: [&str; 7] = [
    "status",
    "unload",
    "unload --force",
    "events",
    "trip host --reason x",
    "reset host --reason x",
    "disarm host --reason x",
];

#[test]
fn another_layout_is_refused_by_every_verb_and_still_enforces() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let change = |change: fn(&mut Meta)| {
        testbed.on_host(|| {
            let map = Mapped::<Meta>::open(&Testbed::root().map("META")).expect("META");
            let mut meta = map.get(0).expect("a value");
            change(&mut meta);
            map.set(0, meta).expect("writing");
        });
    };
    change(|meta| meta.abi += 1);
    let found = format!(
        "it has layout {}, where breaker {} has layout {ABI_VERSION}",
        ABI_VERSION + 1,
        breaker_user::VERSION
    );
    // `trip` works with any layout (see `layouts.rs`), and `status` shows the switches.
    for verb in VERBS.into_iter().filter(|verb| !verb.starts_with("trip")) {
        let output = testbed
            .cli(verb)
            .expect_exit(5)
            .expect_stderr(&found)
            .expect_stderr("unload it with the version that loaded it");
        let shows = verb == "status";
        assert_eq!((!output.stdout.is_empty(), output.stderr.lines().count()), (shows, 1), "{output:?}");
    }
    change(|meta| (meta.abi, meta.magic) = (ABI_VERSION, 7));
    VERBS
        .iter()
        .for_each(|verb| drop(testbed.cli(verb).expect_exit(5).expect_stderr("it has no layout of breaker")));
    change(|meta| (meta.magic, meta.policies[0].scopes) = (breaker_common::abi::MAGIC, 1 << 20));
    VERBS.iter().for_each(|verb| {
        drop(testbed.cli(verb).expect_exit(5).expect_stderr("scopes where META says 1048576"))
    });
    assert_eq!(testbed.tcx_programs("eth1"), 1, "it is still attached");
    change(|meta| meta.policies[0].scopes = 5);
    // The `trip` above worked although META was damaged.
    testbed.cli("unload").expect_exit(4).expect_stderr("host is tripped");
    testbed.cli("unload --force").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn corrupt_numbers_in_the_maps_are_reported_and_allocate_no_memory() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let damage = |session: u32| {
        testbed.on_host(|| {
            let map = Mapped::<Label>::open(&Testbed::root().map("LABELS")).expect("LABELS");
            let number =
                (0..map.len()).rfind(|n| map.get(*n).is_some_and(|label| label.kind == label::SESSION));
            let number = number.expect("a session's scope");
            let before = map.get(number).expect("a value");
            map.set(number, Label { session, ..before }).expect("writing");
            before.session
        })
    };
    for wild in [u32::MAX, 1 << 28, 1 << 20] {
        let before = damage(wild);
        // The log's path is not in these maps.
        for verb in VERBS.into_iter().filter(|verb| *verb != "events") {
            let output = testbed
                .cli(verb)
                .expect_exit(5)
                .expect_stderr(&format!("its maps are damaged: session number {wild} where"));
            assert_eq!(output.stdout, "", "{output:?}");
        }
        damage(before);
    }
    // The trip worked all the same.
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(10).json(), "host")["tripped"], true);
    testbed.cli("reset host --reason x").expect_exit(0);
    testbed.on_host(|| {
        let map = Mapped::<Meta>::open(&Testbed::root().map("META")).expect("META");
        let mut meta = map.get(0).expect("a value");
        meta.policies[0].sessions = 1 << 31;
        map.set(0, meta).expect("writing");
    });
    VERBS.iter().for_each(|verb| {
        drop(testbed.cli(verb).expect_exit(5).expect_stderr("its maps are damaged: 2147483648 sessions"))
    });
}

#[test]
fn a_pin_directory_of_another_program_is_left_unchanged() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    // A map named META of several other shapes, and another map.
    for (map, name) in [
        ("PORTS", "meta"),
        ("SCOPES", "meta"),
        ("CONNECTIONS", "meta"),
        ("EVENTS", "meta"),
        ("REASONS", "meta"),
        ("META", "other"),
    ] {
        testbed.shell("mkdir /sys/fs/bpf/breaker");
        testbed.on_host(|| {
            let object = aya::EbpfLoader::new().load(&for_running_kernel().bytes).expect("the object");
            object.map(map).expect("a map").pin(Testbed::root().path().join(name)).expect("pinning");
        });
        VERBS
            .iter()
            .for_each(|verb| drop(testbed.cli(verb).expect_exit(5).expect_stderr("/sys/fs/bpf/breaker")));
        testbed.cli(&format!("load --config {}", testbed.config().display())).expect_exit(4);
        assert_eq!(testbed.shell("ls /sys/fs/bpf/breaker").trim(), name, "nothing of it is touched");
        testbed.shell("rm -r /sys/fs/bpf/breaker");
    }
}

#[test]
fn a_map_of_another_shape_is_named() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.on_host(|| {
        // A map as an older version may have had it under that name.
        let object = aya::EbpfLoader::new().load(&for_running_kernel().bytes).expect("the object");
        let path = Testbed::root().map("SESSIONS");
        std::fs::remove_file(&path).expect("unpinning");
        object.map("PORTS").expect("a map").pin(&path).expect("pinning");
    });
    let found = "/sys/fs/bpf/breaker/sessions: it is a Array with keys of 4 and values of 8 bytes, where \
                 this program needs";
    testbed.cli("status").expect_exit(5).expect_stderr(found);
    // Verbs that need no sessions still work, and so does a trip.
    let output = testbed.switch("trip", "session/x1").expect_exit(0);
    assert!(output.stdout.contains("session/x1: TRIPPED (manual)"), "{output:?}");
    assert!(output.stdout.contains("idle connections were not ended"), "{output:?}");
    testbed.cli("unload --force").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn a_missing_pin_is_named_and_ends_with_5() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.shell("rm /sys/fs/bpf/breaker/scopes");
    testbed.cli("status").expect_exit(5).expect_stderr("/sys/fs/bpf/breaker/scopes");
    testbed.cli("trip host --reason x").expect_exit(5).expect_stderr("/sys/fs/bpf/breaker/scopes");
    assert_eq!(testbed.tcx_programs("eth1"), 1);
}

#[test]
fn a_pin_root_outside_of_a_bpf_file_system_is_wrong_usage() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = testbed.config();
    for (root, found) in [
        ("/tmp/no-bpffs", "/tmp is no directory of a BPF file system"),
        ("/sys/fs/bpf/none/there", "/sys/fs/bpf/none is no directory of a BPF file system"),
        ("/sys/fs/bpf/eth0.100", "takes no dots in names"),
        ("/", "--pin-root"),
    ] {
        let words = format!("load --config {} --pin-root {root}", config.display());
        testbed.cli(&words).expect_exit(2).expect_stderr(found);
    }
    testbed
        .cli("status --pin-root /tmp/no-bpffs")
        .expect_exit(3)
        .expect_stderr("no BPF file system is mounted there");
    testbed.assert_clean();
}
