//! The parts of the machine that `cargo xtask boot` emulates with systemd: a venue, senders that start before
//! every other unit, and the check at the end. The last line of the check is `guest: ` and JSON.
//!
//! The trading host is the machine itself, so that its units protect it. The venue is a network namespace.

mod package;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use breaker_tests::frame::order;
use rustix::system::finit_module;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

/// The sessions of the policy, with the ports of their venues.
const SESSIONS: [(&str, u16); 2] = [("tripped", 9001), ("live", 9002)];
/// Figures of the rig, renewed every 50 ms.
const FIGURES: &str = "/run/rig.json";
/// The senders stop once this file exists.
const STOP: &str = "/run/rig.stop";
/// Least number of orders of the live session at the venue, so that a boot counts.
const LEAST_ORDERS: u64 = 200;
/// Longest wait for [`LEAST_ORDERS`]. The machine is emulated.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Files that outlive the machine, as a disk keeps them.
const DISK: [&str; 2] = ["/var/lib/breaker", "/var/log/breaker"];

fn main() {
    let part = std::env::args().nth(1).unwrap_or_default();
    let done = match part.as_str() {
        "rig" => rig(),
        "card" => card(),
        "check" => check(),
        _ => Err(anyhow::anyhow!("name a part: rig, card or check")),
    };
    if let Err(error) = done {
        print_line(&format!("guest failed: {part}: {error:#}"));
        power_off();
    }
}

/// Figures of one session.
#[derive(Default)]
struct Figures {
    /// Attempts to connect.
    attempts: AtomicU64,
    /// Orders that the sender wrote to a socket.
    sent: AtomicU64,
    /// Orders that arrived at the venue.
    received: AtomicU64,
}

/// Makes the network card and the venue, and sends orders until [`STOP`] exists. The card stays down and has
/// no address, as at the start of a machine.
fn rig() -> Result<()> {
    for module in fs::read_to_string("/modules.list")?.lines() {
        let file = File::open(module).with_context(|| format!("opening {module}"))?;
        finit_module(file, c"", 0).with_context(|| format!("loading {module}"))?;
    }
    for arguments in [
        "netns add venue",
        "link add eth1 type veth peer name eth1 netns venue",
        "-n venue address add 10.9.0.2/24 dev eth1",
        "-n venue link set lo up",
        "-n venue link set eth1 up",
    ] {
        run("/usr/bin/ip", arguments)?;
    }
    let sessions = SESSIONS.map(|(name, port)| (name, port, Arc::new(Figures::default())));
    for (_, port, figures) in &sessions {
        let address = SocketAddr::from(([10, 9, 0, 2], *port));
        let (venue, sender) = (Arc::clone(figures), Arc::clone(figures));
        let listener =
            spawn(move || listen_in_venue(address)).join().map_err(|_| anyhow::anyhow!("no venue"))??;
        spawn(move || receive(&listener, &venue));
        spawn(move || send(address, &sender));
    }
    loop {
        let figures = sessions.iter().map(|(name, _, figures)| {
            let value = |of: &AtomicU64| of.load(Ordering::Relaxed);
            let values = json!({
                "attempts": value(&figures.attempts), "sent": value(&figures.sent),
                "received": value(&figures.received),
            });
            ((*name).to_owned(), values)
        });
        let text = Value::Object(figures.collect()).to_string();
        fs::write("/run/rig.next", text)?;
        fs::rename("/run/rig.next", FIGURES)?;
        sleep(Duration::from_millis(50));
    }
}

/// Brings the card up, as a network manager does, once the machine has it.
fn card() -> Result<()> {
    wait_for("card", || Path::new("/sys/class/net/eth1").exists())?;
    run("/usr/bin/ip", "address add 10.9.0.1/24 dev eth1")?;
    run("/usr/bin/ip", "link set eth1 up")?;
    Ok(())
}

fn listen_in_venue(address: SocketAddr) -> Result<TcpListener> {
    let venue = File::open("/run/netns/venue")?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&venue), Some(LinkNameSpaceType::Network))?;
    TcpListener::bind(address).with_context(|| format!("listening on {address}"))
}

/// Counts the orders of every connection, one after the other.
fn receive(listener: &TcpListener, figures: &Figures) {
    const ORDER: &[u8] = b"\x0135=D\x01";
    for mut stream in listener.incoming().flatten() {
        let (mut bytes, mut buffer) = (Vec::<u8>::new(), [0; 65536]);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            bytes.extend(&buffer[..length]);
            let found = bytes.windows(ORDER.len()).filter(|window| *window == ORDER).count();
            figures.received.fetch_add(found as u64, Ordering::Relaxed);
            // The rest may hold the beginning of an order.
            bytes.drain(..bytes.len().saturating_sub(ORDER.len() - 1));
        }
    }
}

