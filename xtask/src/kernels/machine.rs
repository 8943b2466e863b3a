//! Boots a kernel in QEMU without hardware acceleration, which some hosts lack and some hosts have broken.

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
use crate::test_counts::TestCounts;

/// The program name of QEMU.
const QEMU: &str = "qemu-system-x86_64";
/// The longest run time of a guest. A run takes a tenth to a fifth of this time on two free CPUs.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The prefix of the console line with the results of the guest.
const RESULT_PREFIX: &str = "guest: ";
/// The number of console lines that a failure shows.
const TAIL: usize = 40;
/// The device numbers of the kernel's console.
const CONSOLE: (u32, u32) = (5, 1);

/// The outcome of a guest.
pub struct Outcome {
    /// The results that the guest printed.
    pub found: Value,
    /// The counts of its tests.
    pub counts: TestCounts,
    /// The time from the start to power-off.
    pub took: Duration,
}

/// A line of the console and its time since the start.
struct Line {
    at: Duration,
    text: String,
}

/// The settings of QEMU for a guest.
pub struct Options<'a> {
    /// Arguments that set the processors.
    pub processors: &'a [&'a str],
    /// Memory in MiB.
    pub memory: &'a str,
    /// Parameters of the kernel, beside those of every guest.
    pub parameters: &'a str,
}

/// The console of one boot, its duration, and whether it reached the timeout.
struct BootRun {
    console: Vec<Line>,
    took: Duration,
    timed_out: bool,
}

/// Boots a kernel, runs the task in the guest and waits for power-off. The console is written to `log`, and
/// the initramfs is beside the log during the run.
///
/// A kernel that crashes without a failed test is booted a second time, and the first console is kept too:
/// about one emulated machine in twenty loses its registers (QEMU 7.2). A crash that breaker causes happens
/// again.
pub fn run(image: &Image, task: Task, programs: &BTreeMap<String, Vec<u8>>, log: &Path) -> Result<Outcome> {
    let parameters = format!("BREAKER_TESTS_OBJECTS=/{OBJECTS}");
    let processors: &[&str] = match task {
        Task::Tests => &["-smp", "2"],
        // The clock advances one nanosecond per instruction, so there is one CPU. An idle CPU does not wait:
        // the clock jumps to the next event.
        Task::CountInstructions => &["-smp", "1", "-icount", "shift=0,sleep=off"],
    };
    let options = Options { processors, memory: "512", parameters: &parameters };
    run_archive(image, &options, &initramfs(image, task, programs)?, log)
}

/// Boots a kernel with an initramfs, and returns the results that the guest printed.
pub fn run_archive(image: &Image, options: &Options<'_>, content: &[u8], log: &Path) -> Result<Outcome> {
    let archive = log.with_extension("cpio");
    fs::write(&archive, content).with_context(|| format!("writing {}", archive.display()))?;
    let mut run = boot_and_wait(image, options, &archive, log)?;
    if run.crashed() {
        let kept = log.with_extension("crashed.log");
        fs::rename(log, &kept).with_context(|| format!("keeping {}", kept.display()))?;
        eprintln!(
            "xtask: {} crashed after {} s: booting a second time: the console is in {}",
            image.release,
            run.took.as_secs(),
            kept.display()
        );
        run = boot_and_wait(image, options, &archive, log)?;
    }
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    let BootRun { console, took, timed_out } = run;
    // The exit status of QEMU is 0 after a panic too, so only the result line shows success.
    let Some(found) = find_result(&console) else {
        let what =
            if timed_out { format!("not done after {} s", TIMEOUT.as_secs()) } else { "failed".to_owned() };
        let tail = text(&console[console.len().saturating_sub(TAIL)..]);
        bail!("{what}; the whole console is in {}, and it ends with:\n{tail}", log.display());
    };
    let mut counts = TestCounts::default();
    console.iter().for_each(|line| counts.add_line(&line.text));
    Ok(Outcome { found, counts, took })
}

