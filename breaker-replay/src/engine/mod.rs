//! Runs the model over the packets of captures.
//!
//! The verdicts are those of the kernel program on the same packets at the same times. From the first
//! withheld segment on, a second model goes on without trips: it counts what the capture really has, finds
//! the peaks, and checks each limit as if no other one had tripped.

mod gaps;
mod observer;

use breaker_common::abi::{Connection, ConnectionKey, kind, reason};
use breaker_common::decide::{ACK, FIN, RST, SYN, Segment, Verdict};
use breaker_common::fix::SIGNATURE;

use crate::capture::{Direction, Packet};
use crate::headers::{self, Headers, Skipped, swapped};
use crate::model::{Model, Slot};
use crate::order::Order;

pub use observer::{Figures, Observer, Outbound, Settings, Source};

/// A replay.
pub struct Engine {
    /// With the trips of the policy until the first one, then without any.
    primary: Model,
    /// With the trips of the policy, from the first one on.
    enforced: Option<Model>,
    settings: Settings,
    order: Order,
    start_ns: Option<u64>,
    now_ns: u64,
    figures: Figures,
}

/// The clock of the model at the first packet, ns. At 0 some times would mean never.
const FIRST_NS: u64 = 1_000_000_000;
/// Latest time of the model, ns: the rings keep 60 bits.
const LAST_NS: u64 = (1 << 60) - 1;
/// Payload above which a packet must be one of several wire segments: that of a jumbo frame.
const JUMBO: u32 = 9_000;
/// Payload of a wire segment on Ethernet with timestamps.
const MSS: u32 = 1_448;

impl Engine {
    /// Starts a replay with the maps of a policy.
    pub fn new(mut model: Model, settings: Settings) -> Self {
        if !settings.enforced {
            model.unenforce();
        }
        let (order, figures) = Default::default();
        Self { primary: model, enforced: None, settings, order, start_ns: None, now_ns: 0, figures }
    }

    /// Returns the numbers of packets so far.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Returns the model with the trips of the policy.
    pub fn enforced(&self) -> &Model {
        self.enforced.as_ref().unwrap_or(&self.primary)
    }

    /// Returns the model without trips, or the same model if nothing has been withheld.
    pub fn open(&self) -> &Model {
        &self.primary
    }

    /// Returns a time of the model as ns since 1970.
    pub fn unix_ns(&self, at_ns: u64) -> u64 {
        self.start_ns.unwrap_or_default() + at_ns.saturating_sub(FIRST_NS)
    }

    /// Returns the time of the first and of the last packet, ns since 1970.
    pub fn span(&self) -> Option<(u64, u64)> {
        self.start_ns.map(|start| (start, self.now_ns))
    }

    /// Processes a packet.
    #[inline(always)]
    pub fn packet(&mut self, packet: &Packet<'_>, observer: &mut impl Observer) {
        self.figures.packets += 1;
        self.tick(packet.time_ns);
        match headers::parse(packet) {
            Ok(headers) => self.segment(&headers, observer),
            Err(skipped) => self.skip(skipped),
        }
    }

    /// Processes the segments that still wait for a gap to be filled, at the end of the last capture.
    pub fn finish(&mut self, observer: &mut impl Observer) {
        while let Some(key) = self.order.any() {
            self.skip_gap(&key, observer);
        }
    }

    /// Sets the clock. It never goes back.
    #[inline(always)]
    fn tick(&mut self, time_ns: Option<u64>) {
        let time_ns = time_ns.unwrap_or(self.now_ns);
        let start_ns = *self.start_ns.get_or_insert(time_ns);
        self.figures.earlier += u64::from(time_ns < self.now_ns);
        self.now_ns = self.now_ns.max(time_ns);
        let clock = (FIRST_NS + (self.now_ns - start_ns)).min(LAST_NS);
        self.primary.maps.clock = clock;
        if let Some(enforced) = &mut self.enforced {
            enforced.maps.clock = clock;
        }
    }

    #[cold]
    fn skip(&mut self, skipped: Skipped) {
        let figure = match skipped {
            Skipped::Other => &mut self.figures.other,
            Skipped::Fragment => &mut self.figures.fragments,
            Skipped::Malformed => &mut self.figures.malformed,
            Skipped::CutHeaders => &mut self.figures.cut_headers,
            Skipped::UnknownLink => &mut self.figures.unknown_link,
        };
        *figure += 1;
    }

