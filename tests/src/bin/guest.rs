//! The init process of a machine that `cargo xtask kernels` emulates. It prepares the machine, follows
//! `/plan.json`, and powers off. Its last line is `guest: ` and JSON if everything was as expected. A panic
//! of this process is a panic of the kernel.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::Program;
use aya::{EbpfLoader, VerifierLogLevel};
use breaker_tests::cpu::pin_to_cpu;
use breaker_tests::frame::order;
use breaker_tests::instructions;
use breaker_tests::receiver::End;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::object;
use breaker_user::testbed::TwoHosts;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::{Value, json};

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
"#;
/// Mounts of a machine before its first service starts. `/dev` comes before mounts on it.
const MOUNTS: [(&str, &str); 5] =
    [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf"), ("tmpfs", "/tmp")];
/// The exit code of `breaker` on a kernel that lacks a feature.
const KERNEL_LACKS: Option<i32> = Some(7);

fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "guest: only as the first process of a machine that is to be powered off: see `cargo xtask \
             kernels`"
        );
        std::process::exit(2);
    }
    match prepare().and_then(|plan| carry_out(&plan)) {
        Ok(found) => println!("guest: {found}"),
        Err(error) => println!("guest failed: {error:#}"),
    }
    reboot(RebootCommand::PowerOff).expect("powering off");
}

/// Mounts the file systems, loads the modules, and returns the plan.
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
        return Ok(json!({ "release": release, "instructions": instructions::count()? }));
    }
    let verified = load_each()?;
    let hook = survives_its_loader()?;
    ignores_the_wall_clock()?;
    counts_on_every_cpu()?;
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

/// Loads every program of the object. Returns the number of instructions that the verifier processed for
/// each.
fn load_each() -> Result<Value> {
    let mut object = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(&object::for_running_kernel().bytes)
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

/// Checks that a load enforces after its process has ended, that another process can trip it, and that it
/// unloads. Returns the hook.
fn survives_its_loader() -> Result<Value> {
    let testbed = Testbed::unloaded(POLICY);
    cli(&testbed, &["load", "--config", &testbed.config().to_string_lossy()])?;
    let status: Value = serde_json::from_str(&cli(&testbed, &["status", "--json"])?)?;
    let interface = &status["interfaces"][0];
    for promise in ["attached", "first", "pinned"] {
        ensure!(interface[promise] == true, "after the loader's end: not {promise}: {interface}");
    }
    let receiver = testbed.listen(9001);
    let mut stream = testbed.on_host(|| TcpStream::connect(TwoHosts::venue_socket(9001)))?;
    stream.write_all(&order(1))?;
    receiver.wait("the order", |all| all[0].complete("D") == 1);
    cli(&testbed, &["trip", "session/x1", "--reason", "test"])?;
    let _ = stream.write_all(&order(2));
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    ensure!(receiver.last().count("D") == 1, "an order came after the trip");
    cli(&testbed, &["reset", "session/x1", "--reason", "test", "--force"])?;
    cli(&testbed, &["unload"])?;
    ensure!(!testbed.on_host(|| Testbed::root().exists()), "an unload left something");
    let mut fresh = testbed
        .on_host(|| TcpStream::connect_timeout(&TwoHosts::venue_socket(9001), Duration::from_secs(5)))?;
    fresh.write_all(&order(3))?;
    receiver.wait("an order after the unload", |all| all.len() == 2 && all[1].complete("D") == 1);
    println!("survived its loader");
    Ok(interface["hook"].clone())
}

/// Checks that no limit depends on the wall clock, which jumps by a day in both directions.
fn ignores_the_wall_clock() -> Result<()> {
    const DAY_S: i64 = 86_400;
    let testbed =
        Testbed::load(&format!("{POLICY}limits = [{{ class = \"order\", max = 5, per = \"1h\" }}]\n"));
    let receiver = testbed.listen(9001);
    for step in [DAY_S, -DAY_S] {
        let count = receiver.received().len();
        let mut stream = testbed.connect(9001);
        for number in 0..8 {
            if number == 3 {
                let now = clock_gettime(ClockId::Realtime);
                let stepped = Timespec { tv_sec: now.tv_sec + step, ..now };
                clock_settime(ClockId::Realtime, stepped).context("setting the clock")?;
            }
            // After the fifth order the connection is reset.
            let _ = stream.write_all(&order(number));
            std::thread::sleep(Duration::from_millis(20));
        }
        receiver.wait("the reset", |all| all.len() > count && all[count].end == End::Reset);
        let arrived = receiver.received()[count].count("D");
        ensure!(arrived == 5, "{arrived} orders crossed at a limit of 5 with a step of {step} s");
        cli(&testbed, &["reset", "session/x1", "--reason", "test", "--force"])?;
    }
    cli(&testbed, &["unload"])?;
    println!("ignored the wall clock");
    Ok(())
}

/// Checks that counters and limits stay complete while a CPU is taken away and comes back.
fn counts_on_every_cpu() -> Result<()> {
    const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
    const ORDERS: u64 = 50;
    if fs::metadata(ONLINE).is_err() {
        bail!("the machine has one CPU");
    }
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    let mut sent = 0;
    for (state, cpu) in [("1", 1), ("0", 0), ("1", 1)] {
        fs::write(ONLINE, state).with_context(|| format!("writing {ONLINE}"))?;
        // The thread moves to another CPU when its own is taken away.
        pin_to_cpu(cpu);
        for _ in 0..ORDERS {
            stream.write_all(&order(sent as u32))?;
            sent += 1;
        }
        receiver.wait("the orders", |all| all[0].complete("D") as u64 == sent);
        let passed = testbed.status_json().messages("x1", "order").0;
        ensure!(passed == sent, "{sent} orders sent, {passed} counted, CPU 1 online: {state}");
    }
    cli(&testbed, &["unload"])?;
    println!("counted on every CPU");
    Ok(())
}

/// Runs `breaker`, which must succeed, and returns its standard output.
fn cli(testbed: &Testbed, args: &[&str]) -> Result<String> {
    let output = testbed.cli_args(args);
    ensure!(output.exit_code == Some(0), "breaker {}: {output:?}", args.join(" "));
    Ok(output.stdout)
}

/// The error of `breaker load` on a kernel that is too old. The refused load must leave nothing behind.
fn refusal() -> Result<String> {
    let testbed = Testbed::unloaded(POLICY);
    let output = testbed.cli(&format!("load --config {}", testbed.config().display()));
    let (code, error) = (output.exit_code, output.stderr.trim().to_owned());
    println!("breaker load: exit code {code:?}: {error}");
    ensure!(code == KERNEL_LACKS, "breaker load on a kernel that is too old: exit code {code:?}: {error}");
    ensure!(error.contains("this kernel lacks "), "the error does not name what is missing: {error}");
    ensure!(!testbed.on_host(|| Testbed::root().exists()), "a refused load left something");
    Ok(error)
}
