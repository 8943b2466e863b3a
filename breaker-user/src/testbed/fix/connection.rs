//! One connection from its first message to its end: the part that both sides have in common.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Decoder, Message};
use super::session::{Incoming, Pulse, Reply, Session};
use super::socket::{self, End, Ending};
use super::tag;
use crate::testbed::clock::Moment;
use crate::testbed::watched::{lock, try_lock};

/// How long a connection waits for the other side where it has something to do by itself: to answer, or to read again.
const SOON: Duration = Duration::from_millis(10);
/// How long it waits else, before it looks at the clock.
const LATER: Duration = Duration::from_millis(250);

/// What the initiator and the acceptor do each in its own way.
pub(super) trait Side {
    /// The session that a connection's first message belongs to; an error is why there is none.
    fn session(&mut self, first: &Message<'_>) -> Result<Arc<Session>, String>;

    /// Takes a message whose read returned at `at`, and adds what answers it; an error ends the connection.
    fn take(
        &mut self,
        incoming: Incoming,
        message: &Message<'_>,
        at: Moment,
        replies: &mut Vec<Reply>,
    ) -> Result<(), End>;

    /// False while nothing shall be read.
    fn reading(&self) -> bool {
        true
    }

    /// All messages of a read have been taken.
    fn settle(&mut self) {}
}

pub(super) struct Conversation<'a, S> {
    stream: &'a TcpStream,
    side: S,
    session: Option<Arc<Session>>,
    pulse: Pulse,
    /// Why nothing can be written any more. What has arrived is still read to its end then.
    broken: Option<End>,
}

impl<'a, S: Side> Conversation<'a, S> {
    pub fn new(stream: &'a TcpStream, side: S) -> Self {
        Self { stream, side, session: None, pulse: Pulse::new(), broken: None }
    }

    /// Talks until the connection ends, and gives back the side with how it did. The socket is still open then.
    pub fn hold(mut self) -> (S, Ending) {
        let mut decoder = Decoder::new();
        let how = loop {
            if let Err(end) = self.turn(&mut decoder) {
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

    fn turn(&mut self, decoder: &mut Decoder) -> Result<(), End> {
        let reading = self.side.reading();
        if socket::readable(self.stream, reading, self.wait(reading))? {
            let count = decoder.fill(self.stream)?;
            let at = Moment::now();
            if count == 0 {
                return Err(self.broken.take().unwrap_or(End::Eof));
            }
            self.pulse.heard(at);
            let result = self.take_all(decoder, at);
            self.side.settle();
            result?;
        }
        if !reading {
            // Who does not listen cannot call the other side silent.
            self.pulse.heard(Moment::now());
        }
        if let Some(session) = &self.session
            && let Some(outbound) = try_lock(&session.outbound)
            && let Some(reply) = self.pulse.due(outbound.sent)?
        {
            lock(&session.pending).push(reply);
        }
        self.answer();
        Ok(())
    }

    fn wait(&self, reading: bool) -> Duration {
        let idle = self.session.as_ref().is_none_or(|session| lock(&session.pending).is_empty());
        match self.pulse.interval / 10 {
            _ if !reading || !idle => SOON,
            Duration::ZERO => LATER,
            tenth => tenth.min(LATER),
        }
    }

    fn take_all(&mut self, decoder: &mut Decoder, at: Moment) -> Result<(), End> {
        while let Some(message) = decoder.message().map_err(|problem| End::Violation(problem.to_owned()))? {
            let session = match &self.session {
                Some(session) => session,
                None => self.session.insert(self.side.session(&message).map_err(End::Violation)?),
            };
            let mut replies = Vec::new();
            let incoming = lock(&session.inbound).receive(&message, &mut replies).map_err(End::Violation)?;
            if incoming == Incoming::Logon {
                self.pulse.interval =
                    Duration::from_secs(message.number(tag::HEART_BT_INT).unwrap_or_default());
            }
            let taken = self.side.take(incoming, &message, at, &mut replies);
            lock(&session.pending).append(&mut replies);
            taken?;
        }
        Ok(())
    }

    /// Writes what is pending, if no other thread is writing: that one, or the next turn, does it then.
    fn answer(&mut self) {
        let Some(session) = &self.session else { return };
        let Some(mut outbound) = try_lock(&session.outbound) else { return };
        let mut out = Vec::new();
        session.answer(&mut outbound, &mut out);
        if self.broken.is_none()
            && let Err((_, error)) = socket::write(self.stream, &out)
        {
            self.broken = Some(error.into());
            // What has arrived can still be read, and then comes the end.
            _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}
