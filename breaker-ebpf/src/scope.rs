//! Scopes and the memory of their rings.
//!
//! Why it is safe: a scope's settings are user space's, its windows are the kernel's, and its switch is changed by atomic operations
//! only (`abi::Scope`). Both maps are mapped into user space, so one word can be written there without copying over the others.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::{macros::map, maps::Array};
use breaker_common::abi::{LIMITS_PER_SCOPE, Limit, Scope, Switch, Trip, Window};
use breaker_common::limits::SharedScope;
use breaker_common::window::{self, Ring};

use crate::atomic;

const BPF_F_MMAPABLE: u32 = 1 << 10;

#[map]
static SCOPES: Array<Scope> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static TIMES: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// A scope in its map.
#[derive(Clone, Copy)]
pub struct InMap {
    scope: *mut Scope,
    number: u32,
}

/// The scope with this number.
#[inline(always)]
pub fn get(number: u32) -> Option<InMap> {
    SCOPES.get_ptr_mut(number).map(|scope| InMap { scope, number })
}

impl InMap {
    #[inline(always)]
    fn window_ptr(&self, i: usize) -> *mut Window {
        // SAFETY: the mask keeps it inside the array.
        unsafe { addr_of_mut!((*self.scope).windows).cast::<Window>().add(i & (LIMITS_PER_SCOPE - 1)) }
    }
}

// Every access below is to a map value that a look-up has just returned: valid for the run of the program, shared with other CPUs
// and with user space, hence volatile or atomic.
impl SharedScope for InMap {
    #[inline(always)]
    fn switch(&self) -> Switch {
        // SAFETY: see above.
        unsafe {
            Switch {
                causes: addr_of!((*self.scope).switch.causes).read_volatile(),
                epoch: addr_of!((*self.scope).switch.epoch).read_volatile(),
            }
        }
    }

    #[inline(always)]
    fn armed(&self) -> bool {
        // SAFETY: see above.
        unsafe { addr_of!((*self.scope).armed).read_volatile() != 0 }
    }

    #[inline(always)]
    fn classes(&self) -> u32 {
        // SAFETY: see above.
        unsafe { addr_of!((*self.scope).classes).read_volatile() }
    }

    #[inline(always)]
    fn has_limit(&self, i: usize) -> bool {
        // SAFETY: see above.
        unsafe { (i as u32) < addr_of!((*self.scope).limit_count).read_volatile() }
    }

    #[inline(always)]
    fn limit(&self, i: usize) -> Limit {
        // SAFETY: see above; the mask keeps it inside the array.
        unsafe { addr_of!((*self.scope).limits).cast::<Limit>().add(i & (LIMITS_PER_SCOPE - 1)).read() }
    }

    #[inline(always)]
    fn window(&self, i: usize) -> Window {
        // SAFETY: see above.
        unsafe { self.window_ptr(i).read() }
    }

    #[inline(always)]
    fn tail(&self, i: usize, limit: &Limit, issued: u64, now: u64) -> u64 {
        match window::tail_at_hint(limit, &Window { issued, ..self.window(i) }, &Times, now) {
            (hint, true) => hint,
            (hint, false) => tail_behind(self.number, i as u32, issued, hint, now),
        }
    }

    #[inline(always)]
    fn stamp(&self, i: usize, limit: &Limit, first: u64, more: u64, now: u64) {
        // A single message is the common case, and needs no loop.
        if more == 1 {
            window::stamp(limit, &mut Times, first, more, now, 1);
        } else {
            stamp(self.number, i as u32, first, more, now);
        }
    }

    #[inline(always)]
    fn issue(&self, i: usize, more: u64) -> u64 {
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
    fn raise_epoch(&self) {
        // SAFETY: see above.
        unsafe { atomic::fetch_add(addr_of_mut!((*self.scope).switch.epoch), 1) };
    }

    #[inline(always)]
    fn set_trip(&self, trip: Trip) {
        // SAFETY: see above. Only the one that latched a new cause comes here.
        unsafe { addr_of_mut!((*self.scope).trip).write_volatile(trip) }
    }
}

/// [`window::tail_behind`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tail_behind(scope: u32, i: u32, issued: u64, ticket: u64, now: u64) -> u64 {
    let Some(scope) = get(scope) else { return ticket };
    window::tail_behind(&scope.limit(i as usize), issued, &Times, ticket, now)
}

/// [`window::stamp`], as a global function, and as another around it for the long runs: the verifier follows loops one after the
/// other, not one inside the other.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stamp(scope: u32, i: u32, first: u64, more: u64, now: u64) -> u64 {
    let mut left = more;
    let mut call = 0;
    while call < CALLS && left != 0 {
        left = stamp_some(scope, i, first.wrapping_add(more - left), left, now);
        call += 1;
    }
    left
}

const WORDS: u64 = 64;
const CALLS: u64 = window::MOST_SLOTS / WORDS + 1;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stamp_some(scope: u32, i: u32, first: u64, more: u64, now: u64) -> u64 {
    let Some(scope) = get(scope) else { return 0 };
    window::stamp(&scope.limit(i as usize), &mut Times, first, more, now, WORDS)
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
