//! An emulated machine: QEMU without any hardware acceleration, which not every host has and some have broken.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::binaries::OBJECTS;
use super::cpio::Cpio;
use super::image::Image;
use super::plan::{self, SUITES, Task};
use crate::tally::Tally;

/// What QEMU is called.
const QEMU: &str = "qemu-system-x86_64";
/// A machine that is not done by then hangs. A run takes a tenth to a fifth of it on two free CPUs.
const PATIENCE: Duration = Duration::from_secs(600);
/// What the guest's closing line begins with.
const CLOSING: &str = "guest: ";
/// Lines of the console that are shown of a failure.
const TAIL: usize = 40;
/// The kernel's console, by its device numbers.
const CONSOLE: (u32, u32) = (5, 1);

/// What came of a machine.
pub struct Outcome {
    /// What the guest found.
    pub found: Value,
    /// Its tests.
    pub tally: Tally,
    /// From start to power-off.
    pub took: Duration,
}

/// A line of the console, and when it came after the start.
struct Line {
    at: Duration,
    text: String,
}

/// What a machine said, and how it ended.
struct Run {
    console: Vec<Line>,
    took: Duration,
    hangs: bool,
}

/// Boots a kernel, lets the guest do its work and waits until it has powered off. The console is kept in `log`.
/// Until then its first files lie beside it.
///
/// A kernel that dies while the guest complains of nothing is booted once more, and its console kept too: about one emulated machine
/// in twenty loses its registers (QEMU 7.2). A fault of the kernel that a program of ours leads to comes again.
pub fn run(image: &Image, task: Task, programs: &BTreeMap<String, Vec<u8>>, log: &Path) -> Result<Outcome> {
    let archive = log.with_extension("cpio");
    fs::write(&archive, first_files(image, task, programs)?)
        .with_context(|| format!("writing {}", archive.display()))?;
    let mut run = once(image, task, &archive, log)?;
    if run.crashed() {
        let kept = log.with_extension("crashed.log");
        fs::rename(log, &kept).with_context(|| format!("keeping {}", kept.display()))?;
        eprintln!(
            "xtask: {} crashed after {} s: once more: see {}",
            image.release,
            run.took.as_secs(),
            kept.display()
        );
        run = once(image, task, &archive, log)?;
    }
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    let Run { console, took, hangs } = run;
    // QEMU ends with 0 after a panic too: only the guest's own line tells.
    let Some(found) = closing(&console) else {
        let what =
            if hangs { format!("not done after {} s", PATIENCE.as_secs()) } else { "failed".to_owned() };
        let tail = text(&console[console.len().saturating_sub(TAIL)..]);
        bail!("{what}; the end of its console, all of which is in {}:\n{tail}", log.display());
    };
    let mut tally = Tally::default();
    console.iter().for_each(|line| tally.read(&line.text));
    Ok(Outcome { found, tally, took })
}

fn once(image: &Image, task: Task, archive: &Path, log: &Path) -> Result<Run> {
    let start = Instant::now();
    let mut child = boot(image, task, archive)?;
    let lines = child.stdout.take().map(listen);
    let console = lines.map(|lines| follow(&lines, start)).unwrap_or_default();
    // It has closed its output, or is to be ended.
    let hangs = start.elapsed() >= PATIENCE;
    if hangs {
        child.kill().context("ending QEMU")?;
    }
    child.wait().context("waiting for QEMU")?;
    fs::write(log, text(&console)).with_context(|| format!("writing {}", log.display()))?;
    Ok(Run { console, took: start.elapsed(), hangs })
}

impl Run {
    /// The kernel died, and not of what the guest or a test of it found.
    fn crashed(&self) -> bool {
        let says = |what| self.console.iter().any(|line: &Line| line.text.contains(what));
        says("Kernel panic") && !says("Attempted to kill init") && !says("FAILED") && !says("guest failed")
    }
}

