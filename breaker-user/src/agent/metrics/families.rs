//! The table of metric families: names, labels and values. The names are a contract with dashboards.

use std::collections::BTreeSet;

use breaker_common::abi::cause;
use breaker_common::message::{Class, InboundClass};

use super::figures::{Figures, Limit, Scope};

/// A metric family.
pub struct Family {
    /// Name, with `_total` for a counter.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// Passes each sample to the sink: the values of the labels, and the value.
    pub samples: fn(&Figures, Sink),
}

/// Receives samples.
pub type Sink<'a> = &'a mut dyn FnMut(&[&str], Value);

/// Value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A duration.
    Seconds(f64),
}

impl Family {
    /// Returns true for a counter. Exactly the names of counters end in `_total`.
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

/// All families, in the order in which they are served.
pub const FAMILIES: &[Family] = &[
    family(
        "breaker_build_info",
        &["version", "git", "abi", "program_tag"],
        "The loaded program; always 1.",
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
        "1 if an exceeded limit trips the scope, 0 if it only warns.",
        |of, sink| {
            of.scopes.iter().for_each(|scope| sink(&[&scope.name], Value::Count(scope.armed.into())));
        },
    ),
    family(
        "breaker_tripped",
        &["scope", "cause"],
        "1 if the scope is tripped for this cause.",
        |of, sink| {
            each_cause(of, |scope, (bit, name), _| {
                sink(&[&scope.name, name], Value::Count((scope.causes & bit != 0).into()));
            });
        },
    ),
    family("breaker_epoch", &["scope"], "Epoch of the scope, raised by each trip and reset.", |of, sink| {
        of.scopes.iter().for_each(|scope| sink(&[&scope.name], Value::Count(scope.epoch)));
    }),
    family("breaker_trips_total", &["scope", "cause"], "Trips of the scope in the audit log.", |of, sink| {
        each_cause(of, |scope, (_, name), count| sink(&[&scope.name, name], Value::Count(count)));
    }),
    family(
        "breaker_messages_total",
        &["session", "class", "verdict"],
        "Messages that passed, each counted once, or were withheld.",
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
        "Inbound messages, if they are read.",
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
        "Inbound desyncs, after which messages are not counted.",
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
        "Segments with retransmitted bytes.",
        |of, sink| {
            of.sessions
                .iter()
                .for_each(|session| sink(&[&session.name], Value::Count(session.counters.retransmitted)));
        },
    ),
    family(
        "breaker_desyncs_total",
        &["session"],
        "Desyncs of the connections of the session.",
        |of, sink| {
            of.sessions
                .iter()
                .for_each(|session| sink(&[&session.name], Value::Count(session.counters.desyncs)));
        },
    ),
    family("breaker_connections", &["session", "state"], "Connections by state.", |of, sink| {
        for session in &of.sessions {
            sink(&[&session.name, "live"], Value::Count(session.connections.live));
            sink(&[&session.name, "fenced"], Value::Count(session.connections.fenced));
        }
    }),
    family(
        "breaker_blind_connections",
        &["session"],
        "Live connections that are blind: their bytes count as orders.",
        |of, sink| {
            of.sessions
                .iter()
                .for_each(|session| sink(&[&session.name], Value::Count(session.connections.blind)));
        },
    ),
    family(
        "breaker_unread_segments_total",
        &["session"],
        "Segments that could not be read completely.",
        |of, sink| {
            of.sessions
                .iter()
                .for_each(|session| sink(&[&session.name], Value::Count(session.counters.unread)));
        },
    ),
    family("breaker_limit", LIMIT, "Messages that may pass in any interval of this length.", |of, sink| {
        each_limit(of, sink, |limit| limit.max);
    }),
    family("breaker_limit_used", LIMIT, "Messages in the window now.", |of, sink| {
        each_limit(of, sink, |limit| limit.used);
    }),
    family("breaker_limit_peak", LIMIT, "Most messages in the window since the load.", |of, sink| {
        each_limit(of, sink, |limit| limit.peak);
    }),
    family(
        "breaker_warning",
        LIMIT,
        "Highest warning level now or since the last acknowledgement; one more than configured if a disarmed \
         scope exceeds the limit.",
        |of, sink| {
            each_limit(of, sink, |limit| limit.warning);
        },
    ),
    family(
        "breaker_warning_age_seconds",
        LIMIT,
        "Time since the first warning that nobody has acknowledged.",
        |of, sink| {
            for scope in &of.scopes {
                for limit in &scope.limits {
                    let age = limit.warning_age.map(|age| Value::Seconds(age.as_secs_f64()));
                    age.into_iter().for_each(|age| sink(&[&scope.name, limit.class, &limit.per], age));
                }
            }
        },
    ),
    family(
        "breaker_interface_attached",
        &["interface"],
        "1 if the program is attached and first in its chain; otherwise traffic can bypass it.",
        |of, sink| {
            of.interfaces.iter().for_each(|(name, attached)| sink(&[name], Value::Count((*attached).into())));
        },
    ),
    family(
        "breaker_unseen_packets_total",
        &["interface", "kind"],
        "Packets that passed unread because of their headers.",
        |of, sink| {
            of.unseen
                .iter()
                .for_each(|(interface, kind, count)| sink(&[interface, kind], Value::Count(*count)));
        },
    ),
    family(
        "breaker_reattached_total",
        &["interface"],
        "Times that the agent attached the program again.",
        |of, sink| of.reattached.iter().for_each(|(name, done)| sink(&[name], Value::Count(done.count))),
    ),
    family(
        "breaker_unprotected_seconds_total",
        &["interface"],
        "Time that the interface was without the program, up to the last re-attachment.",
        |of, sink| {
            of.reattached
                .iter()
                .for_each(|(name, done)| sink(&[name], Value::Seconds(done.unprotected.as_secs_f64())));
        },
    ),
    family(
        "breaker_tampered_total",
        &[],
        "Changes of the load that no verb and no agent made, since the agent started.",
        |of, sink| sink(&[], Value::Count(of.tampered)),
    ),
    family(
        "breaker_enforced",
        &[],
        "1 if the breaker is in force; otherwise see breaker_problem.",
        |of, sink| {
            sink(&[], Value::Count(of.enforced.ok.into()));
        },
    ),
    family(
        "breaker_problem",
        &["what", "where"],
        "1 for each problem that keeps the breaker from being in force.",
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
    family("breaker_heartbeat_age_seconds", &[], "Time since the agent's last heartbeat.", |of, sink| {
        of.heartbeat_age_ns.into_iter().for_each(|age| sink(&[], Value::Seconds(age as f64 / 1e9)));
    }),
    family(
        "breaker_connection_table_used",
        &[],
        "Used entries of the table of live connections.",
        |of, sink| {
            sink(&[], Value::Count(of.table[0]));
        },
    ),
    family(
        "breaker_connection_table_size",
        &[],
        "Size of the table of live connections, in entries.",
        |of, sink| {
            sink(&[], Value::Count(of.table[1]));
        },
    ),
    family(
        "breaker_events_lost_total",
        &[],
        "Events without room in the ring; verdicts do not depend on the ring.",
        |of, sink| {
            sink(&[], Value::Count(of.events_lost));
        },
    ),
    family(
        "breaker_events_left_out_total",
        &[],
        "Events that the kernel program left out because there were too many of their kind.",
        |of, sink| {
            sink(&[], Value::Count(of.events_left_out));
        },
    ),
    family(
        "breaker_audit_seq",
        &[],
        "Number of the last line of the audit log; a log that ends below it was cut.",
        |of, sink| {
            sink(&[], Value::Count(of.audit_seq));
        },
    ),
    family(
        "breaker_audit_pending",
        &[],
        "Events in memory that are not in the audit log yet.",
        |of, sink| {
            sink(&[], Value::Count(of.audit_pending));
        },
    ),
    family(
        "breaker_audit_failures_total",
        &[],
        "Failed writes of the audit log, each of which is retried.",
        |of, sink| {
            sink(&[], Value::Count(of.audit_failures));
        },
    ),
    family(
        "breaker_notify_failures_total",
        &[],
        "Failed runs of the program in [agent].on_event.",
        |of, sink| {
            sink(&[], Value::Count(of.on_event.failures));
        },
    ),
    family(
        "breaker_notify_lost_total",
        &[],
        "Events for the program in [agent].on_event that found no room in its queue.",
        |of, sink| {
            sink(&[], Value::Count(of.on_event.lost));
        },
    ),
    family(
        "breaker_state_ok",
        &[],
        "1 where the state file is whole, can be written and has every trip.",
        |of, sink| {
            sink(&[], Value::Count(of.state.0.into()));
        },
    ),
    family("breaker_state_age_seconds", &[], "Time since the state file was written.", |of, sink| {
        of.state.1.into_iter().for_each(|age| sink(&[], Value::Seconds(age as f64 / 1e3)));
    }),
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
