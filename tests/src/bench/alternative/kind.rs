//! The kinds of alternative, and what all have in common.

/// Port of the session, and of the proxies.
pub const PORT: u16 = 9001;
/// A limit, orders/s, that is never reached.
pub const UNLIMITED: u32 = 30_000_000;

/// Kind of alternative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No filter.
    Nothing,
    /// No filter, a second time: the difference between the two is the noise of the measurement.
    Again,
    /// A chain at `output` that matches `35=D` at its offset in the first order of a segment.
    Nftables,
    /// The matches `string` and `hashlimit`.
    Iptables,
    /// A `u32` match into a class of HTB.
    Tc,
    /// A TCP proxy.
    Haproxy,
    /// A proxy that parses FIX.
    Proxy,
    /// breaker.
    Breaker,
}

impl Kind {
    /// All kinds.
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

/// Why an alternative is not available, in a few words for a table cell.
pub type Unavailable = String;
