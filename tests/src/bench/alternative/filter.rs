//! The packet filters of Linux, each set up as close to an order limit as its rules allow.

use breaker_user::testbed::{Namespace, TwoHosts};

use super::kind::{Kind, PORT, UNLIMITED, Unavailable};
use crate::bench::order::TYPE_AT;
use crate::bench::shell::{run_in, run_with_input};

/// Bytes of the IPv4 and TCP headers of a Linux host: no IP options, and TCP time stamps.
const HEADERS: usize = 20 + 32;
/// The largest rate that `hashlimit` accepts.
const MAX_RATE: u32 = 1_000_000;

/// Installs the rules.
pub fn set_up(kind: Kind, firm: &Namespace, limit: u32) -> Result<(), Unavailable> {
    match kind {
        Kind::Nftables => run_with_input(firm, "nft -f -", &nftables(limit)).map(drop),
        Kind::Iptables => {
            iptables(limit.min(MAX_RATE)).iter().try_for_each(|line| run_in(firm, line).map(drop))
        }
        Kind::Tc => tc(limit).iter().try_for_each(|line| run_in(firm, line).map(drop)),
        Kind::Nothing | Kind::Again => Ok(()),
        Kind::Haproxy | Kind::Proxy | Kind::Breaker => unreachable!("no rules of the machine"),
    }
}

/// Rules of nftables. An order over the limit adds its port to a set; packets to a port in the set are
/// dropped. So the limit latches.
fn nftables(limit: u32) -> String {
    let (burst, at) = (limit.min(MAX_RATE), TYPE_AT * 8);
    format!(
        "table ip bench {{
            counter orders {{ }}
            set tripped {{ type inet_service; size 16; flags dynamic; }}
            chain order {{
                counter name orders
                limit rate over {limit}/second burst {burst} packets add @tripped {{ tcp dport }} drop
            }}
            chain output {{
                type filter hook output priority 0;
                tcp dport {PORT} tcp dport @tripped drop
                tcp dport {PORT} @ih,{at},32 0x33353d44 jump order
            }}
        }}"
    )
}

fn iptables(limit: u32) -> [String; 4] {
    let (from, to) = (HEADERS, HEADERS + 64);
    [
        "iptables -N ORDERS".to_owned(),
        format!(
            "iptables -A OUTPUT -p tcp --dport {PORT} -m string --algo bm --from {from} --to {to} \
             --hex-string |01|35=D|01| -j ORDERS"
        ),
        "iptables -A ORDERS".to_owned(),
        format!(
            "iptables -A ORDERS -m hashlimit --hashlimit-above {limit}/sec --hashlimit-burst {limit} \
             --hashlimit-mode dstip,dstport \
             --hashlimit-name bench -j DROP"
        ),
    ]
}

/// Rules of tc. An HTB class counts, and shapes by bytes; a limit in packets needs `police`, which some
/// kernels lack.
fn tc(limit: u32) -> [String; 4] {
    let (interface, at) = (TwoHosts::INTERFACE, HEADERS + TYPE_AT);
    let police = format!("police pkts_rate {limit} pkts_burst {limit} conform-exceed drop/pass");
    let action = if limit == UNLIMITED { "" } else { &police };
    [
        format!("tc qdisc add dev {interface} root handle 1: htb default 20"),
        format!("tc class add dev {interface} parent 1: classid 1:10 htb rate 100gbit quantum 60000"),
        format!("tc class add dev {interface} parent 1: classid 1:20 htb rate 100gbit quantum 60000"),
        format!(
            "tc filter add dev {interface} parent 1: protocol ip prio 2 u32 match ip protocol 6 0xff match \
             ip dport {PORT} 0xffff \
             match u32 0x33353d44 0xffffffff at {at} flowid 1:10 {action}"
        ),
    ]
}

/// Number of orders that the rules have counted.
pub fn counted(kind: Kind, firm: &Namespace) -> Result<u64, Unavailable> {
    let (line, before) = match kind {
        Kind::Nftables => ("nft list counter ip bench orders".to_owned(), "packets "),
        Kind::Iptables => ("iptables -nvxL ORDERS".to_owned(), "destination"),
        Kind::Tc => (format!("tc -s class show dev {} classid 1:10", TwoHosts::INTERFACE), " bytes "),
        _ => return Err("counts nothing".to_owned()),
    };
    let text = run_in(firm, &line)?;
    let number = text.split_once(before).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| panic!("no number behind {before:?} in what `{line}` prints: {text}"))
}

/// Drops every packet to the session.
pub fn stop(kind: Kind, firm: &Namespace) -> Result<(), Unavailable> {
    match kind {
        Kind::Nftables => run_in(firm, &format!("nft add element ip bench tripped {{ {PORT} }}")).map(drop),
        Kind::Iptables => {
            run_in(firm, &format!("iptables -I OUTPUT -p tcp --dport {PORT} -j DROP")).map(drop)
        }
        Kind::Tc => {
            let (interface, to) = (TwoHosts::INTERFACE, format!("u32 match ip dport {PORT} 0xffff"));
            run_in(
                firm,
                &format!("tc filter add dev {interface} parent 1: protocol ip prio 1 {to} action drop"),
            )
            .map(drop)
        }
        _ => Err("cannot stop anything".to_owned()),
    }
}

/// Removes the rule of [`stop`].
pub fn resume(kind: Kind, firm: &Namespace) -> Result<(), Unavailable> {
    match kind {
        Kind::Nftables => run_in(firm, "nft flush set ip bench tripped").map(drop),
        Kind::Iptables => {
            run_in(firm, &format!("iptables -D OUTPUT -p tcp --dport {PORT} -j DROP")).map(drop)
        }
        Kind::Tc => {
            run_in(firm, &format!("tc filter del dev {} parent 1: prio 1", TwoHosts::INTERFACE)).map(drop)
        }
        _ => Ok(()),
    }
}
