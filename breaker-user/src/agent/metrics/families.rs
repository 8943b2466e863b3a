//! The one table of the metrics: names, labels and where each figure comes from. The names are a contract with dashboards.

use std::collections::BTreeSet;

use breaker_common::abi::cause;
use breaker_common::message::{Class, InboundClass};

use super::figures::{Figures, Limit, Scope};

/// A metric family.
pub struct Family {
    /// Its name, with the `_total` of a counter.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Hands out each sample: the values of the labels, and the figure.
    pub samples: fn(&Figures, Sink),
}

/// Takes a sample.
pub type Sink<'a> = &'a mut dyn FnMut(&[&str], Value);

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// A time.
    Seconds(f64),
}

impl Family {
    /// Counters end in `_total`, and nothing else does.
    pub fn is_counter(&self) -> bool {
        self.base() != self.name
    }

    /// The name without `_total`.
    pub fn base(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

const fn family(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Figures, Sink),
) -> Family {
    Family { name, help, labels, samples }
}

/// All of them, in the order in which they are served.
pub const FAMILIES: &[Family] = &[
    family(
        "breaker_build_info",
        &["version", "git", "abi", "program_tag"],
        "What is loaded; always 1.",
        |of, sink| {
            let [version, git, abi, tag] = &of.build;
            sink(&[version, git, abi, tag], Value::Count(1));
        },
    ),
    family(
        "breaker_policy_info",
        &["policy", "sha256"],
        "The policy that is in force; always 1.",
        |of, sink| {
            let [policy, sha256] = &of.policy;
            sink(&[policy, sha256], Value::Count(1));
        },
    ),
    family(
        "breaker_armed",
        &["scope"],
        "1 where a limit that is passed trips the scope, 0 where it only tells.",
        |of, sink| {
            of.scopes.iter().for_each(|scope| sink(&[&scope.name], Value::Count(scope.armed.into())));
        },
    ),
    family(
        "breaker_tripped",
        &["scope", "cause"],
        "1 where the scope is tripped for this cause.",
        |of, sink| {
            each_cause(of, |scope, (bit, name), _| {
                sink(&[&scope.name, name], Value::Count((scope.causes & bit != 0).into()));
            });
        },
    ),
    family("breaker_epoch", &["scope"], "Raised by each trip and each reset of the scope.", |of, sink| {
        of.scopes.iter().for_each(|scope| sink(&[&scope.name], Value::Count(scope.epoch)));
    }),
    family(
        "breaker_trips_total",
        &["scope", "cause"],
        "Trips of the scope that the audit log tells of.",
        |of, sink| {
            each_cause(of, |scope, (_, name), count| sink(&[&scope.name, name], Value::Count(count)));
        },
    ),
    family(
        "breaker_messages_total",
        &["session", "class", "verdict"],
        "Messages that crossed the hook once, or were withheld there.",
        |of, sink| {
            for session in &of.sessions {
                for class in Class::ALL {
                    let (passed, withheld) =
                        (session.counters.passed[class as usize], session.counters.withheld[class as usize]);
                    sink(&[&session.name, class.name(), "passed"], Value::Count(passed));
                    sink(&[&session.name, class.name(), "withheld"], Value::Count(withheld));
                }
            }
        },
    ),
    family(
        "breaker_inbound_messages_total",
        &["session", "kind"],
        "Messages that came in, where that is read.",
        |of, sink| {
            for session in of.sessions.iter().filter(|_| of.inbound) {
                for (kind, count) in InboundClass::ALL.into_iter().zip(session.counters.inbound) {
                    sink(&[&session.name, kind.name()], Value::Count(count));
                }
            }
        },
    ),
    family(
        "breaker_inbound_desyncs_total",
        &["session"],
        "Times that the stream that comes in was lost, and messages in it went uncounted.",
        |of, sink| {
            for session in of.sessions.iter().filter(|_| of.inbound) {
                sink(&[&session.name], Value::Count(session.counters.inbound_desyncs));
            }
        },
    ),
    family("breaker_packets_total", &["session", "verdict"], "Segments with payload.", |of, sink| {
        for session in &of.sessions {
            sink(&[&session.name, "passed"], Value::Count(session.counters.packets_passed));
            sink(&[&session.name, "withheld"], Value::Count(session.counters.packets_withheld));
        }
    }),
    family(
        "breaker_retransmitted_segments_total",
        &["session"],
        "Segments that held bytes seen before.",
        |of, sink| {
            of.sessions
                .iter()
                .for_each(|session| sink(&[&session.name], Value::Count(session.counters.retransmitted)));
        },
    ),
    family(
        "breaker_desyncs_total",
        &["session"],
        "Times that the stream of a connection was lost.",
        |of, sink| {
            of.sessions
                .iter()
                .for_each(|session| sink(&[&session.name], Value::Count(session.counters.desyncs)));
        },
    ),
    family(
        "breaker_connections",
        &["session", "state"],
        "Connections, by whether they are fenced.",
        |of, sink| {
            for session in &of.sessions {
                sink(&[&session.name, "live"], Value::Count(session.connections.live));
                sink(&[&session.name, "fenced"], Value::Count(session.connections.fenced));
            }
        },
    ),
    family(
        "breaker_blind_connections",
        &["session"],
        "Live connections that cannot be followed right now: their bytes count as orders.",
        |of, sink| {
            of.sessions
                .iter()
                .for_each(|session| sink(&[&session.name], Value::Count(session.connections.blind)));
        },
    ),
    family(
        "breaker_unread_segments_total",
        &["session"],
        "Segments of which something could not be read.",
        |of, sink| {
            of.sessions
                .iter()
                .for_each(|session| sink(&[&session.name], Value::Count(session.counters.unread)));
        },
    ),
    family("breaker_limit", LIMIT, "Messages that may cross in any interval of this length.", |of, sink| {
        each_limit(of, sink, |limit| limit.max);
    }),
    family("breaker_limit_used", LIMIT, "Messages in the window now.", |of, sink| {
        each_limit(of, sink, |limit| limit.used);
    }),
    family(
        "breaker_limit_peak",
        LIMIT,
        "Most messages that any window has held since the load.",
        |of, sink| {
            each_limit(of, sink, |limit| limit.peak);
        },
    ),
    family(
        "breaker_warning",
        LIMIT,
        "Warning levels of the limit that its window reaches now; one more than there are where a disarmed scope is over it.",
        |of, sink| {
            each_limit(of, sink, |limit| limit.warning);
        },
    ),
    family(
        "breaker_interface_attached",
        &["interface"],
        "1 where the program is attached and the first of its chain; else traffic can pass it by.",
        |of, sink| {
            of.interfaces.iter().for_each(|(name, attached)| sink(&[name], Value::Count((*attached).into())));
        },
    ),
    family(
        "breaker_unseen_packets_total",
        &["interface", "kind"],
        "Packets that passed unread, because of their headers.",
        |of, sink| {
            of.unseen
                .iter()
                .for_each(|(interface, kind, count)| sink(&[interface, kind], Value::Count(*count)));
        },
    ),
    family(
        "breaker_reattached_total",
        &["interface"],
        "Times that the agent attached to an interface that was made again.",
        |of, sink| of.reattached.iter().for_each(|(name, count)| sink(&[name], Value::Count(*count))),
    ),
    family("breaker_enforced", &[], "1 where the breaker is in force: see breaker_problem.", |of, sink| {
        sink(&[], Value::Count(of.enforced.ok.into()));
    }),
    family(
        "breaker_problem",
        &["what", "where"],
        "1 for each thing that keeps it from being in force.",
        |of, sink| {
            let found: BTreeSet<_> = of
                .enforced
                .problems
                .iter()
                .map(|problem| (problem.kind.name(), problem.location.as_str()))
                .collect();
            found.into_iter().for_each(|(what, place)| sink(&[what, place], Value::Count(1)));
        },
    ),
    family("breaker_heartbeat_age_seconds", &[], "Time since the agent's last sign of life.", |of, sink| {
        of.heartbeat_age_ns.into_iter().for_each(|age| sink(&[], Value::Seconds(age as f64 / 1e9)));
    }),
    family(
        "breaker_connection_table_used",
        &[],
        "Entries of the table of live connections that are taken.",
        |of, sink| {
            sink(&[], Value::Count(of.table[0]));
        },
    ),
    family(
        "breaker_connection_table_size",
        &[],
        "Entries that the table of live connections has.",
        |of, sink| {
            sink(&[], Value::Count(of.table[1]));
        },
    ),
    family(
        "breaker_events_lost_total",
        &[],
        "Events that found no room in the ring; verdicts need none.",
        |of, sink| {
            sink(&[], Value::Count(of.events_lost));
        },
    ),
    family(
        "breaker_events_left_out_total",
        &[],
        "Events that the kernel left out, for there were too many of their kind.",
        |of, sink| {
            sink(&[], Value::Count(of.events_left_out));
        },
    ),
    family(
        "breaker_audit_pending",
        &[],
        "Events in memory that the audit log does not have yet.",
        |of, sink| {
            sink(&[], Value::Count(of.audit_pending));
        },
    ),
    family(
        "breaker_audit_failures_total",
        &[],
        "Writes of the audit log that failed, each tried again.",
        |of, sink| {
            sink(&[], Value::Count(of.audit_failures));
        },
    ),
];

const LIMIT: &[&str] = &["scope", "class", "per"];

fn each_cause(of: &Figures, mut take: impl FnMut(&Scope, (u64, &str), u64)) {
    for scope in &of.scopes {
        cause::NAMES.into_iter().zip(scope.trips).for_each(|(cause, count)| take(scope, cause, count));
    }
}

fn each_limit(of: &Figures, sink: Sink, figure: fn(&Limit) -> u64) {
    for scope in &of.scopes {
        for limit in &scope.limits {
            sink(&[&scope.name, limit.class, &limit.per], Value::Count(figure(limit)));
        }
    }
}
