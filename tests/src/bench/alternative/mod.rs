//! What one could put between a trading host and a venue: breaker, the machine's packet filters, proxies, and nothing. Each in
//! namespaces of its own, so that all can be measured in turns.

mod filter;
mod framing;
mod haproxy;
mod proxy;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use breaker_user::testbed::{Namespace, TwoHosts};

use self::haproxy::Haproxy;
use self::proxy::Proxy;
use super::hook::POLICY;
use crate::testbed::Testbed;

/// The port of the session, and that of the proxies.
pub const PORT: u16 = 9001;
/// A limit, a second, that nothing reaches.
pub const UNLIMITED: u32 = 30_000_000;

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing,
    Nothing,
    /// and once more: what differs between the two is not due to anything.
    Again,
    /// A chain at `output` that looks for `35=D` where it is in the first order of a segment.
    Nftables,
    /// `string` and `hashlimit`.
    Iptables,
    /// `u32` into a class of HTB.
    Tc,
    /// A proxy that knows TCP.
    Haproxy,
    /// A proxy that knows FIX.
    Proxy,
    /// breaker.
    Breaker,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Again,
        Self::Nftables,
        Self::Iptables,
        Self::Tc,
        Self::Haproxy,
        Self::Proxy,
        Self::Breaker,
    ];

    /// Name in the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Again => "nothing again (A/A)",
            Self::Nftables => "nftables: output, `@ih` match, limit",
            Self::Iptables => "iptables: string, hashlimit",
            Self::Tc => "tc: u32 into an HTB class",
            Self::Haproxy => "HAProxy, TCP mode",
            Self::Proxy => "an epoll proxy that parses FIX",
            Self::Breaker => "breaker, 3 scopes, 4 limits",
        }
    }
}

/// One of them, at work.
pub struct Alternative {
    /// What it is.
    pub kind: Kind,
    setup: Setup,
}

enum Setup {
    Host(TwoHosts),
    Breaker(Testbed),
    Haproxy(Haproxy, TwoHosts),
    Proxy(Proxy, TwoHosts),
}

/// What does not work, and why, in a few words for a cell.
pub type Unavailable = String;

impl Alternative {
    /// Sets it up with a limit of orders a second, where it has such.
    pub fn open(kind: Kind, limit: u32) -> Result<Self, Unavailable> {
        if kind == Kind::Breaker {
            let policy = if limit == UNLIMITED { POLICY.to_owned() } else { limited(limit) };
            return Ok(Self { kind, setup: Setup::Breaker(Testbed::load(&policy)) });
        }
        let wire = TwoHosts::new().expect("making namespaces");
        let setup = match kind {
            Kind::Haproxy => Setup::Haproxy(Haproxy::start(&wire.firm)?, wire),
            Kind::Proxy => Setup::Proxy(Proxy::start(&wire.firm, limit), wire),
            _ => {
                filter::set_up(kind, &wire.firm, limit)?;
                Setup::Host(wire)
            }
        };
        Ok(Self { kind, setup })
    }

    /// All that there can be, without limits that matter; and for a table, the name of each that cannot, and why.
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
    pub fn wire(&self) -> &TwoHosts {
        match &self.setup {
            Setup::Host(wire) | Setup::Haproxy(_, wire) | Setup::Proxy(_, wire) => wire,
            Setup::Breaker(testbed) => &testbed.network,
        }
    }

    /// The trading host.
    pub fn firm(&self) -> &Namespace {
        &self.wire().firm
    }

    /// The venue.
    pub fn venue(&self) -> &Namespace {
        &self.wire().venue
    }

    /// Where the trading application connects to: the venue, or the proxy before it.
    pub fn place(&self) -> SocketAddr {
        match &self.setup {
            Setup::Haproxy(..) | Setup::Proxy(..) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT),
            Setup::Host(_) | Setup::Breaker(_) => TwoHosts::venue_socket(PORT),
        }
    }

    /// A connection of the trading application. Writing to one that has been cut off ends after a while.
    pub fn connect(&self) -> TcpStream {
        let stream = self.firm().run(|| TcpStream::connect(self.place())).expect("connecting");
        stream.set_nodelay(true).expect("no delay");
        stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a time limit");
        stream
    }

    /// The orders that it has counted so far.
    pub fn counted(&self) -> Result<u64, Unavailable> {
        match &self.setup {
            Setup::Host(wire) => filter::counted(self.kind, &wire.firm),
            Setup::Breaker(testbed) => Ok(testbed.counters(1).passed[0]),
            Setup::Haproxy(..) => Err("knows bytes and connections only".to_owned()),
            Setup::Proxy(proxy, _) => Ok(proxy.counted()),
        }
    }

    /// Stops the session by hand.
    pub fn stop(&self) -> Result<(), Unavailable> {
        match &self.setup {
            Setup::Host(wire) => filter::stop(self.kind, &wire.firm),
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
    pub fn lift(&self) -> Result<(), Unavailable> {
        match &self.setup {
            Setup::Host(wire) => filter::lift(self.kind, &wire.firm),
            Setup::Breaker(testbed) => {
                testbed.reset("session/x1");
                Ok(())
            }
            Setup::Haproxy(haproxy, _) => haproxy.lift(),
            Setup::Proxy(proxy, _) => {
                proxy.lift();
                Ok(())
            }
        }
    }
}

/// [`POLICY`], with a limit of orders a second for the session.
fn limited(limit: u32) -> String {
    let (rest, own) = POLICY.rsplit_once("limits = [").expect("the session's limits");
    let (_, others) = own.split_once("}, ").expect("two of them");
    format!("{rest}limits = [{{ class = \"order\", max = {limit}, per = \"1s\" }}, {others}")
}
