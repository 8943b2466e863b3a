//! The scopes of a fleet's verbs, and the scopes of a host that they concern.

use std::fmt;
use std::str::FromStr;

use crate::config::{Name, ScopeName};

/// A scope of a fleet's verb.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FleetScope {
    /// Every host: `all`.
    All,
    /// One host: `host/NAME`.
    Host(Name),
    /// A group, on each host whose policy declares it: `group/NAME`.
    Group(Name),
    /// A session, on each host whose policy declares it: `session/NAME`.
    Session(Name),
}

impl FleetScope {
    /// Returns the scope of a host that this scope concerns; `None` if it does not concern the host.
    /// `declares` tells whether the host's policy declares a group or session.
    pub fn on_host(&self, host: &Name, declares: impl FnOnce(&ScopeName) -> bool) -> Option<ScopeName> {
        let scope = match self {
            Self::All => return Some(ScopeName::Host),
            Self::Host(name) => return (name == host).then_some(ScopeName::Host),
            Self::Group(name) => ScopeName::Group(name.clone()),
            Self::Session(name) => ScopeName::Session(name.clone()),
        };
        declares(&scope).then_some(scope)
    }
}

impl fmt::Display for FleetScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all"),
            Self::Host(name) => f.pad(&format!("host/{name}")),
            Self::Group(name) => f.pad(&format!("group/{name}")),
            Self::Session(name) => f.pad(&format!("session/{name}")),
        }
    }
}

impl FromStr for FleetScope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |name: &str| name.parse::<Name>().map_err(|invalid| invalid.to_string());
        match text.split_once('/') {
            None if text == "all" => Ok(Self::All),
            Some(("host", name)) => parse(name).map(Self::Host),
            Some(("group", name)) => parse(name).map(Self::Group),
            Some(("session", name)) => parse(name).map(Self::Session),
            _ => Err(format!(
                "{text:?} is no scope of a fleet: write all, host/NAME, group/NAME or session/NAME"
            )),
        }
    }
}
