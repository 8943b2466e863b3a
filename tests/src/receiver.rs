//! The venue's end of TCP connections: it records every byte, and how each connection ended. A connection
//! with the trading host's end too.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use breaker_user::testbed::Namespace;

use crate::network::{self, Network};
use crate::slowness;

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Open.
    Open,
    /// Closed by FIN.
    Closed,
    /// Closed by RST.
    Reset,
}

/// An accepted connection.
#[derive(Clone, Debug)]
pub struct Received {
    /// Address of the trading host's end.
    pub from: SocketAddr,
    /// All bytes received.
    pub bytes: Vec<u8>,
    /// State of the connection.
    pub end: End,
    /// Time of the last bytes, or of the end.
    pub at: Instant,
}

impl Received {
    /// Number of messages of this MsgType(35) that have begun.
    pub fn count(&self, msg_type: &str) -> usize {
        let tag = format!("\x0135={msg_type}\x01").into_bytes();
        self.bytes.windows(tag.len()).filter(|window| **window == *tag).count()
    }

    /// Number of complete messages of this type: those with their checksum field.
    pub fn complete(&self, msg_type: &str) -> usize {
        let mut rest = &self.bytes[..];
        let mut found = 0;
        while let Some(length) = complete_length(rest) {
            let tag = format!("\x0135={msg_type}\x01").into_bytes();
            found += rest[..length].windows(tag.len()).any(|window| *window == *tag) as usize;
            rest = &rest[length..];
        }
        found
    }
}

/// Length of the first message, if it is complete.
fn complete_length(bytes: &[u8]) -> Option<usize> {
    let from = bytes.windows(3).position(|window| window == b"\x019=")? + 3;
    let to = from + bytes[from..].iter().position(|&byte| byte == 1)?;
    let body: usize = std::str::from_utf8(&bytes[from..to]).ok()?.parse().ok()?;
    let length = to + 1 + body + 7;
    (bytes.len() >= length).then_some(length)
}

/// A listener that accepts every connection and records what it receives.
pub struct Receiver {
    at: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    reading: Arc<AtomicBool>,
    _listener: JoinHandle<()>,
}

impl Receiver {
    /// Listens at an address of the venue.
    pub fn listen(venue: &Namespace, at: SocketAddr) -> Self {
        let listener = venue.run(|| TcpListener::bind(at)).expect("listening");
        let received = Arc::new(Mutex::new(Vec::new()));
        let reading = Arc::new(AtomicBool::new(true));
        let (all, may_read) = (received.clone(), reading.clone());
        let thread = venue.spawn(move || {
            while let Ok((stream, from)) = listener.accept() {
                let place = {
                    let mut all = all.lock().expect("a lock");
                    all.push(Received { from, bytes: Vec::new(), end: End::Open, at: Instant::now() });
                    all.len() - 1
                };
                let (all, may_read) = (all.clone(), may_read.clone());
                std::thread::spawn(move || read(stream, place, &all, &may_read));
            }
        });
        Self { at, received, reading, _listener: thread }
    }

    /// Connects from the trading host.
    #[track_caller]
    pub fn connect(&self, network: &impl Network) -> TcpConnection<'_> {
        let stream = network::connect(network, self.at);
        let from = stream.local_addr().expect("an address");
        self.wait("the connection", |all| all.iter().any(|one| one.from == from));
        TcpConnection { receiver: self, stream, from, reset_reported: false }
    }

    /// Stops reading, so that the receive window closes, or continues.
    pub fn set_reading(&self, reading: bool) {
        self.reading.store(reading, Ordering::SeqCst);
    }

    /// All connections so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("a lock").clone()
    }

    /// The latest connection.
    pub fn last(&self) -> Received {
        self.received().pop().expect("a connection")
    }

    /// Waits until there is a connection and the condition holds, for at most 5 s, or longer on a slow
    /// machine.
    ///
    /// # Panics
    /// If the condition does not hold in that time.
    pub fn wait(&self, what: &str, condition: impl Fn(&[Received]) -> bool) {
        let until = Instant::now() + Duration::from_secs(5) * slowness();
        let satisfied = |all: &[Received]| !all.is_empty() && condition(all);
        while !satisfied(&self.received()) {
            let ends: Vec<_> = self.received().iter().map(|one| (one.bytes.len(), one.end)).collect();
            assert!(Instant::now() < until, "timeout: {what}: {ends:?}");
            sleep(Duration::from_millis(2));
        }
    }
}

/// A connection from the trading host, with both of its ends.
pub struct TcpConnection<'a> {
    /// The trading host's end.
    pub stream: TcpStream,
    receiver: &'a Receiver,
    from: SocketAddr,
    reset_reported: bool,
}

/// Counters of the kernel's TCP for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// Bytes of payload in a full segment.
    pub mss: usize,
    /// Segments with payload that were sent for the first time.
    pub first_sends: u64,
    /// Segments with payload that were sent again.
    pub retransmits: u64,
}

impl TcpConnection<'_> {
    /// Sends bytes that may be withheld. Returns false if the connection is dead.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.reset_reported |= self.stream.write_all(bytes).is_err();
        !self.reset_reported
    }

    /// Sends bytes and waits until the venue has all of them. Bytes of up to one MSS are then a segment of
    /// their own.
    pub fn send_and_wait(&mut self, bytes: &[u8]) {
        let before = self.received().bytes.len();
        assert!(self.try_send(bytes), "the connection is dead, with {before} bytes received");
        self.receiver.wait("what was sent", |all| self.find(all).bytes.len() >= before + bytes.len());
    }

    /// What the venue has received.
    pub fn received(&self) -> Received {
        self.find(&self.receiver.received()).clone()
    }

    /// Waits until both ends see a reset. Returns what the venue had received before.
    pub fn wait_for_reset(&mut self) -> Received {
        self.receiver.wait("the reset", |all| self.find(all).end == End::Reset);
        // A dead connection reports its error once.
        if !self.reset_reported {
            self.stream.set_read_timeout(Some(Duration::from_secs(2))).expect("setting a timeout");
            let found = self.stream.read(&mut [0; 1]).expect_err("an error");
            // The second error is that of a socket that `breaker trip` destroyed.
            let expected = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
            assert!(expected.contains(&found.kind()), "the sender sees no reset: {found}");
        }
        self.received()
    }

    /// Counters of the kernel's TCP.
    pub fn tcp_info(&self) -> TcpInfo {
        tcp_info(&self.stream)
    }

    fn find<'a>(&self, all: &'a [Received]) -> &'a Received {
        all.iter().rfind(|one| one.from == self.from).expect("the connection")
    }
}

/// Counters of the kernel's TCP: `struct tcp_info` (linux/tcp.h), which is longer than that of the C library.
pub fn tcp_info(stream: &TcpStream) -> TcpInfo {
    let (mut words, mut length) = ([0u32; 64], 256u32);
    let (socket, place) = (stream.as_raw_fd(), words.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most the given length into the buffer.
    let failed =
        unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut length) };
    assert!(failed == 0 && length >= 160, "TCP_INFO: {}, {length} bytes", std::io::Error::last_os_error());
    // tcpi_snd_mss, tcpi_total_retrans, tcpi_data_segs_out.
    let [mss, again, all] = [4, 25, 39].map(|word| words[word]);
    TcpInfo { mss: mss as usize, first_sends: (all - again) as u64, retransmits: again as u64 }
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
