//! What both sides ask of a TCP socket, and the ways in which a connection ends.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::testbed::clock::Moment;

/// How a connection ended, as this side saw it. The man page is `tcp(7)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// An RST came: ECONNRESET.
    Reset,
    /// The other side's FIN came, with no Logout before it. EPIPE is a write after that.
    Eof,
    /// The socket was destroyed on this host, as `ss -K` does: ECONNABORTED.
    Aborted,
    /// TCP gave up sending: ETIMEDOUT.
    TimedOut,
    /// Nothing could be written for as long as this side was ready to wait.
    Stalled,
    /// No message came for 2.4 heartbeat intervals, in spite of a TestRequest. This side closed.
    Silent,
    /// Both sides have said Logout; the text is that of the other side's.
    LoggedOut(String),
    /// The other side broke a rule, which the text names. This side closed.
    Violation(String),
    /// This side closed, because it was told to.
    Closed,
    /// Anything else.
    Failed(io::ErrorKind),
}

/// How and when a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How it ended.
    pub how: End,
    /// When this side noticed.
    pub at: Moment,
}

impl Ending {
    pub(super) fn now(how: End) -> Self {
        Self { how, at: Moment::now() }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset => Self::Reset,
            io::ErrorKind::BrokenPipe => Self::Eof,
            io::ErrorKind::ConnectionAborted => Self::Aborted,
            io::ErrorKind::TimedOut => Self::TimedOut,
            // EAGAIN, from SO_SNDTIMEO.
            io::ErrorKind::WouldBlock => Self::Stalled,
            other => Self::Failed(other),
        }
    }
}

/// Opens a TCP connection from `local`, or from where the kernel likes, waiting at most `patience`.
///
/// With a `local` port one can make a connection with the very addresses and ports of an earlier one. Nagle's algorithm
/// is off, as trading systems have it.
///
/// # Errors
/// Those of connect(2).
pub fn connect(local: Option<SocketAddr>, remote: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if let Some(local) = local {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &local)?;
    }
    match rustix::net::connect(&socket, &remote) {
        Ok(()) => (),
        Err(Errno::INPROGRESS) => {
            let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
            if retry_on_intr(|| poll(&mut fds, Some(&timespec(patience))))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits up to `tick` for something to read, the end of the connection included. Where nothing shall be read, only for
/// the connection to break.
pub(super) fn readable(stream: &TcpStream, reading: bool, tick: Duration) -> io::Result<bool> {
    let wanted = if reading { PollFlags::IN } else { PollFlags::empty() };
    match poll(&mut [PollFd::new(stream, wanted)], Some(&timespec(tick))) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes all of `bytes`, or says how many of them went before the error.
pub(super) fn write(mut stream: &TcpStream, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
