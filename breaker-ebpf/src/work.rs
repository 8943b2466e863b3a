//! What one packet needs while it is judged, in per-CPU memory: the hook runs with softirqs off, so no other packet comes between.
//!
//! The walk and the limits are *global* functions, which the verifier checks once each and not once a caller and iteration.

use core::hint::{black_box, cold_path};

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, PerCpuHashMap},
};
use breaker_common::abi::{
    Connection, Counters, Event, SCOPES_PER_SESSION, Session, Target, Trip, UnseenKey, cause, flag, identity, kind,
    reason,
};
use breaker_common::class::{self, Class};
use breaker_common::decide::{AtPlace, HOST, Past, Segment, Switches, Verdict, World};
use breaker_common::fix::MsgType;
use breaker_common::inbound::Inbound;
use breaker_common::limits::{self, Attempt, Charge, Concern, Marks, Passed, Rise, SharedScope};
use breaker_common::stream::{self, Framing, Tally, sync};
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
pub struct Work {
    /// What the headers say.
    pub packet: Packet,
    /// What the segment has brought.
    pub tally: Tally,
    /// A connection about to be made,
    pub connection: Connection,
    /// and what comes in on one.
    pub inbound: Inbound,
    marks: Marks,
    /// The clock, where it was read for its limits; else 0.
    now: u64,
    /// The limit that was passed.
    passed: Passed,
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
    /// What the sessions at a shared place tell: [`at_place`].
    at_place: AtPlace,
    /// [`Context::hops`] of a segment that may open a connection.
    pub hops: u32,
}

#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

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
pub fn account(session: u32, verdict: Verdict, tally: &Tally) {
    if let Some(counters) = COUNTERS.get_ptr_mut(session) {
        // SAFETY: this CPU's own value.
        unsafe { (*counters).count(verdict, tally) };
    }
}

/// Counts what came in for a session.
#[inline(always)]
pub fn account_inbound(session: u32, tally: &Tally) {
    if let Some(counters) = COUNTERS.get_ptr_mut(session) {
        // SAFETY: this CPU's own value.
        unsafe { (*counters).count_in(tally) };
    }
}

impl Work {
    /// The work area of this CPU.
    #[inline(always)]
    pub fn of_this_cpu() -> Option<&'static mut Self> {
        // SAFETY: this CPU's own value, and one packet at a time.
        WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }

    /// From here on all is about this session.
    #[inline(always)]
    pub fn enter(&mut self, session: u32) {
        self.session = session;
    }

    /// Whether anything but the class of a message is looked for in this segment, or a class is the session's own opinion.
    #[inline(always)]
    fn looks_closer(&self) -> bool {
        self.any | self.orders | self.incoming | self.overrides != 0
    }

    /// Clears it for a packet.
    #[inline(always)]
    pub fn begin(&mut self, incoming: bool) {
        // By words: what clears memory otherwise is a loop over bytes.
        let tally = (&raw mut self.tally).cast::<u64>();
        for i in 0..size_of::<Tally>() / size_of::<u64>() {
            // SAFETY: inside the tally, whose words may all be zero.
            unsafe { tally.add(i).write_volatile(0) };
        }
        (self.incoming, self.now) = (incoming as u32, 0);
    }
}

/// A packet under judgement.
pub struct Run<'a, C> {
    /// The packet.
    pub context: C,
    /// The work area.
    pub work: &'a mut Work,
}

impl<C: Context> Charge for Run<'_, C> {
    #[inline(always)]
    fn attempt(&mut self, session: &Session) -> Attempt {
        match attempt(self.work, session) {
            NOBODY => Attempt::Nobody,
            NEAR => Attempt::Near,
            unsettled => Attempt::Taken(unsettled),
        }
    }

    #[inline(always)]
    fn look(&mut self, session: &Session) -> Option<Passed> {
        (look(self.work, session) != 0).then_some(self.work.passed)
    }

    #[inline(always)]
    fn take(&mut self, session: &Session) -> u64 {
        take(self.work, session)
    }

    #[inline(always)]
    fn settle(&mut self, session: &Session, unsettled: u64) -> Option<Passed> {
        (settle(self.work, session, unsettled) != 0).then_some(self.work.passed)
    }
}

