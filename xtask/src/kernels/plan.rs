//! The tests that run on each kernel, and the expected results.

use std::fmt;

use serde_json::{Value, json};

use super::image::{Image, NEWEST, numbers};

/// The default kernels: the last unsupported one, the first supported one and later ones.
pub const DEFAULT_KERNELS: [&str; 5] = ["5.10", "6.1", COUNTED_KERNEL, "6.18", NEWEST];
/// The kernel on which instructions are counted.
pub const COUNTED_KERNEL: &str = "6.12";

/// The selected tests of one test program.
pub struct Suite {
    /// The file name in tests/tests, without the extension, or a directory there with a `main.rs`.
    pub program: &'static str,
    /// The names of the tests with their modules. Tests that need other programs (ip, nft) or a real-time
    /// clock are left out.
    tests: &'static [&'static str],
}

/// The suites that run on each supported kernel.
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
        program: "wire",
        tests: &[
            "limits::one_by_one_exactly_n_cross_and_both_ends_are_reset",
            "limits::a_blast_in_a_few_large_writes_never_lets_more_than_n_cross",
            "limits::two_connections_on_two_cpus_share_one_limit_exactly",
            "limits::a_total_counts_since_the_reset_and_cancels_have_their_own_limit",
            "switch::nothing_queued_before_a_reset_arrives_after_it_even_behind_a_closed_window",
            "switch::while_tripped_cancels_pass_on_a_new_connection_and_the_first_order_fences_it",
            "switch::attached_in_mid_stream_counting_starts_at_the_next_message_that_begins_a_segment",
            "inline::trips::one_of_two_sessions_trips_and_the_other_continues",
            "inline::segments::reordered_repeated_and_overlapping_segments_are_counted_once",
            "inbound::counting::each_kind_of_inbound_message_counts_for_its_class",
            "inbound_limits::later_fills_and_fills_of_other_sessions_of_the_group_count",
        ],
    },
];
/// The approximate slowdown of the emulation against a real processor.
const SLOWNESS: u32 = 20;
/// The first supported kernel, and the first kernel with tcx.
const SUPPORTED: [u32; 2] = [6, 1];
const TCX: [u32; 2] = [6, 6];

/// The expected result of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `breaker load` refuses and names the missing kernel features.
    Refusal,
    /// All tests pass, and the program is attached by this hook.
    Hook(&'static str),
}

/// Returns the expected result for a kernel release.
pub fn expected(release: &str) -> Expected {
    let version = numbers(release);
    if version[..] < SUPPORTED[..] {
        Expected::Refusal
    } else {
        Expected::Hook(if version[..] < TCX[..] { "clsact" } else { "tcx" })
    }
}

/// Returns the number of tests that run on a supported kernel.
pub fn test_count() -> u64 {
    SUITES.iter().map(|suite| suite.tests.len() as u64).sum()
}

/// The purpose of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Runs the tests.
    Tests,
    /// Counts the instructions per packet, on a machine with one CPU and one instruction per nanosecond.
    CountInstructions,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tests => "tests",
            Self::CountInstructions => "counts",
        })
    }
}

/// A machine to boot: the kernel as given on the command line, its image and the task.
pub struct Boot<'a> {
    /// The series, or `newest`.
    pub kernel: &'a str,
    /// The image of the kernel.
    pub image: &'a Image,
    /// The task of the guest.
    pub task: Task,
}

/// Returns the tasks of a kernel.
///
/// With `counts_only` the tests are left out. `is_counted` is true for the kernel on which instructions are
/// counted.
pub fn tasks(counts_only: bool, is_counted: bool) -> &'static [Task] {
    match (counts_only, is_counted) {
        (true, _) => &[Task::CountInstructions],
        (false, true) => &[Task::Tests, Task::CountInstructions],
        (false, false) => &[Task::Tests],
    }
}

/// Returns the plan as JSON, in the form that the guest reads.
pub fn plan(image: &Image, modules: &[String], task: Task) -> Value {
    let suites: Vec<Value> =
        SUITES.iter().map(|suite| json!({ "program": suite.program, "tests": suite.tests })).collect();
    json!({
        "refused": expected(&image.release) == Expected::Refusal,
        "counts": task == Task::CountInstructions,
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
    fn every_test_of_the_plan_exists() {
        for suite in SUITES {
            for test in suite.tests {
                let (modules, name) = test.rsplit_once("::").unwrap_or_default();
                let name = if modules.is_empty() { *test } else { name };
                let program = crate::workspace::root().join("tests/tests").join(suite.program);
                let path = program.join(modules.replace("::", "/")).with_extension("rs");
                let text = std::fs::read_to_string(&path)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert!(text.contains(&format!("#[test]\nfn {name}()")), "{}: no {name}", path.display());
            }
        }
    }
}
