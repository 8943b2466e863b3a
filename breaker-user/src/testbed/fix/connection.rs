//! One FIX connection from its first message to its end: the code that initiator and acceptor share.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Decoder, Message};
use super::session::{HeartbeatTimer, Incoming, Reply, Session};
use super::socket::{self, End, Ending};
use super::tag;
use crate::testbed::clock::Moment;
use crate::testbed::watched::{lock, try_lock};

/// Longest wait for the peer while there is a reply to write, or while reading is paused.
const SOON: Duration = Duration::from_millis(10);
/// Longest wait otherwise, after which the heartbeat timer is checked.
const LATER: Duration = Duration::from_millis(250);

/// The part of a connection in which initiator and acceptor differ.
pub(super) trait Side {
    /// The session of a connection's first message. The error is the reason why the peer is refused.
    fn session(&mut self, first: &Message<'_>) -> Result<Arc<Session>, String>;

    /// Receives a message whose read returned at `at`, and adds the replies. An error ends the connection.
    fn receive(
        &mut self,
        incoming: Incoming,
        message: &Message<'_>,
        at: Moment,
        replies: &mut Vec<Reply>,
    ) -> Result<(), End>;

    /// False while reading is paused.
    fn reading(&self) -> bool {
        true
    }

    /// Called after all messages of one read were received.
    fn flush(&mut self) {}
}
/// The state of one connection.
pub(super) struct Conversation<'a, S> {
    stream: &'a TcpStream,
    side: S,
    session: Option<Arc<Session>>,
    timer: HeartbeatTimer,
    /// Why nothing can be written any more. Data that has arrived is still read.
    broken: Option<End>,
}

impl<'a, S: Side> Conversation<'a, S> {
    pub fn new(stream: &'a TcpStream, side: S) -> Self {
        Self { stream, side, session: None, timer: HeartbeatTimer::new(), broken: None }
    }

    /// Runs the connection until its end. Returns the side and how the connection ended; the socket is still
    /// open.
    pub fn run(mut self) -> (S, Ending) {
        let mut decoder = Decoder::new();
        let how = loop {
            if let Err(end) = self.step(&mut decoder) {
                break end;
            }
        };
        let at = Moment::now();
        if let (End::Violation(text), Some(session)) = (&how, &self.session) {
            lock(&session.pending).push(Reply::Logout(text.clone()));
        }
        if matches!(how, End::Violation(_) | End::LoggedOut(_)) {
            self.answer();
        }
        (self.side, Ending { how, at })
    }

    fn step(&mut self, decoder: &mut Decoder) -> Result<(), End> {
        let reading = self.side.reading();
        if socket::readable(self.stream, reading, self.wait(reading))? {
            let count = decoder.fill(self.stream)?;
            let at = Moment::now();
            if count == 0 {
                return Err(self.broken.take().unwrap_or(End::Eof));
            }
            self.timer.received(at);
            let result = self.receive_all(decoder, at);
            self.side.flush();
            result?;
        }
        if !reading {
            // While reading is paused, the peer's silence means nothing.
            self.timer.received(Moment::now());
        }
        if let Some(session) = &self.session
            && let Some(outbound) = try_lock(&session.outbound)
            && let Some(reply) = self.timer.due(outbound.sent)?
        {
            lock(&session.pending).push(reply);
        }
        self.answer();
        Ok(())
    }

    fn wait(&self, reading: bool) -> Duration {
        let idle = self.session.as_ref().is_none_or(|session| lock(&session.pending).is_empty());
        match self.timer.interval / 10 {
            _ if !reading || !idle => SOON,
            Duration::ZERO => LATER,
            tenth => tenth.min(LATER),
        }
    }

    fn receive_all(&mut self, decoder: &mut Decoder, at: Moment) -> Result<(), End> {
        while let Some(message) = decoder.message().map_err(|problem| End::Violation(problem.to_owned()))? {
            let session = match &self.session {
                Some(session) => session,
                None => self.session.insert(self.side.session(&message).map_err(End::Violation)?),
            };
            let mut replies = Vec::new();
            let incoming = lock(&session.inbound).receive(&message, &mut replies).map_err(End::Violation)?;
            if incoming == Incoming::Logon {
                self.timer.interval =
                    Duration::from_secs(message.number(tag::HEART_BT_INT).unwrap_or_default());
            }
            let result = self.side.receive(incoming, &message, at, &mut replies);
            lock(&session.pending).append(&mut replies);
            result?;
        }
        Ok(())
    }

    /// Writes the pending replies, unless another thread is writing: that thread or the next step writes
    /// them.
    fn answer(&mut self) {
        let Some(session) = &self.session else { return };
        let Some(mut outbound) = try_lock(&session.outbound) else { return };
        let mut out = Vec::new();
        session.answer(&mut outbound, &mut out);
        if self.broken.is_none()
            && let Err((_, error)) = socket::write(self.stream, &out)
        {
            self.broken = Some(error.into());
            // Data that has arrived can still be read; then the end of file follows.
            _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}
