//! Boots a machine with systemd twice. A sender in the earliest unit must get no order past the hook that the
//! kernel did not count, and after the second boot no order of a session that was tripped before. The second
//! boot ends with an upgrade and the removal of the package.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::machine::{Options, run_archive};
use super::plan::COUNTED_KERNEL;
use super::{binaries, image, system};
use crate::{object, packages, workspace};

/// systemd is the first process. The name of a unit that hangs appears on the console.
const OPTIONS: Options<'_> = Options {
    processors: &["-smp", "2"],
    memory: "1024",
    parameters: "rdinit=/usr/lib/systemd/systemd systemd.unit=multi-user.target systemd.show_status=auto \
                 systemd.log_target=console systemd.default_timeout_start_sec=300",
};

/// Boots the machine twice, with the files of the first boot on the disk of the second boot.
pub fn run() -> Result<ExitCode> {
    let start = Instant::now();
    packages::ensure(packages::KERNELS)?;
    packages::ensure(packages::BOOT)?;
    object::build()?;
    let cache = workspace::root().join("target/kernels");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let images = image::fetch(&[COUNTED_KERNEL.to_owned()], &cache)?;
    let image = images.first().context("no kernel")?;
    let programs = binaries::build(&cache, &[])?;
    let mut disk = BTreeMap::new();
    for boot in ["first", "second"] {
        let archive = system::initramfs(image, &programs, &disk)?;
        let outcome = run_archive(image, &OPTIONS, &archive, &cache.join(format!("boot-{boot}.log")))
            .with_context(|| format!("the {boot} boot"))?;
        disk = files(&outcome.found["disk"])?;
        ensure!(disk.is_empty() == (boot == "second"), "the {boot} boot left {:?}", disk.keys());
        println!("{boot} boot, {} s: {}", outcome.took.as_secs(), summary(&outcome.found));
        if let Some(package) = outcome.found["package"].as_object() {
            println!(
                "package: upgraded (agent {}), removed and purged; {} records of the audit log in journald",
                package["agents"], package["journal_records"]
            );
        }
    }
    println!("both boots passed, in {} s", start.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

/// Describes the figures of a boot.
fn summary(found: &Value) -> String {
    let sessions = ["tripped", "live"].map(|name| {
        let [before, figures] = [&found["before"][name], &found["figures"][name]];
        format!(
            "session {name}: {} attempts to connect ({} before the check), {} orders sent, {} arrived",
            figures["attempts"], before["attempts"], figures["sent"], figures["received"]
        )
    });
    format!("{}: {}", found["release"].as_str().unwrap_or_default(), sessions.join("; "))
}

/// Decodes files by path from hex.
fn files(found: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
    let entries = found.as_object().context("the guest printed no files")?;
    let decode = |hex: &str| {
        let pairs = hex.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    };
    let file = |(path, hex): (&String, &Value)| {
        let bytes: Option<Vec<u8>> = decode(hex.as_str().unwrap_or_default());
        Ok((path.clone(), bytes.with_context(|| format!("{path} is not in hex"))?))
    };
    entries.iter().map(file).collect()
}
