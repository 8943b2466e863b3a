//! The surroundings of a decision in the kernel: what `breaker_common::decide` asks of maps, clock and
//! packet.

use core::hint::cold_path;

use breaker_common::abi::{Framing, Session, Target, flag};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::{Env, ScopeHistory, Segment, SharedEndpointState, Switches};
use breaker_common::limits::{self, Attempt, Charge, LimitExceeded, SharedScope};

use crate::boundary::Pack;
use crate::clock::{self, coarse_now};
use crate::context::Context;
use crate::scope::OnSide;
use crate::scratch::Scratch;
use crate::{charge, policy, scope, switches};

/// A packet and its scratch memory.
pub struct PacketEnv<'a, C> {
    /// The packet.
    pub context: C,
    /// The scratch memory.
    pub scratch: &'a mut Scratch,
}

impl<C: Context> Charge for PacketEnv<'_, C> {
    #[inline(always)]
    fn try_charge(&mut self, session: &Session) -> Attempt {
        Attempt::unpack(charge::try_charge(self.scratch, session))
    }

    #[inline(always)]
    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded> {
        (charge::find_exceeded(self.scratch, session) != 0).then_some(self.scratch.exceeded)
    }

    #[inline(always)]
    fn take_tickets(&mut self, session: &Session) -> u64 {
        charge::take_tickets(self.scratch, session)
    }

    #[inline(always)]
    fn commit(&mut self, session: &Session, uncommitted: u64) -> Option<LimitExceeded> {
        (charge::commit(self.scratch, session, uncommitted) != 0).then_some(self.scratch.exceeded)
    }
}

impl<C: Context> Env for PacketEnv<'_, C> {
    type Session = &'static Session;

    #[inline(always)]
    fn session(&mut self, number: u32) -> Option<&'static Session> {
        self.scratch.session = number;
        let session = policy::session(number, self.scratch.side)?;
        self.scratch.overrides = session.override_count;
        Some(session)
    }

    #[inline(always)]
    fn session_by_comp_ids(&mut self, endpoint: u32, comp_ids: [u32; 4]) -> u32 {
        policy::session_by_comp_ids(endpoint, comp_ids, self.scratch.side)
    }

    #[inline(always)]
    fn shared_endpoint_state(&mut self, word: u32) -> SharedEndpointState {
        let Target::Shared { endpoint, .. } = Target::unpack(word) else {
            return SharedEndpointState::default();
        };
        switches::shared_endpoint_state(self.scratch, endpoint);
        self.scratch.shared_endpoint_state
    }

    #[inline(always)]
    fn undeclared(&mut self) -> u32 {
        policy::undeclared(self.scratch.side)
    }

    #[inline(always)]
    fn switches(&mut self, session: &Session) -> Switches {
        switches::switches(session)
    }

    #[inline(always)]
    fn history(&mut self, session: &Session) -> ScopeHistory {
        switches::history(session)
    }

    #[inline(always)]
    fn armed(&mut self, scope: u32) -> bool {
        scope::get(scope, 0).is_some_and(|scope| scope.armed())
    }

    #[inline(always)]
    fn now(&mut self) -> u64 {
        clock::now()
    }

    #[inline(always)]
    fn wire_segments(&mut self, segment: &Segment) -> u32 {
        self.context.wire_segments(segment.length)
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
        // The first call reads most segments: they hold few messages, and whole ones.
        let mut at = self.context.skip_common(self.scratch, framing, from, to);
        if at < to {
            cold_path();
            at = self.context.walk(self.scratch, framing, at, to);
        }
        if at == to && framing.claims_more() {
            cold_path();
            at = self.context.find_embedded(self.scratch, framing, from, to);
            if at < to {
                let first = at;
                at = self.context.walk(self.scratch, framing, at, to);
                if at == to && framing.claims_more() {
                    // Everything behind a second wrong length is unread.
                    at = self.context.find_embedded(self.scratch, framing, first, to);
                }
            }
        }
        if at < to {
            cold_path();
            framing.mark_blind((at, to), &mut self.scratch.counts);
        }
    }

    #[inline(always)]
    fn trip(&mut self, scope: u32, cause: u64, exceeded: LimitExceeded) {
        switches::trip(self.scratch, scope, cause, exceeded.limit, exceeded.used);
    }

    #[inline(always)]
    fn emit(&mut self, kind: u32, scope: u32, count: u32) {
        switches::emit(self.scratch, kind, scope, count);
    }

    #[inline(always)]
    fn heartbeat_lost(&mut self, session: &Session) -> Option<bool> {
        if session.flags & flag::WATCHES_HEARTBEAT == 0 {
            return None;
        }
        let (beat, max_age, trips) = policy::heartbeat(self.scratch.side)?;
        (coarse_now().wrapping_sub(beat) as i64 > max_age as i64).then_some(trips)
    }

    #[inline(always)]
    fn emit_heartbeat_lost(&mut self) {
        switches::emit_heartbeat_lost(self.scratch);
    }

    #[inline(always)]
    fn record_fence(&mut self, scope: u32, raised: u64, resets: u64) {
        switches::record_fence(self.scratch, scope, raised, resets);
    }

    #[inline(always)]
    fn set_withheld_time(&mut self, scope: u32) {
        if let Some(scope) = scope::get(scope, 0) {
            scope.set_withheld(coarse_now());
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
