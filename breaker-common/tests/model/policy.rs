//! Limits and sessions as user space writes them.

use breaker_common::abi::{Limit, OVERRIDES_PER_SESSION, Override, SCOPES_PER_SESSION, Session};
use breaker_common::class::LimitClass;
use breaker_common::window::{granule_bits, ring_bits};

/// A limit whose ring begins at `base`. `per_ns` of 0 is "total".
pub fn limit(class: LimitClass, max: u64, per_ns: u64, base: u32) -> Limit {
    let (granule_bits, ring_bits) = if per_ns == 0 { (0, 0) } else { (granule_bits(max), ring_bits(max)) };
    let warn = [50, 75, 90].map(|percent| (max * percent).div_ceil(100));
    Limit { class: class as u32, granule_bits, max, per_ns, base, ring_bits, warn, per_fill: 0, pad: 0 }
}

/// A session of these scopes, with the defaults for all else.
pub fn session(listed: &[u32]) -> Session {
    let mut scopes = [0; SCOPES_PER_SESSION];
    scopes[..listed.len()].copy_from_slice(listed);
    Session {
        scopes,
        scope_count: listed.len() as u32,
        flags: 0,
        while_tripped: 0,
        override_count: 0,
        ids: [0; 4],
        day_epoch: 0,
        overrides: [Override::default(); OVERRIDES_PER_SESSION],
    }
}
