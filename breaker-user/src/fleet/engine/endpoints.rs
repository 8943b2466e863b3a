//! The members of the cluster, and the connection to each.

use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, KvClient, WatchClient};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::error::{Error, Result};

/// Interval of keep-alive pings. etcd closes the connection of a client that pings more often than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_millis(5_500);
/// Longest time until the answer to a ping.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(2);
/// Longest time to connect, and longest time of the TLS handshake.
const CONNECT: Duration = Duration::from_secs(1);
/// Largest accepted message. etcd sends a watch up to 1,000 revisions at once, and the values of one
/// revision have at most 1.5 MB by etcd's default.
const LARGEST_MESSAGE: usize = 512 << 20;

/// Where the cluster is.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// One URL for each member, with `https://` or `http://`.
    pub urls: Vec<String>,
    /// The files for `https://`.
    pub tls: Option<Tls>,
}

/// Files in PEM format for mutual TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate authority that signed the members' certificates.
    pub ca: PathBuf,
    /// The certificate of this client, whose common name is the user of etcd.
    pub cert: PathBuf,
    /// The private key of this client.
    pub key: PathBuf,
}

/// A member of the cluster with a client of its own. A client over several members keeps choosing a dead or
/// frozen member (measured: 626 ms to 3 s).
#[derive(Clone)]
pub(super) struct Member {
    pub url: String,
    pub client: Client,
}

impl Member {
    /// Calls for keys.
    pub fn keys(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(LARGEST_MESSAGE)
    }

    /// Calls for watches.
    pub fn watches(&self) -> WatchClient {
        self.client.watch_client().max_decoding_message_size(LARGEST_MESSAGE)
    }
}

/// Makes a client for each member. A client connects at its first call, and again after a break.
///
/// # Panics
/// Outside a tokio runtime.
pub(super) fn members(endpoints: &Endpoints) -> Result<Vec<Member>> {
    if endpoints.urls.is_empty() {
        return Err(Error::setup(ACTION, "endpoints", "no URL"));
    }
    let tls = endpoints.tls.as_ref().map(read).transpose()?;
    endpoints.urls.iter().map(|url| member(url, tls.as_ref(), endpoints)).collect()
}

const ACTION: &str = "connecting to etcd";

fn member(url: &str, tls: Option<&ClientTlsConfig>, endpoints: &Endpoints) -> Result<Member> {
    let wrong = |found: &dyn std::fmt::Display| Error::setup(ACTION, url, found);
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| wrong(&error))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    match (endpoint.uri().scheme_str(), tls) {
        (Some("http"), _) => {}
        (Some("https"), Some(tls)) => {
            endpoint = endpoint.tls_config(tls.clone()).map_err(|error| unfit(endpoints, &error))?;
        }
        (Some("https"), None) => return Err(wrong(&"no files for TLS")),
        _ => return Err(wrong(&"neither http:// nor https://")),
    }
    let channel = Channel::Tonic(endpoint.connect_lazy());
    // A member without a leader must refuse at once, so that another member is asked.
    let options = ConnectOptions::new().with_require_leader(true);
    // `from_channel` only waits if a user and a password are given.
    let client = pin!(Client::from_channel(channel, Some(options)));
    match client.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(client)) => Ok(Member { url: url.to_owned(), client }),
        Poll::Ready(Err(error)) => Err(wrong(&error)),
        Poll::Pending => Err(wrong(&"the client waits for an answer before its first call")),
    }
}

/// Reads the files.
fn read(tls: &Tls) -> Result<ClientTlsConfig> {
    let ca = read_pem(&tls.ca, "CERTIFICATE")?;
    let cert = read_pem(&tls.cert, "CERTIFICATE")?;
    let key = read_pem(&tls.key, "PRIVATE KEY")?;
    let config = ClientTlsConfig::new().timeout(CONNECT).assume_http2(true);
    Ok(config.ca_certificate(Certificate::from_pem(ca)).identity(Identity::from_pem(cert, key)))
}

fn read_pem(path: &PathBuf, label: &str) -> Result<String> {
    let wrong = |found: &dyn std::fmt::Display| Error::setup("reading a file for TLS", path.display(), found);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let has_label = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(label));
    has_label.then_some(text).ok_or_else(|| wrong(&format!("no section `BEGIN … {label}` in it")))
}

/// The error of files that each have the wanted section, but that TLS does not accept together.
fn unfit(endpoints: &Endpoints, error: &tonic::transport::Error) -> Error {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let paths = endpoints.tls.iter().flat_map(|tls| [&tls.ca, &tls.cert, &tls.key]);
    let paths: Vec<_> = paths.map(|path| path.display().to_string()).collect();
    Error::setup("using the files for TLS", paths.join(", "), cause)
}
