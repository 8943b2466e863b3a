//! One trial: a sender at full load, a venue that records when each segment arrives, and a method that stops
//! the session.

use std::io::ErrorKind;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_user::testbed::TwoHosts;
use rustix::net::sockopt::set_socket_linger;
use rustix::process::Pid;

use super::load::Load;
use super::method::Method;
use super::tap::{Segment, Tap};
use super::timestamp;
use crate::bench::alternative::PORT;
use crate::bench::hook::POLICY;
use crate::bench::order::LENGTH;
use crate::bench::shell::run_with_input;
use crate::testbed::Testbed;

/// How long a sender or a venue may take to notice the end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time until the last segment has arrived, if connections stay open. Shorter than the first retransmit.
const QUIET: Duration = Duration::from_millis(40);

/// The network of the trials of a method.
pub struct TrialNetwork {
    setup: Setup,
    listener: TcpListener,
    tap: Tap,
}

enum Setup {
    Plain(TwoHosts),
    Breaker(Testbed),
}

/// Result of a trial, ms after the call of the method.
pub struct Trial {
    /// Arrival of the last byte.
    pub last_byte: f64,
    /// Departure of the last byte from the host.
    pub last_left: f64,
    /// Return of the method.
    pub took: f64,
    /// The error that the sender sees.
    pub sender_noticed: Option<f64>,
    /// The end that the venue sees.
    pub venue_noticed: Option<f64>,
    /// Orders that left the host after the return.
    pub left_after: usize,
    /// Orders that arrived after the return. Bytes of one read count with the time of the last.
    pub after: usize,
}

/// The sender of the orders.
enum Sender {
    Here(TcpStream),
    Process(Child),
}

/// The times of a trial, on the clock of [`timestamp`].
struct Times {
    start: u64,
    returned: u64,
    sender_noticed: Option<u64>,
    venue_noticed: Option<u64>,
}

impl TrialNetwork {
    /// Sets up the network for a method.
    pub fn new(method: Method) -> Result<Self, String> {
        let setup = if method.is_breaker() {
            Setup::Breaker(Testbed::load(POLICY))
        } else {
            Setup::Plain(TwoHosts::new().expect("making namespaces"))
        };
        let wire = setup.wire();
        let listener = wire.venue.run(|| TcpListener::bind(TwoHosts::venue_socket(PORT))).expect("listening");
        timestamp::enable(listener.as_raw_fd());
        let tap = Tap::at(&wire.firm);
        for (line, input) in method.preparations() {
            run_with_input(&wire.firm, line, input)?;
        }
        Ok(Self { setup, listener, tap })
    }

    /// Runs one trial.
    pub fn run(&self, method: Method, load: Load, number: usize) -> Trial {
        let firm = &self.setup.wire().firm;
        let trial = firm.run(|| self.run_here(method, load, number));
        if method == Method::Link {
            firm.wait_until_up(TwoHosts::INTERFACE).expect("the link comes up");
        }
        trial
    }

