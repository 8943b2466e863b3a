//! The scripts of the package under a running systemd, as dpkg runs them: a removal that is refused, an
//! upgrade, a removal and a purge. The audit log in journald.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{cli, run, wait_for};

/// The scripts, where dpkg keeps them.
const SCRIPTS: &str = "/var/lib/dpkg/info";
/// The units that run until the removal.
const RUNNING: [&str; 4] =
    ["run-breaker-bpf.mount", "breaker-load.service", "breaker-agent.service", "breaker-control.socket"];
const AGENT: &str = "breaker-agent.service";
const LOG: &str = "/var/log/breaker/audit.jsonl";

/// Takes a host with a tripped session through an upgrade and the removal of the package. Returns figures.
pub fn check() -> Result<Value> {
    let first = main_process()?;
    let refused = script("prerm", &["remove"], 1)?;
    let refusal = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refusal.contains("a scope is tripped"), "{refusal}");
    ensure_running()?;
    script("prerm", &["upgrade", "0.1.1"], 0)?;
    ensure!(main_process()? == first, "prerm of an upgrade has restarted the agent");
    script("postinst", &["configure", "0.1.0"], 0)?;
    script("postrm", &["upgrade", "0.1.0"], 0)?;
    let second = main_process()?;
    ensure!(second != first, "postinst has not restarted the agent {first}");
    ensure_running()?;
    let status: Value = serde_json::from_slice(&cli(&["status", "--json"], 10)?.stdout)?;
    ensure!(status["enforced"]["ok"] == true, "not enforced after the upgrade: {}", status["enforced"]);
    let records = check_journal()?;
    remove()?;
    Ok(json!({ "agents": [first, second], "journal_records": records }))
}

/// Runs a script of the package with the arguments and the environment of dpkg.
fn script(name: &str, arguments: &[&str], code: i32) -> Result<Output> {
    let output = Command::new(format!("{SCRIPTS}/breaker.{name}"))
        .args(arguments)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .with_context(|| format!("running {name}"))?;
    ensure!(output.status.code() == Some(code), "{name} {arguments:?}: {output:?}");
    Ok(output)
}

/// A property of a unit.
fn property(unit: &str, name: &str) -> Result<String> {
    let output = run("/usr/bin/systemctl", &format!("show --value --property {name} {unit}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The number of the agent's process.
fn main_process() -> Result<u32> {
    let number = property(AGENT, "MainPID")?.parse()?;
    ensure!(number != 0, "the agent does not run");
    Ok(number)
}

fn ensure_running() -> Result<()> {
    RUNNING.iter().try_for_each(|unit| {
        let state = property(unit, "ActiveState")?;
        ensure!(state == "active", "{unit} is {state}");
        Ok(())
    })
}

/// journald has the last line of the audit log, and an event that the log could not take.
fn check_journal() -> Result<usize> {
    let ends = || journal(&[&format!("BREAKER_AUDIT_LOG={LOG}")]);
    wait_for("last line of the audit log in the journal", || ends().is_ok_and(|all| !all.is_empty()))?;
    for end in ends()? {
        let text = |field: &str| end[field].as_str().unwrap_or_default().to_owned();
        let is_whole = text("BREAKER_AUDIT_SEQ").parse::<u64>().is_ok()
            && text("BREAKER_AUDIT_HASH").len() == 64
            && text("_SYSTEMD_UNIT") == AGENT
            && text("SYSLOG_IDENTIFIER") == "breaker"
            && text("PRIORITY") == "6";
        ensure!(is_whole, "a record of the journal: {end}");
    }
    let verified: Value = serde_json::from_slice(&cli(&["audit", "verify", "--json"], 0)?.stdout)?;
    let anchors = verified["anchors"].as_array().into_iter().flatten();
    let from_journal: Vec<_> =
        anchors.filter(|one| one["source"].as_str().is_some_and(|text| text.contains("journal"))).collect();
    ensure!(!from_journal.is_empty(), "audit verify has not read the journal: {verified}");

    // A directory in the place of the log cannot be written.
    let aside = format!("{LOG}.aside");
    fs::rename(LOG, &aside)?;
    fs::create_dir(LOG)?;
    let tripped = cli(&["trip", "session/live", "--reason", "no log"], 0);
    fs::remove_dir(LOG)?;
    fs::rename(&aside, LOG)?;
    tripped?;
    let fields = ["BREAKER_KIND=tripped", "BREAKER_SCOPE=session/live"];
    wait_for("trip in the journal", || journal(&fields).is_ok_and(|all| !all.is_empty()))?;
    let trip = journal(&fields)?.remove(0);
    let is_whole = trip["BREAKER_REASON"] == "no log"
        && trip["BREAKER_CAUSE"] == "manual"
        && trip["BREAKER_UID"] == "0"
        && trip["BREAKER_AUDIT_FILE"] == LOG
        && trip["PRIORITY"] == "4";
    ensure!(is_whole, "the trip in the journal: {trip}");
    Ok(ends()?.len() + 1)
}

/// The records of the journal with these fields, the oldest first.
fn journal(fields: &[&str]) -> Result<Vec<Value>> {
    let arguments = ["--quiet", "--no-pager", "--output=json"];
    let output = Command::new("/usr/bin/journalctl").args(arguments).args(fields).output()?;
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Resets and unloads, and then removes the package and its data.
fn remove() -> Result<()> {
    for session in ["session/tripped", "session/live"] {
        let reset = || cli(&["reset", session, "--reason", "removal"], 0);
        wait_for("reset", || reset().is_ok())?;
    }
    let loaded = script("prerm", &["remove"], 1)?;
    let refusal = String::from_utf8_lossy(&loaded.stderr).into_owned();
    ensure!(refusal.contains("a policy is loaded"), "{refusal}");
    run("/usr/bin/systemctl", &format!("stop {AGENT}"))?;
    cli(&["unload"], 0)?;
    script("prerm", &["remove"], 0)?;
    for unit in RUNNING.iter().chain(&["breaker-control.service"]) {
        let state = property(unit, "ActiveState")?;
        ensure!(state == "inactive", "{unit} is {state} after prerm");
        let enabled = property(unit, "UnitFileState")?;
        ensure!(enabled != "enabled", "{unit} is {enabled} after prerm");
    }
    remove_files()?;
    script("postrm", &["remove"], 0)?;
    ensure!(!Path::new("/run/breaker").exists(), "postrm leaves /run/breaker");
    ensure!(Path::new(LOG).exists(), "a removal without a purge removes the audit log");
    script("postrm", &["purge"], 0)?;
    for directory in ["/var/lib/breaker", "/var/log/breaker", "/etc/breaker"] {
        ensure!(!Path::new(directory).exists(), "a purge leaves {directory}");
    }
    ensure!(!fs::read_to_string("/etc/passwd")?.contains("breaker"), "a purge leaves the account");
    for unit in RUNNING {
        let state = property(unit, "LoadState")?;
        ensure!(state == "not-found", "{unit} is {state} after the removal");
    }
    Ok(())
}

/// Removes the files of the package, as dpkg does between prerm and postrm.
fn remove_files() -> Result<()> {
    fs::remove_file("/usr/bin/breaker")?;
    let units = "/usr/lib/systemd/system";
    for entry in fs::read_dir(units)?.flatten() {
        if entry.file_name().to_string_lossy().contains("breaker") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
