//! Upgrades a load with the layout of [`OTHER`], as `breaker upgrade` of a version that knows this layout.
//! A test kills it.

use breaker_common::abi::Meta;
use breaker_tests::other_layout::OTHER;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::upgrade::{Upgrade, upgrade};

fn main() -> anyhow::Result<()> {
    let unlogged = |_: &Meta, _: &Upgrade| Ok(());
    upgrade(&Testbed::root(), false, &[OTHER], unlogged).map(drop)
}
