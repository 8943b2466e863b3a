//! The firm's side of a FIX session: an initiator that logs on and sends orders and cancels. It never resends
//! an order.

use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt;

use super::connection::{Conversation, Side};
use super::decode::Message;
use super::encode::Encoder;
use super::order;
use super::session::{Incoming, Outbound, Reply, Session};
use super::socket::{self, End, Ending};
use super::tag;
use crate::testbed::clock::Moment;
use crate::testbed::error::{Error, Result};
use crate::testbed::netns::spawn_thread;
use crate::testbed::watched::{Watched, lock};

/// Approximate size of one write of orders, in bytes.
const CHUNK: usize = 128 << 10;

/// Settings of an initiator. [`InitiatorSettings::new`] has the usual values.
#[derive(Clone, Debug)]
pub struct InitiatorSettings {
    /// Address of the acceptor.
    pub venue: SocketAddr,
    /// Local address of the connection; with port 0 or `None` the kernel chooses.
    pub local: Option<SocketAddr>,
    /// SenderCompID(49).
    pub sender: String,
    /// TargetCompID(56).
    pub target: String,
    /// HeartBtInt(108) in whole seconds; zero turns heartbeats off.
    pub heartbeat: Duration,
    /// ResetSeqNumFlag(141) of each Logon.
    pub reset: bool,
    /// Longest wait for a connection, for a response, or for room to write.
    pub patience: Duration,
}

impl InitiatorSettings {
    /// FIRM trades with XNYS at `venue`: heartbeats every 30 s, no sequence reset, 5 s of patience.
    pub fn new(venue: SocketAddr) -> Self {
        Self {
            venue,
            local: None,
            sender: "FIRM".to_owned(),
            target: "XNYS".to_owned(),
            heartbeat: Duration::from_secs(30),
            reset: false,
            patience: Duration::from_secs(5),
        }
    }
}

/// A FIX engine that sends orders. All methods take `&self`: one thread may send while another reads the
/// state.
///
/// Sequence numbers last as long as this value, over any number of connections. Dropping it closes the
/// connection.
pub struct Initiator {
    settings: InitiatorSettings,
    shared: Arc<Shared>,
    connection: Mutex<Option<Connection>>,
}

/// Result of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Sent {
    /// Messages that TCP accepted whole. They may not have left the host.
    pub messages: u64,
    /// How the connection ended, if its end stopped the send.
    pub ending: Option<Ending>,
}

struct Shared {
    session: Arc<Session>,
    state: Watched<State>,
}

#[derive(Default)]
struct State {
    logged_on: bool,
    logging_out: bool,
    reports: u64,
    rejects: u64,
    ending: Option<Ending>,
}

struct Connection {
    stream: Arc<TcpStream>,
    reader: JoinHandle<()>,
}

impl Initiator {
    /// Makes an engine without a connection.
    pub fn new(settings: InitiatorSettings) -> Self {
        let session = Arc::new(Session::new(Encoder::new(&settings.sender, &settings.target)));
        let shared = Arc::new(Shared { session, state: Watched::default() });
        Self { settings, shared, connection: Mutex::new(None) }
    }

