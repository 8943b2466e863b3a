//! One kill: a sender at full blast, a venue that notes when each segment came, and somebody who acts.

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
use crate::bench::shell::fed;
use crate::testbed::Testbed;

/// How long ends may take to be told.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long that what still comes has come, where connections are left as they are. Shorter than the first retransmit.
const QUIET: Duration = Duration::from_millis(40);

/// Where it is done.
pub struct Range {
    place: Place,
    listener: TcpListener,
    tap: Tap,
}

enum Place {
    Plain(TwoHosts),
    Breaker(Testbed),
}

/// What came of it, ms.
pub struct Trial {
    /// From the act to the last byte's arrival,
    pub last_byte: f64,
    /// to its leaving the host,
    pub last_left: f64,
    /// to the act's return,
    pub took: f64,
    /// to the error that the sender sees,
    pub sender_told: Option<f64>,
    /// and to the end that the venue sees.
    pub venue_told: Option<f64>,
    /// Orders that left the host after the return,
    pub left_after: usize,
    /// and that arrived after it; what is read at once is taken for as late as its last byte.
    pub after: usize,
}

/// Who sends.
enum Sender {
    Here(TcpStream),
    Process(Child),
}

/// The times of a shot, by the clock of [`stamp`].
struct Times {
    start: u64,
    returned: u64,
    sender_told: Option<u64>,
    venue_told: Option<u64>,
}

/// Bytes that came or went together: when the last of them did, and how many.
type Piece = Segment;

impl Range {
    /// Lays it out for a weapon.
    pub fn lay(method: Method) -> Result<Self, String> {
        let place = if method.is_breaker() {
            Place::Breaker(Testbed::load(POLICY))
        } else {
            Place::Plain(TwoHosts::new().expect("making namespaces"))
        };
        let wire = place.wire();
        let listener = wire.venue.run(|| TcpListener::bind(TwoHosts::venue_socket(PORT))).expect("listening");
        timestamp::enable(listener.as_raw_fd());
        let tap = Tap::at(&wire.firm);
        for (line, input) in method.prepared() {
            fed(&wire.firm, line, input)?;
        }
        Ok(Self { place, listener, tap })
    }

    /// Does it once.
    pub fn shoot(&self, method: Method, load: Load, number: usize) -> Trial {
        let firm = &self.place.wire().firm;
        let trial = firm.run(|| self.shoot_here(method, load, number));
        if method == Method::Link {
            firm.wait_until_up(TwoHosts::INTERFACE).expect("the link comes up");
        }
        trial
    }

    fn shoot_here(&self, method: Method, load: Load, number: usize) -> Trial {
        // What still went when the last connection was closed is not of this kill.
        self.tap.passed();
        let mut sender = Sender::start(method, load);
        let (venue, _) = self.listener.accept().expect("accepting");
        let (come, sender_told, venue_told) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (times, left, come) = std::thread::scope(|scope| {
            let follower = scope.spawn(|| follow(&venue, &come, &venue_told));
            if let Sender::Here(stream) = &sender {
                let (mut stream, told) = (stream.try_clone().expect("another handle"), &sender_told);
                scope.spawn(move || {
                    load.write_on(&mut stream);
                    told.store(timestamp::now(), Ordering::Release);
                });
            }
            let ready = method.ready(sender.process());
            assert!(wait(|| come.load(Ordering::Relaxed) > load.full()), "waited in vain for the blast");
            // Not always at the same moment of it.
            sleep(Duration::from_micros(number as u64 * 137 % 2_000));
            let start = timestamp::now();
            ready.fire();
            let returned = timestamp::now();
            if method.ends() {
                // Whoever is not told is counted as such.
                wait(|| venue_told.load(Ordering::Acquire) != 0);
                wait(|| sender.process().is_some() || sender_told.load(Ordering::Acquire) != 0);
            } else {
                sleep(QUIET);
            }
            let told = |at: &AtomicU64| Some(at.load(Ordering::Acquire)).filter(|at| *at != 0);
            let times =
                Times { start, returned, sender_told: told(&sender_told), venue_told: told(&venue_told) };
            // What goes and ends from here on is not of the weapon.
            let left = self.tap.passed();
            sender.end();
            let _ = venue.shutdown(Shutdown::Both);
            (times, left, follower.join().expect("the venue's end"))
        });
        drop(sender);
        method.undo();
        times.trial(&left, &come)
    }
}

impl Place {
    fn wire(&self) -> &TwoHosts {
        match self {
            Self::Plain(wire) => wire,
            Self::Breaker(testbed) => &testbed.network,
        }
    }
}

impl Times {
    fn trial(&self, left: &[Piece], come: &[Piece]) -> Trial {
        let since = |at: u64| at.saturating_sub(self.start) as f64 / 1e6;
        let last = |pieces: &[Piece]| since(pieces.iter().map(|(at, _)| *at).max().unwrap_or(0));
        let late = |pieces: &[Piece]| -> usize {
            let late = pieces.iter().filter(|(at, _)| *at > self.returned);
            late.map(|(_, length)| length).sum::<usize>().div_ceil(LENGTH)
        };
        Trial {
            last_byte: last(come),
            last_left: last(left),
            took: since(self.returned),
            sender_told: self.sender_told.map(since),
            venue_told: self.venue_told.map(since),
            left_after: late(left),
            after: late(come),
        }
    }
}

impl Sender {
    fn start(method: Method, load: Load) -> Self {
        if method == Method::Process {
            let own = std::env::current_exe().expect("a path of one's own");
            let sender = Command::new(own).args(["--blast", load.name()]).spawn();
            return Self::Process(sender.expect("starting a sender"));
        }
        let stream = TcpStream::connect(TwoHosts::venue_socket(PORT)).expect("connecting");
        // What is still queued when it is closed goes with it, and does not come in the next shot.
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
            // It may be dead already.
            Self::Here(stream) => drop(stream.shutdown(Shutdown::Both)),
            Self::Process(child) => {
                let _ = child.kill();
                child.wait().expect("its end");
            }
        }
    }
}

/// A process that only sends, till it is killed. The argument names the flood.
pub fn blast(load: &str) {
    let load = Load::named(load).expect("a load of that name");
    load.write_on(&mut TcpStream::connect(TwoHosts::venue_socket(PORT)).expect("connecting"));
}

/// Reads until the end, and says when that came.
fn follow(stream: &TcpStream, come: &AtomicU64, told: &AtomicU64) -> Vec<Piece> {
    let (mut pieces, mut buffer) = (Vec::new(), vec![0; 1 << 18]);
    loop {
        match timestamp::read(stream, &mut buffer, 0) {
            Ok((length @ 1.., at)) => {
                pieces.push((at.unwrap_or_else(timestamp::now), length));
                come.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                told.store(timestamp::now(), Ordering::Release);
                return pieces;
            }
        }
    }
}

/// False where the patience was in vain.
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
