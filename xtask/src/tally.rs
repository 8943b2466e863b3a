//! How many tests passed, over all test programs of a run.

use std::fmt;

/// The sum of what the test programs said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Tally {
    /// Takes in a line of output; most say nothing about the result.
    pub fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let Some((_, counts)) = result.split_once(". ") else { return };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.skipped += number.parse().unwrap_or(0),
                // Measured, filtered out, time taken.
                _ => {}
            }
        }
    }

    /// Whether tests ran and none failed.
    pub fn is_good(&self) -> bool {
        self.passed > 0 && self.failed == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn sums_over_all_test_programs() {
        let sum = tally(&[
            "running 3 tests",
            "test framing::tests::cuts ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.01s",
            "",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.30s",
        ]);
        assert_eq!(sum, Tally { passed: 13, failed: 2, skipped: 1 });
        assert_eq!(sum.to_string(), "13 passed, 2 failed, 1 skipped");
        assert!(!sum.is_good());
    }

    #[test]
    fn a_run_without_tests_is_not_good() {
        assert!(
            !tally(&["test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out"]).is_good()
        );
        assert!(!tally(&[]).is_good());
        assert!(
            tally(&["test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"]).is_good()
        );
    }

    #[test]
    fn other_lines_say_nothing() {
        let lines = [
            "test test result: ok. 1 passed",
            "test result: ok",
            "test result: ok. many passed",
            "5 passed; 1 failed",
        ];
        assert_eq!(tally(&lines), Tally::default());
    }
}