    fn run_here(&self, method: Method, load: Load, number: usize) -> Trial {
        // Drops the segments that left when the last connection was closed.
        self.tap.take_segments();
        let mut sender = Sender::start(method, load);
        let (venue, _) = self.listener.accept().expect("accepting");
        let (received, sender_noticed, venue_noticed) =
            (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (times, left, received) = std::thread::scope(|scope| {
            let follower = scope.spawn(|| record(&venue, &received, &venue_noticed));
            if let Sender::Here(stream) = &sender {
                let (mut stream, noticed_at) = (stream.try_clone().expect("another handle"), &sender_noticed);
                scope.spawn(move || {
                    load.write_on(&mut stream);
                    noticed_at.store(timestamp::now(), Ordering::Release);
                });
            }
            let prepare = method.prepare(sender.process());
            assert!(
                wait(|| received.load(Ordering::Relaxed) > load.full_rate()),
                "timeout: the sender is at full load"
            );
            // Each trial acts at another moment of the load.
            sleep(Duration::from_micros(number as u64 * 137 % 2_000));
            let start = timestamp::now();
            prepare.execute();
            let returned = timestamp::now();
            if method.ends_connections() {
                // A missing notice is counted as such.
                wait(|| venue_noticed.load(Ordering::Acquire) != 0);
                wait(|| sender.process().is_some() || sender_noticed.load(Ordering::Acquire) != 0);
            } else {
                sleep(QUIET);
            }
            let noticed_at = |at: &AtomicU64| Some(at.load(Ordering::Acquire)).filter(|at| *at != 0);
            let times = Times {
                start,
                returned,
                sender_noticed: noticed_at(&sender_noticed),
                venue_noticed: noticed_at(&venue_noticed),
            };
            // Later segments and ends are not due to the method.
            let left = self.tap.take_segments();
            sender.end();
            let _ = venue.shutdown(Shutdown::Both);
            (times, left, follower.join().expect("the venue's end"))
        });
        drop(sender);
        method.undo();
        times.trial(&left, &received)
    }
}

impl Setup {
    fn wire(&self) -> &TwoHosts {
        match self {
            Self::Plain(wire) => wire,
            Self::Breaker(testbed) => &testbed.network,
        }
    }
}

impl Times {
    fn trial(&self, left: &[Segment], received: &[Segment]) -> Trial {
        let since = |at: u64| at.saturating_sub(self.start) as f64 / 1e6;
        let last = |segments: &[Segment]| since(segments.iter().map(|(at, _)| *at).max().unwrap_or(0));
        let late = |segments: &[Segment]| -> usize {
            let late = segments.iter().filter(|(at, _)| *at > self.returned);
            late.map(|(_, length)| length).sum::<usize>().div_ceil(LENGTH)
        };
        Trial {
            last_byte: last(received),
            last_left: last(left),
            took: since(self.returned),
            sender_noticed: self.sender_noticed.map(since),
            venue_noticed: self.venue_noticed.map(since),
            left_after: late(left),
            after: late(received),
        }
    }
}

impl Sender {
    fn start(method: Method, load: Load) -> Self {
        if method == Method::Process {
            let own = std::env::current_exe().expect("the path of this program");
            let sender = Command::new(own).args(["--blast", load.name()]).spawn();
            return Self::Process(sender.expect("starting a sender"));
        }
        let stream = TcpStream::connect(TwoHosts::venue_socket(PORT)).expect("connecting");
        // So that queued bytes are lost on close, and do not arrive in the next trial.
        set_socket_linger(&stream, Some(Duration::ZERO)).expect("no lingering");
        Self::Here(stream)
    }

    fn process(&self) -> Option<Pid> {
        match self {
            Self::Process(child) => Some(Pid::from_child(child)),
            Self::Here(_) => None,
        }
    }

    fn end(&mut self) {
        match self {
            // The connection may be dead already.
            Self::Here(stream) => drop(stream.shutdown(Shutdown::Both)),
            Self::Process(child) => {
                let _ = child.kill();
                child.wait().expect("waiting for its end");
            }
        }
    }
}

/// Sends until the process is killed. The argument is the name of the load.
pub fn blast(load: &str) {
    let load = Load::by_name(load).expect("a load of that name");
    load.write_on(&mut TcpStream::connect(TwoHosts::venue_socket(PORT)).expect("connecting"));
}

/// Reads until the end, and stores the time of the end.
fn record(stream: &TcpStream, received: &AtomicU64, noticed_at: &AtomicU64) -> Vec<Segment> {
    let (mut segments, mut buffer) = (Vec::new(), vec![0; 1 << 18]);
    loop {
        match timestamp::read(stream, &mut buffer, 0) {
            Ok((length @ 1.., at)) => {
                segments.push((at.unwrap_or_else(timestamp::now), length));
                received.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                noticed_at.store(timestamp::now(), Ordering::Release);
                return segments;
            }
        }
    }
}

/// Waits for a condition. Returns false if it does not hold in time.
fn wait(condition: impl Fn() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > until {
            return false;
        }
        sleep(Duration::from_micros(50));
    }
    true
}