impl<C: Context> World for Run<'_, C> {
    type Session = &'static Session;

    #[inline(always)]
    fn session(&mut self, number: u32) -> Option<&'static Session> {
        self.work.enter(number);
        let session = connection::session(number, self.work.side)?;
        self.work.overrides = session.override_count;
        Some(session)
    }

    #[inline(always)]
    fn session_at(&mut self, place: u32, ids: [u32; 4]) -> u32 {
        connection::session_at(place, ids, self.work.side)
    }

    #[inline(always)]
    fn at_place(&mut self, place: u32) -> AtPlace {
        let Target::Shared { place, .. } = Target::unpack(place) else { return AtPlace::default() };
        at_place(self.work, place);
        self.work.at_place
    }

    #[inline(always)]
    fn undeclared(&mut self) -> u32 {
        connection::undeclared(self.work.side)
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
    fn past(&mut self, session: &Session) -> Past {
        let mut past = Past { raised_ns: 0, resets: 0 };
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
    fn tally(&mut self) -> &mut Tally {
        &mut self.work.tally
    }

    #[inline(always)]
    fn walk(&mut self, framing: &mut Framing, (from, to): (u32, u32), longest: u32, (any, orders): (u32, u32)) {
        (self.work.any, self.work.orders, self.work.longest) = (any, orders, longest);
        // Few whole messages are the common case; the loops are for the others.
        let mut at = self.context.hop(self.work, framing, from, to);
        if at < to {
            cold_path();
            at = self.context.walk(self.work, framing, at, to);
        }
        if at == to && framing.skip != 0 && framing.synced == sync::YES {
            cold_path();
            at = self.context.overrun(self.work, framing, from, to);
            if at < to {
                at = self.context.walk(self.work, framing, at, to);
            }
        }
        if at < to {
            cold_path();
            framing.unreadable((at, to), &mut self.work.tally);
        }
    }

    #[inline(always)]
    fn trip(&mut self, scope: u32, cause: u64, passed: Passed) {
        trip(self.work, scope, cause, passed.limit, passed.used);
    }

    #[inline(always)]
    fn tell(&mut self, kind: u32, scope: u32, count: u32) {
        tell(self.work, kind, scope, count);
    }

    #[inline(always)]
    fn silence(&mut self, session: &Session) -> Option<bool> {
        if session.flags & flag::MINDS_SILENCE == 0 {
            return None;
        }
        let (beat, most, trips) = connection::heartbeat(self.work.side)?;
        // SAFETY: a helper without arguments. It is a few ms behind at most, and costs a quarter of the exact one.
        let now = unsafe { bpf_ktime_get_coarse_ns() };
        (now.wrapping_sub(beat) as i64 > most as i64).then_some(trips)
    }

    #[inline(always)]
    fn tell_silence(&mut self) {
        tell_silence(self.work);
    }

    #[inline(always)]
    fn fence(&mut self, scope: u32, raised: u64, resets: u64) {
        fence(self.work, scope, raised, resets);
    }

    #[inline(always)]
    fn note_withheld(&mut self, scope: u32) {
        if let Some(scope) = scope::get(scope, 0) {
            // SAFETY: a helper without arguments.
            scope.set_withheld(unsafe { bpf_ktime_get_coarse_ns() });
        }
    }

    #[inline(always)]
    fn isolated(&mut self, scope: u32, resets: u64) -> bool {
        scope::get(scope, 0).is_some_and(|scope| limits::isolated(&scope, resets))
    }

    #[inline(always)]
    fn fill(&mut self, session: &Session, fills: u64) {
        limits::fill(&OnSide(self.work.side), session, fills);
    }
}

/// What a global function was given a pointer to. To the verifier it may be null, and is no pointer to add to before that is ruled
/// out. The compiler would add first; the black box keeps it behind the comparison.
#[inline(always)]
pub fn present<T>(part: *mut T) -> Option<&'static mut T> {
    if part.is_null() {
        cold_path();
        return None;
    }
    // SAFETY: a part of the work area of this CPU, for one packet at a time.
    Some(unsafe { &mut *black_box(part) })
}

/// [`hop`], and where that gets no further [`walk_some`], up to [`CALLS`] times. Returns where that got to. A global function.
#[inline(always)]
pub fn walk(context: impl Context, work: *mut Work, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let mut at = from;
    let mut call = 0;
    while call < CALLS && at < to {
        let next = context.hop(work, framing, at, to);
        at = if next == at { context.walk_some(work, framing, at, to) } else { next };
        call += 1;
    }
    at
}

/// [`Framing::hop`], over up to [`Access::hops_at_once`](crate::context::Access::hops_at_once) messages, where nothing is looked for in the segment. A global function.
#[inline(always)]
pub fn hop(context: impl Context, work: *mut Work, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let (Some(work), Some(framing)) = (present(work), present(framing)) else { return to };
    if work.looks_closer() {
        cold_path();
        return from;
    }
    let mut payload = InPacket { context, start: work.packet.payload };
    framing.hop(&mut payload, (from, to), (context.hops_at_once(), work.longest), class::of_one, &mut work.tally)
}

