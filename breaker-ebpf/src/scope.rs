//! Scopes and the memory of their rings.
//!
//! Why it is safe: a scope's settings are user space's, its windows are the kernel's, and its switch is changed by atomic operations
//! only (`abi::Scope`). Both maps are mapped into user space, so one word can be written there without copying over the others.

use core::hint::{black_box, cold_path};
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

/// A scope in its map, as one side has it.
#[derive(Clone, Copy)]
pub struct InMap {
    scope: *mut Scope,
    number: u32,
    side: u32,
}

/// The scope with this number, with the limits of this side.
#[inline(always)]
pub fn get(number: u32, side: u32) -> Option<InMap> {
    SCOPES.get_ptr_mut(number).map(|scope| InMap { scope, number, side })
}

/// All scopes, with the limits of this side.
pub struct OnSide(pub u32);

impl Scopes for OnSide {
    type Scope = InMap;

    #[inline(always)]
    fn scope(&self, number: u32) -> Option<InMap> {
        get(number, self.0)
    }
}

impl InMap {
    /// The two words of its switch that each packet asks for: its epoch and its causes.
    #[inline(always)]
    pub fn epoch_and_causes(&self) -> (u64, u64) {
        // SAFETY: fields of the map value, which user space changes at any time.
        unsafe {
            (
                addr_of!((*self.scope).switch.epoch).read_volatile(),
                addr_of!((*self.scope).switch.causes).read_volatile(),
            )
        }
    }

    #[inline(always)]
    fn window_ptr(&self, i: usize) -> *mut Window {
        // SAFETY: the mask keeps it inside the array.
        unsafe { addr_of_mut!((*self.scope).windows).cast::<Window>().add(i & (LIMITS_PER_SCOPE - 1)) }
    }

    #[inline(always)]
    fn recheck_at_ptr(&self, i: usize) -> *mut u64 {
        // SAFETY: the mask keeps it inside the array.
        unsafe {
            addr_of_mut!((*self.window_ptr(i)).recheck_at).cast::<u64>().add(self.side as usize & (SIDES - 1))
        }
    }

    /// A limit's position, and the side in the bit above it: the global functions take no more arguments.
    #[inline(always)]
    fn place(&self, i: usize) -> u32 {
        self.side << 16 | i as u32
    }

    /// Notes when a segment was withheld.
    #[inline(always)]
    pub fn set_withheld(&self, now: u64) {
        // SAFETY: a field of the map value.
        unsafe { addr_of_mut!((*self.scope).withheld_ns).write_volatile(now) }
    }

    /// The heartbeat of whose age was told last.
    #[inline(always)]
    pub fn heartbeat_reported(&self) -> *mut u64 {
        // SAFETY: a field of the map value.
        unsafe { addr_of_mut!((*self.scope).heartbeat_reported) }
    }
}

// Every access below is to a map value that a look-up has just returned: valid for the run of the program, shared with other CPUs
// and with user space, hence volatile or atomic.
impl SharedScope for InMap {
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
        // A mask for the verifier, in one piece: up to 6.1 it loses the bounds of the parts on the way.
        let place = black_box(self.side as usize * LIMITS_PER_SCOPE + i) & (SIDES * LIMITS_PER_SCOPE - 1);
        // SAFETY: see above; the mask keeps it inside the array, and user space changes nothing of the side in force.
        unsafe { &*addr_of!((*self.scope).limits).cast::<Limit>().add(place) }
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
        tail(self.number, self.place(i), issued, now)
    }

    #[inline(always)]
    fn record_times(&self, slots: &RingLayout, first: u64, more: u64, now: impl FnOnce() -> u64) {
        let ended = window::granules_completed(slots, first, more);
        if ended == 0 {
            return;
        }
        let now = now();
        // One word is the common case, and needs no loop.
        if ended == 1 {
            window::record_time(slots, &mut Times, first, now);
        } else {
            cold_path();
            stamp(slots, first, more, now);
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
        // SAFETY: see above; the mask keeps it inside the array.
        unsafe { self.recheck_at_ptr(i).read_volatile() }
    }

    #[inline(always)]
    fn set_recheck_at(&self, i: usize, recheck_at: u64) {
        // SAFETY: as above.
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
        // SAFETY: see above. Only the one that latched a new cause comes here.
        unsafe { addr_of_mut!((*self.scope).trip).write_volatile(trip) }
    }

    #[inline(always)]
    fn fences(&self) -> Fences {
        // SAFETY: see above.
        unsafe { addr_of!((*self.scope).fences).read_volatile() }
    }

    #[inline(always)]
    fn set_fences(&self, fences: Fences) {
        // SAFETY: see above. Two connections fenced at once on two CPUs may count as one: it takes a loop of them to matter.
        unsafe { addr_of_mut!((*self.scope).fences).write_volatile(fences) }
    }

    #[inline(always)]
    fn add_fills(&self, i: usize, fills: u64) {
        // SAFETY: see above.
        unsafe { atomic::fetch_add(addr_of_mut!((*self.window_ptr(i)).fills), fills) };
    }
}

/// [`window::tail`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tail(scope: u32, place: u32, issued: u64, now: u64) -> u64 {
    let Some(scope) = get(scope, place >> 16) else { return issued };
    let i = place as u16 as usize;
    window::tail(scope.limit(i), &Window { issued, ..scope.window(i) }, &Times, now)
}

/// [`window::record_times`], as a global function, and as another around it for the long runs: the verifier follows loops one after the
/// other, not one inside the other.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stamp(slots: *const RingLayout, first: u64, more: u64, now: u64) -> u64 {
    let mut left = more;
    let mut call = 0;
    while call < CALLS && left != 0 {
        left = stamp_some(slots, first.wrapping_add(more - left), left, now);
        call += 1;
    }
    left
}

const WORDS: u64 = 64;
const CALLS: u64 = window::MAX_SLOTS / WORDS + 1;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stamp_some(slots: *const RingLayout, first: u64, more: u64, now: u64) -> u64 {
    let Some(slots) = non_null(slots.cast_mut()) else { return 0 };
    window::record_times(slots, &mut Times, first, more, now, WORDS)
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
        if let Some(place) = TIMES.get_ptr_mut(slot as u32) {
            // SAFETY: as above; each slot has one writer a lap.
            unsafe { place.write_volatile(word) }
        }
    }
}
