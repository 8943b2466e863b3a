//! What one packet needs while it is judged, in per-CPU memory: the hook runs with softirqs off, so no other packet comes between.
//!
//! The walk and the limits are *global* functions, which the verifier checks once each and not once a caller and iteration.

use core::hint::{black_box, cold_path};

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, PerCpuHashMap},
};
use breaker_common::abi::Inbound;
use breaker_common::abi::{
    Connection, Counters, Event, SCOPES_PER_SESSION, Session, Target, Trip, UnseenKey, cause, flag, identity,
    kind, reason,
};
use breaker_common::abi::{Framing, sync};
use breaker_common::class::{self};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::{Env, HOST, ScopeHistory, Segment, SharedEndpointState, Switches, Verdict};
use breaker_common::fix::MsgType;
use breaker_common::limits::{
    self, Attempt, Charge, LimitExceeded, PendingCharge, Precheck, SharedScope, WarningRaised,
};
use breaker_common::message::Class;
use breaker_common::window::EXCEEDED;

use crate::context::Context;
use crate::packet::Packet;
use crate::payload::InPacket;
use crate::scope::OnSide;
use crate::{connection, event, now, scope};

/// Steps of the walk that a call takes where all messages must be looked at more closely, and where one may be among others,
const STEPS: u32 = 64;
const FEW: u32 = 16;
/// and calls a segment: 4,352 messages at the very least, where every 17th is of the common kind; 16,384 where all are, 6,144 of a frame.
const CALLS: u32 = 512;

/// See the module.
#[repr(C)]
pub struct Scratch {
    /// What the headers say.
    pub packet: Packet,
    /// What the segment has brought.
    pub counts: SegmentCounts,
    /// A connection about to be made,
    pub connection: Connection,
    /// and what comes in on one.
    pub inbound: Inbound,
    pending: PendingCharge,
    /// The clock, where it was read for its limits; else 0.
    now: u64,
    /// The limit that was passed.
    exceeded: LimitExceeded,
    session: u32,
    /// The policy that judges it: [`connection::in_force`].
    pub side: u32,
    /// What is looked for in every message, and in orders.
    any: u32,
    orders: u32,
    /// 1 where it comes in.
    incoming: u32,
    /// Types that its session classifies for itself.
    overrides: u32,
    /// Bytes of the longest message that is believed.
    longest: u32,
    /// What the sessions at a shared place tell: [`shared_endpoint_state`].
    shared_endpoint_state: SharedEndpointState,
    /// [`Context::hops`] of a segment that may open a connection.
    pub hops: u32,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(reason::NAMES.len() as u32, 0);

/// Counts a way out.
#[inline(always)]
pub fn count(reason: u32) {
    if let Some(counter) = REASONS.get_ptr_mut(reason) {
        // SAFETY: this CPU's own value.
        unsafe { *counter += 1 };
    }
}

/// Packets that passed unread, by interface and kind.
#[map]
static UNSEEN: PerCpuHashMap<UnseenKey, u64> = PerCpuHashMap::with_max_entries(256, 0);

/// Counts a packet that passes unread.
#[inline(always)]
pub fn count_unseen(ifindex: u32, kind: u32) {
    let key = UnseenKey { ifindex, kind };
    match UNSEEN.get_ptr_mut(&key) {
        // SAFETY: this CPU's own value.
        Some(counter) => unsafe { *counter += 1 },
        // With no room it is counted by its reason alone.
        None => drop(UNSEEN.insert(&key, &1, 0)),
    }
}

/// Counts a segment of a session and the messages in it.
#[inline(always)]
pub fn count_segment(session: u32, verdict: Verdict, counts: &SegmentCounts) {
    if let Some(counters) = COUNTERS.get_ptr_mut(session) {
        // SAFETY: this CPU's own value.
        unsafe { (*counters).count(verdict, counts) };
    }
}

/// Counts what came in for a session.
#[inline(always)]
pub fn count_inbound(session: u32, counts: &SegmentCounts) {
    if let Some(counters) = COUNTERS.get_ptr_mut(session) {
        // SAFETY: this CPU's own value.
        unsafe { (*counters).count_inbound(counts) };
    }
}

impl Scratch {
    /// The work area of this CPU.
    #[inline(always)]
    pub fn this_cpu() -> Option<&'static mut Self> {
        // SAFETY: this CPU's own value, and one packet at a time.
        SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
    }

