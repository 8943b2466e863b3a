//! Puts the policy in force that is laid out. Everything that tightens comes before the store of the side,
//! everything that loosens after it.

use std::sync::atomic::fence;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use breaker_common::abi::{self, Meta, flag};

use super::windows::RingMemory;
use super::{PolicyChange, connections, loosening};
use crate::kernel::armed::set_armed;
use crate::kernel::clock;
use crate::kernel::memory::{Mapped, ORDER, atomic_u32, atomic_u64};

impl PolicyChange {
    /// Switches to the next policy.
    pub(super) fn activate(&self) -> Result<()> {
        connections::prepare(&self.breaker, &self.now, &self.next)?;
        let rings = RingMemory::open(self.breaker.root())?;
        let meta = Mapped::<Meta>::open(&self.breaker.root().map("META"))?;
        let meta_ptr = meta.ptr(0).context("META is empty")?.as_ptr();
        self.apply_armed(true)?;
        self.restart_deadman()?;
        let moved = self.moved_limits();
        let mut issued = Vec::with_capacity(moved.len());
        for limit in &moved {
            issued.push(self.fill_ring(limit, &rings)?);
        }
        fence(ORDER);
        // SAFETY: the word lies inside the mapping, which this function holds.
        unsafe { atomic_u32(&raw mut (*meta_ptr).side) }.store(self.side as u32, ORDER);
        // The agent accepts changed policy maps only under a new generation.
        // SAFETY: the word lies inside the mapping, which this function holds.
        unsafe { atomic_u64(&raw mut (*meta_ptr).generation) }.fetch_add(1, ORDER);
        wait_for_packets();
        for (limit, issued) in moved.iter().zip(issued) {
            self.complete_ring(limit, issued, &rings)?;
        }
        self.apply_armed(false)?;
        connections::finish(&self.breaker, &self.now, &self.next)
    }

    /// Arms, or disarms, the scopes that both policies declare and on which they differ.
    fn apply_armed(&self, armed: bool) -> Result<()> {
        for number in (0..self.now.scopes.len()).filter(|number| self.now.declares(*number)) {
            let was_armed = self.now.scopes[number].armed != 0;
            if self.next.declares(number)
                && was_armed != armed
                && loosening::armed(&self.now, &self.next, number) == armed
            {
                set_armed(self.breaker.scopes(), number as u32, armed)?;
            }
        }
        Ok(())
    }

    /// Starts the dead-man's time if the agent's silence trips from now on: no agent may have run yet.
    fn restart_deadman(&self) -> Result<()> {
        let trips =
            |policy: &abi::Policy| policy.deadman_ns != 0 && policy.flags & flag::HEARTBEAT_LOSS_TRIPS != 0;
        if trips(&self.next.policy) && !trips(&self.now.policy) {
            self.breaker.maps().heartbeat()?.set(0, clock::now_ns())?;
        }
        Ok(())
    }
}

/// Waits for every packet whose processing began before the store of the side.
pub fn wait_for_packets() {
    /// membarrier(2). On a kernel without full dynamic ticks this is the kernel's own `synchronize_rcu`, and
    /// programs run under RCU.
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    /// Longer than the program takes for a packet.
    const FALLBACK: Duration = Duration::from_millis(20);
    // SAFETY: the call takes three numbers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0 {
        sleep(FALLBACK);
    }
}
