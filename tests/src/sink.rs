//! The venue's end of a raw TCP connection: reads, remembers every byte, and how the connection ended.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use breaker_user::lab::Namespace;

use crate::slowness;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is open.
    Open,
    /// FIN.
    Closed,
    /// RST.
    Reset,
}

/// One accepted connection.
#[derive(Clone, Debug)]
pub struct Received {
    /// Everything that came.
    pub bytes: Vec<u8>,
    /// How it ended,
    pub end: End,
    /// and when.
    pub at: Instant,
}

impl Received {
    /// Messages of this MsgType(35) in what came.
    pub fn count(&self, msg_type: &str) -> usize {
        let tag = format!("\x0135={msg_type}\x01").into_bytes();
        self.bytes.windows(tag.len()).filter(|window| **window == *tag).count()
    }

    /// Whole messages of this type: those whose checksum field came too.
    pub fn whole(&self, msg_type: &str) -> usize {
        let mut rest = &self.bytes[..];
        let mut found = 0;
        while let Some(length) = whole_message(rest) {
            let tag = format!("\x0135={msg_type}\x01").into_bytes();
            found += rest[..length].windows(tag.len()).any(|window| *window == *tag) as usize;
            rest = &rest[length..];
        }
        found
    }
}

/// Length of the message at the front, if all of it is there.
fn whole_message(bytes: &[u8]) -> Option<usize> {
    let from = bytes.windows(3).position(|window| window == b"\x019=")? + 3;
    let to = from + bytes[from..].iter().position(|&byte| byte == 1)?;
    let body: usize = std::str::from_utf8(&bytes[from..to]).ok()?.parse().ok()?;
    let length = to + 1 + body + 7;
    (bytes.len() >= length).then_some(length)
}

/// A listener that accepts everything.
pub struct Sink {
    received: Arc<Mutex<Vec<Received>>>,
    reading: Arc<AtomicBool>,
    _listener: JoinHandle<()>,
}

impl Sink {
    /// Listens at an address of the venue.
    pub fn listen(venue: &Namespace, at: SocketAddr) -> Self {
        let listener = venue.run(|| TcpListener::bind(at)).expect("listening");
        let received = Arc::new(Mutex::new(Vec::new()));
        let reading = Arc::new(AtomicBool::new(true));
        let (all, may_read) = (received.clone(), reading.clone());
        let thread = venue.spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let place = {
                    let mut all = all.lock().expect("a lock");
                    all.push(Received { bytes: Vec::new(), end: End::Open, at: Instant::now() });
                    all.len() - 1
                };
                let (all, may_read) = (all.clone(), may_read.clone());
                std::thread::spawn(move || read(stream, place, &all, &may_read));
            }
        });
        Self { received, reading, _listener: thread }
    }

    /// Stops reading, so that the receive window shuts; or goes on.
    pub fn set_reading(&self, reading: bool) {
        self.reading.store(reading, Ordering::SeqCst);
    }

    /// What has come on every connection so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("a lock").clone()
    }

    /// What has come on the latest connection.
    pub fn last(&self) -> Received {
        self.received().pop().expect("a connection")
    }

    /// Waits until there is a connection and what came satisfies a condition; panics with what there is after five seconds,
    /// or longer on a slow machine.
    pub fn wait(&self, what: &str, condition: impl Fn(&[Received]) -> bool) {
        let until = Instant::now() + Duration::from_secs(5) * slowness();
        let satisfied = |all: &[Received]| !all.is_empty() && condition(all);
        while !satisfied(&self.received()) {
            let ends: Vec<_> = self.received().iter().map(|one| (one.bytes.len(), one.end)).collect();
            assert!(Instant::now() < until, "waited in vain: {what}: {ends:?}");
            sleep(Duration::from_millis(2));
        }
    }
}

fn read(mut stream: TcpStream, place: usize, all: &Mutex<Vec<Received>>, may_read: &AtomicBool) {
    let mut buffer = vec![0; 1 << 20];
    loop {
        while !may_read.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5));
        }
        let read = stream.read(&mut buffer);
        let at = Instant::now();
        let mut all = all.lock().expect("a lock");
        match read {
            Ok(0) => all[place].end = End::Closed,
            Ok(length) => all[place].bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => all[place].end = End::Reset,
        }
        all[place].at = at;
        if all[place].end != End::Open {
            return;
        }
    }
}
