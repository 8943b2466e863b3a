//! The CPU of a thread.

use rustix::thread::{CpuSet, sched_setaffinity};

/// Binds this thread to one CPU by its number. Threads that it starts later inherit the CPU.
pub fn pin_to_cpu(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).expect("staying on one CPU");
}