    /// From here on all is about this session.
    #[inline(always)]
    pub fn set_session(&mut self, session: u32) {
        self.session = session;
    }

    /// Whether anything but the class of a message is looked for in this segment, or a class is the session's own opinion.
    #[inline(always)]
    fn needs_fields(&self) -> bool {
        self.any | self.orders | self.incoming | self.overrides != 0
    }

    /// Clears it for a packet.
    #[inline(always)]
    pub fn clear(&mut self, incoming: bool) {
        // By words: what clears memory otherwise is a loop over bytes.
        let counts = (&raw mut self.counts).cast::<u64>();
        for i in 0..size_of::<SegmentCounts>() / size_of::<u64>() {
            // SAFETY: inside the tally, whose words may all be zero.
            unsafe { counts.add(i).write_volatile(0) };
        }
        (self.incoming, self.now) = (incoming as u32, 0);
    }
}

/// A packet under judgement.
pub struct PacketEnv<'a, C> {
    /// The packet.
    pub context: C,
    /// The work area.
    pub scratch: &'a mut Scratch,
}

impl<C: Context> Charge for PacketEnv<'_, C> {
    #[inline(always)]
    fn try_charge(&mut self, session: &Session) -> Attempt {
        match try_charge(self.scratch, session) {
            NOT_COUNTED => Attempt::NotCounted,
            NEAR_LIMIT => Attempt::NearLimit,
            uncommitted => Attempt::Charged(uncommitted),
        }
    }

    #[inline(always)]
    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded> {
        (find_exceeded(self.scratch, session) != 0).then_some(self.scratch.exceeded)
    }

    #[inline(always)]
    fn take_tickets(&mut self, session: &Session) -> u64 {
        take(self.scratch, session)
    }

    #[inline(always)]
    fn commit(&mut self, session: &Session, uncommitted: u64) -> Option<LimitExceeded> {
        (commit(self.scratch, session, uncommitted) != 0).then_some(self.scratch.exceeded)
    }
}

