//! What one packet needs while it is judged, in per-CPU memory: the hook runs with softirqs off, so no other packet comes between.
//!
//! The walk and the limits are *global* functions, which the verifier checks once each and not once a caller and iteration.

use core::hint::black_box;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::{macros::map, maps::PerCpuArray};
use breaker_common::abi::{Connection, Counters, Event, SCOPES_PER_SESSION, Session, Trip, kind, reason};
use breaker_common::class::{self, Class};
use breaker_common::decide::{Switches, Verdict, World};
use breaker_common::fix::MsgType;
use breaker_common::limits::{self, Charge, Marks, Passed, Rise, SharedScope};
use breaker_common::stream::{self, Framing, Fresh, Tally};
use breaker_common::window::EXCEEDED;

use crate::packet::Packet;
use crate::payload::SkbPayload;
use crate::{connection, event, scope};

/// Messages that one call of the walk hops over, and calls a segment: 16,384 messages, more than the largest skb can hold of
/// anything but the very shortest.
const STEPS: u32 = 64;
const CALLS: u32 = 256;

/// See the module.
#[repr(C)]
pub struct Work {
    /// What the headers say.
    pub packet: Packet,
    /// What the segment has brought.
    pub tally: Tally,
    /// A connection about to be made.
    pub connection: Connection,
    marks: [Marks; SCOPES_PER_SESSION],
    session: u32,
    pad: u32,
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

/// Counts a segment of a session and the messages in it.
#[inline(always)]
pub fn account(session: u32, verdict: Verdict, tally: &Tally) {
    if let Some(counters) = COUNTERS.get_ptr_mut(session) {
        // SAFETY: this CPU's own value.
        unsafe { (*counters).count(verdict, tally) };
    }
}

impl Work {
    /// The work area of this CPU.
    #[inline(always)]
    pub fn of_this_cpu() -> Option<&'static mut Self> {
        // SAFETY: this CPU's own value, and one packet at a time.
        WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }

    /// Clears it for a packet of a session.
    #[inline(always)]
    pub fn begin(&mut self, session: u32) {
        self.tally = Tally { messages: [0; 8], desyncs: 0, repeated: 0, unread: 0, pad: 0 };
        self.session = session;
    }
}

/// A packet under judgement.
pub struct Run<'a> {
    /// The packet.
    pub skb: *mut __sk_buff,
    /// The work area.
    pub work: &'a mut Work,
}

impl Charge for Run<'_> {
    #[inline(always)]
    fn now(&mut self) -> u64 {
        now()
    }

    #[inline(always)]
    fn mark(&mut self, position: usize, scope: u32) {
        if let (Some(scope), Some(marks)) = (scope::get(scope), self.work.marks.get_mut(position)) {
            limits::mark(&scope, marks, &self.work.tally);
        }
    }

    #[inline(always)]
    fn concerned(&self, position: usize) -> bool {
        // SAFETY: a field of this CPU's own value.
        self.work.marks.get(position).is_some_and(|marks| unsafe { (&raw const marks.concerned).read_volatile() } != 0)
    }

    #[inline(always)]
    fn look(&mut self, position: usize, scope: u32, now: u64) -> Option<Passed> {
        unpack(look(self.work, position as u32, scope, now))
    }

    #[inline(always)]
    fn take(&mut self, position: usize, scope: u32, now: u64) -> Option<Passed> {
        unpack(take(self.work, position as u32, scope, now))
    }
}

impl World for Run<'_> {
    #[inline(always)]
    fn switches(&mut self, session: &Session) -> Switches {
        let mut sum = Switches { epoch: 0, causes: 0 };
        let mut i = 0;
        while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
            if let Some(scope) = scope::get(session.scopes[i]) {
                let switch = scope.switch();
                sum.epoch = sum.epoch.wrapping_add(switch.epoch);
                sum.causes |= switch.causes;
            }
            i += 1;
        }
        sum
    }

    #[inline(always)]
    fn armed(&mut self, scope: u32) -> bool {
        scope::get(scope).is_some_and(|scope| scope.armed())
    }

    #[inline(always)]
    fn tally(&mut self) -> &mut Tally {
        &mut self.work.tally
    }

    #[inline(always)]
    fn walk(&mut self, _: &Session, framing: &mut Framing, fresh: &Fresh) {
        let mut payload = SkbPayload { skb: self.skb, start: self.work.packet.payload };
        framing.resync(&mut payload, fresh);
        // One message is the common case; the loops are for more.
        let mut at = step(self.skb, self.work, framing, fresh.from, fresh.to);
        if at < fresh.to {
            at = walk(self.skb, self.work, framing, at, fresh.to);
        }
        if at < fresh.to {
            framing.lose(fresh.to, &mut self.work.tally);
        }
    }

    #[inline(always)]
    fn trip(&mut self, scope: u32, cause: u64, passed: Passed) {
        trip(self.work, scope, cause, passed.limit, passed.used);
    }

    #[inline(always)]
    fn tell(&mut self, kind: u32, scope: u32) {
        tell(self.work, kind, scope);
    }
}