/// [`Framing::step`], up to [`STEPS`] times, or [`FEW`] where others may be hopped over again. A global function.
#[inline(always)]
pub fn walk_some(context: impl Context, work: *mut Work, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let (Some(checked), Some(follows)) = (present(work), present(framing)) else { return to };
    let most = if checked.looks_closer() { STEPS } else { FEW };
    let mut at = from;
    let mut taken = 0;
    while taken < STEPS && taken < most && at < to {
        at = match follows.synced {
            sync::YES => context.step(work, framing, at, to),
            _ => {
                let found = context.pass_over(work, at, to);
                context.take_up(work, framing, found, to)
            }
        };
        taken += 1;
    }
    at
}

/// [`Framing::step`]. A global function.
#[inline(always)]
pub fn step(context: impl Context, work: *mut Work, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let (Some(work), Some(framing)) = (present(work), present(framing)) else { return to };
    let mut payload = InPacket { context, start: work.packet.payload };
    let (number, side, overrides) = (work.session, work.side, work.overrides);
    let (any, orders, incoming) = (work.any, work.orders, work.incoming);
    let kind_of = |msg_type: MsgType| {
        if incoming != 0 {
            return class::incoming(msg_type);
        }
        let class = if overrides != 0 {
            unpack_class(class_in(number, side, msg_type.0))
        } else {
            (class::of(msg_type), false)
        };
        stream::outgoing(msg_type, class, any, orders)
    };
    framing.step(&mut payload, (from, to), work.longest, kind_of, &mut work.tally)
}

/// [`Tally::pass_over`]. A global function: in one with [`take_up`] it would take more stack than 6.1 has for a chain of calls.
#[inline(always)]
pub fn pass_over(context: impl Context, work: *mut Work, from: u32, to: u32) -> u32 {
    let Some(work) = present(work) else { return to };
    let mut payload = InPacket { context, start: work.packet.payload };
    work.tally.pass_over(&mut payload, (from, to))
}

/// [`Framing::take_up`]. A global function.
#[inline(always)]
pub fn take_up(context: impl Context, work: *mut Work, framing: *mut Framing, found: u32, to: u32) -> u32 {
    let (Some(work), Some(framing)) = (present(work), present(framing)) else { return to };
    let mut payload = InPacket { context, start: work.packet.payload };
    framing.take_up(&mut payload, (found, to), work.longest, &mut work.tally)
}

/// [`Framing::overrun`]. A global function.
#[inline(always)]
pub fn overrun(context: impl Context, work: *mut Work, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let (Some(work), Some(framing)) = (present(work), present(framing)) else { return to };
    let mut payload = InPacket { context, start: work.packet.payload };
    framing.overrun(&mut payload, (from, to), work.longest, &mut work.tally)
}

/// Puts together what the sessions at a shared place tell.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn at_place(work: *mut Work, place: u32) -> u32 {
    let Some(work) = present(work) else { return 0 };
    work.at_place = AtPlace { causes: 0, raised_ns: 0 };
    let mut i = 0;
    while i < identity::MOST_AT_PLACE {
        let number = connection::session_at(place, [identity::LISTED, i, black_box(0), black_box(0)], work.side);
        if number == 0 {
            break;
        }
        add_session(work, number);
        i += 1;
    }
    i
}

/// Adds what a session's scopes tell.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn add_session(work: *mut Work, number: u32) -> u32 {
    let Some(work) = present(work) else { return 0 };
    let Some(session) = connection::session(number, work.side) else { return 0 };
    let mut i = 0;
    while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
        if let Some(scope) = scope::get(session.scopes[i], 0) {
            let switch = scope.switch();
            work.at_place.raised_ns = work.at_place.raised_ns.max(switch.raised_ns);
            work.at_place.causes |= switch.causes;
        }
        i += 1;
    }
    0
}

/// [`stream::class_in`] as a word: see [`unpack_class`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn class_in(session: u32, side: u32, msg_type: u64) -> u64 {
    let Some(session) = connection::session(session, side) else { return Class::Order as u64 };
    let (class, own) = stream::class_in(session, MsgType(msg_type));
    class as u64 | (own as u64) << 8
}

/// A class and whether it is the session's own opinion.
#[inline(always)]
fn unpack_class(word: u64) -> (Class, bool) {
    (Class::from_code(word & 0xff), word >> 8 != 0)
}

/// [`Attempt`] as a word: no set of limits is one of these.
const NOBODY: u64 = u64::MAX;
const NEAR: u64 = u64::MAX - 1;

/// [`limits::attempt`]. Its two halves are functions of their own: up to 6.1 the verifier follows the second one anew for every way
/// through the first.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn attempt(work: *mut Work, session: *const Session) -> u64 {
    let (Some(checked), Some(declared)) = (present(work), present(session.cast_mut())) else { return NOBODY };
    match limits::mark(&OnSide(checked.side), declared, &mut checked.marks, &checked.tally) {
        Concern::Nobody => NOBODY,
        Concern::Near => NEAR,
        Concern::Calm => take_calm(work, session),
    }
}

