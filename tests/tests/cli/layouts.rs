//! A breaker of another version: `status` shows its switches, `trip` works, and every other verb is refused.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use breaker_common::abi::ABI_VERSION;
use breaker_tests::cli::scope;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::json;

use super::POLICY;
use super::upgrade::patch_meta;

/// Values of maps that a breaker of layout 4 filled: the host, the group `desk`, and the sessions
/// `undeclared` and `x1`. The session `x1` is tripped.
const META: &[u8] = include_bytes!("../../../breaker-common/tests/layouts/4/meta.bin");
const SCOPES: &[u8] = include_bytes!("../../../breaker-common/tests/layouts/4/scopes.bin");
const LABELS: &[u8] = include_bytes!("../../../breaker-common/tests/layouts/4/labels.bin");
const COUNT: usize = 5;

/// Commands and a flag of bpf(2) (kernel `uapi/linux/bpf.h`).
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;

fn bpf<T>(command: libc::c_int, attr: &mut T) -> i32 {
    // SAFETY: each attribute below and the values behind its addresses live until the call returns.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    assert!(done >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    done as i32
}

/// Pins an array of `count` values. Each value begins with its part of `values` and is padded to `value_size`
/// bytes.
fn pin_array(path: &Path, values: &[u8], count: usize, value_size: usize) {
    let mut create = [BPF_MAP_TYPE_ARRAY, 4, value_size as u32, count as u32, BPF_F_MMAPABLE];
    // SAFETY: the kernel has just returned this descriptor.
    let map = unsafe { OwnedFd::from_raw_fd(bpf(BPF_MAP_CREATE, &mut create)) };
    for (number, part) in values.chunks_exact(values.len() / count).enumerate() {
        let (key, mut value) = (number as u32, part.to_vec());
        value.resize(value_size, 0xff);
        let mut update = [map.as_raw_fd() as u64, &raw const key as u64, value.as_ptr() as u64, 0];
        bpf(BPF_MAP_UPDATE_ELEM, &mut update);
    }
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    bpf(BPF_OBJ_PIN, &mut [path.as_ptr() as u64, map.as_raw_fd() as u64]);
}

/// Pins maps of an unknown layout, with longer values than in any known layout.
fn pin_unknown_layout(testbed: &Testbed) {
    testbed.on_host(|| {
        let root = Testbed::root();
        root.create().expect("a pin root");
        let mut meta = META.to_vec();
        meta[8..12].copy_from_slice(&77u32.to_le_bytes());
        pin_array(&root.map("META"), &meta, 1, 4096);
        pin_array(&root.map("SCOPES"), SCOPES, COUNT, 1000);
        pin_array(&root.map("LABELS"), LABELS, COUNT, 104);
    });
}

#[test]
fn a_switch_of_an_unknown_layout_is_tripped_and_read_back() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    pin_unknown_layout(&testbed);
    let output = testbed.cli("status").expect_exit(5).expect_stderr("layout 77");
    for line in ["host                passing          0", "session/x1          TRIPPED: manual  1"] {
        assert!(output.stdout.contains(line), "{line}: {output:?}");
    }
    let output = testbed
        .switch("trip", "group/desk")
        .expect_exit(0)
        .expect_stderr("the audit log was not written")
        .expect_stderr("test");
    assert!(
        output.stdout.starts_with("group/desk: TRIPPED (manual), epoch 3; by the switch alone"),
        "{output:?}"
    );
    testbed.cli("trip host --json").expect_exit(0);
    let shown = testbed.cli("status --json").expect_exit(5).json();
    assert_eq!(shown["breaker"]["abi"], 77);
    for (name, epoch) in [("host", 1), ("group/desk", 3), ("session/x1", 1)] {
        let found = scope(&shown, name);
        assert_eq!((&found["causes"], &found["epoch"]), (&json!(["manual"]), &json!(epoch)), "{name}");
    }
    assert_eq!(scope(&shown, "session/undeclared")["tripped"], false);
    testbed.cli("trip session/x9 --reason test").expect_exit(2).expect_stderr("session/x1");
    testbed.cli("status session/x9").expect_exit(2);
    let config = testbed.config().display().to_string();
    for refused in [
        "reset host --reason test",
        "arm host --reason test",
        "disarm host --reason test",
        "unload --force",
        "upgrade",
        "upgrade --force",
        "attach",
        &format!("reload --config {config}"),
        &format!("agent --config {config}"),
    ] {
        testbed.cli(refused).expect_exit(5).expect_stderr("layout 77");
    }
    testbed.cli(&format!("load --config {config}")).expect_exit(4);
    assert_eq!(testbed.cli("status --json").expect_exit(5).json(), shown);
    testbed.shell("rm -r /sys/fs/bpf/breaker");
}

#[test]
fn a_load_of_another_layout_enforces_the_trip_that_this_version_makes() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    for other in [ABI_VERSION - 1, ABI_VERSION + 1] {
        patch_meta(&testbed, |meta| meta.abi = other);
        testbed.switch("trip", "session/x1").expect_exit(0);
        testbed.cli("upgrade").expect_exit(5).expect_stderr(&format!("layout {other}"));
        patch_meta(&testbed, |meta| meta.abi = ABI_VERSION);
        let output = testbed.cli("status --json").expect_exit(10).json();
        assert_eq!(scope(&output, "session/x1")["causes"], json!(["manual"]));
        testbed.switch("reset", "session/x1").expect_exit(0);
    }
    patch_meta(&testbed, |meta| meta.abi = 4);
    testbed.on_host(|| {
        breaker_user::kernel::detach_link::detach_link(&Testbed::root().link(0)).expect("detaching");
    });
    testbed.switch("trip", "session/x1").expect_exit(8).expect_stderr("DETACHED: link_0");
    patch_meta(&testbed, |meta| meta.abi = ABI_VERSION);
    testbed.cli("unload --force").expect_exit(0);
}

#[test]
fn a_trip_of_pins_without_the_magic_is_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    patch_meta(&testbed, |meta| meta.magic = 7);
    for verb in ["trip host --reason test", "status", "upgrade"] {
        testbed.cli(verb).expect_exit(5);
    }
    patch_meta(&testbed, |meta| meta.magic = breaker_common::abi::MAGIC);
    testbed.cli("unload").expect_exit(0);
}

#[test]
fn a_trip_works_although_meta_is_damaged() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    patch_meta(&testbed, |meta| meta.policies[0].scopes = 1 << 20);
    let output =
        testbed.switch("trip", "session/x1").expect_exit(5).expect_stderr("scopes where META says 1048576");
    assert!(output.stdout.starts_with("session/x1: TRIPPED (manual), epoch 1"), "{output:?}");
    patch_meta(&testbed, |meta| meta.policies[0].scopes = 5);
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x1")["epoch"], 1);
    testbed.cli("unload --force").expect_exit(0);
}
