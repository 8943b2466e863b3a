//! A load with another layout number, and the migration from it.

use std::mem::offset_of;

use breaker_common::abi::{ABI_VERSION, Meta};
use breaker_user::kernel::memory::Mapped;
use breaker_user::kernel::upgrade::migrate::Migration;

use crate::network::Network;
use crate::testbed::Testbed;

/// The current layout under another number. Its entries are copied one by one, like those of a changed map.
pub const OTHER: Migration = Migration {
    from: 4,
    hold: offset_of!(Meta, hold),
    unloading: offset_of!(Meta, unloading),
    changed: &["LABELS", "CONNECTIONS", "COUNTERS", "ENDPOINTS"],
    convert: |map, key, mut value| {
        if map == "META" {
            value[8..12].copy_from_slice(&ABI_VERSION.to_le_bytes());
        }
        Some((key, value))
    },
};

/// Sets the layout number of the load to that of [`OTHER`].
pub fn set_other_layout<N: Network>(testbed: &Testbed<N>) {
    testbed.on_host(|| {
        let map = Mapped::<Meta>::open(&Testbed::root().map("META")).expect("META");
        map.set(0, Meta { abi: OTHER.from, ..map.get(0).expect("a value") }).expect("writing META");
    });
}