impl<C: Context> Env for PacketEnv<'_, C> {
    type Session = &'static Session;

    #[inline(always)]
    fn session(&mut self, number: u32) -> Option<&'static Session> {
        self.scratch.set_session(number);
        let session = connection::session(number, self.scratch.side)?;
        self.scratch.overrides = session.override_count;
        Some(session)
    }

    #[inline(always)]
    fn session_by_comp_ids(&mut self, place: u32, ids: [u32; 4]) -> u32 {
        connection::session_by_comp_ids(place, ids, self.scratch.side)
    }

    #[inline(always)]
    fn shared_endpoint_state(&mut self, word: u32) -> SharedEndpointState {
        let Target::Shared { endpoint, .. } = Target::unpack(word) else {
            return SharedEndpointState::default();
        };
        shared_endpoint_state(self.scratch, endpoint);
        self.scratch.shared_endpoint_state
    }

    #[inline(always)]
    fn undeclared(&mut self) -> u32 {
        connection::undeclared(self.scratch.side)
    }

    #[inline(always)]
    fn switches(&mut self, session: &Session) -> Switches {
        let mut sum = Switches { epoch: 0, causes: 0 };
        let mut i = 0;
        while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
            if let Some(scope) = scope::get(session.scopes[i], 0) {
                let (epoch, causes) = scope.epoch_and_causes();
                sum.epoch = sum.epoch.wrapping_add(epoch);
                sum.causes |= causes;
            }
            i += 1;
        }
        sum
    }

    #[inline(always)]
    fn history(&mut self, session: &Session) -> ScopeHistory {
        let mut past = ScopeHistory { raised_ns: 0, resets: 0 };
        let mut i = 0;
        while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
            if let Some(scope) = scope::get(session.scopes[i], 0) {
                let switch = scope.switch();
                past.raised_ns = past.raised_ns.max(switch.raised_ns);
                past.resets = past.resets.wrapping_add(switch.resets);
            }
            i += 1;
        }
        past
    }

    #[inline(always)]
    fn armed(&mut self, scope: u32) -> bool {
        scope::get(scope, 0).is_some_and(|scope| scope.armed())
    }

    #[inline(always)]
    fn now(&mut self) -> u64 {
        now()
    }

    #[inline(always)]
    fn wire_segments(&mut self, segment: &Segment) -> u32 {
        self.context.segments(segment.length)
    }

    #[inline(always)]
    fn counts(&mut self) -> &mut SegmentCounts {
        &mut self.scratch.counts
    }

    #[inline(always)]
    fn walk(
        &mut self,
        framing: &mut Framing,
        (from, to): (u32, u32),
        longest: u32,
        (any, orders): (u32, u32),
    ) {
        (self.scratch.any, self.scratch.orders, self.scratch.longest) = (any, orders, longest);
        // Few whole messages are the common case; the loops are for the others.
        let mut at = self.context.skip_common(self.scratch, framing, from, to);
        if at < to {
            cold_path();
            at = self.context.walk(self.scratch, framing, at, to);
        }
        if at == to && framing.body_remaining != 0 && framing.sync == sync::IN_SYNC {
            cold_path();
            at = self.context.find_embedded(self.scratch, framing, from, to);
            if at < to {
                at = self.context.walk(self.scratch, framing, at, to);
            }
        }
        if at < to {
            cold_path();
            framing.mark_blind((at, to), &mut self.scratch.counts);
        }
    }

    #[inline(always)]
    fn trip(&mut self, scope: u32, cause: u64, exceeded: LimitExceeded) {
        trip(self.scratch, scope, cause, exceeded.limit, exceeded.used);
    }

    #[inline(always)]
    fn emit(&mut self, kind: u32, scope: u32, count: u32) {
        emit(self.scratch, kind, scope, count);
    }

    #[inline(always)]
    fn heartbeat_lost(&mut self, session: &Session) -> Option<bool> {
        if session.flags & flag::WATCHES_HEARTBEAT == 0 {
            return None;
        }
        let (beat, most, trips) = connection::heartbeat(self.scratch.side)?;
        // SAFETY: a helper without arguments. It is a few ms behind at most, and costs a quarter of the exact one.
        let now = unsafe { bpf_ktime_get_coarse_ns() };
        (now.wrapping_sub(beat) as i64 > most as i64).then_some(trips)
    }

    #[inline(always)]
    fn emit_heartbeat_lost(&mut self) {
        emit_heartbeat_lost(self.scratch);
    }

    #[inline(always)]
    fn record_fence(&mut self, scope: u32, raised: u64, resets: u64) {
        fence(self.scratch, scope, raised, resets);
    }

    #[inline(always)]
    fn set_withheld_time(&mut self, scope: u32) {
        if let Some(scope) = scope::get(scope, 0) {
            // SAFETY: a helper without arguments.
            scope.set_withheld(unsafe { bpf_ktime_get_coarse_ns() });
        }
    }

    #[inline(always)]
    fn is_isolated(&mut self, scope: u32, resets: u64) -> bool {
        scope::get(scope, 0).is_some_and(|scope| limits::is_isolated(&scope, resets))
    }

    #[inline(always)]
    fn record_fills(&mut self, session: &Session, fills: u64) {
        limits::record_fills(&OnSide(self.scratch.side), session, fills);
    }
}

/// What a global function was given a pointer to. To the verifier it may be null, and is no pointer to add to before that is ruled
/// out. The compiler would add first; the black box keeps it behind the comparison.
#[inline(always)]
pub fn non_null<T>(part: *mut T) -> Option<&'static mut T> {
    if part.is_null() {
        cold_path();
        return None;
    }
    // SAFETY: a part of the work area of this CPU, for one packet at a time.
    Some(unsafe { &mut *black_box(part) })
}

