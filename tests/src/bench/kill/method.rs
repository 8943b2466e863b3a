//! Ways to stop a session.

use crate::cli::binary;
use breaker_common::abi::cause;
use breaker_user::kernel::{Breaker, Reset};
use breaker_user::testbed::TwoHosts;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::alternative::PORT;
use crate::bench::shell::{find, here};
use crate::testbed::Testbed;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The switch in the map.
    Write,
    /// `breaker trip`.
    Trip,
    /// The same map, by the tool of the kernel's authors.
    Update,
    /// A rule that drops, of nftables,
    Nftables,
    /// and of iptables,
    Iptables,
    /// and of tc.
    Filter,
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

impl Method {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::Write,
        Self::Trip,
        Self::Update,
        Self::Nftables,
        Self::Iptables,
        Self::Filter,
        Self::Sockets,
        Self::Link,
        Self::Process,
    ];

    /// Name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "breaker: the switch's write alone (library)",
            Self::Trip => "breaker: `breaker trip`",
            Self::Update => "`bpftool map update` of the switch, and of all that stands beside it",
            Self::Nftables => "`nft add rule … drop`",
            Self::Iptables => "`iptables -I OUTPUT … -j DROP`",
            Self::Filter => "`tc filter add … action drop`",
            Self::Sockets => "`ss -K`",
            Self::Link => "`ip link set … down`",
            Self::Process => "kill -9 of the sender (the system call alone)",
        }
    }

    /// Whether it is breaker's.
    pub const fn is_breaker(self) -> bool {
        matches!(self, Self::Write | Self::Trip | Self::Update)
    }

    /// Whether it ends connections; else they stay, and are silent.
    pub const fn ends(self) -> bool {
        !matches!(self, Self::Nftables | Self::Iptables | Self::Filter | Self::Link)
    }

    /// What is done before, a command line with its input each: what is there on a host that is prepared, and a harmless call that
    /// fails where the weapon would.
    pub fn prepared(self) -> Vec<(&'static str, &'static str)> {
        const HOOK: &str = "table ip bench { chain output { type filter hook output priority 0; }; }";
        match self {
            Self::Update => vec![("bpftool version", "")],
            Self::Nftables => vec![("nft -f -", HOOK)],
            Self::Iptables => vec![("iptables -nL OUTPUT", "")],
            // Nobody sends to port 9.
            Self::Filter => vec![
                ("tc qdisc add dev eth1 clsact", ""),
                (
                    "tc filter add dev eth1 egress prio 2 protocol ip u32 match ip dport 9 0xffff action drop",
                    "",
                ),
            ],
            Self::Sockets => vec![("ss -V", "")],
            Self::Link => vec![("ip link", "")],
            Self::Write | Self::Trip | Self::Process => Vec::new(),
        }
    }

    /// Readies it in this thread's namespace.
    pub fn ready(self, sender: Option<Pid>) -> Ready {
        let interface = TwoHosts::INTERFACE;
        let ready = match self {
            Self::Write => {
                Ready::Switch(Box::new(Breaker::open(&Testbed::root()).expect("opening what is loaded")))
            }
            Self::Trip => Ready::Command(format!(
                "{} trip session/x1 --reason bench --private-pins --pin-root {}",
                binary().display(),
                Testbed::root().path().display()
            )),
            Self::Update => Ready::Command(update()),
            Self::Nftables => Ready::Command(format!("nft add rule ip bench output tcp dport {PORT} drop")),
            Self::Iptables => Ready::Command(format!("iptables -I OUTPUT -p tcp --dport {PORT} -j DROP")),
            Self::Filter => Ready::Command(format!(
                "tc filter add dev {interface} egress prio 1 protocol ip u32 match ip dport {PORT} 0xffff action drop"
            )),
            Self::Sockets => Ready::Command(format!("ss -K dst {}", TwoHosts::venue_socket(PORT))),
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
            Self::Write | Self::Trip | Self::Update => {
                let breaker = Breaker::open(&Testbed::root()).expect("opening what is loaded");
                let scope = breaker.find("session/x1").expect("the session");
                let seen = breaker.switch(scope).expect("its switch");
                assert_ne!(seen.causes, 0, "it was tripped");
                let done = breaker.reset(scope, seen).expect("resetting it");
                assert_eq!(done, Reset::Done, "nobody else trips it");
                return;
            }
            Self::Nftables => "nft flush chain ip bench output".to_owned(),
            Self::Iptables => "iptables -F OUTPUT".to_owned(),
            Self::Filter => format!("tc filter del dev {} egress prio 1", TwoHosts::INTERFACE),
            Self::Link => format!("ip link set {} up", TwoHosts::INTERFACE),
            Self::Sockets | Self::Process => return,
        };
        here(&line, "").expect("undoing it");
    }
}

/// A scope as it is but for its switch, which is thrown: the tool writes whole values only.
fn update() -> String {
    let breaker = Breaker::open(&Testbed::root()).expect("opening what is loaded");
    let number = breaker.find("session/x1").expect("the session");
    let mut scope = breaker.scope(number).expect("the scope");
    scope.switch.causes |= cause::MANUAL;
    scope.switch.epoch += 1;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
    let (key, value) = (hex(bytemuck::bytes_of(&number.get())), hex(bytemuck::bytes_of(&scope)));
    format!(
        "bpftool map update pinned {} key hex{key} value hex{value}",
        Testbed::root().map("SCOPES").display()
    )
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
