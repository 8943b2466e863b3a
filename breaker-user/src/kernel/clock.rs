//! The clock of the kernel program, CLOCK_MONOTONIC, and its conversion to the time of day. No decision uses
//! the time of day.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Returns CLOCK_MONOTONIC of the host in ns, which `bpf_ktime_get_ns` reads. In a time namespace the clock
/// has a constant offset.
pub fn now_ns() -> u64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    let now = clock_gettime(ClockId::Monotonic);
    let own = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    own.wrapping_sub_signed(*OFFSET.get_or_init(|| offset_ns().unwrap_or(0)))
}

/// Returns the offset of this process's clock from the host's in ns (time_namespaces(7)). `None` on a kernel
/// without time namespaces.
fn offset_ns() -> Option<i64> {
    // The file describes the namespace of children, which may differ from the one of this process.
    let namespace = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).map(|found| found.ino()).ok();
    if namespace("time")? != namespace("time_for_children")? {
        return None;
    }
    parse_offset(&fs::read_to_string("/proc/self/timens_offsets").ok()?)
}

/// Parses the offset of CLOCK_MONOTONIC in a text like `monotonic 100 0`: clock, seconds, nanoseconds.
fn parse_offset(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("monotonic"))?;
    let mut words = line.split_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (words.next()?.ok()?, words.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Returns the time of day at a reading of [`now_ns`].
pub fn time_of(at_ns: u64) -> Timestamp {
    let age = Duration::from_nanos(now_ns().saturating_sub(at_ns));
    Timestamp::now() - age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_parsed() {
        for (text, expected) in [
            ("monotonic           0         0\nboottime            0         0\n", Some(0)),
            ("monotonic      100000         5\nboottime            7         0\n", Some(100_000_000_000_005)),
            ("monotonic       -1000         0\n", Some(-1_000_000_000_000)),
            ("boottime            7         0\n", None),
            ("monotonic\n", None),
            ("", None),
        ] {
            assert_eq!(parse_offset(text), expected, "{text:?}");
        }
    }
}