    #[inline(always)]
    fn segment(&mut self, headers: &Headers<'_>, observer: &mut impl Observer) {
        let (key, segment) = (&headers.key, &headers.segment);
        let maps = &self.primary.maps;
        if maps.is_port_watched(key.local_port) && self.is_inbound(headers) {
            return self.inbound(headers, observer);
        }
        if self.settings.ordered && segment.opens_connection() {
            self.forget_undeclared(key);
        }
        if !self.primary.maps.is_port_watched(key.remote_port) && !is_sent(headers) {
            self.figures.other += 1;
            return;
        }
        if headers.joins_multipath && self.primary.maps.lookup_endpoint(key) != 0 {
            self.figures.outbound += 1;
            return;
        }
        if !self.order.is_empty() && segment.flags & (SYN | RST) != 0 {
            while self.order.waits(key) {
                self.skip_gap(key, observer);
            }
        }
        let found = self.find(key, segment, headers.payload);
        if !found.is_ok_and(|slot| self.hold(slot, key, segment, headers.payload)) {
            self.decide(found, (key, segment, headers.payload), observer);
        }
        if !self.order.is_empty() && self.order.waits(key) {
            self.release(key, observer);
            if self.order.is_overdue(key, self.now_ns) {
                self.skip_gap(key, observer);
            }
        }
    }

    /// Forgets an undeclared connection at a new SYN with its addresses. The kernel program has no state of
    /// an undeclared SYN, and would read the new connection as a gap in the old one.
    fn forget_undeclared(&mut self, key: &ConnectionKey) {
        for model in [Some(&mut self.primary), self.enforced.as_mut()].into_iter().flatten() {
            let is_undeclared = |old: &Connection| old.session | old.shared_endpoint | old.opened == 0;
            if model.transient.get(key).is_some_and(is_undeclared) {
                model.transient.remove(key);
                model.inbound.remove(key);
            }
        }
    }

    /// Returns true if a packet goes to the local end of a session's connection.
    fn is_inbound(&self, headers: &Headers<'_>) -> bool {
        let key = &headers.key;
        let maps = &self.primary.maps;
        if maps.is_port_watched(key.remote_port)
            && (self.primary.connection(key).is_some() || maps.lookup_endpoint(key) != 0)
        {
            return false;
        }
        let reverse = swapped(key);
        maps.lookup_endpoint(&reverse) != 0 || self.primary.connection(&reverse).is_some()
    }

    fn inbound(&mut self, headers: &Headers<'_>, observer: &mut impl Observer) {
        self.figures.inbound += 1;
        let (key, segment) = (swapped(&headers.key), &headers.segment);
        if !self.order.is_empty() && segment.flags & ACK != 0 && self.order.waits(&key) {
            let next_seq = self.primary.connection(&key).map_or(segment.ack, |found| found.stream.next_seq);
            if (segment.ack.wrapping_sub(next_seq) as i32) > 0 {
                // The peer has received bytes that the capture does not have.
                self.skip_gap(&key, observer);
            }
        }
        if !self.settings.inbound || segment.length == 0 && segment.flags & SYN == 0 {
            return;
        }
        let Some(session) = self.primary.observe(&key, segment, headers.payload) else { return };
        let has_tripped = self.has_tripped();
        self.forward(observer);
        if let Some(enforced) = &mut self.enforced {
            enforced.observe(&key, segment, headers.payload);
            self.forward_enforced(observer);
        } else if has_tripped {
            self.part();
        }
        observer.inbound(self.now_ns, session, self.primary.counts());
    }

