//! Upgrades from another layout that are killed, under traffic of a tripped and of a live session.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_common::abi::{ABI_VERSION, cause};
use breaker_tests::other_layout::{OTHER, set_other_layout};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_tests::traffic::of_host;
use breaker_user::kernel::frozen::FrozenBoard;

use super::upgrade::on_host;

/// Hooks, and the number of kills at each.
const KILLS: [(&str, u32); 2] = [("tcx", 32), ("clsact", 12)];

fn migration() -> Command {
    Command::new(env!("CARGO_BIN_EXE_migrate"))
}

/// Runs a whole migration and returns its duration.
#[track_caller]
fn migrate(testbed: &Testbed) -> Duration {
    let begun = Instant::now();
    let output = testbed.on_host(|| migration().output().expect("running it"));
    assert!(output.status.success(), "{output:?}");
    begun.elapsed()
}

/// The layout of the pins, and the causes of the tripped session, as every version reads them.
fn frozen(testbed: &Testbed) -> (u32, u64) {
    testbed.on_host(|| {
        let board = FrozenBoard::open(&Testbed::root()).expect("the switches");
        let dead = board.find("session/dead").expect("the session");
        (board.abi(), board.switch(dead).expect("its switch").causes)
    })
}

#[test]
fn a_killed_upgrade_from_another_layout_keeps_the_trip_and_the_next_one_completes_it() {
    require_root!();
    for (hook, moments) in KILLS {
        let testbed = on_host(hook);
        testbed.switch("trip", "session/dead").expect_exit(0);
        set_other_layout(&testbed);
        let whole = migrate(&testbed);
        let (mut before, mut after) = (0, 0);
        let seen = of_host(&testbed.network).run(|| {
            for moment in 0..moments {
                set_other_layout(&testbed);
                let mut child = testbed.on_host(|| migration().spawn().expect("starting it"));
                // The verifier takes most of the duration. The copy, the swap and the exchange come last.
                let part = if moment % 2 == 0 { moment } else { moments - moment / 4 };
                sleep(whole * part / moments);
                child.kill().expect("killing it");
                child.wait().expect("its end");
                let (layout, causes) = frozen(&testbed);
                assert_eq!(causes, cause::MANUAL, "moment {moment}, layout {layout}");
                *(if layout == OTHER.from { &mut before } else { &mut after }) += 1;
                migrate(&testbed);
                assert_eq!(frozen(&testbed), (ABI_VERSION, cause::MANUAL), "moment {moment}");
                let shown = testbed.cli("status --json").expect_exit(10).json();
                assert_eq!(shown["enforced"]["ok"], true, "moment {moment}: {shown}");
            }
        });
        println!("{hook}: killed {before} times before the exchange of the pins, {after} after it: {seen:?}");
        assert!(before > 0, "no migration was killed in time");
        assert_eq!((seen.orders[0], seen.frames[1]), (seen.orders[1], 0), "{seen:?}");
        testbed.cli("reset session/dead --reason test --force").expect_exit(0);
        testbed.cli("unload").expect_exit(0);
        testbed.assert_clean();
    }
}
