//! The venue's side of FIX sessions: an acceptor that serves any number of sessions and records what arrives,
//! and when.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, result};

use rustix::net::sockopt;

use super::connection::{Conversation, Side};
use super::decode::Message;
use super::encode::Encoder;
use super::ledger::{Connection, Ledger, Received};
use super::order::Report;
use super::session::{Incoming, Reply, Session};
use super::socket::{End, Ending};
use super::tag;
use crate::testbed::clock::Moment;
use crate::testbed::error::{Error, Result};
use crate::testbed::netns::spawn_thread;
use crate::testbed::watched::{Watched, lock};

/// Attempts of a Logon to take its session before the acceptor refuses it, and the time between two: 250 ms
/// in all.
const CLAIMS: u32 = 25;
const CLAIM_AGAIN: Duration = Duration::from_millis(10);

/// Settings of an acceptor.
#[derive(Clone, Copy, Debug)]
pub struct AcceptorSettings {
    /// Answers each order and cancel with an ExecutionReport(8).
    pub reports: bool,
    /// SO_RCVBUF of each connection in bytes; the kernel doubles the value. A small buffer closes the window
    /// early.
    pub receive_buffer: Option<usize>,
}

impl Default for AcceptorSettings {
    /// Reports are on, and the kernel chooses the buffers.
    fn default() -> Self {
        Self { reports: true, receive_buffer: None }
    }
}

/// A FIX engine that receives orders.
///
/// Both CompIDs identify a session; its sequence numbers last as long as this value. The acceptor refuses a
/// second Logon of a session that has a connection, even a dead one, as venues do. Dropping this value closes
/// all connections.
pub struct Acceptor {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    ledger: Watched<Ledger>,
    sessions: Mutex<HashMap<(String, String), Arc<Session>>>,
    reading: AtomicBool,
    reports: AtomicBool,
    report: AtomicU64,
}

impl Acceptor {
    /// Listens at `address` in the namespace of the calling thread. Port 0 lets the kernel choose a port.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub fn listen(address: SocketAddr, settings: AcceptorSettings) -> Result<Self> {
        let shared = Arc::new(Shared {
            ledger: Watched::default(),
            sessions: Mutex::default(),
            reading: AtomicBool::new(true),
            reports: AtomicBool::new(settings.reports),
            report: AtomicU64::new(1),
        });
        let open = || {
            let listener = TcpListener::bind(address)?;
            if let Some(size) = settings.receive_buffer {
                // Accepted sockets inherit the size.
                sockopt::set_socket_recv_buffer_size(&listener, size)?;
            }
            let (address, listener) = (listener.local_addr()?, Arc::new(listener));
            let (accept_shared, accept_listener) = (shared.clone(), listener.clone());
            let accepting = Some(spawn_thread(move || accept(&accept_shared, &accept_listener))?);
            Ok(Self { address, listener, shared, accepting })
        };
        let cure = "use an address of this host and a free port";
        open().map_err(|found: io::Error| Error::new(format!("listening at {address}"), found, cure))
    }

    /// The address that the acceptor listens on.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// NewOrderSingle(D) messages that have arrived, in order of arrival.
    pub fn orders(&self) -> Vec<Received> {
        self.shared.ledger.read(|ledger| ledger.orders.clone())
    }

    /// Number of NewOrderSingle(D) messages that have arrived.
    pub fn order_count(&self) -> usize {
        self.shared.ledger.read(|ledger| ledger.orders.len())
    }

    /// The distinct ClOrdIDs of the orders that have arrived.
    pub fn cl_ord_ids(&self) -> BTreeSet<String> {
        self.shared.ledger.read(|ledger| ledger.orders.iter().map(|order| order.cl_ord_id.clone()).collect())
    }

    /// OrderCancelRequest(F) messages that have arrived, in order of arrival.
    pub fn cancels(&self) -> Vec<Received> {
        self.shared.ledger.read(|ledger| ledger.cancels.clone())
    }

    /// All connections so far, in order of acceptance.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.ledger.read(|ledger| ledger.connections.clone())
    }

    /// The sequence number gaps of all sessions, as inclusive ranges. The acceptor sent a ResendRequest for
    /// each.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let sessions = lock(&self.shared.sessions);
        sessions.values().flat_map(|session| lock(&session.inbound).gaps.clone()).collect()
    }

    /// Waits until at least `count` orders have arrived.
    ///
    /// # Errors
    /// If fewer have arrived after `patience`; the text says how many.
    pub fn wait_for_orders(&self, count: usize, patience: Duration) -> Result<()> {
        let done = self.shared.ledger.wait(patience, |ledger| (ledger.orders.len() >= count).then_some(()));
        done.ok_or_else(|| {
            let found = format!("{} came within {patience:?}", self.order_count());
            let what = format!("waiting for {count} orders at {}", self.address);
            Error::new(what, io::Error::other(found), "see how the connections ended")
        })
    }

    /// Waits until a connection has ended. `connection` counts from 0 in order of acceptance.
    pub fn wait_for_end(&self, connection: usize, patience: Duration) -> Option<Ending> {
        self.shared.ledger.wait(patience, |ledger| ledger.connections.get(connection)?.ending.clone())
    }

    /// Stops reading from all connections after at most one more read each, so that their receive windows
    /// close.
    pub fn pause_reading(&self) {
        self.shared.reading.store(false, Relaxed);
    }

    /// Resumes reading.
    pub fn resume_reading(&self) {
        self.shared.reading.store(true, Relaxed);
    }

    /// Turns ExecutionReports on or off.
    pub fn set_reports(&self, on: bool) {
        self.shared.reports.store(on, Relaxed);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // Ends the accept(2) in progress: inet_shutdown() in the kernel handles a listening socket.
        _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Read);
        if let Some(accepting) = self.accepting.take() {
            _ = accepting.join();
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("address", &self.address)
            .field("orders", &self.order_count())
            .finish()
    }
}

