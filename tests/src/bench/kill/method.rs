//! Methods to stop a session.

use breaker_common::abi::cause;
use breaker_user::kernel::{Breaker, Reset};
use breaker_user::testbed::TwoHosts;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::alternative::PORT;
use crate::bench::shell::{find_program, run_here};
use crate::command::binary;
use crate::testbed::Testbed;

/// A method to stop a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The switch in the map, by a call of the library.
    Write,
    /// `breaker trip`.
    Trip,
    /// The same map, by `bpftool`.
    Update,
    /// A drop rule of nftables.
    Nftables,
    /// A drop rule of iptables.
    Iptables,
    /// A drop filter of tc.
    Filter,
    /// `ss -K`.
    Sockets,
    /// `ip link set … down`.
    Link,
    /// SIGKILL to the sender.
    Process,
}

/// A prepared method, in the namespace of the session.
pub enum Prepared {
    Switch(Box<Breaker>),
    Command(String),
    Process(Pid),
}

impl Method {
    /// All methods.
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
            Self::Update => "`bpftool map update` of the whole value with the switch",
            Self::Nftables => "`nft add rule … drop`",
            Self::Iptables => "`iptables -I OUTPUT … -j DROP`",
            Self::Filter => "`tc filter add … action drop`",
            Self::Sockets => "`ss -K`",
            Self::Link => "`ip link set … down`",
            Self::Process => "kill -9 of the sender (the system call alone)",
        }
    }

    /// Whether the method sets a switch of breaker.
    pub const fn is_breaker(self) -> bool {
        matches!(self, Self::Write | Self::Trip | Self::Update)
    }

    /// Whether the method ends connections. The others leave them open and silent.
    pub const fn ends_connections(self) -> bool {
        !matches!(self, Self::Nftables | Self::Iptables | Self::Filter | Self::Link)
    }

    /// Commands to run in advance, with their input: the configuration of a prepared host, and a harmless
    /// call that fails if the method would.
    pub fn preparations(self) -> Vec<(&'static str, &'static str)> {
        const HOOK: &str = "table ip bench { chain output { type filter hook output priority 0; }; }";
        match self {
            Self::Update => vec![("bpftool version", "")],
            Self::Nftables => vec![("nft -f -", HOOK)],
            Self::Iptables => vec![("iptables -nL OUTPUT", "")],
            // No test sends to port 9.
            Self::Filter => vec![
                ("tc qdisc add dev eth1 clsact", ""),
                (
                    "tc filter add dev eth1 egress prio 2 protocol ip u32 match ip dport 9 0xffff action \
                     drop",
                    "",
                ),
            ],
            Self::Sockets => vec![("ss -V", "")],
            Self::Link => vec![("ip link", "")],
            Self::Write | Self::Trip | Self::Process => Vec::new(),
        }
    }

    /// Prepares the method in the namespace of this thread.
    pub fn prepare(self, sender: Option<Pid>) -> Prepared {
        let interface = TwoHosts::INTERFACE;
        let prepare = match self {
            Self::Write => Prepared::Switch(Box::new(
                Breaker::open(&Testbed::root()).expect("opening the loaded breaker"),
            )),
            Self::Trip => Prepared::Command(format!(
                "{} trip session/x1 --reason bench --private-pins --pin-root {}",
                binary().display(),
                Testbed::root().path().display()
            )),
            Self::Update => Prepared::Command(update_command()),
            Self::Nftables => {
                Prepared::Command(format!("nft add rule ip bench output tcp dport {PORT} drop"))
            }
            Self::Iptables => Prepared::Command(format!("iptables -I OUTPUT -p tcp --dport {PORT} -j DROP")),
            Self::Filter => Prepared::Command(format!(
                "tc filter add dev {interface} egress prio 1 protocol ip u32 match ip dport {PORT} 0xffff \
                 action drop"
            )),
            Self::Sockets => Prepared::Command(format!("ss -K dst {}", TwoHosts::venue_socket(PORT))),
            Self::Link => Prepared::Command(format!("ip link set {interface} down")),
            Self::Process => Prepared::Process(sender.expect("the sender is a process")),
        };
        match prepare {
            // The search for the program is not part of the measurement.
            Prepared::Command(line) => {
                let (program, rest) = line.split_once(' ').expect("arguments");
                Prepared::Command(format!("{} {rest}", find_program(program).expect("the program").display()))
            }
            other => other,
        }
    }

    /// Undoes the method, in the namespace of this thread.
    pub fn undo(self) {
        let line = match self {
            Self::Write | Self::Trip | Self::Update => {
                let breaker = Breaker::open(&Testbed::root()).expect("opening the loaded breaker");
                let scope = breaker.find("session/x1").expect("the session");
                let seen = breaker.switch(scope).expect("its switch");
                assert_ne!(seen.causes, 0, "it was tripped");
                let done = breaker.reset(scope, seen, u64::MAX).expect("resetting it");
                assert_eq!(done, Reset::Done, "no other process trips it");
                return;
            }
            Self::Nftables => "nft flush chain ip bench output".to_owned(),
            Self::Iptables => "iptables -F OUTPUT".to_owned(),
            Self::Filter => format!("tc filter del dev {} egress prio 1", TwoHosts::INTERFACE),
            Self::Link => format!("ip link set {} up", TwoHosts::INTERFACE),
            Self::Sockets | Self::Process => return,
        };
        run_here(&line, "").expect("undoing it");
    }
}

/// The command of `bpftool`. It writes whole values only, so it gets the scope as it is, with the switch set.
fn update_command() -> String {
    let breaker = Breaker::open(&Testbed::root()).expect("opening the loaded breaker");
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

impl Prepared {
    /// Executes the method, and returns when it is done.
    pub fn execute(&self) {
        match self {
            Self::Switch(breaker) => {
                let scope = breaker.find("session/x1").expect("the session");
                breaker.trip(scope, cause::MANUAL).expect("tripping it");
            }
            Self::Command(line) => drop(run_here(line, "").expect("the command")),
            Self::Process(sender) => kill_process(*sender, Signal::KILL).expect("killing it"),
        }
    }
}
