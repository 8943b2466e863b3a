//! Whether the breaker is in force: one judgement of facts. The verbs, the health check and the metrics only show it.

pub mod facts;

use serde::{Serialize, Serializer};

use crate::kernel::attachment::Attachment;
use crate::kernel::bpffs::IN_PRIVATE_MOUNTS;
use crate::kernel::routes::Bypass;

/// What can keep the breaker from being in force. The names are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The program is not attached.
    Detached,
    /// Another program decides before it.
    Displaced,
    /// The attachment ends with a process or with a mount namespace.
    Unpinned,
    /// A session's packets leave, or can leave, by an interface without a hook.
    Route,
    /// The packets of an interface have headers that the program does not read.
    LinkType,
    /// A live connection cannot be followed.
    Blind,
    /// Packets passed unread.
    Unseen,
    /// The connection table is full.
    Table,
    /// The network namespace of the load cannot be looked into.
    Namespace,
    /// The audit log is not written.
    Audit,
    /// A scope's limits do not trip it.
    Disarmed,
}

impl ProblemKind {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Displaced => "displaced",
            Self::Unpinned => "unpinned",
            Self::Route => "route",
            Self::LinkType => "link type",
            Self::Blind => "blind",
            Self::Unseen => "unseen",
            Self::Table => "table",
            Self::Namespace => "namespace",
            Self::Audit => "audit",
            Self::Disarmed => "disarmed",
        }
    }

    /// Whether a problem of this kind is [`Problem::open`].
    const fn is_open(self) -> bool {
        match self {
            Self::Detached
            | Self::Displaced
            | Self::Unpinned
            | Self::Route
            | Self::LinkType
            | Self::Namespace => true,
            Self::Blind | Self::Unseen | Self::Table | Self::Audit | Self::Disarmed => false,
        }
    }
}

impl Serialize for ProblemKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// One thing that keeps the breaker from being in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What it is.
    #[serde(rename = "what")]
    pub kind: ProblemKind,
    /// The interface, the session or the scope that has it: a configured name, or `host`.
    #[serde(rename = "where")]
    pub location: String,
    /// What was found.
    pub found: String,
    /// What to do.
    pub cure: String,
    /// A thrown switch does not hold because of it, or nobody can say that it does.
    pub open: bool,
}

impl Problem {
    /// In one line.
    pub fn line(&self) -> String {
        format!("{}: {}: {}: {}", self.kind.name().to_uppercase(), self.location, self.found, self.cure)
    }
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Enforced {
    /// There is no problem.
    pub ok: bool,
    /// The problems.
    pub problems: Vec<Problem>,
    /// Facts that an operator should know, which do not keep the breaker from being in force.
    pub notes: Vec<String>,
}

/// Packets of an interface that passed unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The interface.
    pub interface: String,
    /// The kind of their headers.
    pub kind: &'static str,
    /// How many, since the load.
    pub packets: u64,
    /// What sends such packets on an ordinary host, where that is known.
    pub carries: Option<String>,
}

/// What the judgement goes by.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What the kernel says of each attachment.
    pub attachments: Vec<Attachment>,
    /// Why the pins end before the host does.
    pub pins: Option<String>,
    /// Why what is pinned is not what was loaded.
    pub pin_mismatch: Option<String>,
    /// Why the load's network namespace cannot be looked into; nothing else is known of it then.
    pub namespace: Option<String>,
    /// Ways past the hook.
    pub routes: Vec<Bypass>,
    /// Interfaces, and why their packets cannot be read.
    pub links: Vec<(String, String)>,
    /// Sessions, and what of them cannot be followed or read.
    pub blind: Vec<(String, String)>,
    /// Packets that passed unread.
    pub unread: Vec<Unread>,
    /// Entries of the connection table: taken, and in all.
    pub table: [u64; 2],
    /// Why the audit log is not written.
    pub audit: Option<String>,
    /// Scopes that are disarmed.
    pub disarmed: Vec<String>,
    /// Told as they are.
    pub notes: Vec<String>,
}

/// Part of the connection table, in percent, from which on its use is told.
const FILLING: u64 = 80;