/// Accepts connections until the listener is shut down, then closes all connections.
fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut connections = Vec::new();
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let stream = Arc::new(stream);
                let (serve_shared, serve_stream) = (shared.clone(), stream.clone());
                // Without a thread the connection closes at once, which the peer sees.
                if let Ok(thread) = spawn_thread(move || serve_shared.serve(&serve_stream, peer)) {
                    connections.push((stream, thread));
                }
                connections.retain(|(_, thread): &(_, JoinHandle<()>)| !thread.is_finished());
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            // The connection ended before accept(2), or there are too many files.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    for (stream, thread) in connections {
        _ = stream.shutdown(Shutdown::Both);
        _ = thread.join();
    }
}

impl Shared {
    /// Serves one connection until its end, on a thread of its own.
    fn serve(&self, stream: &TcpStream, peer: SocketAddr) {
        _ = stream.set_nodelay(true);
        let connection = self.ledger.change(|ledger| {
            let opened = Moment::now();
            ledger.connections.push(Connection { peer, opened, session: None, orders: 0, ending: None });
            ledger.connections.len() - 1
        });
        let side = AcceptorSide {
            shared: self,
            connection,
            session: None,
            logged_out: None,
            new: Ledger::default(),
        };
        let (side, mut ending) = Conversation::new(stream, side).run();
        // The peer may have closed already.
        _ = stream.shutdown(Shutdown::Both);
        if let (Some(text), End::Eof) = (side.logged_out, &ending.how) {
            ending.how = End::LoggedOut(text);
        }
        if let Some(session) = side.session {
            session.taken.store(false, Release);
        }
        self.ledger.change(|ledger| ledger.connections[connection].ending = Some(ending));
    }
}

/// Receives the messages of one connection.
struct AcceptorSide<'a> {
    shared: &'a Shared,
    connection: usize,
    session: Option<Arc<Session>>,
    logged_out: Option<String>,
    /// Messages of the current read, which [`Side::flush`] moves to the shared ledger.
    new: Ledger,
}

impl AcceptorSide<'_> {
    fn record(&mut self, message: &Message<'_>, at: Moment, replies: &mut Vec<Reply>) {
        let list = match message.msg_type() {
            b"D" => &mut self.new.orders,
            b"F" => &mut self.new.cancels,
            _ => return,
        };
        list.push(Received {
            cl_ord_id: message.text(tag::CL_ORD_ID).to_owned(),
            at,
            seq: message.seq().unwrap_or_default(),
            poss_dup: message.poss_dup(),
            connection: self.connection,
        });
        if self.shared.reports.load(Relaxed) {
            replies.push(Reply::Report(Report::on(message, self.shared.report.fetch_add(1, Relaxed))));
        }
    }
}

impl Side for AcceptorSide<'_> {
    fn session(&mut self, first: &Message<'_>) -> result::Result<Arc<Session>, String> {
        if first.msg_type() != b"A" {
            return Err("the first message is not a Logon".to_owned());
        }
        let (sender, target) =
            (first.text(tag::SENDER_COMP_ID).to_owned(), first.text(tag::TARGET_COMP_ID).to_owned());
        let encoder = Encoder::new(&target, &sender);
        let mut sessions = lock(&self.shared.sessions);
        let session = sessions
            .entry((sender.clone(), target))
            .or_insert_with(|| Arc::new(Session::new(encoder)))
            .clone();
        drop(sessions);
        // The thread of a connection that has just broken may still read the rest of its data.
        let claimed = (0..CLAIMS).any(|attempt| {
            thread::sleep(CLAIM_AGAIN * attempt.min(1));
            !session.taken.swap(true, Acquire)
        });
        if !claimed {
            return Err("the session has another connection".to_owned());
        }
        lock(&session.pending).clear();
        self.session = Some(session.clone());
        self.shared.ledger.change(|ledger| ledger.connections[self.connection].session = Some(sender));
        Ok(session)
    }

    fn receive(
        &mut self,
        incoming: Incoming,
        message: &Message<'_>,
        at: Moment,
        replies: &mut Vec<Reply>,
    ) -> result::Result<(), End> {
        match incoming {
            Incoming::Logon => {
                let heartbeat = message.number(tag::HEART_BT_INT).unwrap_or_default();
                let reset = message.is_yes(tag::RESET_SEQ_NUM_FLAG);
                // The Logon precedes the ResendRequest for what the session has missed.
                replies.insert(0, Reply::Logon { heartbeat, reset });
            }
            Incoming::Logout => {
                self.logged_out = Some(message.text(tag::TEXT).to_owned());
                replies.push(Reply::Logout(String::new()));
            }
            Incoming::Application => self.record(message, at, replies),
            Incoming::Reject | Incoming::Handled => (),
        }
        Ok(())
    }

    fn reading(&self) -> bool {
        self.shared.reading.load(Relaxed)
    }

    fn flush(&mut self) {
        let new = &mut self.new;
        self.shared.ledger.change(|ledger| {
            ledger.connections[self.connection].orders += new.orders.len() as u64;
            ledger.orders.append(&mut new.orders);
            ledger.cancels.append(&mut new.cancels);
        });
    }
}