    /// Finds or creates the connection of an outbound segment. The error is the reason of [`reason`] for
    /// which the segment has none.
    #[inline(always)]
    fn find(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<Slot, u32> {
        let is_large = segment.length > JUMBO;
        self.primary.maps.wire_segments = if is_large { segment.length.div_ceil(MSS) } else { 1 };
        self.primary.find(key, segment, payload)
    }

    /// Decides on an outbound segment that has waited.
    fn outbound(
        &mut self,
        key: &ConnectionKey,
        segment: &Segment,
        payload: &[u8],
        observer: &mut impl Observer,
    ) {
        let found = self.find(key, segment, payload);
        self.decide(found, (key, segment, payload), observer);
    }

    /// Decides on an outbound segment.
    #[inline(always)]
    fn decide(
        &mut self,
        found: Result<Slot, u32>,
        (key, segment, payload): (&ConnectionKey, &Segment, &[u8]),
        observer: &mut impl Observer,
    ) {
        let slot = match found {
            Ok(slot) => slot,
            Err(reason) => return self.without_verdict(reason, (key, segment, payload), observer),
        };
        self.figures.outbound += 1;
        let forks = self.settings.enforced && self.enforced.is_none();
        let before = *self.primary.at(slot);
        let mut verdict = self.primary.decide(slot, key, segment, payload);
        if forks && verdict.withheld() && verdict != Verdict::Ahead {
            self.fork((slot, before), key, segment, payload, observer);
        } else if !self.primary.events().is_empty() {
            self.forward(observer);
        }
        if !forks && let Some(enforced) = &mut self.enforced {
            enforced.maps.wire_segments = self.primary.maps.wire_segments;
            verdict = enforced.process(key, segment, payload).unwrap_or(verdict);
            self.forward_enforced(observer);
        }
        let (session, counts) = (self.primary.last_session(), self.primary.counts());
        if payload.len() < segment.length as usize {
            self.figures.cut += 1;
            self.figures.cut_unread += u64::from(counts.blind_bytes | counts.desyncs != 0);
        }
        let opens = segment.opens_connection();
        observer.outbound(&Outbound { at_ns: self.now_ns, key, session, verdict, counts, payload, opens });
    }

    /// Continues with two models: one with the trip, and one in which the segment has passed.
    #[cold]
    fn fork(
        &mut self,
        (slot, before): (Slot, Connection),
        key: &ConnectionKey,
        segment: &Segment,
        payload: &[u8],
        observer: &mut impl Observer,
    ) {
        let mut open = self.primary.clone();
        open.unenforce();
        open.put(slot.table, key, before);
        open.clear_events();
        self.enforced = Some(std::mem::replace(&mut self.primary, open));
        self.forward_enforced(observer);
        // The connection is there, so this is a verdict.
        let _ = self.primary.process(key, segment, payload);
        self.forward(observer);
    }

    /// A packet that the program passes or drops without a verdict.
    fn without_verdict(
        &mut self,
        reason: u32,
        (key, segment, payload): (&ConnectionKey, &Segment, &[u8]),
        observer: &mut impl Observer,
    ) {
        match reason {
            reason::NOT_OURS => self.figures.other += 1,
            reason::TABLE_FULL => self.figures.table_full += 1,
            _ => self.figures.outbound += 1,
        }
        observer.without_verdict(reason);
        self.forward(observer);
        if let Some(enforced) = &mut self.enforced {
            let _ = enforced.process(key, segment, payload);
            self.forward_enforced(observer);
        }
    }

    /// Trips a scope, as a person does.
    pub fn trip(&mut self, scope: u32, cause: u64) {
        self.part();
        if let Some(enforced) = &mut self.enforced {
            enforced.trip(scope, cause);
        }
    }

    /// Resets a scope, as a person does.
    pub fn reset(&mut self, scope: u32) {
        self.part();
        if let Some(enforced) = &mut self.enforced {
            enforced.reset(scope);
        }
    }

    /// Continues with two models from here on, if there is one.
    fn part(&mut self) {
        if self.settings.enforced && self.enforced.is_none() {
            let mut open = self.primary.clone();
            open.unenforce();
            self.enforced = Some(std::mem::replace(&mut self.primary, open));
        }
    }

    fn has_tripped(&self) -> bool {
        self.primary.events().iter().any(|event| event.kind == kind::TRIPPED)
    }

    /// Forwards the events of the model without trips, or of both.
    #[cold]
    fn forward(&mut self, observer: &mut impl Observer) {
        let source = match self.enforced {
            None if self.settings.enforced => Source::Both,
            _ => Source::Open,
        };
        for event in self.primary.events() {
            observer.event(self.unix_ns(event.at_ns), event, source);
        }
        self.primary.clear_events();
    }

    /// Forwards the events of the model with trips.
    #[cold]
    fn forward_enforced(&mut self, observer: &mut impl Observer) {
        let (start_ns, Some(enforced)) = (self.start_ns.unwrap_or_default(), &mut self.enforced) else {
            return;
        };
        for event in enforced.events() {
            let at_ns = start_ns + event.at_ns.saturating_sub(FIRST_NS);
            observer.event(at_ns, event, Source::Enforced);
        }
        enforced.clear_events();
    }
}

/// Returns true if a packet to an undeclared port may be sent by the initiator of a FIX connection.
///
/// If the capture does not say the direction, the service is at the lower port.
fn is_sent(headers: &Headers<'_>) -> bool {
    let starts_fix = headers.payload.first() == Some(&SIGNATURE[0]);
    let (local, remote) = (u16::from_be(headers.key.local_port), u16::from_be(headers.key.remote_port));
    match headers.direction {
        _ if !starts_fix => false,
        Direction::Outbound => true,
        Direction::Inbound => false,
        Direction::Unknown => local >= remote || headers.segment.flags & (SYN | FIN) == SYN,
    }
}