/// Connects again and again, and sends an order every 2 ms.
fn send(address: SocketAddr, figures: &Figures) {
    let mut number = 0;
    while !Path::new(STOP).exists() {
        figures.attempts.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            while !Path::new(STOP).exists() && stream.write_all(&order(number)).is_ok() {
                figures.sent.fetch_add(1, Ordering::Relaxed);
                number += 1;
                sleep(Duration::from_millis(2));
            }
        }
        sleep(Duration::from_millis(2));
    }
}

/// Compares the venue with the kernel's counters. The first of two boots trips a session, and the second one
/// ends with the removal of the package.
fn check() -> Result<()> {
    let is_first = !Path::new("/etc/second").exists();
    let before = figures()?;
    wait_for("orders of the live session", || {
        figures().is_ok_and(|all| all["live"]["received"].as_u64() >= Some(LEAST_ORDERS))
    })?;
    fs::write(STOP, "")?;
    sleep(Duration::from_secs(1));
    let figures = figures()?;
    let status = cli(&["status", "--json"], if is_first { 0 } else { 10 })?;
    let status: Value = serde_json::from_slice(&status.stdout)?;
    ensure!(status["enforced"]["ok"] == true, "not enforced: {}", status["enforced"]);
    ensure!(status["agent"]["running"] == true, "no agent: {}", status["agent"]);
    for (name, _) in SESSIONS {
        let session = status["sessions"].as_array().into_iter().flatten().find(|found| found["name"] == name);
        let orders = &session.context("a session")?["messages"]["order"];
        let received = &figures[name]["received"];
        ensure!(
            orders["passed"] == *received,
            "{name}: {received} orders arrived, and the kernel passed {orders}"
        );
        if name == "tripped" && !is_first {
            ensure!(*received == 0, "{received} orders of the tripped session arrived");
            ensure!(orders["withheld"].as_u64() > Some(0), "no order of the tripped session was withheld");
        } else {
            ensure!(received.as_u64() > Some(0), "{name}: no order arrived");
        }
    }
    if is_first {
        cli(&["trip", "session/tripped", "--reason", "reboot"], 0)?;
    }
    let package = if is_first { Value::Null } else { package::check().context("the package")? };
    if is_first {
        run("/usr/bin/systemctl", "stop breaker-agent.service")?;
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let found = json!({
        "release": release, "before": before, "figures": figures, "disk": disk()?, "package": package,
    });
    print_line(&format!("guest: {found}"));
    power_off();
}

fn figures() -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(FIGURES)?)?)
}

/// The files of [`DISK`] by path, in hex.
fn disk() -> Result<Value> {
    let mut files = serde_json::Map::new();
    // A purge of the package removes the directories.
    for directory in DISK.iter().filter(|directory| Path::new(directory).exists()) {
        for entry in fs::read_dir(directory)?.flatten().filter(|entry| entry.path().is_file()) {
            let bytes = fs::read(entry.path())?;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            files.insert(entry.path().display().to_string(), hex.into());
        }
    }
    Ok(files.into())
}

fn wait_for(what: &str, found: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !found() {
        if Instant::now() > deadline {
            let figures = fs::read_to_string(FIGURES).unwrap_or_default();
            let failed =
                run("/usr/bin/systemctl", "list-units --failed --no-pager --plain").map(|of| of.stdout);
            let failed = String::from_utf8_lossy(&failed.unwrap_or_default()).into_owned();
            bail!("no {what} within {TIMEOUT:?}: {figures}; failed units: {failed}");
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn cli(arguments: &[&str], code: i32) -> Result<Output> {
    let output = Command::new("/usr/bin/breaker").args(arguments).output()?;
    ensure!(output.status.code() == Some(code), "breaker {arguments:?}: {output:?}");
    Ok(output)
}

fn run(program: &str, arguments: &str) -> Result<Output> {
    let output =
        Command::new(program).args(arguments.split(' ')).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {arguments}: {output:?}");
    Ok(output)
}

fn print_line(line: &str) {
    // The result is ignored: without a console nobody reads the line.
    let _ = OpenOptions::new().write(true).open("/dev/console").and_then(|mut file| writeln!(file, "{line}"));
}

fn power_off() -> ! {
    rustix::fs::sync();
    let done = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    panic!("powering off: {done:?}");
}