/// [`hop`], and where that gets no further [`walk_some`], up to [`CALLS`] times. Returns where that got to. A global function.
#[inline(always)]
pub fn walk(context: impl Context, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let mut at = from;
    let mut call = 0;
    while call < CALLS && at < to {
        let next = context.skip_common(scratch, framing, at, to);
        at = if next == at { context.walk_some(scratch, framing, at, to) } else { next };
        call += 1;
    }
    at
}

/// [`Framing::hop`], over up to [`Access::max_skips`](crate::context::Access::hops_at_once) messages, where nothing is looked for in the segment. A global function.
#[inline(always)]
pub fn skip_common(
    context: impl Context,
    scratch: *mut Scratch,
    framing: *mut Framing,
    from: u32,
    to: u32,
) -> u32 {
    let (Some(scratch), Some(framing)) = (non_null(scratch), non_null(framing)) else { return to };
    if scratch.needs_fields() {
        cold_path();
        return from;
    }
    let mut payload = InPacket { context, start: scratch.packet.payload };
    framing.skip_common(
        &mut payload,
        (from, to),
        (context.max_skips(), scratch.longest),
        class::single_char_class,
        &mut scratch.counts,
    )
}

/// [`Framing::step`], up to [`STEPS`] times, or [`FEW`] where others may be hopped over again. A global function.
#[inline(always)]
pub fn walk_some(
    context: impl Context,
    scratch: *mut Scratch,
    framing: *mut Framing,
    from: u32,
    to: u32,
) -> u32 {
    let (Some(checked), Some(follows)) = (non_null(scratch), non_null(framing)) else { return to };
    let most = if checked.needs_fields() { STEPS } else { FEW };
    let mut at = from;
    let mut taken = 0;
    while taken < STEPS && taken < most && at < to {
        at = match follows.sync {
            sync::IN_SYNC => context.step(scratch, framing, at, to),
            _ => {
                let found = context.skip_to_header(scratch, at, to);
                context.resume_at(scratch, framing, found, to)
            }
        };
        taken += 1;
    }
    at
}

/// [`Framing::step`]. A global function.
#[inline(always)]
pub fn step(context: impl Context, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let (Some(scratch), Some(framing)) = (non_null(scratch), non_null(framing)) else { return to };
    let mut payload = InPacket { context, start: scratch.packet.payload };
    let (number, side, overrides) = (scratch.session, scratch.side, scratch.overrides);
    let (any, orders, incoming) = (scratch.any, scratch.orders, scratch.incoming);
    let kind_of = |msg_type: MsgType| {
        if incoming != 0 {
            return class::inbound_kind(msg_type);
        }
        let class = if overrides != 0 {
            unpack_class(class_in(number, side, msg_type.0))
        } else {
            (class::default_class(msg_type), false)
        };
        class::outbound_kind(msg_type, class, any, orders)
    };
    framing.step(&mut payload, (from, to), scratch.longest, kind_of, &mut scratch.counts)
}

/// [`SegmentCounts::skip_to_header`]. A global function: in one with [`resume_at`] it would take more stack than 6.1 has for a chain of calls.
#[inline(always)]
pub fn skip_to_header(context: impl Context, scratch: *mut Scratch, from: u32, to: u32) -> u32 {
    let Some(scratch) = non_null(scratch) else { return to };
    let mut payload = InPacket { context, start: scratch.packet.payload };
    scratch.counts.skip_to_header(&mut payload, (from, to))
}

/// [`Framing::resume_at`]. A global function.
#[inline(always)]
pub fn resume_at(
    context: impl Context,
    scratch: *mut Scratch,
    framing: *mut Framing,
    found: u32,
    to: u32,
) -> u32 {
    let (Some(scratch), Some(framing)) = (non_null(scratch), non_null(framing)) else { return to };
    let mut payload = InPacket { context, start: scratch.packet.payload };
    framing.resume_at(&mut payload, (found, to), scratch.longest, &mut scratch.counts)
}