fn boot(image: &Image, task: Task, archive: &Path) -> Result<Child> {
    let mut qemu = Command::new(QEMU);
    match task {
        Task::Tests => qemu.args(["-smp", "2"]),
        // An instruction takes a nanosecond, whichever CPU's it is: there is one. Where it would wait, its clock goes on at once.
        Task::Counts => qemu.args(["-smp", "1", "-icount", "shift=0,sleep=off"]),
    };
    // Both CPUs in one thread: in two, QEMU 7.2 now and then runs an instruction that the kernel has just patched away (an oops by int3
    // at boot), and it is no slower.
    qemu.args(["-accel", "tcg,thread=single", "-cpu", "max", "-m", "512", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(archive)
        // A warning of the kernel is a panic, a panic is the end, and nothing less comes between the lines of the tests.
        // What the kernel does not know goes on into the environment of all programs.
        .arg("-append")
        .arg(format!(
            "console=ttyS0 loglevel=1 panic=-1 oops=panic panic_on_warn=1 BREAKER_TESTS_OBJECTS=/{OBJECTS}"
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    qemu.spawn().with_context(|| format!("starting {QEMU}"))
}

/// The machine's first files: programs, modules, the plan.
fn first_files(image: &Image, task: Task, programs: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>> {
    let mut files = Cpio::default();
    for directory in ["dev", "proc", "sys", "tmp", "modules", OBJECTS] {
        files.directory(directory);
    }
    files.device("dev/console", CONSOLE);
    // Unpacking takes time: those that count run no tests.
    let unused = |name: &str| task == Task::Counts && SUITES.iter().any(|suite| suite.program == name);
    for (name, content) in programs.iter().filter(|(name, _)| !unused(name)) {
        files.file(if name == "guest" { "init" } else { name }, content);
    }
    let mut modules = Vec::new();
    for module in &image.modules {
        let path = format!("modules/{}", module.file_name().unwrap_or_default().to_string_lossy());
        files.file(&path, &fs::read(module).with_context(|| format!("reading {}", module.display()))?);
        modules.push(format!("/{path}"));
    }
    files.file("plan.json", plan::plan(image, &modules, task).to_string().as_bytes());
    Ok(files.finish())
}

/// Reads lines in a thread, so that the reader of the channel can lose its patience.
fn listen(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

fn follow(lines: &Receiver<String>, start: Instant) -> Vec<Line> {
    let mut console = Vec::new();
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        match lines.recv_timeout(left) {
            Ok(text) => console.push(Line { at: start.elapsed(), text }),
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return console,
        }
    }
}

fn text(console: &[Line]) -> String {
    console.iter().map(|line| format!("{:6.1} {}\n", line.at.as_secs_f32(), line.text)).collect()
}

fn closing(console: &[Line]) -> Option<Value> {
    console.iter().rev().find_map(|line| serde_json::from_str(line.text.strip_prefix(CLOSING)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closing_line_is_success() {
        let line = |text: &&str| Line { at: Duration::ZERO, text: text.to_string() };
        let console = |lines: &[&str]| lines.iter().map(line).collect::<Vec<_>>();
        assert_eq!(closing(&console(&["x", "guest: {\"hook\":\"tcx\"}"])).expect("one")["hook"], "tcx");
        assert_eq!(closing(&console(&["guest failed: x", "guest: {\"hook\":"])), None);
    }

    #[test]
    fn a_crash_is_of_the_kernel_alone() {
        let crashed = |lines: &[&str]| {
            let console =
                lines.iter().map(|text| Line { at: Duration::ZERO, text: text.to_string() }).collect();
            Run { console, took: Duration::ZERO, hangs: false }.crashed()
        };
        let panic = "Kernel panic - not syncing: Fatal exception in interrupt";
        assert!(crashed(&["test a ... ok", "RIP: 0010:tcp_diag_dump+0x1f", panic]));
        assert!(!crashed(&["test a ... FAILED", panic]));
        assert!(!crashed(&[
            "thread 'main' panicked",
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x65"
        ]));
        assert!(!crashed(&["guest: {}"]));
    }

    #[test]
    fn a_silent_machine_is_not_waited_for_longer_than_said() {
        let (sender, lines) = mpsc::channel();
        sender.send("one".to_owned()).expect("a listener");
        let started = Instant::now()
            .checked_sub(PATIENCE - Duration::from_millis(20))
            .expect("a machine up for longer");
        assert_eq!(follow(&lines, started)[0].text, "one");
    }
}
