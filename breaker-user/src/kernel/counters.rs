//! Reads the counters of a loaded breaker.

use anyhow::Result;
use breaker_common::abi::{self, Counters};

use super::Breaker;

impl Breaker {
    /// Returns the counters of each session, over all CPUs.
    pub fn counters(&self) -> Result<Vec<Counters>> {
        let map = self.maps().counters()?;
        (0..self.policy().sessions)
            .map(|session| {
                let cpus = map.get(&session, 0)?;
                Ok(cpus.iter().fold(Counters::default(), |sum, cpu| add(sum, &cpu.0)))
            })
            .collect()
    }

    /// Returns the number of packets for each reason, over all CPUs, in the order of [`abi::reason::NAMES`].
    pub fn reasons(&self) -> Result<Vec<u64>> {
        (0..abi::reason::NAMES.len() as u32).map(|reason| self.reason(reason)).collect()
    }

    /// Returns the number of packets for a reason, one of [`abi::reason`].
    pub fn reason(&self, reason: u32) -> Result<u64> {
        Ok(self.maps().reasons()?.get(&reason, 0)?.iter().sum())
    }
}

fn add(sum: Counters, more: &Counters) -> Counters {
    let mut sum = sum;
    let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut sum));
    let more: &[u64] = bytemuck::cast_slice(std::slice::from_ref(more));
    words.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    sum
}
