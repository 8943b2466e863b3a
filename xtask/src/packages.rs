//! The distribution packages that building, testing and measuring need, each with the reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A package, the probe that finds its content however it was installed, and the reason for it.
pub struct Package {
    name: &'static str,
    probe: Probe,
    reason: &'static str,
}

enum Probe {
    Program(&'static str),
    File(&'static str),
}
use Probe::{File, Program};

const fn package(name: &'static str, probe: Probe, reason: &'static str) -> Package {
    Package { name, probe, reason }
}

/// The Rust of the distribution with the sources of `core`, see [`crate::toolchain`].
pub const RUST: &[Package] = &[
    package("rustc-web", File("/usr/bin/rustc"), "compiles the kernel program"),
    package("cargo-web", File("/usr/bin/cargo"), "builds `core` for the kernel program"),
    package(
        "rust-web-src",
        File("/usr/lib/rustlib/src/rust/library/core/Cargo.toml"),
        "the sources of `core`",
    ),
];

/// The libraries and the compiler that bpf-linker is built with, see [`crate::linker`].
pub const LINKER: &[Package] = &[
    package(
        "llvm-22-dev",
        File("/usr/lib/llvm-22/lib/libLLVM.so"),
        "generates the kernel's instructions and BTF",
    ),
    package("libpolly-22-dev", File("/usr/lib/llvm-22/lib/libPolly.a"), "llvm-config names it"),
    package("libzstd-dev", File("/usr/include/zstd.h"), "LLVM links it"),
    package("zlib1g-dev", File("/usr/include/zlib.h"), "LLVM links it"),
    package("g++", Program("c++"), "compiles the shim over LLVM's C++"),
];

/// The compiler of protocol buffers, which the build script of the client of etcd runs.
pub const USER_SPACE: &[Package] = &[
    package("protobuf-compiler", Program("protoc"), "compiles the messages of etcd"),
    package(
        "libprotobuf-dev",
        File("/usr/include/google/protobuf/descriptor.proto"),
        "the messages of etcd import it",
    ),
];

/// What the tests and the demo run.
pub const TESTS: &[Package] = &[
    package("iproute2", Program("ip"), "network namespaces, veth pairs, routes"),
    package("nftables", Program("nft"), "packets lost or marked behind breaker's back"),
    package("ethtool", Program("ethtool"), "turns segmentation offload on and off"),
    package("strace", Program("strace"), "has system calls fail, each in its turn"),
    package(
        "chromium",
        Program("chromium"),
        "a real browser that opens the web page and prints that of a drill",
    ),
    package("poppler-utils", Program("pdfinfo"), "counts the pages of that print"),
    package("openssl", Program("openssl"), "real TLS on a session that is declared as FIX"),
    package("tshark", Program("tshark"), "an independent reader of what was on the wire"),
    package("tmux", Program("tmux"), "a real terminal for the live view"),
    package(
        "libquickfix-dev",
        File("/usr/include/quickfix/Session.h"),
        "a real FIX engine to cut off and to recover",
    ),
    package("g++", Program("c++"), "compiles the FIX engine's two ends"),
    package("mandoc", Program("mandoc"), "checks the manual pages"),
    package("man-db", Program("man"), "renders the manual pages"),
    package("zsh", Program("zsh"), "loads its completions"),
    package("fish", Program("fish"), "loads its completions"),
    package("prometheus", Program("promtool"), "checks the metrics and tests the alerts"),
    package("prometheus-alertmanager", Program("amtool"), "checks the routes of the alerts"),
    package("etcd-server", Program("etcd"), "the cluster of a fleet"),
    package("etcd-client", Program("etcdctl"), "makes its users, compacts and restores it"),
    package("dpkg", Program("dpkg"), "installs the .deb"),
    package("rpm", Program("rpm"), "installs the .rpm"),
];

/// The programs of the machine that the boot test emulates, see [`crate::kernels::boot`].
pub const BOOT: &[Package] = &[
    package("systemd", File("/usr/lib/systemd/systemd"), "the first process of the machine"),
    package("iproute2", Program("ip"), "makes and configures the interfaces"),
    package("mount", Program("mount"), "mounts the BPF file system"),
];

/// The programs that boot other kernels, see [`crate::kernels`].
pub const KERNELS: &[Package] = &[
    package("qemu-system-x86", Program("qemu-system-x86_64"), "emulates the machine"),
    package(
        "debian-archive-keyring",
        File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        "verifies the signature of a Debian kernel",
    ),
    package("dpkg", Program("dpkg-deb"), "unpacks a kernel"),
    package("xz-utils", Program("xz"), "unpacks the modules of a kernel"),
    package("g++", Program("c++"), "links the static programs"),
];

/// The programs that the bench compares breaker with, and the program that sets up the network.
pub const BENCH: &[Package] = &[
    package("iproute2", Program("ip"), "network namespaces, and `tc` and `ss -K` to compare with"),
    package("nftables", Program("nft"), "a packet filter to compare with"),
    package("iptables", Program("iptables"), "another packet filter to compare with"),
    package("haproxy", Program("haproxy"), "a proxy to compare with"),
    package("bpftool", Program("bpftool"), "another way to write the switch, to compare with"),
];

/// The compiler that builds libFuzzer.
pub const FUZZ: &[Package] = &[package("g++", Program("c++"), "compiles libFuzzer")];

/// Installs the missing packages.
///
/// If packages cannot be installed here, the error names each missing package and the reason for it.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages.iter().filter(|package| !package.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!(
            "packages are missing: {}: install them, or run this as root on a system with apt-get",
            names_and_reasons(&missing)
        );
    }
    eprintln!("installing {}", names_and_reasons(&missing));
    // The status is ignored: an unreachable third-party repository fails the update although the wanted
    // packages are known. The install decides.
    let _ = process::status(apt_get().args(["-q", "update"]))?;
    process::run(
        apt_get()
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(missing.iter().map(|p| p.name)),
    )?;
    let missing: Vec<&Package> = missing.into_iter().filter(|package| !package.is_installed()).collect();
    if !missing.is_empty() {
        bail!(
            "packages are installed but not usable: {}: check which other package provides these files",
            names_and_reasons(&missing)
        );
    }
    Ok(())
}

/// Returns true if xtask runs as root and the system has apt-get.
pub fn can_install() -> bool {
    rustix::process::geteuid().is_root() && find_program("apt-get").is_some()
}

/// Returns the path of a program, from PATH or from the `sbin` directories, which PATH lacks for most users.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| file.is_file())
}

impl Package {
    fn is_installed(&self) -> bool {
        match self.probe {
            Program(name) => find_program(name).is_some(),
            File(path) => Path::new(path).exists(),
        }
    }
}

fn names_and_reasons(packages: &[&Package]) -> String {
    let each: Vec<String> =
        packages.iter().map(|package| format!("{} ({})", package.name, package.reason)).collect();
    each.join(", ")
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Wait for the lock: another apt-get often runs on a machine that has just booted.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_package_is_named_with_its_reason() {
        let absent = package("nosuch", Program("no-such-program-anywhere"), "nothing");
        let present = package("shell", File("/bin/sh"), "everything");
        assert!(!absent.is_installed() && present.is_installed());
        assert_eq!(names_and_reasons(&[&absent, &present]), "nosuch (nothing), shell (everything)");
    }
}
