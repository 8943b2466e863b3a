//! The networks that breaker is tested in.

use std::net::{SocketAddr, TcpStream};

use breaker_user::testbed::{Namespace, TwoHosts};

/// Namespaces, one of which is the host that breaker is loaded on.
pub trait Network {
    /// The interface that breaker is attached to.
    const INTERFACE: &str;
    /// The host of breaker.
    fn host(&self) -> &Namespace;
    /// The trading host.
    fn firm(&self) -> &Namespace;
    /// The venue.
    fn venue(&self) -> &Namespace;
}

impl Network for TwoHosts {
    const INTERFACE: &str = Self::INTERFACE;

    fn host(&self) -> &Namespace {
        &self.firm
    }

    fn firm(&self) -> &Namespace {
        &self.firm
    }

    fn venue(&self) -> &Namespace {
        &self.venue
    }
}

/// Connects from the trading host. Each write is a segment of its own, up to the MSS.
#[track_caller]
pub fn connect(network: &impl Network, address: SocketAddr) -> TcpStream {
    let stream = network.firm().run(|| TcpStream::connect(address)).expect("connecting");
    stream.set_nodelay(true).expect("setting TCP_NODELAY");
    stream
}
