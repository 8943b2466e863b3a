//! The first process of a machine that `cargo xtask kernels` emulates: prepares the machine, does what `/plan.json` says, and powers
//! off. Its last line, `guest: ` and JSON, is there only where everything was as it should be; a panic here is one of the kernel.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::Program;
use aya::{EbpfLoader, VerifierLogLevel};
use breaker_tests::counts;
use breaker_tests::frame::order;
use breaker_tests::rig::Rig;
use breaker_tests::sink::{End, Sink};
use breaker_user::kernel::load;
use breaker_user::testbed::TwoHosts;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use serde_json::{Value, json};

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
"#;
/// What a machine has mounted before its first service starts. `/dev` comes before what may be mounted on it.
const MOUNTS: [(&str, &str); 5] =
    [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf"), ("tmpfs", "/tmp")];
/// The exit code of `breaker` on a kernel that lacks something.
const KERNEL_LACKS: Option<i32> = Some(7);

fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "guest: only as the first process of a machine that is to be powered off: see `cargo xtask kernels`"
        );
        std::process::exit(2);
    }
    match prepare().and_then(|plan| carry_out(&plan)) {
        Ok(found) => println!("guest: {found}"),
        Err(error) => println!("guest failed: {error:#}"),
    }
    reboot(RebootCommand::PowerOff).expect("powering off");
}

/// Mounts, loads modules, and says what is to be done.
fn prepare() -> Result<Value> {
    for (kind, path) in MOUNTS {
        mount(kind, path, kind, MountFlags::empty(), None)
            .with_context(|| format!("mounting {kind} at {path}"))?;
    }
    let plan: Value = serde_json::from_str(&fs::read_to_string("/plan.json").context("reading the plan")?)?;
    for module in strings(&plan["modules"]) {
        let file = File::open(module).with_context(|| format!("opening {module}"))?;
        finit_module(file, c"" as &CStr, 0).with_context(|| format!("loading module {module}"))?;
    }
    Ok(plan)
}

fn carry_out(plan: &Value) -> Result<Value> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if plan["refused"] == true {
        return Ok(json!({ "release": release, "refusal": refusal()? }));
    }
    if plan["counts"] == true {
        return Ok(json!({ "release": release, "instructions": counts::count()? }));
    }
    let verified = load_each()?;
    let hook = survives_its_loader()?;
    for suite in plan["suites"].as_array().into_iter().flatten() {
        let program = suite["program"].as_str().context("a suite without a program")?;
        let ran = Command::new(format!("/{program}"))
            .args(["--test-threads", "1", "--exact"])
            .args(strings(&suite["tests"]))
            .env("BREAKER_TESTS_SLOWNESS", plan["slowness"].to_string())
            .status()
            .with_context(|| format!("starting {program}"))?;
        ensure!(ran.success(), "{program}: {ran}");
    }
    Ok(json!({ "release": release, "verified": verified, "hook": hook }))
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Loads every program of the object and says how many instructions the verifier went through for each.
fn load_each() -> Result<Value> {
    let mut object = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(&load::object())
        .context("the maps")?;
    let mut verified = json!({});
    for (name, program) in object.programs_mut() {
        match program {
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            _ => bail!("program {name} is of a kind that no test loads yet"),
        }
        .with_context(|| format!("loading program {name}"))?;
        let count = program.info()?.verified_instruction_count();
        verified[name] = json!(count.with_context(|| format!("program {name}: the kernel does not say"))?);
        println!("loaded {name}: {} verified instructions", verified[name]);
    }
    Ok(verified)
}

/// A load by a process that has ended enforces, can be tripped by another, and goes away again. Says by which hook.
fn survives_its_loader() -> Result<Value> {
    let rig = Rig::unloaded(POLICY);
    cli(&rig, &["load", "--config", &rig.config().to_string_lossy()])?;
    let status: Value = serde_json::from_str(&cli(&rig, &["status", "--json"])?)?;
    let interface = &status["interfaces"][0];
    for promise in ["attached", "first", "pinned"] {
        ensure!(interface[promise] == true, "after the loader's end: not {promise}: {interface}");
    }
    let venue = SocketAddr::new(TwoHosts::VENUE, 9001);
    let sink = Sink::listen(&rig.wire.venue, venue);
    let mut stream = rig.inside(|| TcpStream::connect(venue))?;
    stream.write_all(&order(1))?;
    sink.wait("the order", |all| all[0].whole("D") == 1);
    cli(&rig, &["trip", "session/x1", "--reason", "test"])?;
    let _ = stream.write_all(&order(2));
    sink.wait("the reset", |all| all[0].end == End::Reset);
    ensure!(sink.last().count("D") == 1, "an order came after the trip");
    cli(&rig, &["reset", "session/x1", "--reason", "test", "--force"])?;
    cli(&rig, &["unload"])?;
    ensure!(!rig.inside(|| Rig::root().exists()), "an unload left something");
    let mut fresh = rig.inside(|| TcpStream::connect_timeout(&venue, Duration::from_secs(5)))?;
    fresh.write_all(&order(3))?;
    sink.wait("an order after the unload", |all| all.len() == 2 && all[1].whole("D") == 1);
    println!("survived its loader");
    Ok(interface["hook"].clone())
}

/// Runs `breaker` and gives what it prints; it must succeed.
fn cli(rig: &Rig, args: &[&str]) -> Result<String> {
    let ran = rig.cli(args);
    let complaint = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "breaker {}: {}: {complaint}", args.join(" "), ran.status);
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// What `breaker load` says where the kernel is too old. It must leave nothing behind.
fn refusal() -> Result<String> {
    let rig = Rig::unloaded(POLICY);
    let ran = rig.cli(&["load", "--config", &rig.config().to_string_lossy()]);
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    println!("breaker load: {}: {said}", ran.status);
    ensure!(
        ran.status.code() == KERNEL_LACKS,
        "breaker load on a kernel that is too old: {}: {said}",
        ran.status
    );
    ensure!(said.contains("this kernel lacks "), "it does not name what is missing: {said}");
    ensure!(!rig.inside(|| Rig::root().exists()), "a refused load left something");
    Ok(said)
}
