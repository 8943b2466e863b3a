//! Limits and sessions, as user space writes them.

use breaker_common::abi::{Limit, RingLayout, SCOPES_PER_SESSION, Session};
use breaker_common::message::LimitClass;
use breaker_common::window::{granule_bits, ring_bits};
use bytemuck::Zeroable;

/// Creates a limit with its ring at slot `base`. `per_ns` of 0 makes a total.
pub fn limit(class: LimitClass, max: u64, per_ns: u64, base: u32) -> Limit {
    let timed =
        RingLayout { base, granule_bits: granule_bits(max) as u8, ring_bits: ring_bits(max) as u8, pad: 0 };
    let ring = if per_ns == 0 { RingLayout::NONE } else { timed };
    let warn = [50, 75, 90].map(|percent| (max * percent).div_ceil(100));
    Limit { class: class as u32, max, per_ns, warn, per_fill: 0, ring }
}

/// Creates a session with these scopes and default settings.
pub fn session(listed: &[u32]) -> Session {
    let mut scopes = [0; SCOPES_PER_SESSION];
    scopes[..listed.len()].copy_from_slice(listed);
    Session { scopes, scope_count: listed.len() as u32, longest: 16 * 1024, ..Session::zeroed() }
}