    /// Opens a TCP connection in the namespace of the calling thread, after it closes an open one.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn connect(&self) -> Result<()> {
        self.disconnect();
        let patience = self.settings.patience;
        let open = || {
            let stream = Arc::new(socket::connect(self.settings.local, self.settings.venue, patience)?);
            stream.set_write_timeout(Some(patience))?;
            lock(&self.shared.session.pending).clear();
            self.shared
                .state
                .change(|state| (state.logged_on, state.logging_out, state.ending) = (false, false, None));
            let (shared, reading) = (self.shared.clone(), stream.clone());
            Ok(Connection { stream, reader: spawn_thread(move || shared.read(&reading))? })
        };
        let connection =
            open().map_err(|found| self.error("connecting to", found, "start the acceptor first"))?;
        *lock(&self.connection) = Some(connection);
        Ok(())
    }

    /// Sends Logon(A) and waits for the venue's Logon.
    ///
    /// # Errors
    /// If no Logon arrives in time; the text says how the connection ended.
    pub fn logon(&self) -> Result<()> {
        let (heartbeat, reset) = (self.settings.heartbeat.as_secs(), self.settings.reset);
        let sent = self.send(|outbound, out| outbound.reply(out, Reply::Logon { heartbeat, reset }));
        let done = |state: &State| (state.logged_on || state.ending.is_some()).then_some(state.logged_on);
        if sent.messages == 1 && self.shared.state.wait(self.settings.patience, done) == Some(true) {
            return Ok(());
        }
        let found = std::io::Error::other(match self.ending() {
            Some(ending) => format!("no Logon came, and the connection ended: {:?}", ending.how),
            None => format!("no Logon came within {:?}", self.settings.patience),
        });
        Err(self.error("logging on to", found, "see the acceptor's state of this session"))
    }

    /// Sends a NewOrderSingle(D). Its terms follow from the number at the end of the ClOrdID.
    pub fn send_order(&self, cl_ord_id: &str) -> Sent {
        self.send(|outbound, out| outbound.message(out, "D", |f| order::new_order(f, cl_ord_id)))
    }

    /// Sends a NewOrderSingle(D) again, with PossDupFlag(43)=Y and the MsgSeqNum(34) that it had.
    pub fn resend_order(&self, seq: u64, cl_ord_id: &str) -> Sent {
        self.send(|outbound, out| outbound.resend(out, ("D", seq), |f| order::new_order(f, cl_ord_id)))
    }

    /// Sends an OrderCancelRequest(F) with its own ClOrdID for the order `original`.
    pub fn send_cancel(&self, cl_ord_id: &str, original: &str) -> Sent {
        self.send(|outbound, out| outbound.message(out, "F", |f| order::cancel(f, cl_ord_id, original)))
    }

    /// Sends the orders of [`super::cl_ord_ids`] as fast as TCP accepts them, about 700 in one write. Stops
    /// at the last order or at the end of the connection.
    pub fn send_orders(&self, prefix: &str, numbers: RangeInclusive<u64>) -> Sent {
        let mut total = 0;
        let mut numbers = numbers.peekable();
        let mut ends = Vec::new();
        while numbers.peek().is_some() {
            ends.clear();
            let sent = self.send_counted(&mut ends, |outbound, out, ends| {
                while out.len() < CHUNK
                    && let Some(number) = numbers.next()
                {
                    let id = order::cl_ord_id(prefix, number);
                    outbound.message(out, "D", |f| order::new_order(f, &id));
                    ends.push(out.len());
                }
            });
            total += sent.messages;
            if sent.ending.is_some() {
                return Sent { messages: total, ..sent };
            }
        }
        Sent { messages: total, ending: None }
    }

    /// Sends Logout(5), and waits for the venue's Logout and the end of the connection.
    ///
    /// # Errors
    /// If the venue does not answer in time.
    pub fn logout(&self) -> Result<()> {
        self.shared.state.change(|state| state.logging_out = true);
        let _ = self.send(|outbound, out| outbound.reply(out, Reply::Logout(String::new())));
        let ending = self.wait_for_end(self.settings.patience);
        let how = match ending.map(|ending| ending.how) {
            Some(End::LoggedOut(_)) => return Ok(()),
            Some(how) => format!("the connection ended before: {how:?}"),
            None => format!("no Logout came within {:?}", self.settings.patience),
        };
        let cure = "no action is needed: the session continues at the next Logon";
        Err(self.error("logging out of", std::io::Error::other(how), cure))
    }

    /// Closes the connection with a FIN and without a Logout, like an engine that is stopped.
    pub fn disconnect(&self) {
        self.close(Shutdown::Both);
    }

    /// Closes the connection with an RST. TCP discards data that it has not sent.
    pub fn abort(&self) {
        if let Some(connection) = &*lock(&self.connection) {
            // The close below sends the RST. If the option cannot be set, a FIN closes the connection.
            _ = sockopt::set_socket_linger(&*connection.stream, Some(Duration::ZERO));
        }
        self.close(Shutdown::Read);
    }

    /// How the connection ended; `None` while it is open.
    pub fn ending(&self) -> Option<Ending> {
        self.shared.state.read(|state| state.ending.clone())
    }

    /// Waits for the connection to end.
    pub fn wait_for_end(&self, patience: Duration) -> Option<Ending> {
        self.shared.state.wait(patience, |state| state.ending.clone())
    }

    /// Number of ExecutionReport(8) messages received, on all connections.
    pub fn reports(&self) -> u64 {
        self.shared.state.read(|state| state.reports)
    }

    /// Waits until at least `count` ExecutionReports have arrived on all connections. Returns false on
    /// timeout.
    pub fn wait_for_reports(&self, count: u64, patience: Duration) -> bool {
        self.shared.state.wait(patience, |state| (state.reports >= count).then_some(())).is_some()
    }

    /// Number of Reject(3) messages received, on all connections.
    pub fn rejects(&self) -> u64 {
        self.shared.state.read(|state| state.rejects)
    }

    /// MsgSeqNum(34) of the next message.
    pub fn next_seq(&self) -> u64 {
        lock(&self.shared.session.outbound).next
    }

    /// The local address of the connection, if there is one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        lock(&self.connection).as_ref().and_then(|connection| connection.stream.local_addr().ok())
    }

    /// Sends one message that `build` writes.
    fn send(&self, build: impl FnOnce(&mut Outbound, &mut Vec<u8>)) -> Sent {
        self.send_counted(&mut Vec::new(), |outbound, out, ends| {
            build(outbound, out);
            ends.push(out.len());
        })
    }

    /// Sends the messages that `build` writes. `build` adds the end offset of each message to `ends`.
    fn send_counted(
        &self,
        ends: &mut Vec<usize>,
        build: impl FnOnce(&mut Outbound, &mut Vec<u8>, &mut Vec<usize>),
    ) -> Sent {
        let stream = lock(&self.connection).as_ref().map(|connection| connection.stream.clone());
        let Some(stream) = stream.filter(|_| self.ending().is_none()) else {
            return Sent {
                messages: 0,
                ending: Some(self.ending().unwrap_or_else(|| Ending::now(End::Closed))),
            };
        };
        let mut outbound = lock(&self.shared.session.outbound);
        let mut out = Vec::new();
        build(&mut outbound, &mut out, ends);
        self.shared.session.answer(&mut outbound, &mut out);
        let Err((written, error)) = socket::write(&stream, &out) else {
            return Sent { messages: ends.len() as u64, ending: None };
        };
        let messages = ends.partition_point(|end| *end <= written) as u64;
        // EPIPE follows an earlier end of the connection. The reader records that end once it has the lock.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            self.shared.ended(Ending::now(error.into()));
        }
        _ = stream.shutdown(Shutdown::Both);
        drop(outbound);
        Sent { messages, ending: self.wait_for_end(self.settings.patience) }
    }

    fn close(&self, how: Shutdown) {
        let Some(connection) = lock(&self.connection).take() else { return };
        self.shared.ended(Ending::now(End::Closed));
        // Wakes the reader, which has stopped already if the connection has ended.
        _ = connection.stream.shutdown(how);
        _ = connection.reader.join();
    }

    fn error(&self, what: &str, found: std::io::Error, cure: &'static str) -> Error {
        Error::new(format!("{what} {} as {}", self.settings.venue, self.settings.sender), found, cure)
    }
}

