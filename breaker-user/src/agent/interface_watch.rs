//! Describes changes of the covered interfaces from the kernel's notifications.

use std::time::{Duration, Instant};

use breaker_common::abi::Interface;

use crate::kernel::link_events::LinkEvent;
use crate::kernel::text::trim_padding;

/// Shortest time between two reports about an interface that goes up and down.
const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// The covered interfaces after the last notification.
#[derive(Default)]
pub struct InterfaceWatch {
    known: Vec<Known>,
}

struct Known {
    /// Name in the policy.
    configured: String,
    index: u32,
    name: String,
    is_up: bool,
    /// Changes between up and down since the last report.
    flaps: u32,
    reported_at: Option<Instant>,
    /// Time at which another interface appeared under the name in the policy.
    recreated_at: Option<Instant>,
}

/// A change of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Name in the policy.
    pub interface: String,
    /// Number at the last attachment.
    pub index: u32,
    /// Description of the change.
    pub found: String,
}

impl InterfaceWatch {
    /// Takes over the interfaces of the load, because a re-attachment changes their numbers.
    pub fn follow(&mut self, interfaces: &[Interface]) {
        let is_same = |known: &Known, interface: &Interface| known.index == interface.ifindex;
        if self.known.len() == interfaces.len()
            && self.known.iter().zip(interfaces).all(|(known, interface)| is_same(known, interface))
        {
            return;
        }
        let make = |interface: &Interface| {
            let name = trim_padding(&interface.name);
            Known {
                configured: name.clone(),
                index: interface.ifindex,
                name,
                is_up: true,
                flaps: 0,
                reported_at: None,
                recreated_at: None,
            }
        };
        let known = std::mem::take(&mut self.known);
        self.known = interfaces.iter().map(make).collect();
        for made in &mut self.known {
            if let Some(before) = known.iter().find(|before| before.index == made.index) {
                (made.name, made.is_up) = (before.name.clone(), before.is_up);
            }
        }
    }

    /// Returns the time at which the interface with this name in the policy was created again; `None` if it
    /// was not.
    pub fn recreated_at(&self, configured: &str) -> Option<Instant> {
        self.known.iter().find(|known| known.configured == configured)?.recreated_at
    }

    /// Returns the changes in notifications that were read at this time.
    pub fn changes(&mut self, events: &[LinkEvent], at: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for event in events {
            for known in &mut self.known {
                let found = known.change(event, at);
                let (interface, index) = (known.configured.clone(), known.index);
                changes.extend(found.map(|found| Change { interface, index, found }));
            }
        }
        for known in &mut self.known {
            let found = known.describe_flaps(at);
            let (interface, index) = (known.configured.clone(), known.index);
            changes.extend(found.map(|found| Change { interface, index, found }));
        }
        changes
    }
}

impl Known {
    fn change(&mut self, event: &LinkEvent, at: Instant) -> Option<String> {
        match event {
            LinkEvent::Present { index, name, is_up } if *index == self.index => {
                self.flaps += u32::from(self.is_up != *is_up);
                self.is_up = *is_up;
                if *name == self.name {
                    return None;
                }
                let before = std::mem::replace(&mut self.name, name.clone());
                Some(format!("renamed from {before} to {name}: its hook stays"))
            }
            LinkEvent::Present { index, name, .. } if *name == self.configured => {
                if self.recreated_at.is_some() {
                    return None;
                }
                self.recreated_at = Some(at);
                Some(format!("another interface has its name now, number {index}"))
            }
            LinkEvent::Removed { index, is_moved } if *index == self.index => Some(if *is_moved {
                "moved to another network namespace: nothing is enforced here".to_owned()
            } else {
                "removed".to_owned()
            }),
            _ => None,
        }
    }

    /// Describes changes between up and down, at most once in each [`REPORT_PERIOD`].
    fn describe_flaps(&mut self, at: Instant) -> Option<String> {
        let is_early = self.reported_at.is_some_and(|reported| at.duration_since(reported) < REPORT_PERIOD);
        if self.flaps == 0 || is_early {
            return None;
        }
        self.reported_at = Some(at);
        let state = if self.is_up { "up" } else { "down" };
        Some(match std::mem::take(&mut self.flaps) {
            1 => format!("went {state}"),
            times => format!("changed between up and down {times} times, and is {state}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::text::pad_to;

    fn watch() -> InterfaceWatch {
        let mut watch = InterfaceWatch::default();
        watch.follow(&[Interface { name: pad_to("eth1").unwrap(), ifindex: 3, ..Interface::default() }]);
        watch
    }

    fn present(index: u32, name: &str, is_up: bool) -> LinkEvent {
        LinkEvent::Present { index, name: name.to_owned(), is_up }
    }

    fn descriptions(watch: &mut InterfaceWatch, event: LinkEvent, at: Instant) -> Vec<String> {
        watch.changes(&[event], at).into_iter().map(|change| change.found).collect()
    }

    #[test]
    fn each_change_is_described() {
        let (mut watch, now) = (watch(), Instant::now());
        assert!(descriptions(&mut watch, present(3, "eth1", true), now).is_empty());
        assert!(descriptions(&mut watch, present(4, "eth2", false), now).is_empty(), "another interface");
        assert_eq!(
            descriptions(&mut watch, present(3, "eth9", true), now),
            ["renamed from eth1 to eth9: its hook stays"]
        );
        let moved = LinkEvent::Removed { index: 3, is_moved: true };
        assert!(descriptions(&mut watch, moved, now)[0].starts_with("moved to another network namespace"));
        assert_eq!(
            descriptions(&mut watch, LinkEvent::Removed { index: 3, is_moved: false }, now),
            ["removed"]
        );
        assert_eq!(watch.recreated_at("eth1"), None);
        assert_eq!(
            descriptions(&mut watch, present(5, "eth1", false), now),
            ["another interface has its name now, number 5"]
        );
        assert_eq!(watch.recreated_at("eth1"), Some(now));
    }

    #[test]
    fn flaps_are_counted_and_reported_once_a_second() {
        let (mut watch, start) = (watch(), Instant::now());
        assert_eq!(descriptions(&mut watch, present(3, "eth1", false), start), ["went down"]);
        for _ in 0..5 {
            assert!(descriptions(&mut watch, present(3, "eth1", true), start).is_empty());
            assert!(descriptions(&mut watch, present(3, "eth1", false), start).is_empty());
        }
        let later = start + REPORT_PERIOD;
        let found = watch.changes(&[], later);
        assert_eq!(found[0].found, "changed between up and down 10 times, and is down");
        assert!(watch.changes(&[], later + REPORT_PERIOD).is_empty());
    }
}
