//! The second way of a trip: `ssh` runs `breaker trip` on each host, with etcd and every agent dead.
//!
//! The command that `ssh` sends is only the scope. The key on the host is limited to one forced command,
//! which takes the scope from `SSH_ORIGINAL_COMMAND` (sshd(8), authorized_keys).

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::connection::Fleet;
use crate::cli_error::{CliError, Code};
use crate::command::output::warn;
use crate::config::Name;
use crate::fleet::FleetScope;
use crate::fleet::record::{Ack, Inventory as Entry};

/// Longest time to connect, in seconds.
const CONNECT_S: u32 = 3;
/// Exit code of `ssh` for its own errors (ssh(1)).
const SSH_FAILED: i32 = 255;

/// The inventory as it was read last. The file is used when etcd cannot be reached.
pub struct Inventory {
    path: PathBuf,
    hosts: BTreeMap<String, Entry>,
}

impl Inventory {
    /// Reads the file. Without one, no host is known.
    pub fn read(path: PathBuf) -> Self {
        let hosts = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path, hosts: hosts.unwrap_or_default() }
    }

    /// Keeps the inventory of the fleet for the next time. A failure is no error of the verb.
    pub fn keep(&self, fleet: &Fleet) {
        let hosts: BTreeMap<_, _> =
            fleet.inventory.iter().filter_map(|(host, entry)| Some((host, entry.as_ref().ok()?))).collect();
        let is_known = hosts.len() == self.hosts.len()
            && hosts.iter().all(|(host, entry)| self.hosts.get(*host) == Some(entry));
        if is_known {
            return;
        }
        let next = self.path.with_extension("next");
        let written = serde_json::to_vec(&hosts)
            .map_err(std::io::Error::other)
            .and_then(|bytes| fs::write(&next, bytes))
            .and_then(|()| fs::rename(&next, &self.path));
        if let Err(error) = written {
            warn(&format!(
                "breaker: the inventory is not kept in {}: {error}: without etcd no host is known",
                self.path.display()
            ));
        }
    }
}

/// Fails if a text is no destination of `ssh`.
pub fn check_destination(text: &str) -> Result<()> {
    let is_valid = !text.starts_with('-')
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_@:[]%".contains(&byte));
    if is_valid {
        return Ok(());
    }
    let text = format!("--ssh: {text:?} is no destination: write USER@ADDRESS, as for ssh");
    Err(CliError::new(Code::Usage, text).into())
}

/// Trips that run over SSH.
pub struct Trips {
    running: JoinSet<(String, Option<Ack>)>,
    /// The known hosts that the scope may concern.
    pub hosts: Vec<String>,
}

impl Trips {
    /// Starts `ssh` for each host that a scope may concern and that has a destination.
    pub fn start(inventory: &Inventory, scope: &FleetScope) -> Self {
        let mut running = JoinSet::new();
        let mut hosts = Vec::new();
        for (host, entry) in &inventory.hosts {
            let Some(local) = local_scope(host, scope) else { continue };
            hosts.push(host.clone());
            if let Some(destination) = entry.ssh.clone() {
                let host = host.clone();
                running.spawn(async move { (host, trip(&destination, &local).await) });
            }
        }
        Self { running, hosts }
    }

    /// Waits for the next result; for ever after the last one.
    pub async fn next(&mut self) -> (String, Ack) {
        loop {
            match self.running.join_next().await {
                Some(Ok((host, Some(ack)))) => return (host, ack),
                Some(_) => {}
                None => pending().await,
            }
        }
    }

    /// Waits for the results until a deadline.
    pub async fn collect(mut self, deadline: Instant) -> BTreeMap<String, Ack> {
        let mut acks = BTreeMap::new();
        while let Ok(Some(result)) = timeout_at(deadline.into(), self.running.join_next()).await {
            if let Ok((host, Some(ack))) = result {
                acks.insert(host, ack);
            }
        }
        acks
    }
}

/// The scope on a host; `None` if the host is another one.
pub fn local_scope(host: &str, scope: &FleetScope) -> Option<String> {
    let name = host.parse::<Name>().ok()?;
    scope.on_host(&name, |_| true).map(|scope| scope.to_string())
}

/// Trips a scope on a host. Returns `None` if the host does not have the scope.
async fn trip(destination: &str, scope: &str) -> Option<Ack> {
    let seen_at = Timestamp::now();
    let output = Command::new("ssh")
        .args(["-o", "BatchMode=yes", "-o", &format!("ConnectTimeout={CONNECT_S}"), "-T", "--"])
        .args([destination, scope])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let ack = |done, found| Some(Ack { seen_at, done_at: Timestamp::now(), done, found });
    let output = match output {
        Ok(output) => output,
        Err(error) => return ack(false, Some(format!("ssh cannot be run: {error}"))),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned();
    match output.status.code() {
        Some(0) => ack(true, Some("by SSH, with the cause manual: `breaker reset` on the host".to_owned())),
        Some(code) if code == Code::Usage as i32 => None,
        Some(SSH_FAILED) => ack(false, Some(format!("ssh: {last}"))),
        _ => ack(false, Some(format!("by SSH: {last}"))),
    }
}
