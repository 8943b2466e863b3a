//! Scopes and their rings of send times, in memory that user space shares.
//!
//! User space writes a scope's settings, the kernel writes its windows, and both change its switch by atomic
//! operations only (`abi::Scope`). Both maps are mapped into user space, so a write there changes one word
//! and no neighbour.

use core::hint::cold_path;
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::{macros::map, maps::Array};
use breaker_common::abi::{Fences, LIMITS_PER_SCOPE, Limit, RingLayout, SIDES, Scope, Switch, Trip, Window};
use breaker_common::limits::{Scopes, SharedScope};
use breaker_common::window::{self, Ring};

use crate::atomic;
use crate::scratch::non_null;

const BPF_F_MMAPABLE: u32 = 1 << 10;

#[map]
static SCOPES: Array<Scope> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static TIMES: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// A scope in its map, with the limits of one side.
#[derive(Clone, Copy)]
pub struct MappedScope {
    scope: *mut Scope,
    number: u32,
    side: u32,
}

/// Returns the scope with this number, with the limits of a side.
#[inline(always)]
pub fn get(number: u32, side: u32) -> Option<MappedScope> {
    SCOPES.get_ptr_mut(number).map(|scope| MappedScope { scope, number, side })
}

/// All scopes, with the limits of one side.
pub struct OnSide(pub u32);

impl Scopes for OnSide {
    type Scope = MappedScope;

    #[inline(always)]
    fn scope(&self, number: u32) -> Option<MappedScope> {
        get(number, self.0)
    }
}

impl MappedScope {
    /// Returns the epoch and the causes: the part of the switch that each packet reads.
    #[inline(always)]
    pub fn epoch_and_causes(&self) -> (u64, u64) {
        // SAFETY: fields of the map value, which user space may change at any time.
        unsafe {
            (
                addr_of!((*self.scope).switch.epoch).read_volatile(),
                addr_of!((*self.scope).switch.causes).read_volatile(),
            )
        }
    }

    #[inline(always)]
    fn window_ptr(&self, i: usize) -> *mut Window {
        // SAFETY: the mask keeps the pointer inside the array.
        unsafe { addr_of_mut!((*self.scope).windows).cast::<Window>().add(i & (LIMITS_PER_SCOPE - 1)) }
    }

    #[inline(always)]
    fn recheck_at_ptr(&self, i: usize) -> *mut u64 {
        // SAFETY: the mask keeps the pointer inside the array.
        unsafe {
            addr_of_mut!((*self.window_ptr(i)).recheck_at).cast::<u64>().add(self.side as usize & (SIDES - 1))
        }
    }

    /// Sets the time of the last withheld segment.
    #[inline(always)]
    pub fn set_withheld(&self, now: u64) {
        // SAFETY: a field of the map value.
        unsafe { addr_of_mut!((*self.scope).withheld_ns).write_volatile(now) }
    }

    /// Replaces the last heartbeat that an event reported as lost, and returns the old one.
    #[inline(always)]
    pub fn swap_heartbeat_reported(&self, beat: u64) -> u64 {
        // SAFETY: a field of the map value.
        unsafe { atomic::swap(addr_of_mut!((*self.scope).heartbeat_reported), beat) }
    }
}

// SAFETY of all accesses below: a look-up has returned the map value, which is valid while the program runs.
// Other CPUs and user space share the value, so accesses are volatile or atomic.
impl SharedScope for MappedScope {
    type Limit = &'static Limit;

    #[inline(always)]
    fn switch(&self) -> Switch {
        // SAFETY: see above.
        unsafe {
            Switch {
                causes: addr_of!((*self.scope).switch.causes).read_volatile(),
                epoch: addr_of!((*self.scope).switch.epoch).read_volatile(),
                raised_ns: addr_of!((*self.scope).switch.raised_ns).read_volatile(),
                resets: addr_of!((*self.scope).switch.resets).read_volatile(),
            }
        }
    }

    #[inline(always)]
    fn armed(&self) -> bool {
        // SAFETY: see above.
        unsafe { addr_of!((*self.scope).armed).read_volatile() != 0 }
    }

