//! Reads captures in the order of time.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use breaker_replay::capture::{Capture, OpenError};
use breaker_replay::engine::{Engine, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli_error::{CliError, Code};

/// A capture that was read.
#[derive(Clone, Debug)]
pub struct CaptureRead {
    /// Path of the file, as given.
    pub path: PathBuf,
    /// `pcap` or `pcapng`.
    pub format: &'static str,
    /// Packets up to the end, or up to where the capture breaks off.
    pub packets: u64,
    /// Bytes, uncompressed.
    pub bytes: u64,
    /// Where the capture breaks off, if it does.
    pub broken: Option<breaker_replay::capture::Broken>,
}

/// A file whose reads move the progress bar.
struct Watched {
    file: File,
    bar: ProgressBar,
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.bar.inc(count as u64);
        Ok(count)
    }
}

/// A capture with a packet to process.
struct Source {
    path: PathBuf,
    capture: Capture<Watched>,
}

impl Source {
    /// Opens a capture, and goes to its first packet.
    fn open(path: &Path, bar: &ProgressBar) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error.to_string()))?;
        if file.metadata().is_ok_and(|found| found.is_dir()) {
            return Err(unreadable(path, "it is a directory").into());
        }
        let capture = Capture::open(Watched { file, bar: bar.clone() }).map_err(|error| match error {
            OpenError::Read(error) => unreadable(path, &error.to_string()),
            OpenError::UnknownType(found) => CliError::new(
                Code::Usage,
                format!(
                    "reading the capture {}: found {found}: name a pcap or pcapng file, which gzip may have \
                     compressed",
                    path.display()
                ),
            ),
        })?;
        let mut source = Self { path: path.to_owned(), capture };
        source.capture.advance();
        Ok(source)
    }

    /// Time of its packet, ns; 0 without a time, `None` at the end.
    fn time_ns(&self) -> Option<u64> {
        self.capture.packet().map(|packet| packet.time_ns.unwrap_or(0))
    }

    fn done(self) -> CaptureRead {
        CaptureRead {
            path: self.path,
            format: self.capture.format(),
            packets: self.capture.packets(),
            bytes: self.capture.offset(),
            broken: self.capture.broken().cloned(),
        }
    }
}

fn unreadable(path: &Path, found: &str) -> CliError {
    let text = format!("reading the capture {}: {found}: name a file that you may read", path.display());
    CliError::new(Code::Usage, text)
}

/// Processes the packets of all captures in the order of their times.
///
/// A capture is open from the time of its first packet on, so that many files of a day need little memory.
///
/// # Errors
/// A capture cannot be opened. One that breaks off is no error: see [`CaptureRead::broken`].
pub fn read(
    paths: &[PathBuf],
    engine: &mut Engine,
    observer: &mut impl Observer,
) -> Result<Vec<CaptureRead>> {
    let bar = progress(paths);
    let mut waiting = waiting(paths, &bar)?;
    let mut open: Vec<Source> = Vec::new();
    let mut done = Vec::new();
    loop {
        let next_ns = waiting.last().map(Waiting::first_ns);
        let earliest = open.iter().filter_map(Source::time_ns).min();
        if let Some(next_ns) = next_ns
            && earliest.is_none_or(|time_ns| next_ns <= time_ns)
        {
            open.extend(waiting.pop().map(|waiting| waiting.open(&bar)).transpose()?);
            continue;
        }
        let Some(earliest) = earliest else { break };
        let Some(at) = open.iter().position(|source| source.time_ns() == Some(earliest)) else { break };
        let others = open.iter().enumerate().filter(|(other, _)| *other != at);
        let until_ns = others.filter_map(|(_, source)| source.time_ns()).chain(next_ns).min();
        run(&mut open[at].capture, engine, observer, until_ns.unwrap_or(u64::MAX));
        if open[at].time_ns().is_none() {
            done.push(open.swap_remove(at).done());
        }
    }
    done.extend(open.into_iter().map(Source::done));
    engine.finish(observer);
    bar.finish_and_clear();
    done.sort_by_key(|read| paths.iter().position(|path| *path == read.path));
    Ok(done)
}

/// Processes the packets of one capture up to a time.
fn run(capture: &mut Capture<Watched>, engine: &mut Engine, observer: &mut impl Observer, until_ns: u64) {
    while let Some(packet) = capture.packet() {
        if packet.time_ns.unwrap_or(0) > until_ns {
            return;
        }
        engine.packet(&packet, observer);
        if !capture.advance() {
            return;
        }
    }
}

/// A capture that is not processed yet.
enum Waiting {
    /// It is open, as the only one.
    Open(Box<Source>),
    /// It is opened again at the time of its first packet, ns.
    Closed(PathBuf, u64),
}

impl Waiting {
    fn first_ns(&self) -> u64 {
        match self {
            Self::Open(source) => source.time_ns().unwrap_or(0),
            Self::Closed(_, first_ns) => *first_ns,
        }
    }

    fn open(self, bar: &ProgressBar) -> Result<Source> {
        match self {
            Self::Open(source) => Ok(*source),
            Self::Closed(path, _) => Source::open(&path, bar),
        }
    }
}

/// Opens each capture once, and sorts them: the first one last.
fn waiting(paths: &[PathBuf], bar: &ProgressBar) -> Result<Vec<Waiting>> {
    if let [only] = paths {
        return Ok(vec![Waiting::Open(Box::new(Source::open(only, bar)?))]);
    }
    let closed = |path: &PathBuf| {
        if !std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
            let found = "it is no regular file, and there is more than one capture";
            return Err(unreadable(path, found).into());
        }
        let first_ns = Source::open(path, &ProgressBar::hidden())?.time_ns().unwrap_or(0);
        Ok(Waiting::Closed(path.clone(), first_ns))
    };
    let mut waiting = paths.iter().map(closed).collect::<Result<Vec<_>>>()?;
    waiting.sort_by_key(|waiting| std::cmp::Reverse(waiting.first_ns()));
    Ok(waiting)
}

/// A progress bar on a terminal.
fn progress(paths: &[PathBuf]) -> ProgressBar {
    let sizes = paths.iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len()));
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(sizes.sum()), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        // ASCII only, for any locale.
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
