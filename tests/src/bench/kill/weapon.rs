//! Ways to stop a session.

use breaker_common::abi::cause;
use breaker_user::kernel::Breaker;
use breaker_user::lab::Wire;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::peer::PORT;
use crate::bench::tool::{find, here};
use crate::rig::{Rig, binary};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weapon {
    /// The switch in the map.
    Write,
    /// `breaker trip`.
    Trip,
    /// A rule that drops, of nftables,
    Nftables,
    /// and of iptables.
    Iptables,
    /// `ss -K`.
    Sockets,
    /// `ip link set … down`.
    Link,
    /// SIGKILL for the sender.
    Process,
}

/// One that is ready, in the namespace that it is for.
pub enum Ready {
    Switch(Box<Breaker>),
    Command(String),
    Process(Pid),
}

impl Weapon {
    /// All.
    pub const ALL: [Self; 7] =
        [Self::Write, Self::Trip, Self::Nftables, Self::Iptables, Self::Sockets, Self::Link, Self::Process];

    /// Name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "breaker: the switch's write alone (library)",
            Self::Trip => "breaker: `breaker trip`",
            Self::Nftables => "`nft add rule … drop`",
            Self::Iptables => "`iptables -I OUTPUT … -j DROP`",
            Self::Sockets => "`ss -K`",
            Self::Link => "`ip link set … down`",
            Self::Process => "kill -9 of the sender (the system call alone)",
        }
    }

    /// Whether it is breaker's.
    pub const fn is_breaker(self) -> bool {
        matches!(self, Self::Write | Self::Trip)
    }

    /// Whether it ends connections; else they stay, and are silent.
    pub const fn ends(self) -> bool {
        !matches!(self, Self::Nftables | Self::Iptables | Self::Link)
    }

    /// What is there before, as it would be on a host that is prepared.
    pub const fn prepared(self) -> Option<&'static str> {
        match self {
            Self::Nftables => Some("table ip bench { chain output { type filter hook output priority 0; }; }"),
            _ => None,
        }
    }

    /// A harmless call that fails where the weapon would.
    pub const fn needs(self) -> Option<&'static str> {
        match self {
            Self::Iptables => Some("iptables -nL OUTPUT"),
            Self::Sockets => Some("ss -V"),
            Self::Link => Some("ip link"),
            _ => None,
        }
    }

    /// Readies it in this thread's namespace.
    pub fn ready(self, sender: Option<Pid>) -> Ready {
        let interface = Wire::INTERFACE;
        let ready = match self {
            Self::Write => Ready::Switch(Box::new(Breaker::open(&Rig::root()).expect("opening what is loaded"))),
            Self::Trip => Ready::Command(format!("{} trip session/x1 --reason bench", binary().display())),
            Self::Nftables => Ready::Command(format!("nft add rule ip bench output tcp dport {PORT} drop")),
            Self::Iptables => Ready::Command(format!("iptables -I OUTPUT -p tcp --dport {PORT} -j DROP")),
            Self::Sockets => Ready::Command(format!("ss -K dst {}", Wire::venue_socket(PORT))),
            Self::Link => Ready::Command(format!("ip link set {interface} down")),
            Self::Process => Ready::Process(sender.expect("the sender is a process")),
        };
        match ready {
            // To look for it is no part of the act.
            Ready::Command(line) => {
                let (program, rest) = line.split_once(' ').expect("arguments");
                Ready::Command(format!("{} {rest}", find(program).expect("the program").display()))
            }
            other => other,
        }
    }

    /// Undoes it, in this thread's namespace.
    pub fn undo(self) {
        let line = match self {
            Self::Write | Self::Trip => {
                let breaker = Breaker::open(&Rig::root()).expect("opening what is loaded");
                let scope = breaker.find("session/x1").expect("the session");
                let seen = breaker.switch(scope).expect("its switch");
                assert_ne!(seen.causes, 0, "it was tripped");
                assert!(breaker.reset(scope, seen).expect("resetting it"), "nobody else trips it");
                return;
            }
            Self::Nftables => "nft flush chain ip bench output".to_owned(),
            Self::Iptables => "iptables -F OUTPUT".to_owned(),
            Self::Link => format!("ip link set {} up", Wire::INTERFACE),
            Self::Sockets | Self::Process => return,
        };
        here(&line, "").expect("undoing it");
    }
}

impl Ready {
    /// Acts, and returns when it has.
    pub fn fire(&self) {
        match self {
            Self::Switch(breaker) => {
                let scope = breaker.find("session/x1").expect("the session");
                breaker.trip(scope, cause::MANUAL).expect("tripping it");
            }
            Self::Command(line) => drop(here(line, "").expect("the command")),
            Self::Process(sender) => kill_process(*sender, Signal::KILL).expect("killing it"),
        }
    }
}