    #[inline(always)]
    fn limit(&self, i: usize) -> &'static Limit {
        let index = (self.side as usize * LIMITS_PER_SCOPE + i) & (SIDES * LIMITS_PER_SCOPE - 1);
        // SAFETY: see above. The mask keeps the index inside the array, and user space does not change the
        // side in force.
        unsafe { &*addr_of!((*self.scope).limits).cast::<Limit>().add(index) }
    }

    #[inline(always)]
    fn window(&self, i: usize) -> Window {
        // SAFETY: see above.
        unsafe { self.window_ptr(i).read() }
    }

    #[inline(always)]
    fn issued(&self, i: usize) -> u64 {
        // SAFETY: see above.
        unsafe { addr_of!((*self.window_ptr(i)).issued).read_volatile() }
    }

    #[inline(always)]
    fn tail(&self, i: usize, _: &Limit, issued: u64, now: u64) -> u64 {
        window_tail(self.number, self.side << SIDE_AT | i as u32, issued, now)
    }

    #[inline(always)]
    fn record_times(&self, layout: &RingLayout, first: u64, more: u64, now: impl FnOnce() -> u64) {
        let completed = window::granules_completed(layout, first, more);
        if completed == 0 {
            return;
        }
        let now = now();
        if completed == 1 {
            window::record_time(layout, &mut Times, first, now);
        } else {
            cold_path();
            record_times(layout, first, more, now);
        }
    }

    #[inline(always)]
    fn issue_tickets(&self, i: usize, more: u64) -> u64 {
        // SAFETY: see above.
        unsafe { atomic::fetch_add(addr_of_mut!((*self.window_ptr(i)).issued), more) }
    }

    #[inline(always)]
    fn set_tail(&self, i: usize, tail: u64) {
        // SAFETY: see above.
        unsafe { addr_of_mut!((*self.window_ptr(i)).tail).write_volatile(tail) }
    }

    #[inline(always)]
    fn set_peak(&self, i: usize, peak: u64) {
        // SAFETY: see above.
        unsafe { addr_of_mut!((*self.window_ptr(i)).peak).write_volatile(peak) }
    }

    #[inline(always)]
    fn recheck_at(&self, i: usize) -> u64 {
        // SAFETY: see above.
        unsafe { self.recheck_at_ptr(i).read_volatile() }
    }

    #[inline(always)]
    fn set_recheck_at(&self, i: usize, recheck_at: u64) {
        // SAFETY: see above.
        unsafe { self.recheck_at_ptr(i).write_volatile(recheck_at) }
    }

    #[inline(always)]
    fn swap_level(&self, i: usize, level: u64) -> u64 {
        // SAFETY: see above.
        unsafe { atomic::swap(addr_of_mut!((*self.window_ptr(i)).level), level) }
    }

    #[inline(always)]
    fn or_causes(&self, causes: u64) -> u64 {
        // SAFETY: see above.
        unsafe { atomic::fetch_or(addr_of_mut!((*self.scope).switch.causes), causes) }
    }

    #[inline(always)]
    fn raise_epoch(&self, now: u64) {
        // SAFETY: see above.
        unsafe {
            addr_of_mut!((*self.scope).switch.raised_ns).write_volatile(now);
            atomic::fetch_add(addr_of_mut!((*self.scope).switch.epoch), 1);
        }
    }

    #[inline(always)]
    fn set_trip(&self, trip: Trip) {
        // SAFETY: see above. Only the CPU that latched a new cause writes the field.
        unsafe { addr_of_mut!((*self.scope).trip).write_volatile(trip) }
    }

    #[inline(always)]
    fn fences(&self) -> Fences {
        // SAFETY: see above.
        unsafe { addr_of!((*self.scope).fences).read_volatile() }
    }

    #[inline(always)]
    fn set_fences(&self, fences: Fences) {
        // SAFETY: see above. Two connections that are fenced on two CPUs at once may count as one. Only a
        // long series matters.
        unsafe { addr_of_mut!((*self.scope).fences).write_volatile(fences) }
    }

    #[inline(always)]
    fn add_fills(&self, i: usize, fills: u64) {
        // SAFETY: see above.
        unsafe { atomic::fetch_add(addr_of_mut!((*self.window_ptr(i)).fills), fills) };
    }
}

/// [`window::tail`]. A global function takes five arguments at most, so `limit` holds the limit's index and
/// from [`SIDE_AT`] the side.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn window_tail(scope: u32, limit: u32, issued: u64, now: u64) -> u64 {
    let Some(scope) = get(scope, limit >> SIDE_AT) else { return issued };
    let i = limit as u16 as usize;
    window::tail(scope.limit(i), &Window { issued, ..scope.window(i) }, &Times, now)
}

const SIDE_AT: u32 = 16;

/// Slots that one call of [`record_some_times`] writes.
const SLOTS: u64 = 64;
const CALLS: u64 = window::MAX_SLOTS / SLOTS + 1;

/// [`window::record_times`] over a long run. A global function that calls another one: the verifier follows
/// the loop of each function once, and nested loops once per iteration of the outer loop.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn record_times(layout: *const RingLayout, first: u64, more: u64, now: u64) -> u64 {
    let mut left = more;
    let mut call = 0;
    while call < CALLS && left != 0 {
        left = record_some_times(layout, first.wrapping_add(more - left), left, now);
        call += 1;
    }
    left
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn record_some_times(layout: *const RingLayout, first: u64, more: u64, now: u64) -> u64 {
    let Some(layout) = non_null(layout.cast_mut()) else { return 0 };
    window::record_times(layout, &mut Times, first, more, now, SLOTS)
}

/// The rings of all limits.
struct Times;

impl Ring for Times {
    #[inline(always)]
    fn read(&self, slot: u64) -> u64 {
        // SAFETY: a map value that the look-up has just returned.
        TIMES.get_ptr(slot as u32).map_or(0, |word| unsafe { word.read_volatile() })
    }

    #[inline(always)]
    fn write(&mut self, slot: u64, word: u64) {
        if let Some(time) = TIMES.get_ptr_mut(slot as u32) {
            // SAFETY: as above. Each slot has one writer in each lap of the ring.
            unsafe { time.write_volatile(word) }
        }
    }
}