/// [`limits::take_calm`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_calm(work: *mut Work, session: *const Session) -> u64 {
    let (Some(work), Some(session)) = (present(work), present(session.cast_mut())) else { return 0 };
    let read = &raw mut work.now;
    // SAFETY: a field of the work area. In memory each time, where the verifier forgets whether it was read.
    let clock = || unsafe {
        if read.read_volatile() == 0 {
            read.write_volatile(now());
        }
        read.read_volatile()
    };
    limits::take_calm(&OnSide(work.side), session, &mut work.marks, &work.tally, clock)
}

/// [`limits::look`]: 1 where one is passed, which is in the work area then.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look(work: *mut Work, session: *const Session) -> u32 {
    let (Some(work), Some(session)) = (present(work), present(session.cast_mut())) else { return 0 };
    let Some(passed) = limits::look(&OnSide(work.side), session, &mut work.marks, &work.tally, now) else { return 0 };
    work.passed = passed;
    1
}

/// [`limits::take`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take(work: *mut Work, session: *const Session) -> u64 {
    let (Some(work), Some(session)) = (present(work), present(session.cast_mut())) else { return 0 };
    limits::take(&OnSide(work.side), session, &mut work.marks, &work.tally)
}

/// [`limits::settle`] for each of these limits: 1 where one is passed; the first such is in the work area then.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle(work: *mut Work, session: *const Session, unsettled: u64) -> u32 {
    let Some(work) = present(work) else { return 0 };
    work.passed.used = 0;
    limits::each_unsettled(unsettled, |i, raced| {
        settle_one(work, session, i as u32, raced as u32);
    });
    (work.passed.used != 0) as u32
}

/// [`limits::settle`] of the limit at this position among the session's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle_one(work: *mut Work, session: *const Session, i: u32, raced: u32) -> u32 {
    let (Some(work), Some(session)) = (present(work), present(session.cast_mut())) else { return 0 };
    let Some(meter) = session.meters.get(i as usize) else { return 0 };
    let number = meter.scope;
    let rose = |rise: Rise| {
        warn(&raw const *work, number, rise.limit, rise.level, rise.used);
    };
    let (limit, segment) = ((i as usize, meter, raced != 0), (&work.marks, &work.tally));
    if let Some(passed) = limits::settle(&OnSide(work.side), limit, segment, now, rose)
        && work.passed.used == 0
    {
        work.passed = passed;
    }
    0
}

/// An event about a warning level that rose.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn warn(work: *const Work, scope: u32, limit: u32, level: u64, used: u64) -> u32 {
    let Some(work) = present(work.cast_mut()) else { return 0 };
    let kind = if level == EXCEEDED { kind::WOULD_TRIP } else { kind::WARNED };
    let told = event::new(kind, scope, work.session, work.packet.key);
    event::send(&Event { limit, used, level: level as u32, ..told });
    0
}

/// [`limits::trip`], and an event where the cause is new.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trip(work: *mut Work, number: u32, cause: u64, limit: u32, used: u64) -> u32 {
    let Some(work) = present(work) else { return 0 };
    let Some(scope) = scope::get(number, work.side) else { return 0 };
    let told = event::new(kind::TRIPPED, number, work.session, work.packet.key);
    if limits::trip(&scope, Trip { at_ns: told.at_ns, cause, limit, session: work.session, used }) {
        event::send(&Event { limit, cause, used, ..told });
    }
    0
}

/// An event about the connection.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell(work: *mut Work, kind: u32, scope: u32, count: u32) -> u32 {
    let Some(work) = present(work) else { return 0 };
    let told = event::new(kind, scope, work.session, work.packet.key);
    event::send(&Event { used: count as u64, ..told });
    0
}

/// An event about the agent's silence, once a heartbeat.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_silence(work: *mut Work) -> u32 {
    let Some(work) = present(work) else { return 0 };
    let (Some((beat, ..)), Some(host)) = (connection::heartbeat(work.side), scope::get(HOST, 0)) else { return 0 };
    // SAFETY: a word of a map value; what is exchanged is one more than the heartbeat, for a load's own may be 0.
    let told = unsafe { crate::atomic::swap(host.silent(), beat.wrapping_add(1)) };
    if told != beat.wrapping_add(1) {
        event::send(&Event { cause: cause::DEADMAN, ..event::new(kind::SILENT, HOST, work.session, work.packet.key) });
    }
    0
}

/// [`limits::fence`], and an event where it isolates.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fence(work: *mut Work, number: u32, raised: u64, resets: u64) -> u32 {
    let (Some(work), Some(scope)) = (present(work), scope::get(number, 0)) else { return 0 };
    if limits::fence(&scope, now(), raised, resets) {
        event::send(&event::new(kind::ISOLATED, number, work.session, work.packet.key));
    }
    0
}
