//! The alternatives between a trading host and a venue: breaker, packet filters of Linux, proxies, and
//! nothing. Each has namespaces of its own, so that all can be measured in turns.

mod filter;
mod framing;
mod haproxy;
mod kind;
mod proxy;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use breaker_user::testbed::{Namespace, TwoHosts};

pub use self::kind::{Kind, PORT, UNLIMITED, Unavailable};

use self::haproxy::Haproxy;
use self::proxy::Proxy;
use super::hook::POLICY;
use crate::testbed::Testbed;

/// An alternative that is set up.
pub struct Alternative {
    /// Kind of the alternative.
    pub kind: Kind,
    setup: Setup,
}

enum Setup {
    Host(TwoHosts),
    Breaker(Testbed),
    Haproxy(Haproxy, TwoHosts),
    Proxy(Proxy, TwoHosts),
}

impl Alternative {
    /// Sets an alternative up with a limit in orders/s, if it has limits.
    pub fn open(kind: Kind, limit: u32) -> Result<Self, Unavailable> {
        if kind == Kind::Breaker {
            let policy = if limit == UNLIMITED { POLICY.to_owned() } else { limited(limit) };
            return Ok(Self { kind, setup: Setup::Breaker(Testbed::load(&policy)) });
        }
        let network = TwoHosts::new().expect("making namespaces");
        let setup = match kind {
            Kind::Haproxy => Setup::Haproxy(Haproxy::start(&network.firm)?, network),
            Kind::Proxy => Setup::Proxy(Proxy::start(&network.firm, limit), network),
            _ => {
                filter::set_up(kind, &network.firm, limit)?;
                Setup::Host(network)
            }
        };
        Ok(Self { kind, setup })
    }

    /// All available alternatives without effective limits. For a table: the name of each unavailable one,
    /// with the reason.
    pub fn all() -> (Vec<Self>, Vec<[String; 2]>) {
        let (mut alternatives, mut absent) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            match Self::open(kind, UNLIMITED) {
                Ok(alternative) => alternatives.push(alternative),
                Err(why) => absent.push([kind.name().to_owned(), format!("not available: {why}")]),
            }
        }
        (alternatives, absent)
    }

    /// The namespaces.
    pub fn network(&self) -> &TwoHosts {
        match &self.setup {
            Setup::Host(network) | Setup::Haproxy(_, network) | Setup::Proxy(_, network) => network,
            Setup::Breaker(testbed) => &testbed.network,
        }
    }

    /// The trading host.
    pub fn firm(&self) -> &Namespace {
        &self.network().firm
    }

    /// The venue.
    pub fn venue(&self) -> &Namespace {
        &self.network().venue
    }

    /// The address that the trading application connects to: the venue, or the proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        match &self.setup {
            Setup::Haproxy(..) | Setup::Proxy(..) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT),
            Setup::Host(_) | Setup::Breaker(_) => TwoHosts::venue_socket(PORT),
        }
    }

    /// Connects the trading application. A write on a connection that has been cut off fails after 2 s.
    pub fn connect(&self) -> TcpStream {
        let stream = self.firm().run(|| TcpStream::connect(self.address())).expect("connecting");
        stream.set_nodelay(true).expect("setting TCP_NODELAY");
        stream.set_write_timeout(Some(Duration::from_secs(2))).expect("setting a timeout");
        stream
    }

    /// Number of orders that the alternative has counted.
    pub fn counted(&self) -> Result<u64, Unavailable> {
        match &self.setup {
            Setup::Host(network) => filter::counted(self.kind, &network.firm),
            Setup::Breaker(testbed) => Ok(testbed.counters(1).passed[0]),
            Setup::Haproxy(..) => Err("counts only bytes and connections".to_owned()),
            Setup::Proxy(proxy, _) => Ok(proxy.counted()),
        }
    }

    /// Stops the session by hand.
    pub fn stop(&self) -> Result<(), Unavailable> {
        match &self.setup {
            Setup::Host(network) => filter::stop(self.kind, &network.firm),
            Setup::Breaker(testbed) => {
                testbed.trip("session/x1");
                Ok(())
            }
            Setup::Haproxy(haproxy, _) => haproxy.stop(),
            Setup::Proxy(proxy, _) => {
                proxy.stop();
                Ok(())
            }
        }
    }

    /// Lets the session trade again.
    pub fn resume(&self) -> Result<(), Unavailable> {
        match &self.setup {
            Setup::Host(network) => filter::resume(self.kind, &network.firm),
            Setup::Breaker(testbed) => {
                testbed.reset("session/x1");
                Ok(())
            }
            Setup::Haproxy(haproxy, _) => haproxy.resume(),
            Setup::Proxy(proxy, _) => {
                proxy.resume();
                Ok(())
            }
        }
    }
}

/// [`POLICY`], with a limit for the session in orders/s.
fn limited(limit: u32) -> String {
    let (rest, own) = POLICY.rsplit_once("limits = [").expect("the session's limits");
    let (_, others) = own.split_once("},").expect("two of them");
    let others = others.trim_start();
    format!("{rest}limits = [{{ class = \"order\", max = {limit}, per = \"1s\" }}, {others}")
}