/// [`Framing::find_embedded`]. A global function.
#[inline(always)]
pub fn find_embedded(
    context: impl Context,
    scratch: *mut Scratch,
    framing: *mut Framing,
    from: u32,
    to: u32,
) -> u32 {
    let (Some(scratch), Some(framing)) = (non_null(scratch), non_null(framing)) else { return to };
    let mut payload = InPacket { context, start: scratch.packet.payload };
    framing.find_embedded(&mut payload, (from, to), scratch.longest, &mut scratch.counts)
}

/// Puts together what the sessions at a shared place tell.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn shared_endpoint_state(scratch: *mut Scratch, place: u32) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    scratch.shared_endpoint_state = SharedEndpointState { causes: 0, raised_ns: 0 };
    let mut i = 0;
    while i < identity::MAX_SESSIONS_PER_ENDPOINT {
        let number = connection::session_by_comp_ids(
            place,
            [identity::LISTED, i, black_box(0), black_box(0)],
            scratch.side,
        );
        if number == 0 {
            break;
        }
        add_session(scratch, number);
        i += 1;
    }
    i
}

/// Adds what a session's scopes tell.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn add_session(scratch: *mut Scratch, number: u32) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    let Some(session) = connection::session(number, scratch.side) else { return 0 };
    let mut i = 0;
    while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
        if let Some(scope) = scope::get(session.scopes[i], 0) {
            let switch = scope.switch();
            scratch.shared_endpoint_state.raised_ns =
                scratch.shared_endpoint_state.raised_ns.max(switch.raised_ns);
            scratch.shared_endpoint_state.causes |= switch.causes;
        }
        i += 1;
    }
    0
}

/// [`class::session_class`] as a word: see [`unpack_class`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn class_in(session: u32, side: u32, msg_type: u64) -> u64 {
    let Some(session) = connection::session(session, side) else { return Class::Order as u64 };
    let (class, own) = class::session_class(session, MsgType(msg_type));
    class as u64 | (own as u64) << 8
}

/// A class and whether it is the session's own opinion.
#[inline(always)]
fn unpack_class(word: u64) -> (Class, bool) {
    (Class::from_code(word & 0xff), word >> 8 != 0)
}

/// [`Attempt`] as a word: no set of limits is one of these.
const NOT_COUNTED: u64 = u64::MAX;
const NEAR_LIMIT: u64 = u64::MAX - 1;

/// [`limits::try_charge`]. Its two halves are functions of their own: up to 6.1 the verifier follows the second one anew for every way
/// through the first.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn try_charge(scratch: *mut Scratch, session: *const Session) -> u64 {
    let (Some(checked), Some(declared)) = (non_null(scratch), non_null(session.cast_mut())) else {
        return NOT_COUNTED;
    };
    match limits::precheck(&OnSide(checked.side), declared, &mut checked.pending, &checked.counts) {
        Precheck::NotCounted => NOT_COUNTED,
        Precheck::NearLimit => NEAR_LIMIT,
        Precheck::BelowThreshold => charge_below_threshold(scratch, session),
    }
}

/// [`limits::charge_below_threshold`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_below_threshold(scratch: *mut Scratch, session: *const Session) -> u64 {
    let (Some(scratch), Some(session)) = (non_null(scratch), non_null(session.cast_mut())) else { return 0 };
    let read = &raw mut scratch.now;
    // SAFETY: a field of the work area. In memory each time, where the verifier forgets whether it was read.
    let clock = || unsafe {
        if read.read_volatile() == 0 {
            read.write_volatile(now());
        }
        read.read_volatile()
    };
    limits::charge_below_threshold(
        &OnSide(scratch.side),
        session,
        &mut scratch.pending,
        &scratch.counts,
        clock,
    )
}

/// [`limits::find_exceeded`]: 1 where one is passed, which is in the work area then.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_exceeded(scratch: *mut Scratch, session: *const Session) -> u32 {
    let (Some(scratch), Some(session)) = (non_null(scratch), non_null(session.cast_mut())) else { return 0 };
    let Some(exceeded) =
        limits::find_exceeded(&OnSide(scratch.side), session, &mut scratch.pending, &scratch.counts, now)
    else {
        return 0;
    };
    scratch.exceeded = exceeded;
    1
}

