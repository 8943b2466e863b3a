//! TCP socket operations of both sides, and how a connection ends.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::testbed::clock::Moment;

/// How a connection ended, as seen by this side. See `tcp(7)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// An RST arrived: ECONNRESET.
    Reset,
    /// A FIN arrived without a Logout. A later write fails with EPIPE.
    Eof,
    /// The socket was destroyed on this host, as `ss -K` does: ECONNABORTED.
    Aborted,
    /// TCP gave up retransmitting: ETIMEDOUT.
    TimedOut,
    /// A write did not finish within the patience of this side.
    Stalled,
    /// No message arrived for 2.4 heartbeat intervals, despite a TestRequest. This side closed.
    Silent,
    /// Both sides sent Logout; the text is the peer's Text(58).
    LoggedOut(String),
    /// The peer violated the protocol, as the text says. This side closed.
    Violation(String),
    /// This side closed on request.
    Closed,
    /// Anything else.
    Failed(io::ErrorKind),
}

/// How and when a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How it ended.
    pub how: End,
    /// When this side noticed the end.
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

/// Opens a TCP connection, waiting at most `patience`. With `local` `None` the kernel chooses the local
/// address.
///
/// A `local` port allows the same addresses and ports as an earlier connection. TCP_NODELAY is set, as in
/// trading systems.
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

/// Waits up to `tick` for data or the end of the connection. If `reading` is false, waits only for an error.
pub(super) fn readable(stream: &TcpStream, reading: bool, tick: Duration) -> io::Result<bool> {
    let wanted = if reading { PollFlags::IN } else { PollFlags::empty() };
    match poll(&mut [PollFd::new(stream, wanted)], Some(&timespec(tick))) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes all of `bytes`. The error contains the number of bytes written before it.
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