impl Drop for Initiator {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("settings", &self.settings).field("ending", &self.ending()).finish()
    }
}

impl Shared {
    /// Reads one connection until its end, on a thread of its own.
    fn read(&self, stream: &TcpStream) {
        let (_, ending) = Conversation::new(stream, InitiatorSide(self)).run();
        if self.state.read(|state| state.ending.is_none()) {
            // This also wakes a writer that waits for room.
            _ = stream.shutdown(Shutdown::Both);
        }
        // A writer that read the socket error (SO_ERROR) leaves only an end of file here, and its ending is
        // exact.
        drop(lock(&self.session.outbound));
        self.ended(ending);
    }

    /// Records how the connection ended. The first record wins.
    fn ended(&self, ending: Ending) {
        self.state.change(|state| _ = state.ending.get_or_insert(ending));
    }
}

struct InitiatorSide<'a>(&'a Shared);

impl Side for InitiatorSide<'_> {
    fn session(&mut self, _: &Message<'_>) -> std::result::Result<Arc<Session>, String> {
        Ok(self.0.session.clone())
    }

    fn receive(
        &mut self,
        incoming: Incoming,
        message: &Message<'_>,
        _: Moment,
        replies: &mut Vec<Reply>,
    ) -> std::result::Result<(), End> {
        self.0.state.change(|state| {
            match incoming {
                Incoming::Logon => state.logged_on = true,
                Incoming::Reject => state.rejects += 1,
                Incoming::Application if message.msg_type() == b"8" => state.reports += 1,
                Incoming::Application | Incoming::Handled => (),
                Incoming::Logout => {
                    if !state.logging_out {
                        replies.push(Reply::Logout(String::new()));
                    }
                    return Err(End::LoggedOut(message.text(tag::TEXT).to_owned()));
                }
            }
            Ok(())
        })
    }
}
