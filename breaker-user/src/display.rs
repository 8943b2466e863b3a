//! Texts of kernel values: causes, limits and durations, spelled as in the configuration.

use std::time::Duration;

use breaker_common::abi::{Limit, cause};
use breaker_common::message::LimitClass;

use crate::config::Per;

/// Names of cause bits.
pub fn causes(bits: u64) -> Vec<&'static str> {
    cause::NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}

/// Name of a limit's class.
pub fn class(code: u32) -> &'static str {
    LimitClass::ALL.get(code as usize).map_or("unknown", |class| class.name())
}

/// Interval of a limit: a duration or `total`.
pub fn interval(limit: &Limit) -> String {
    if limit.per_ns == 0 { Per::Total.to_string() } else { duration(limit.per_ns) }
}

/// A duration in ns.
pub fn duration(ns: u64) -> String {
    Per::Window(Duration::from_nanos(ns)).to_string()
}

/// A limit in one phrase, such as `500 order per 3s`.
pub fn limit(limit: &Limit) -> String {
    let class = class(limit.class);
    match limit.per_fill {
        0 => format!("{} {class} per {}", limit.max, interval(limit)),
        ratio => format!("{ratio} {class} per fill after {}", limit.max),
    }
}

/// SHA-256 in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
