//! What is run on a kernel, and what it must come to.

use std::fmt;

use serde_json::{Value, json};

use super::image::{Image, numbers};

/// Tests of one test program.
pub struct Suite {
    /// The file in tests/tests, without its ending.
    pub program: &'static str,
    /// Names of the tests; those that need other programs (ip, nft) or a clock that keeps up with the packets are left out.
    tests: &'static [&'static str],
}

/// Each kernel runs these.
pub const SUITES: &[Suite] = &[
    Suite {
        program: "program",
        tests: &[
            "kernel_and_decide_agree_on_thousands_of_random_packets",
            "a_withheld_segment_becomes_a_well_formed_reset",
            "malformed_and_foreign_frames_pass_untouched_whatever_they_hold",
        ],
    },
    Suite {
        program: "wire_limits",
        tests: &[
            "one_by_one_exactly_n_cross_and_both_ends_are_told",
            "a_blast_in_a_few_large_writes_never_lets_more_than_n_cross",
            "two_connections_on_two_cpus_share_one_limit_exactly",
            "a_total_counts_since_the_reset_and_cancels_have_their_own_limit",
        ],
    },
    Suite {
        program: "wire_switch",
        tests: &[
            "nothing_queued_before_a_reset_comes_after_it_even_from_behind_a_shut_window",
            "while_tripped_cancels_pass_on_a_new_connection_and_the_first_order_fences_it",
            "attached_in_mid_stream_it_counts_from_the_next_message_that_begins_a_segment",
        ],
    },
    Suite {
        program: "wire_inline",
        tests: &[
            "of_two_sessions_one_is_tripped_and_the_other_goes_on",
            "reordered_repeated_and_overlapping_segments_are_counted_once",
        ],
    },
    Suite { program: "wire_inbound", tests: &["each_kind_of_message_counts_as_what_it_is"] },
    Suite {
        program: "wire_inbound_limits",
        tests: &["fills_that_come_later_and_those_of_other_sessions_of_the_group_count"],
    },
];
/// How many times slower than a processor its emulation is, about.
const SLOWNESS: u32 = 20;
/// The first kernel that is supported, and the first with tcx.
const SUPPORTED: [u32; 2] = [6, 1];
const TCX: [u32; 2] = [6, 6];

/// What a kernel must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `breaker load` says what is missing.
    Refusal,
    /// All tests pass, attached by this hook.
    Hook(&'static str),
}

/// What a kernel must come to, by its release.
pub fn expected(release: &str) -> Expected {
    let version = numbers(release);
    if version[..] < SUPPORTED[..] {
        Expected::Refusal
    } else {
        Expected::Hook(if version[..] < TCX[..] { "clsact" } else { "tcx" })
    }
}

/// How many tests run on a kernel that is supported.
pub fn tests() -> u64 {
    SUITES.iter().map(|suite| suite.tests.len() as u64).sum()
}

/// What a machine is booted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// To run the tests.
    Tests,
    /// To count the instructions that packets take, on a machine with one CPU and an instruction a nanosecond.
    Counts,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tests => "tests",
            Self::Counts => "counts",
        })
    }
}

/// What a kernel is booted for: the tests, and where packets are counted that too; or `only` that.
pub fn tasks(only: bool, counted: bool) -> &'static [Task] {
    match (only, counted) {
        (true, _) => &[Task::Counts],
        (false, true) => &[Task::Tests, Task::Counts],
        (false, false) => &[Task::Tests],
    }
}

/// The plan as the guest reads it.
pub fn plan(image: &Image, modules: &[String], task: Task) -> Value {
    let suites: Vec<Value> =
        SUITES.iter().map(|suite| json!({ "program": suite.program, "tests": suite.tests })).collect();
    json!({
        "refused": expected(&image.release) == Expected::Refusal,
        "counts": task == Task::Counts,
        "modules": modules,
        "slowness": SLOWNESS,
        "suites": suites,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_follows_the_release() {
        assert_eq!(expected("5.10.0-46-cloud-amd64"), Expected::Refusal);
        assert_eq!(expected("6.1.0-56-cloud-amd64"), Expected::Hook("clsact"));
        assert_eq!(expected("6.12.117+deb13-cloud-amd64"), Expected::Hook("tcx"));
        assert_eq!(expected("7.0.4+deb13-cloud-amd64"), Expected::Hook("tcx"));
    }

    #[test]
    fn every_test_of_the_plan_is_there() {
        for suite in SUITES {
            let path = crate::workspace::root().join("tests/tests").join(suite.program).with_extension("rs");
            let text = std::fs::read_to_string(&path).expect("the test program");
            for test in suite.tests {
                assert!(text.contains(&format!("#[test]\nfn {test}()")), "{}: no {test}", path.display());
            }
        }
    }
}
