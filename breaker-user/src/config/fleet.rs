//! `[fleet]`: the etcd cluster through which the hosts of a fleet are tripped together.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::diagnostics::Problems;
use super::invalid::{Invalid, quoted};
use super::reader::{Section, Value};
use super::text::{AbsolutePath, Name, duration};
use super::words::words;

/// Most members of a cluster.
const MAX_ENDPOINTS: usize = 9;
/// Port of an endpoint that names none: the client port of etcd.
const DEFAULT_PORT: u16 = 2379;
/// Valid times without contact before `on_engine_loss`.
const LOSS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
/// Default of that time.
const DEFAULT_LOSS: Duration = Duration::from_secs(5);

words! {
    /// What the agent does when it has had no contact with etcd for a time.
    #[derive(Default)]
    EngineLossAction, "an action" {
        /// Nothing changes, and an event is logged.
        #[default]
        Hold = "hold",
        /// The agent trips the host.
        Trip = "trip",
    }
}

/// Settings of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Name of the fleet: the keys in etcd begin with `/breaker/NAME/`.
    pub name: Name,
    /// Name of this host in the fleet; `None` for the name of the machine.
    pub host: Option<Name>,
    /// Client URLs of the members of the cluster: at least one, without duplicates.
    pub endpoints: Vec<EtcdUrl>,
    /// Certificates; `None` only if every endpoint is `http` on loopback.
    pub tls: Option<FleetTls>,
    /// What the agent does without contact.
    pub on_engine_loss: EngineLoss,
}

/// Files of mutual TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetTls {
    /// Certificate of the authority of the cluster.
    pub ca: AbsolutePath,
    /// Certificate of this host.
    pub cert: AbsolutePath,
    /// Private key of this host.
    pub key: AbsolutePath,
}

/// What the agent does when it has no contact with etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLoss {
    /// Time without contact: 1 s to 24 h.
    pub after: Duration,
    /// The action.
    pub action: EngineLossAction,
}

/// Client URL of a member of an etcd cluster: `https://HOST:PORT`, or `http` on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EtcdUrl {
    text: String,
    is_tls: bool,
}

impl EtcdUrl {
    /// The URL with its port.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true for `https`.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl FromStr for EtcdUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const REMEDY: &str = "write a client URL, like \"https://etcd-1:2379\"";
        let invalid = || Invalid::new(format!("{} is no client URL of etcd", quoted(text)), REMEDY);
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(invalid()),
        };
        let (host, port) = split_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(invalid)?;
        if !is_tls && !is_loopback(host) {
            let found = format!("{} is neither encrypted nor on loopback", quoted(text));
            return Err(Invalid::new(found, "write https:// and the keys ca, cert and key"));
        }
        Ok(Self { text: format!("{scheme}://{host}:{port}"), is_tls })
    }
}

/// Splits `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, rest) = text.split_at(end);
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if rest.is_empty() => DEFAULT_PORT,
        None => return None,
    };
    let is_address = |address: &str| address.parse::<std::net::Ipv6Addr>().is_ok();
    let is_valid = match host.strip_prefix('[') {
        Some(address) => is_address(address.trim_end_matches(']')),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
    };
    is_valid.then_some((host, port))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads `[fleet]`, if the file has it.
pub(super) fn fleet(file: &mut Section<'_>, problems: &mut Problems) -> Option<Fleet> {
    let mut section = file.optional("fleet", problems, |value| value.section("write [fleet], once"))?;
    let name = section.required("name", "add the fleet's name, like name = \"ny4-equities\"", problems);
    let name = name.and_then(|value| problems.record(value.text()));
    let host = section.optional("host", problems, Value::text);
    let example = "add the members of the cluster, like endpoints = [\"https://etcd-1:2379\"]";
    let endpoints = section.required("endpoints", example, problems);
    let endpoints = endpoints.and_then(|value| self::endpoints(&value, problems));
    let tls = tls(&mut section, endpoints.as_deref(), problems);
    let loss = section.take("on_engine_loss");
    let loss = loss.map_or(Some(EngineLoss::default()), |value| engine_loss(&value, problems));
    if !cfg!(feature = "fleet") {
        let found = "this breaker was built without the fleet";
        problems.errors.push(section.problem(found, "use the packages, or build with the feature `fleet`"));
    }
    section.end(problems);
    Some(Fleet { name: name?, host, endpoints: endpoints?, tls: tls?, on_engine_loss: loss? })
}

impl Default for EngineLoss {
    fn default() -> Self {
        Self { after: DEFAULT_LOSS, action: EngineLossAction::default() }
    }
}

fn endpoints(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<EtcdUrl>> {
    let items = problems.record(value.list("write a list, like [\"https://etcd-1:2379\"]"))?;
    if !(1..=MAX_ENDPOINTS).contains(&items.len()) {
        let remedy = format!("name one to {MAX_ENDPOINTS} members of the cluster");
        problems.errors.push(value.problem(format!("{} members", items.len()), remedy));
        return None;
    }
    let mut endpoints: Vec<EtcdUrl> = Vec::new();
    for item in items {
        let url: EtcdUrl = problems.record(item.text())?;
        if endpoints.contains(&url) {
            problems.errors.push(item.problem(format!("{} is listed twice", url.as_str()), "remove one"));
            return None;
        }
        endpoints.push(url);
    }
    Some(endpoints)
}

/// Reads the certificates. Returns `None` after an error.
fn tls(
    section: &mut Section<'_>,
    endpoints: Option<&[EtcdUrl]>,
    problems: &mut Problems,
) -> Option<Option<FleetTls>> {
    let needs_tls = endpoints.is_some_and(|endpoints| endpoints.iter().any(EtcdUrl::is_tls));
    let has_any = ["ca", "cert", "key"].iter().any(|key| section.has(key));
    if !needs_tls && !has_any {
        return Some(None);
    }
    let mut read = |key, example: &str| {
        let value = section.required(key, example, problems)?;
        problems.record(value.text())
    };
    let ca = read("ca", "add the cluster's authority, like ca = \"/etc/breaker/fleet/ca.pem\"");
    let cert = read("cert", "add this host's certificate, like cert = \"/etc/breaker/fleet/host.pem\"");
    let key = read("key", "add this host's key, like key = \"/etc/breaker/fleet/host.key\"");
    Some(Some(FleetTls { ca: ca?, cert: cert?, key: key? }))
}

fn engine_loss(value: &Value<'_>, problems: &mut Problems) -> Option<EngineLoss> {
    let mut section = problems.record(value.section("write { after = \"5s\", action = \"hold\" }"))?;
    let after = section.optional("after", problems, |value| {
        let text = value.string()?;
        let remedy = "write a whole number and s, m or h, from \"1s\" to \"24h\"";
        let after = duration(text).filter(|after| LOSS.contains(after));
        after.ok_or_else(|| value.problem(format!("{} is not such a time", quoted(text)), remedy))
    });
    let action = section.optional("action", problems, Value::word);
    section.end(problems);
    Some(EngineLoss { after: after.unwrap_or(DEFAULT_LOSS), action: action.unwrap_or_default() })
}
