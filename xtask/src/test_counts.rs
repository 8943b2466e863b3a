//! Counts of passed, failed and skipped tests, summed over all test programs of a run.

use std::fmt;

/// Sums of the result lines that the test programs print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestCounts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    /// Skipped tests of the current program, whose result counts them as passed.
    skipped_so_far: u64,
}

impl TestCounts {
    /// Adds the counts of a `test result:` line.
    ///
    /// The test harness counts a test skipped at run time as passed, so each line that begins with `skipped:
    /// ` moves one test of the next result from passed to skipped. All other lines are ignored.
    pub fn add_line(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped_so_far += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let Some((_, counts)) = result.split_once(". ") else { return };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => {
                    let passed: u64 = number.parse().unwrap_or(0);
                    let skipped = std::mem::take(&mut self.skipped_so_far).min(passed);
                    self.passed += passed - skipped;
                    self.skipped += skipped;
                }
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.skipped += number.parse().unwrap_or(0),
                // "measured", "filtered out" and the duration.
                _ => {}
            }
        }
    }

    /// Returns true if at least one test passed and no test failed.
    pub fn succeeded(&self) -> bool {
        self.passed > 0 && self.failed == 0
    }
}

impl fmt::Display for TestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(lines: &[&str]) -> TestCounts {
        let mut counts = TestCounts::default();
        lines.iter().for_each(|line| counts.add_line(line));
        counts
    }

    #[test]
    fn sums_over_all_test_programs() {
        let sum = counts(&[
            "running 3 tests",
            "test framing::tests::cuts ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.01s",
            "",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; finished in 12.30s",
        ]);
        assert_eq!(sum, TestCounts { passed: 13, failed: 2, skipped: 1, ..TestCounts::default() });
        assert_eq!(sum.to_string(), "13 passed, 2 failed, 1 skipped");
        assert!(!sum.succeeded());
    }

    #[test]
    fn a_skipped_test_has_not_passed() {
        let skips = counts(&[
            "skipped: reload::one: needs root",
            "test reload::one ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!(skips, TestCounts { passed: 4, failed: 0, skipped: 2, ..TestCounts::default() });
        assert!(!counts(&["skipped: a: needs root", "test result: ok. 1 passed; 0 failed"]).succeeded());
    }

    #[test]
    fn a_run_without_tests_is_not_a_success() {
        assert!(
            !counts(&["test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out"])
                .succeeded()
        );
        assert!(!counts(&[]).succeeded());
        assert!(
            counts(&["test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"])
                .succeeded()
        );
    }

    #[test]
    fn other_lines_are_ignored() {
        let lines = [
            "test test result: ok. 1 passed",
            "test result: ok",
            "test result: ok. many passed",
            "5 passed; 1 failed",
        ];
        assert_eq!(counts(&lines), TestCounts::default());
    }
}
