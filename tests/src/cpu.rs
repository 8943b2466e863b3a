//! Where a thread runs.

use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps this thread, and those that it starts from now on, to one CPU by its number.
pub fn pin_to_cpu(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).expect("staying on one CPU");
}