/// [`limits::take_tickets`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take(scratch: *mut Scratch, session: *const Session) -> u64 {
    let (Some(scratch), Some(session)) = (non_null(scratch), non_null(session.cast_mut())) else { return 0 };
    limits::take_tickets(&OnSide(scratch.side), session, &mut scratch.pending, &scratch.counts)
}

/// [`limits::commit`] for each of these limits: 1 where one is passed; the first such is in the work area then.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn commit(scratch: *mut Scratch, session: *const Session, uncommitted: u64) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    scratch.exceeded.used = 0;
    limits::for_each_uncommitted(uncommitted, |i, raced| {
        commit_one(scratch, session, i as u32, raced as u32);
    });
    (scratch.exceeded.used != 0) as u32
}

/// [`limits::commit`] of the limit at this position among the session's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn commit_one(scratch: *mut Scratch, session: *const Session, i: u32, raced: u32) -> u32 {
    let (Some(scratch), Some(session)) = (non_null(scratch), non_null(session.cast_mut())) else { return 0 };
    let Some(limit_ref) = session.limit_refs.get(i as usize) else { return 0 };
    let number = limit_ref.scope;
    let raised = |raised_level: WarningRaised| {
        warn(&raw const *scratch, number, raised_level.limit, raised_level.level, raised_level.used);
    };
    let (limit, segment) = ((i as usize, limit_ref, raced != 0), (&scratch.pending, &scratch.counts));
    if let Some(exceeded) = limits::commit(&OnSide(scratch.side), limit, segment, now, raised)
        && scratch.exceeded.used == 0
    {
        scratch.exceeded = exceeded;
    }
    0
}

/// An event about a warning level that rose.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn warn(scratch: *const Scratch, scope: u32, limit: u32, level: u64, used: u64) -> u32 {
    let Some(scratch) = non_null(scratch.cast_mut()) else { return 0 };
    let kind = if level == EXCEEDED { kind::WOULD_TRIP } else { kind::WARNED };
    let event = event::new(kind, scope, scratch.session, scratch.packet.key);
    event::send(&Event { limit, used, level: level as u32, ..event });
    0
}

/// [`limits::trip`], and an event where the cause is new.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trip(scratch: *mut Scratch, number: u32, cause: u64, limit: u32, used: u64) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    let Some(scope) = scope::get(number, scratch.side) else { return 0 };
    let event = event::new(kind::TRIPPED, number, scratch.session, scratch.packet.key);
    if limits::trip(&scope, Trip { at_ns: event.at_ns, cause, limit, session: scratch.session, used }) {
        event::send(&Event { limit, cause, used, ..event });
    }
    0
}

/// An event about the connection.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn emit(scratch: *mut Scratch, kind: u32, scope: u32, count: u32) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    let event = event::new(kind, scope, scratch.session, scratch.packet.key);
    event::send(&Event { used: count as u64, ..event });
    0
}

/// An event about the agent's silence, once a heartbeat.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn emit_heartbeat_lost(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    let (Some((beat, ..)), Some(host)) = (connection::heartbeat(scratch.side), scope::get(HOST, 0)) else {
        return 0;
    };
    // SAFETY: a word of a map value; what is exchanged is one more than the heartbeat, for a load's own may be 0.
    let event = unsafe { crate::atomic::swap(host.heartbeat_reported(), beat.wrapping_add(1)) };
    if event != beat.wrapping_add(1) {
        event::send(&Event {
            cause: cause::DEADMAN,
            ..event::new(kind::HEARTBEAT_LOST, HOST, scratch.session, scratch.packet.key)
        });
    }
    0
}

/// [`limits::record_fence`], and an event where it isolates.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fence(scratch: *mut Scratch, number: u32, raised: u64, resets: u64) -> u32 {
    let (Some(scratch), Some(scope)) = (non_null(scratch), scope::get(number, 0)) else { return 0 };
    if limits::record_fence(&scope, now(), raised, resets) {
        event::send(&event::new(kind::ISOLATED, number, scratch.session, scratch.packet.key));
    }
    0
}
