//! A proxy in user space with the functions of breaker: it counts orders by FIX framing, holds an exact
//! sliding window, latches, and ends connections by a reset. It has one thread, with epoll.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use breaker_common::message::Class;
use breaker_user::testbed::{Namespace, TwoHosts};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::OwnedFd;
use rustix::net::sockopt::set_socket_linger;

use super::framing::Framing;
use super::kind::PORT;

/// Epoll tokens. A side of a pair has twice the pair's number, and one more for the venue's side.
const LISTENER: u64 = u64::MAX;
const WAKE_UP: u64 = u64::MAX - 1;

/// The running proxy. It ends when the value is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    counted: AtomicU64,
    stopped: AtomicBool,
    ending: AtomicBool,
    /// Wakes the thread.
    wake: OwnedFd,
}

impl Proxy {
    /// Starts the proxy on the trading host.
    pub fn start(firm: &Namespace, limit: u32) -> Self {
        let shared = Arc::new(Shared {
            counted: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"),
        });
        let listener = firm.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))).expect("listening");
        let mut relay = Relay::new(listener, shared.clone(), limit as usize);
        let thread = firm.spawn(move || relay.run());
        Self { shared, thread: Some(thread) }
    }

    /// Number of orders that were let through.
    pub fn counted(&self) -> u64 {
        self.shared.counted.load(Ordering::SeqCst)
    }

    /// Ends every connection, and each new one at its first order.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Lets new connections trade.
    pub fn resume(&self) {
        self.shared.stopped.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes()).expect("waking the proxy");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.wake();
        // The panic of the thread has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A connection of the trading application, and the one to the venue.
struct Pair {
    sides: [TcpStream; 2],
    framing: Framing,
}

/// State of the thread.
struct Relay {
    epoll: OwnedFd,
    listener: TcpListener,
    shared: Arc<Shared>,
    pairs: Vec<Option<Pair>>,
    window: Window,
    buffer: Vec<u8>,
}

/// The times of the orders of the last second, at most as many as the limit.
struct Window {
    limit: usize,
    times: VecDeque<Instant>,
}

impl Window {
    fn admit(&mut self, now: Instant) -> bool {
        while self.times.front().is_some_and(|time| now.duration_since(*time) >= Duration::from_secs(1)) {
            self.times.pop_front();
        }
        let admitted = self.times.len() < self.limit;
        if admitted {
            self.times.push_back(now);
        }
        admitted
    }
}

impl Relay {
    fn new(listener: TcpListener, shared: Arc<Shared>, limit: usize) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        let add = |source: &dyn std::os::fd::AsFd, token| {
            epoll::add(&epoll, source.as_fd(), epoll::EventData::new_u64(token), epoll::EventFlags::IN)
        };
        add(&listener, LISTENER).expect("watching the listener");
        add(&shared.wake, WAKE_UP).expect("watching for a word from outside");
        let window = Window { limit, times: VecDeque::new() };
        Self { epoll, listener, shared, pairs: Vec::new(), window, buffer: vec![0; 1 << 16] }
    }

    fn run(&mut self) {
        let mut events = [MaybeUninit::uninit(); 16];
        while !self.shared.ending.load(Ordering::SeqCst) {
            let Ok((ready, _)) = epoll::wait(&self.epoll, &mut events, None::<&Timespec>) else { continue };
            for event in ready {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    WAKE_UP => {
                        rustix::io::read(&self.shared.wake, &mut [0; 8]).expect("reading what woke us");
                        self.pairs
                            .iter_mut()
                            .filter(|_| self.shared.stopped.load(Ordering::SeqCst))
                            .for_each(end);
                    }
                    side => self.forward(side as usize / 2, side as usize % 2),
                }
            }
        }
    }

    fn accept(&mut self) {
        let Ok((firm, _)) = self.listener.accept() else { return };
        // If the venue refuses, the application's connection is closed.
        let Ok(venue) = TcpStream::connect(TwoHosts::venue_socket(PORT)) else { return };
        let sides = [firm, venue];
        let number = self.pairs.len() as u64;
        for (side, token) in sides.iter().zip([number * 2, number * 2 + 1]) {
            side.set_nodelay(true).expect("setting TCP_NODELAY");
            epoll::add(&self.epoll, side, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
                .expect("watching it");
        }
        self.pairs.push(Some(Pair { sides, framing: Framing::default() }));
    }

    /// Copies the bytes that one side has sent to the other side.
    fn forward(&mut self, number: usize, side: usize) {
        let Some(pair) = &mut self.pairs[number] else { return };
        let length = match (&pair.sides[side]).read(&mut self.buffer) {
            Ok(length @ 1..) => length,
            _ => return end(&mut self.pairs[number]),
        };
        let bytes = &self.buffer[..length];
        let (shared, window, now) = (&self.shared, &mut self.window, Instant::now());
        let allow = |class| {
            if class != Class::Order {
                return true;
            }
            let admitted = !shared.stopped.load(Ordering::SeqCst) && window.admit(now);
            shared.counted.fetch_add(u64::from(admitted), Ordering::SeqCst);
            shared.stopped.fetch_or(!admitted, Ordering::SeqCst);
            admitted
        };
        let allowed = if side == 0 { pair.framing.parse(bytes, allow) } else { length };
        if (&pair.sides[1 - side]).write_all(&bytes[..allowed]).is_err() || allowed < length {
            end(&mut self.pairs[number]);
        }
    }
}

/// Ends both connections: by a reset at the trading application, because its queued bytes must be lost, and
/// in order at the venue.
fn end(pair: &mut Option<Pair>) {
    if let Some(pair) = pair.take() {
        // Fails if the application has closed the connection.
        let _ = set_socket_linger(&pair.sides[0], Some(Duration::ZERO));
    }
}
