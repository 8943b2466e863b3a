//! The packages of the distribution that building and testing need: one table, a reason each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A package, how to see that it is there whichever way it came, and what for.
pub struct Package {
    name: &'static str,
    there: Probe,
    reason: &'static str,
}

enum Probe {
    Program(&'static str),
    File(&'static str),
}
use Probe::{File, Program};

const fn package(name: &'static str, there: Probe, reason: &'static str) -> Package {
    Package { name, there, reason }
}

/// The distribution's own Rust with the sources of `core`: see `toolchain`.
pub const RUST: &[Package] = &[
    package("rustc-web", File("/usr/bin/rustc"), "compiles the kernel program"),
    package("cargo-web", File("/usr/bin/cargo"), "builds `core` for the kernel program"),
    package(
        "rust-web-src",
        File("/usr/lib/rustlib/src/rust/library/core/Cargo.toml"),
        "the sources of `core`",
    ),
];

/// What bpf-linker is compiled and linked with: see `linker`.
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

/// What the tests and the demo run.
pub const TESTS: &[Package] = &[
    package("iproute2", Program("ip"), "network namespaces, veth pairs, routes"),
    package("nftables", Program("nft"), "packets lost or marked behind breaker's back"),
    package("ethtool", Program("ethtool"), "turns segmentation offload on and off"),
    package("strace", Program("strace"), "has system calls fail, each in its turn"),
    package("tshark", Program("tshark"), "an independent reader of what was on the wire"),
    package(
        "libquickfix-dev",
        File("/usr/include/quickfix/Session.h"),
        "a real FIX engine to cut off and to recover",
    ),
    package("g++", Program("c++"), "compiles the FIX engine's two ends"),
];

/// What booting other kernels takes: see `kernels`.
pub const KERNELS: &[Package] = &[
    package("qemu-system-x86", Program("qemu-system-x86_64"), "emulates the machine"),
    package(
        "debian-archive-keyring",
        File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        "tells that a kernel is Debian's",
    ),
    package("dpkg", Program("dpkg-deb"), "unpacks a kernel"),
    package("xz-utils", Program("xz"), "unpacks its modules"),
    package("g++", Program("c++"), "links our programs"),
];

/// What breaker is compared with, and what lays the network between.
pub const BENCH: &[Package] = &[
    package("iproute2", Program("ip"), "network namespaces, and `tc` and `ss -K` to compare with"),
    package("nftables", Program("nft"), "a packet filter to compare with"),
    package("iptables", Program("iptables"), "another"),
    package("haproxy", Program("haproxy"), "a proxy to compare with"),
    package("bpftool", Program("bpftool"), "another hand at the switch to compare with"),
];

/// What the fuzz targets are linked with.
pub const FUZZ: &[Package] = &[package("g++", Program("c++"), "compiles libFuzzer")];

/// Installs those that are missing; where that cannot be done, says which and what for.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages.iter().filter(|package| !package.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!(
            "packages are missing: {}: install them, or run this as root where there is apt-get",
            wanted(&missing)
        );
    }
    eprintln!("installing {}", wanted(&missing));
    // A dead third-party repository fails the update though the packages we want are known: the install decides.
    let _ = process::status(apt_get().args(["-q", "update"]))?;
    process::run(
        apt_get()
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(missing.iter().map(|p| p.name)),
    )?;
    let missing: Vec<&Package> = missing.into_iter().filter(|package| !package.is_there()).collect();
    if !missing.is_empty() {
        bail!(
            "packages are installed but not usable: {}: see what else provides them on this machine",
            wanted(&missing)
        );
    }
    Ok(())
}

/// Whether this machine lets us install packages.
pub fn can_install() -> bool {
    rustix::process::geteuid().is_root() && program("apt-get").is_some()
}

/// Where a program is: on PATH, or where a user who is not root does not look.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| file.is_file())
}

impl Package {
    fn is_there(&self) -> bool {
        match self.there {
            Program(name) => program(name).is_some(),
            File(path) => Path::new(path).exists(),
        }
    }
}

fn wanted(packages: &[&Package]) -> String {
    let each: Vec<String> =
        packages.iter().map(|package| format!("{} ({})", package.name, package.reason)).collect();
    each.join(", ")
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt-get may be at work on a machine that has just booted.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_reason() {
        let absent = package("nosuch", Program("no-such-program-anywhere"), "nothing");
        let present = package("shell", File("/bin/sh"), "everything");
        assert!(!absent.is_there() && present.is_there());
        assert_eq!(wanted(&[&absent, &present]), "nosuch (nothing), shell (everything)");
    }
}
