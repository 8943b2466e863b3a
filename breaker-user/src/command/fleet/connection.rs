//! The connection of a verb to the fleet's cluster, and the records of the fleet at one revision.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::audit::Actor;
use crate::cli::FleetArgs;
use crate::cli_error::{CliError, Code};
use crate::config;
use crate::fleet::Prefix;
use crate::fleet::engine::{self, Endpoints, Engine, Entry, Kind, Tls};
use crate::fleet::record::{self, Ack, ActivePolicy, Command, Inventory};
use crate::fleet::sameness::Report;
use crate::fleet::standing::Records;

/// The cluster, for one verb.
pub struct Connection {
    pub engine: Engine,
    pub prefix: Prefix,
    /// Name of the fleet.
    pub fleet: String,
    /// File with the inventory as it was read last.
    pub inventory: PathBuf,
}

/// The records of a fleet at one revision.
pub struct Fleet {
    /// Name of the fleet.
    pub name: String,
    /// The revision.
    pub revision: i64,
    /// Entries of the inventory; the error of one that cannot be read.
    pub inventory: BTreeMap<String, Result<Inventory, String>>,
    /// Trips and resets.
    pub switches: Records,
    /// The active policy; the error if its record cannot be read.
    pub active: Option<Result<ActivePolicy, String>>,
    /// What the hosts report.
    pub hosts: BTreeMap<String, Report>,
    /// Acknowledgements, by command and host.
    pub acks: BTreeMap<String, BTreeMap<String, Ack>>,
    /// Commands in the order of their revisions.
    pub commands: Vec<(String, Result<Command, String>)>,
}

impl Connection {
    /// Reads the configuration, and makes the clients.
    pub fn open(args: &FleetArgs) -> Result<Self> {
        let policy = config::load(&args.config)?.policy;
        let Some(fleet) = policy.fleet() else {
            let text = format!(
                "{} has no [fleet]: add it, or name another file with --config",
                args.config.display()
            );
            return Err(CliError::new(Code::Usage, text).into());
        };
        let urls = fleet.endpoints.iter().map(|url| url.as_str().to_owned()).collect();
        let tls = fleet.tls.as_ref().map(|tls| Tls {
            ca: tls.ca.as_path().to_owned(),
            cert: tls.cert.as_path().to_owned(),
            key: tls.key.as_path().to_owned(),
        });
        let engine = Engine::new(&Endpoints { urls, tls }).map_err(failure)?;
        let engine = engine.with_timeout(Duration::from_millis(args.timeout));
        let inventory = policy.agent().state.as_path().join(format!("inventory-{}.json", fleet.name));
        Ok(Self { engine, prefix: Prefix::new(&fleet.name), fleet: fleet.name.to_string(), inventory })
    }

    /// Reads every record of the fleet.
    pub async fn read(&self) -> Result<Fleet> {
        let snapshot = self.engine.snapshot(self.prefix.as_str()).await.map_err(failure)?;
        let mut fleet = Fleet {
            name: self.fleet.clone(),
            revision: snapshot.revision,
            inventory: BTreeMap::new(),
            switches: Records::default(),
            active: None,
            hosts: BTreeMap::new(),
            acks: BTreeMap::new(),
            commands: Vec::new(),
        };
        let mut entries: Vec<_> = snapshot.entries.into_iter().collect();
        entries.sort_by_key(|(_, entry)| entry.create_revision);
        for (key, entry) in entries {
            if let Some(key) = self.prefix.strip(&key) {
                fleet.take(key, entry);
            }
        }
        Ok(fleet)
    }

    /// The person who runs the verb, and the host.
    pub fn author() -> (String, String) {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        (format!("{}@{node}", Actor::this_process("cli").user), node)
    }
}

impl Fleet {
    fn take(&mut self, key: &str, entry: Entry) {
        let value = entry.value;
        match key.split_once('/') {
            Some(("inventory", host)) => {
                self.inventory.insert(host.to_owned(), record::decode(&value));
            }
            Some(("trip", scope)) => {
                self.switches.trips.insert(scope.to_owned(), value);
            }
            Some(("reset", id)) => {
                self.switches.resets.insert(id.to_owned(), value);
            }
            Some(("policy", "active")) => self.active = Some(record::decode(&value)),
            Some(("command", id)) => self.commands.push((id.to_owned(), record::decode(&value))),
            Some(("hosts", rest)) => self.take_report(rest, &value),
            _ => {}
        }
    }

    fn take_report(&mut self, rest: &str, value: &[u8]) {
        let Some((host, what)) = rest.split_once('/') else { return };
        let report = self.hosts.entry(host.to_owned()).or_default();
        match what {
            "live" => report.is_live = true,
            "state" => report.state = Some(record::decode(value)),
            _ => {
                if let Some(id) = what.strip_prefix("ack/")
                    && let Ok(ack) = record::decode(value)
                {
                    self.acks.entry(id.to_owned()).or_default().insert(host.to_owned(), ack);
                }
            }
        }
    }

    /// The active policy, if its record can be read.
    pub fn active(&self) -> Option<&ActivePolicy> {
        self.active.as_ref()?.as_ref().ok()
    }

    /// The hosts of the inventory.
    pub fn inventory_hosts(&self) -> Vec<String> {
        self.inventory.keys().cloned().collect()
    }
}

/// The error of a verb for a failed call to etcd.
pub fn failure(error: engine::Error) -> anyhow::Error {
    let code = match error.kind() {
        Kind::Denied => Code::Permission,
        Kind::Setup => Code::Usage,
        _ => Code::Etcd,
    };
    CliError::new(code, anyhow!(error).to_string()).into()
}
