//! Watches the maps of the policy in force. Their content must not change within one generation of the load.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use breaker_common::abi::probe;
use serde_json::json;

use super::loaded::Loaded;
use super::notice::notice;
use super::periodic::{Interval, run_blocking};
use super::tampering::{Finding, Tampering};
use crate::display;
use crate::kernel::policy_hash::{PolicyHash, PolicyMaps};
use crate::kernel::probe::Stamps;

const INTERVAL: Interval = Interval { period: Duration::from_secs(1), min_pause_ratio: 50 };
/// Time after which a difference is confirmed: a re-attachment writes META before it raises the generation.
const CONFIRM_DELAY: Duration = Duration::from_millis(50);
/// The place of the findings.
const HOST: &str = "host";

/// Compares the maps with their content at the start of the generation.
struct PolicyWatch {
    loaded: Arc<Loaded>,
    tampering: Arc<Tampering>,
    maps: PolicyMaps,
    stamps: Stamps,
    /// Generation at which the maps were opened.
    opened_generation: u64,
    known: Option<PolicyHash>,
    /// The changed content that was reported.
    reported: Option<PolicyHash>,
}

/// Compares the maps once a second until the shutdown.
pub async fn run(loaded: Arc<Loaded>, tampering: Arc<Tampering>, shutdown: impl Future<Output = ()>) {
    let watch = match PolicyWatch::open(loaded, tampering) {
        Ok(watch) => Mutex::new(watch),
        Err(error) => return notice(&format!("the policy maps are not compared: {error:#}")),
    };
    let work = move || watch.lock().unwrap_or_else(PoisonError::into_inner).check();
    run_blocking(INTERVAL, shutdown, work, |result| {
        if let Err(error) = result {
            notice(&format!("the policy maps were not compared: {error:#}"));
        }
    })
    .await;
}

impl PolicyWatch {
    fn open(loaded: Arc<Loaded>, tampering: Arc<Tampering>) -> Result<Self> {
        let in_force = loaded.in_force();
        let root = in_force.breaker.root();
        let (maps, stamps) = (PolicyMaps::open(root)?, Stamps::open(root)?);
        let opened_generation = in_force.breaker.meta().generation;
        Ok(Self { loaded, tampering, maps, stamps, opened_generation, known: None, reported: None })
    }

    fn check(&mut self) -> Result<()> {
        let in_force = self.loaded.in_force();
        let generation = in_force.breaker.meta().generation;
        if generation != self.opened_generation {
            // An upgrade may have replaced the maps.
            let root = in_force.breaker.root();
            (self.maps, self.stamps) = (PolicyMaps::open(root)?, Stamps::open(root)?);
            self.opened_generation = generation;
        }
        let Some(mut now) = self.maps.hash()? else { return Ok(()) };
        if self.differs(&now) {
            sleep(CONFIRM_DELAY);
            let Some(again) = self.maps.hash()? else { return Ok(()) };
            now = again;
        }
        if self.differs(&now) { self.report(now) } else { self.accept(now) }
    }

    /// Returns true if the content has changed within the same generation.
    fn differs(&self, now: &PolicyHash) -> bool {
        self.known.is_some_and(|known| known.generation == now.generation && known.hash != now.hash)
    }

    fn accept(&mut self, now: PolicyHash) -> Result<()> {
        if self.known == Some(now) && self.reported.is_none() {
            return Ok(());
        }
        (self.known, self.reported) = (Some(now), None);
        self.tampering.set_problem(HOST, None);
        self.stamps.record(probe::POLICY_MAPS, now.generation)
    }

    fn report(&mut self, now: PolicyHash) -> Result<()> {
        if self.reported == Some(now) {
            return Ok(());
        }
        self.reported = Some(now);
        let found = "the maps of the policy were changed, and not by breaker".to_owned();
        self.tampering.set_problem(HOST, Some(found.clone()));
        let hash = |of: Option<PolicyHash>| of.map(|of| display::hex(&of.hash));
        self.tampering.record(Finding {
            place: HOST,
            scope: None,
            causes: 0,
            found,
            fields: json!({
                "generation": now.generation, "before": hash(self.known), "after": hash(Some(now)),
            }),
        });
        self.stamps.record(probe::POLICY_MAPS, probe::FAILED)
    }
}
