//! Watches the chains of tcx programs by their revision. The revision also reveals a change that was undone
//! before the next check.

use std::time::{Duration, Instant};

use serde_json::json;

use super::tampering::{Finding, Tampering};
use crate::kernel::attachment::{Attachment, Chain};

/// Time within which a verb that changed a chain raises the generation of the load.
const GRACE_PERIOD: Duration = Duration::from_millis(300);

/// The chain of each attachment after the last change that was accepted or reported.
#[derive(Default)]
pub struct ChainWatch {
    known: Vec<Known>,
}

#[derive(Clone, Default)]
struct Known {
    chain: Option<Chain>,
    generation: u64,
    /// Time at which a change without a new generation was first found.
    changed_at: Option<Instant>,
}

impl ChainWatch {
    /// Compares the chain of each attachment with the known chain, and reports changes by other processes.
    /// A new generation means that breaker made the change.
    pub fn check(
        &mut self,
        attachments: &[Attachment],
        chains: Vec<Option<Chain>>,
        generation: u64,
        tampering: &Tampering,
    ) {
        self.known.resize(attachments.len(), Known::default());
        for ((known, attachment), chain) in self.known.iter_mut().zip(attachments).zip(chains) {
            // A missing interface has no chain. The check of the attachments reports the interface.
            let Some(now) = chain else { continue };
            if let Some(before) = known.update(now, generation, Instant::now()) {
                let after = known.chain.clone().unwrap_or_default();
                tampering.record(Finding {
                    place: &attachment.name,
                    scope: None,
                    causes: 0,
                    found: format!(
                        "another process changed the {} chain of programs: revision {} follows {}",
                        if attachment.mode == "inbound" { "ingress" } else { "egress" },
                        after.revision,
                        before.revision
                    ),
                    fields: json!({
                        "interface": attachment.name, "ifindex": attachment.ifindex, "mode": attachment.mode,
                        "before": before.revision, "after": after.revision, "programs": after.programs,
                    }),
                });
            }
        }
    }
}

impl Known {
    /// Returns the previous chain if another process has changed the chain.
    fn update(&mut self, now: Chain, generation: u64, at: Instant) -> Option<Chain> {
        let Some(before) = self.chain.clone() else {
            *self = Self { chain: Some(now), generation, changed_at: None };
            return None;
        };
        if before == now || generation != self.generation {
            *self = Self { chain: Some(now), generation, changed_at: None };
            return None;
        }
        let changed_at = *self.changed_at.get_or_insert(at);
        if at.duration_since(changed_at) < GRACE_PERIOD {
            return None;
        }
        *self = Self { chain: Some(now), generation, changed_at: None };
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(revision: u64, link: u32) -> Chain {
        Chain { programs: vec![7], links: vec![link], revision }
    }

    #[test]
    fn a_change_under_the_same_generation_is_reported_once() {
        let (mut known, start) = (Known::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(known.update(chain(2, 1), 1, start), None, "the first check");
        assert_eq!(known.update(chain(2, 1), 1, after(100)), None);
        assert_eq!(known.update(chain(4, 1), 1, after(200)), None, "a verb may be running");
        assert_eq!(known.update(chain(6, 1), 1, after(300)), None);
        assert_eq!(known.update(chain(6, 1), 1, after(600)), Some(chain(2, 1)));
        assert_eq!(known.update(chain(6, 1), 1, after(700)), None);
        // The revision restarts with an empty chain, so only the link differs.
        assert_eq!(known.update(chain(6, 2), 1, after(800)), None);
        assert_eq!(known.update(chain(6, 2), 1, after(1200)), Some(chain(6, 1)));
    }

    #[test]
    fn a_change_under_a_new_generation_is_breakers_own() {
        let (mut known, start) = (Known::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(known.update(chain(2, 1), 1, start), None);
        assert_eq!(known.update(chain(3, 1), 1, after(100)), None);
        assert_eq!(known.update(chain(3, 1), 2, after(200)), None, "the upgrade has ended");
        assert_eq!(known.update(chain(3, 1), 2, after(900)), None);
    }
}