impl Enforced {
    /// Judges.
    pub fn judge(facts: Facts) -> Self {
        let mut problems = Vec::new();
        problems.extend(facts.routes.into_iter().map(route));
        let mut put = |what: ProblemKind, place: &str, found: String, cure: &str| {
            let open = what.is_open();
            problems.push(Problem {
                kind: what,
                location: place.to_owned(),
                found,
                cure: cure.to_owned(),
                open,
            });
        };
        if let Some(found) = facts.namespace {
            put(
                ProblemKind::Namespace,
                HOST,
                found,
                "run breaker there: `nsenter --net=/run/netns/NAME breaker status`",
            );
        }
        for found in &facts.attachments {
            if let Some((what, text)) = attachment_problem(found) {
                put(what, &found.name, text, cure(what));
            }
        }
        if let Some(found) = facts.pins {
            put(ProblemKind::Unpinned, HOST, found, IN_PRIVATE_MOUNTS);
        }
        if let Some(found) = facts.pin_mismatch {
            put(
                ProblemKind::Displaced,
                HOST,
                found,
                "`breaker unload --force`, and `breaker load` what you trust",
            );
        }
        for (interface, found) in facts.links {
            put(
                ProblemKind::LinkType,
                &interface,
                found,
                "take an interface that carries IP or Ethernet: see `breaker check`",
            );
        }
        for (session, found) in facts.blind {
            put(
                ProblemKind::Blind,
                &session,
                found,
                "have the engine reconnect; see `desynced` in `breaker events`",
            );
        }
        let mut notes = facts.notes;
        for unread in facts.unread {
            match unread.carries {
                None => put(
                    ProblemKind::Unseen,
                    &unread.interface,
                    format!(
                        "{} packets with headers of kind {} passed unread since the load",
                        unread.packets, unread.kind
                    ),
                    "find the sender (`tcpdump`), and declare the interface that those packets come from; `breaker load` counts anew",
                ),
                Some(by) => notes.push(format!(
                    "{}: {} packets of kind {} passed unread ({by}): what they carry is not covered",
                    unread.interface, unread.packets, unread.kind
                )),
            }
        }
        let [taken, size] = facts.table;
        if size != 0 && taken >= size {
            let found = format!("all {size} entries of the connection table are taken: see `on_table_full`");
            put(ProblemKind::Table, HOST, found, "close connections, or load with more [host].connections");
        } else if taken * 100 >= size * FILLING && taken != 0 {
            notes.push(format!("the connection table is filling: {taken} of {size} entries are taken"));
        }
        if let Some(found) = facts.audit {
            put(ProblemKind::Audit, HOST, found, "make room, or see to [agent].audit");
        }
        for scope in facts.disarmed {
            let found = "its limits only warn: they do not trip it".to_owned();
            put(ProblemKind::Disarmed, &scope, found, "`breaker arm` it");
        }
        Self { ok: problems.is_empty(), problems, notes }
    }

    /// True where a thrown switch does not hold.
    pub fn is_open(&self) -> bool {
        self.problems.iter().any(|problem| problem.open)
    }

    /// True where something else is wrong than a disarmed scope or the audit log, neither of which keeps a switch from anything.
    pub fn is_impaired(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| !matches!(problem.kind, ProblemKind::Disarmed | ProblemKind::Audit))
    }

    /// True where there is a problem of this kind.
    pub fn has(&self, what: ProblemKind) -> bool {
        self.problems.iter().any(|problem| problem.kind == what)
    }

    /// The problems for which a switch does not hold, a line each.
    pub fn open_lines(&self) -> Vec<String> {
        self.problems.iter().filter(|problem| problem.open).map(Problem::line).collect()
    }
}

/// A way past the hook. One that no packet takes by itself is a problem, but a switch holds for those that do.
fn route(found: Bypass) -> Problem {
    Problem {
        kind: ProblemKind::Route,
        location: found.session,
        found: found.found,
        cure: "add that interface to [host].interfaces, or remove that route".to_owned(),
        open: found.taken,
    }
}

/// Where a problem is that belongs to no interface, session or scope of its own.
const HOST: &str = "host";

