//! Builds the kernel program for the BPF target, to target/bpf/breaker.o.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

use crate::toolchain::Toolchain;
use crate::{linker, process, sources, toolchain, workspace};

const TARGET: &str = "bpfel-unknown-none";
/// Compiler flags of the kernel program.
///
/// BTF is generated from debug info. BPF instruction set v3 has 32-bit arithmetic and jumps, and every
/// supported kernel has the instruction set. Words in packets are unaligned. Without
/// `allows-misaligned-mem-access` the compiler reads each word byte by byte.
const FLAGS: [&str; 4] = [
    "-Clink-arg=--btf",
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
    "-Ctarget-feature=+allows-misaligned-mem-access",
];

/// Builds the object. The file and its modification time stay as they are if the content is unchanged.
pub fn build() -> Result<()> {
    let root = workspace::root();
    // The digest is taken before compiling, so that an edit during the build counts as not yet compiled.
    let digest = sources::digest(&root).context("reading the kernel program's sources")?;
    let object = build_at(&root)?;
    write_if_changed(&sources::object(&root), &object)?;
    write_if_changed(&sources::stamp(&root), digest.as_bytes())
}

/// Compiles the kernel program of a checkout. Returns the object.
pub fn build_at(root: &Path) -> Result<Vec<u8>> {
    let rust = toolchain::find_or_install(linker::newest_llvm())?;
    let linker = linker::find_or_build()?;
    eprintln!("kernel program: {rust}");
    compile(root, &rust, &linker).with_context(|| {
        format!(
            "building the kernel program with {rust} and {} (its LLVM must not be older than Rust's)",
            linker.display()
        )
    })?;
    let compiled = compiled(root, "breaker-ebpf");
    fs::read(&compiled).with_context(|| format!("reading {}", compiled.display()))
}

/// Returns the path of a compiled BPF program: the program of breaker, or a program for tests.
pub fn compiled(root: &Path, name: &str) -> PathBuf {
    root.join("target/bpf").join(TARGET).join("bpf").join(name)
}

fn compile(root: &Path, rust: &Toolchain, linker: &Path) -> Result<()> {
    let mut cargo = rust.cargo();
    cargo
        .current_dir(root)
        .args(["build", "--locked", "--profile", "bpf"])
        .args(["--package", "breaker-ebpf", "--package", "breaker-tests-ebpf"])
        .args(["--target", TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(root.join("target/bpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, rust)?)
        // `-C linker` would hash the path of the linker, which differs between machines, into symbol names.
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    process::run(&mut cargo)
}

fn flags(root: &Path, rust: &Toolchain) -> Result<OsString> {
    let mut flags = FLAGS.map(OsString::from).to_vec();
    for (from, to) in path_remaps(root, &rust.sources)? {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join(std::ffi::OsStr::new("\x1f")))
}

/// Returns the paths that the compiler replaces, so that the object is bit for bit the same on every machine.
fn path_remaps(root: &Path, rust: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let real = rust.canonicalize().with_context(|| format!("resolving {}", rust.display()))?;
    let mut paths = vec![(root.to_path_buf(), "."), (rust.to_path_buf(), "/rustc"), (real, "/rustc")];
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    if let Some(registries) = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok()) {
        // A directory is named after the registry or its mirror. The crates below are the same.
        let mut registries: Vec<PathBuf> = registries.flatten().map(|registry| registry.path()).collect();
        registries.sort();
        paths.extend(registries.into_iter().map(|registry| (registry, "/cargo")));
    }
    Ok(paths)
}

/// Writes a file only if the content differs, because a new modification time causes a rebuild of
/// breaker-user.
fn write_if_changed(file: &Path, content: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == content) {
        return Ok(());
    }
    // The rename is atomic: another build may read the file at the same time.
    let new = file.with_extension("new");
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_file_keeps_its_modification_time() {
        let file = env::temp_dir().join(format!("breaker-xtask-{}", std::process::id()));
        write_if_changed(&file, b"one").expect("a first write");
        let before = fs::metadata(&file).and_then(|file| file.modified()).expect("a time");
        write_if_changed(&file, b"one").expect("the same again");
        assert_eq!(fs::metadata(&file).and_then(|file| file.modified()).expect("a time"), before);
        write_if_changed(&file, b"two").expect("another");
        assert_eq!(fs::read(&file).expect("the file"), b"two");
        fs::remove_file(&file).expect("its removal");
    }

    #[test]
    fn the_digest_of_unchanged_sources_is_stable() {
        let root = workspace::root();
        let digest = sources::digest(&root).expect("the sources of this workspace");
        assert_eq!(digest.len(), 16);
        assert_eq!(sources::digest(&root).expect("again"), digest);
    }
}