fn boot_and_wait(image: &Image, options: &Options<'_>, archive: &Path, log: &Path) -> Result<BootRun> {
    let start = Instant::now();
    let mut child = start_qemu(image, options, archive)?;
    let lines = child.stdout.take().map(read_lines);
    let console = lines.map(|lines| collect_console(&lines, start)).unwrap_or_default();
    // QEMU closed its output or reached the timeout.
    let timed_out = start.elapsed() >= TIMEOUT;
    if timed_out {
        child.kill().context("ending QEMU")?;
    }
    child.wait().context("waiting for QEMU")?;
    fs::write(log, text(&console)).with_context(|| format!("writing {}", log.display()))?;
    Ok(BootRun { console, took: start.elapsed(), timed_out })
}

impl BootRun {
    /// Returns true if the kernel panicked for a reason other than the guest's init or a failed test.
    fn crashed(&self) -> bool {
        let contains = |what| self.console.iter().any(|line: &Line| line.text.contains(what));
        contains("Kernel panic")
            && !contains("Attempted to kill init")
            && !contains("FAILED")
            && !contains("guest failed")
    }
}

fn start_qemu(image: &Image, options: &Options<'_>, archive: &Path) -> Result<Child> {
    let mut qemu = Command::new(QEMU);
    qemu.args(options.processors).args(["-m", options.memory]);
    // One thread for both CPUs is as fast as two threads. With two threads QEMU 7.2 sometimes runs an
    // instruction that the kernel has just patched (an oops by int3 at boot).
    qemu.args(["-accel", "tcg,thread=single", "-cpu", "max", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(archive)
        // A warning of the kernel is a panic, and a panic ends the run. Log level 1 keeps other kernel
        // messages out of the output of the tests. The kernel passes unknown parameters to init as
        // environment variables.
        .arg("-append")
        .arg(format!("console=ttyS0 loglevel=1 panic=-1 oops=panic panic_on_warn=1 {}", options.parameters))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    qemu.spawn().with_context(|| format!("starting {QEMU}"))
}

/// Returns the initramfs: programs, modules and the plan.
fn initramfs(image: &Image, task: Task, programs: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>> {
    let mut files = Cpio::default();
    for directory in ["dev", "proc", "sys", "tmp", "modules", OBJECTS] {
        files.directory(directory);
    }
    files.device("dev/console", CONSOLE);
    // Unpacking takes time, so a guest that only counts instructions gets no test programs.
    let unused =
        |name: &str| task == Task::CountInstructions && SUITES.iter().any(|suite| suite.program == name);
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

/// Reads lines in a thread, so that the receiver can time out.
fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
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

fn collect_console(lines: &Receiver<String>, start: Instant) -> Vec<Line> {
    let mut console = Vec::new();
    loop {
        let left = TIMEOUT.saturating_sub(start.elapsed());
        match lines.recv_timeout(left) {
            Ok(text) => console.push(Line { at: start.elapsed(), text }),
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return console,
        }
    }
}

fn text(console: &[Line]) -> String {
    console.iter().map(|line| format!("{:6.1} {}\n", line.at.as_secs_f32(), line.text)).collect()
}

fn find_result(console: &[Line]) -> Option<Value> {
    console.iter().rev().find_map(|line| serde_json::from_str(line.text.strip_prefix(RESULT_PREFIX)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_result_line_is_a_success() {
        let line = |text: &&str| Line { at: Duration::ZERO, text: text.to_string() };
        let console = |lines: &[&str]| lines.iter().map(line).collect::<Vec<_>>();
        assert_eq!(find_result(&console(&["x", "guest: {\"hook\":\"tcx\"}"])).expect("one")["hook"], "tcx");
        assert_eq!(find_result(&console(&["guest failed: x", "guest: {\"hook\":"])), None);
    }

    #[test]
    fn a_panic_after_a_failed_test_is_no_crash_of_the_kernel() {
        let crashed = |lines: &[&str]| {
            let console =
                lines.iter().map(|text| Line { at: Duration::ZERO, text: text.to_string() }).collect();
            BootRun { console, took: Duration::ZERO, timed_out: false }.crashed()
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
    fn a_silent_machine_reaches_the_timeout() {
        let (sender, lines) = mpsc::channel();
        sender.send("one".to_owned()).expect("a receiver");
        let started =
            Instant::now().checked_sub(TIMEOUT - Duration::from_millis(20)).expect("a machine up for longer");
        assert_eq!(collect_console(&lines, started)[0].text, "one");
    }
}
