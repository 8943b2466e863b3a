//! Fetches the rates of the last 15 minutes from the agent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::config;
use crate::kernel::Breaker;
use crate::state;
use crate::view::rates::{Rates, SessionRates};

/// Longest time to connect, and again for the answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer in bytes: the rates of thousands of sessions.
const MAX_BYTES: usize = 64 << 20;

/// Fetches the rates. Fails if they are not those of the sessions in force, as from another instance's agent.
pub fn fetch(breaker: &Breaker) -> Result<Rates<Vec<SessionRates>>> {
    let address = address(breaker);
    let stream = breaker.in_netns(|| TcpStream::connect_timeout(&address, TIMEOUT))??;
    stream.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().build().context("starting")?;
    let body =
        runtime.block_on(async { timeout(TIMEOUT, get(stream)).await.context("it takes too long")? })?;
    let rates: Rates<Vec<SessionRates>> = serde_json::from_slice(&body).context("reading the history")?;
    let names = breaker.names();
    let own = names.sessions().map(|session| names.session_name(session).as_str());
    ensure!(rates.sessions.iter().map(|session| session.name.as_str()).eq(own), "other sessions");
    Ok(rates)
}

/// The address of the agent, according to the policy in force. A wildcard address becomes a loopback one.
fn address(breaker: &Breaker) -> SocketAddr {
    let text = state::store(breaker).policy_text();
    let policy = text.ok().and_then(|text| config::parse("policy", &text).ok());
    let mut address = policy.map_or(config::METRICS, |policy| policy.agent().metrics);
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn get(stream: TcpStream) -> Result<Bytes> {
    let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let request = Request::get("/history").header(HOST, "breaker").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == StatusCode::OK, "the agent answers {}", answer.status());
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        Ok(body.map_err(|error| anyhow::anyhow!("reading the history: {error}"))?.to_bytes())
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
