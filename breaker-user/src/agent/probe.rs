//! Sends a probe frame through each interface once a second. A stamped frame proves that the program sees the
//! packets of the host, and that it reads the maps of this load.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use breaker_common::abi::{Interface, mode};
use serde_json::json;

use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;
use super::periodic::{Interval, run_blocking};
use crate::kernel::links;
use crate::kernel::probe::{Probe, Prober};
use crate::kernel::text::trim_padding;

const INTERVAL: Interval = Interval::new(Duration::from_secs(1));
/// Delay until a failed probe is repeated, because the interface may just be created again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The probes of a load.
struct Probes {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    prober: Prober,
    /// Generation at which the map was opened.
    opened_generation: u64,
    /// Names of the interfaces whose last probe failed.
    failed: BTreeSet<String>,
}

/// Probes once a second until the shutdown.
pub async fn run(loaded: Arc<Loaded>, log: Arc<Log>, shutdown: impl Future<Output = ()>) {
    if loaded.in_force().breaker.meta().mode == mode::INLINE {
        return notice("probe not possible: a frame of this host does not pass its XDP hook");
    }
    let probes = match Probes::open(loaded, log) {
        Ok(probes) => Mutex::new(probes),
        Err(error) => return notice(&format!("probe not possible: {error:#}")),
    };
    let work = move || probes.lock().unwrap_or_else(PoisonError::into_inner).run();
    run_blocking(INTERVAL, shutdown, work, |result| {
        if let Err(error) = result {
            notice(&format!("the interfaces were not probed: {error:#}"));
        }
    })
    .await;
}

impl Probes {
    fn open(loaded: Arc<Loaded>, log: Arc<Log>) -> Result<Self> {
        let in_force = loaded.in_force();
        let prober = Prober::open(in_force.breaker.root())?;
        let opened_generation = in_force.breaker.meta().generation;
        Ok(Self { loaded, log, prober, opened_generation, failed: BTreeSet::new() })
    }

    fn run(&mut self) -> Result<()> {
        let in_force = self.loaded.in_force();
        let generation = in_force.breaker.meta().generation;
        if generation != self.opened_generation {
            self.prober = Prober::open(in_force.breaker.root())?;
            self.opened_generation = generation;
        }
        let interfaces = in_force.breaker.interfaces();
        let indexes: Vec<u32> = interfaces.iter().map(|interface| interface.ifindex).collect();
        self.prober.set_interfaces(&indexes)?;
        interfaces.iter().try_for_each(|interface| self.probe(interface))
    }

    fn probe(&mut self, interface: &Interface) -> Result<()> {
        let (name, ifindex) = (trim_padding(&interface.name), interface.ifindex);
        let mut failure = self.failure(ifindex)?;
        if failure.is_some() {
            sleep(RETRY_DELAY);
            failure = self.failure(ifindex)?;
        }
        // The check of the attachments reports a missing interface.
        if failure.is_some() && !links::all()?.iter().any(|link| link.index == ifindex) {
            return Ok(());
        }
        match failure {
            Some(found) => {
                self.prober.record_failure(ifindex)?;
                if self.failed.insert(name.clone()) {
                    notice(&format!("{name}: {found}"));
                    let counts = json!({ "interface": name, "ifindex": ifindex, "found": found });
                    self.log.record(self.loaded.entry("probe_failed", counts));
                }
            }
            None => {
                if self.failed.remove(&name) {
                    notice(&format!("{name}: the program sees probe frames again"));
                    let counts = json!({ "interface": name, "ifindex": ifindex });
                    self.log.record(self.loaded.entry("probe_restored", counts));
                }
            }
        }
        Ok(())
    }

    /// Probes an interface, and describes the failure; `None` if the probe succeeded.
    fn failure(&self, ifindex: u32) -> Result<Option<String>> {
        let before = self.loaded.generation();
        let stamped = match self.prober.probe(ifindex)? {
            Probe::NotStamped => {
                return Ok(Some(
                    "the program does not see what the host sends: a probe frame got no stamp".to_owned(),
                ));
            }
            Probe::Stamped(stamped) => stamped,
        };
        let after = self.loaded.generation();
        Ok((stamped < before || stamped > after).then(|| {
            format!("the program reads other maps: its stamp has generation {stamped}, and the load {after}")
        }))
    }
}