/// What a global function was given a pointer to. To the verifier it may be null, and is no pointer to add to before that is ruled
/// out. The compiler would add first; the black box keeps it behind the comparison.
#[inline(always)]
pub fn present<T>(part: *mut T) -> Option<&'static mut T> {
    if part.is_null() {
        return None;
    }
    // SAFETY: a part of the work area of this CPU, for one packet at a time.
    Some(unsafe { &mut *black_box(part) })
}

/// [`Framing::step`], up to [`CALLS`] times [`STEPS`] times. Returns where that got to.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk(skb: *mut __sk_buff, work: *mut Work, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let mut at = from;
    let mut call = 0;
    while call < CALLS && at < to {
        at = walk_some(skb, work, framing, at, to);
        call += 1;
    }
    at
}

/// [`Framing::step`], up to [`STEPS`] times.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_some(skb: *mut __sk_buff, work: *mut Work, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let mut at = from;
    let mut taken = 0;
    while taken < STEPS && at < to {
        at = step(skb, work, framing, at, to);
        taken += 1;
    }
    at
}

/// [`Framing::step`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step(skb: *mut __sk_buff, work: *mut Work, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let (Some(work), Some(framing)) = (present(work), present(framing)) else { return to };
    let mut payload = SkbPayload { skb, start: work.packet.payload };
    let number = work.session;
    let overrides = connection::session(number).is_some_and(|session| session.override_count != 0);
    let class_of = |msg_type: MsgType| {
        if overrides { Class::from_code(class_in(number, msg_type.0)) } else { class::of(msg_type) }
    };
    framing.step(&mut payload, from, to, class_of, &mut work.tally)
}

/// [`stream::class_in`] as a code: the class of a type in a session that has its own opinion of some.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn class_in(session: u32, msg_type: u64) -> u64 {
    let Some(session) = connection::session(session) else { return Class::Order as u64 };
    stream::class_in(session, MsgType(msg_type)) as u64
}

/// [`limits::look`] as a word: see [`unpack`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look(work: *mut Work, position: u32, scope: u32, now: u64) -> u64 {
    let Some(work) = present(work) else { return 0 };
    let (Some(scope), Some(marks)) = (scope::get(scope), work.marks.get_mut(position as usize)) else { return 0 };
    pack(limits::look(&scope, marks, &work.tally, now))
}

/// [`limits::take`] as a word: see [`unpack`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take(work: *mut Work, position: u32, number: u32, at: u64) -> u64 {
    let Some(work) = present(work) else { return 0 };
    let (Some(scope), Some(marks)) = (scope::get(number), work.marks.get(position as usize)) else { return 0 };
    let rose = |rise: Rise| {
        warn(&raw const *work, number, rise.limit, rise.level, rise.used);
    };
    pack(limits::take(&scope, marks, &work.tally, at, now, rose))
}

/// A passed limit as one word, 0 for none: used in the upper bits, position + 1 in the lower three.
#[inline(always)]
fn pack(passed: Option<Passed>) -> u64 {
    passed.map_or(0, |passed| passed.used << 3 | (passed.limit as u64 + 1) & 7)
}

#[inline(always)]
fn unpack(word: u64) -> Option<Passed> {
    (word != 0).then_some(Passed { limit: ((word & 7) as u32).wrapping_sub(1), used: word >> 3 })
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
    let Some(scope) = scope::get(number) else { return 0 };
    let told = event::new(kind::TRIPPED, number, work.session, work.packet.key);
    if limits::trip(&scope, Trip { at_ns: told.at_ns, cause, limit, session: work.session, used }) {
        event::send(&Event { limit, cause, used, ..told });
    }
    0
}

/// An event about the connection.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell(work: *mut Work, kind: u32, scope: u32) -> u32 {
    let Some(work) = present(work) else { return 0 };
    event::send(&event::new(kind, scope, work.session, work.packet.key));
    0
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}