/// How an attachment stands, where it does not stand well.
pub fn attachment_problem(found: &Attachment) -> Option<(ProblemKind, String)> {
    let behind = |ahead: &[String]| match ahead {
        [] => "another program decides before it".to_owned(),
        ahead => format!("another program decides before it ({})", ahead.join(", ")),
    };
    match (found.attached, found.first, found.pinned) {
        (false, ..) => Some((
            ProblemKind::Detached,
            match found.remade {
                Some(now) => format!(
                    "detached: the interface was made again (it is number {now}, and was {}): nothing is enforced there",
                    found.ifindex
                ),
                None => "detached: nothing is enforced there".to_owned(),
            },
        )),
        (true, false, _) => Some((ProblemKind::Displaced, behind(&found.ahead))),
        (true, true, false) => Some((
            ProblemKind::Unpinned,
            "attached, but its pin is gone: it detaches when the agent ends".to_owned(),
        )),
        (true, true, true) => None,
    }
}

/// What to do where an attachment does not stand well.
fn cure(what: ProblemKind) -> &'static str {
    match what {
        ProblemKind::Displaced => "remove that program: `bpftool net` and `tc filter show` name it",
        _ => {
            "`breaker unload --force` and `breaker load`, which starts untripped: trip again what was tripped"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(attached: bool, first: bool, pinned: bool) -> Attachment {
        let name = "eth1".to_owned();
        let (remade, ahead) = (None, Vec::new());
        Attachment { name, ifindex: 2, mode: "egress", hook: "tcx", attached, first, pinned, remade, ahead }
    }

    fn well() -> Facts {
        Facts { attachments: vec![attachment(true, true, true)], table: [79, 100], ..Facts::default() }
    }

    #[test]
    fn a_host_on_which_nothing_is_wrong_is_in_force() {
        assert_eq!(Enforced::judge(well()), Enforced { ok: true, ..Enforced::default() });
    }

    #[test]
    fn each_thing_that_is_wrong_is_named_alone() {
        let on = |attachment| Facts { attachments: vec![attachment], ..well() };
        let one = || vec![("session/x1".to_owned(), "found".to_owned())];
        let bypass =
            |taken| vec![Bypass { session: "session/x1".to_owned(), found: "found".to_owned(), taken }];
        let unread =
            |carries| vec![Unread { interface: "eth1".to_owned(), kind: "gre", packets: 1, carries }];
        let cases = [
            (on(attachment(false, false, true)), ProblemKind::Detached, true),
            (on(attachment(true, false, true)), ProblemKind::Displaced, true),
            (on(attachment(true, true, false)), ProblemKind::Unpinned, true),
            (Facts { pins: Some("found".to_owned()), ..well() }, ProblemKind::Unpinned, true),
            (Facts { pin_mismatch: Some("found".to_owned()), ..well() }, ProblemKind::Displaced, true),
            (Facts { namespace: Some("found".to_owned()), ..well() }, ProblemKind::Namespace, true),
            (Facts { routes: bypass(true), ..well() }, ProblemKind::Route, true),
            (Facts { routes: bypass(false), ..well() }, ProblemKind::Route, false),
            (Facts { links: one(), ..well() }, ProblemKind::LinkType, true),
            (Facts { blind: one(), ..well() }, ProblemKind::Blind, false),
            (Facts { unread: unread(None), ..well() }, ProblemKind::Unseen, false),
            (Facts { table: [100, 100], ..well() }, ProblemKind::Table, false),
            (Facts { audit: Some("found".to_owned()), ..well() }, ProblemKind::Audit, false),
            (Facts { disarmed: vec!["host".to_owned()], ..well() }, ProblemKind::Disarmed, false),
        ];
        for (facts, what, open) in cases {
            let found = Enforced::judge(facts);
            assert_eq!(found.problems.iter().map(|problem| problem.kind).collect::<Vec<_>>(), [what]);
            assert_eq!((found.ok, found.is_open()), (false, open), "{what:?}");
            assert_eq!(found.is_impaired(), !matches!(what, ProblemKind::Disarmed | ProblemKind::Audit));
            assert!(
                found.problems.iter().all(|problem| !problem.cure.is_empty() && !problem.location.is_empty())
            );
        }
    }

    #[test]
    fn what_an_ordinary_host_has_is_told_and_no_problem() {
        let unread = Unread {
            interface: "eth1".to_owned(),
            kind: "vxlan",
            packets: 9,
            carries: Some("vx0".to_owned()),
        };
        let found = Enforced::judge(Facts { unread: vec![unread], table: [80, 100], ..well() });
        assert!(found.ok && found.problems.is_empty());
        assert_eq!(found.notes.len(), 2, "{found:?}");
    }
}
