//! Judges whether the breaker is in force: one function of one struct of facts. The verbs, the health check
//! and the metrics show its result.

pub mod facts;
mod kind;

use serde::Serialize;

pub use kind::ProblemKind;

use crate::kernel::attachment::Attachment;
use crate::kernel::bpffs::PRIVATE_MOUNT_ADVICE;
use crate::kernel::routes::Bypass;

/// A problem that keeps the breaker from being in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The kind.
    #[serde(rename = "what")]
    pub kind: ProblemKind,
    /// The interface or the scope with the problem, or `host`.
    #[serde(rename = "where")]
    pub location: String,
    /// The fact that is a problem.
    pub found: String,
    /// The remedy.
    pub cure: String,
    /// A tripped switch does not stop all orders because of it, or it is unknown whether the switch does.
    pub open: bool,
}

impl Problem {
    /// Makes a problem.
    pub fn new(kind: ProblemKind, location: &str, found: String, cure: &str) -> Self {
        Self { kind, location: location.to_owned(), found, cure: cure.to_owned(), open: kind.is_open() }
    }

    /// The problem in one line.
    pub fn line(&self) -> String {
        format!("{}: {}: {}: {}", self.kind.name().to_uppercase(), self.location, self.found, self.cure)
    }
}

/// The result of the judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Enforced {
    /// There is no problem.
    pub ok: bool,
    /// The problems.
    pub problems: Vec<Problem>,
    /// Facts for the operator that are no problem.
    pub notes: Vec<String>,
}

/// The packets of one kind that passed unread at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadPackets {
    /// The interface.
    pub interface: String,
    /// The kind of their headers.
    pub kind: &'static str,
    /// Number of packets since the load.
    pub packets: u64,
    /// The expected sender of such packets on this host; `None` if there is none.
    pub sender: Option<String>,
}

/// The facts for the judgement.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The state of each attachment.
    pub attachments: Vec<Attachment>,
    /// The reason why the pins end before the host does.
    pub private_mount: Option<String>,
    /// The reason why the pins are not those of the load.
    pub pin_mismatch: Option<String>,
    /// The reason why the network namespace of the load cannot be inspected. Then no other fact is known.
    pub namespace: Option<String>,
    /// Paths of packets that do not pass the hook.
    pub bypasses: Vec<Bypass>,
    /// Interfaces whose packets cannot be read, and the reason.
    pub links: Vec<(String, String)>,
    /// Sessions that cannot be followed or read, and the reason.
    pub blind: Vec<(String, String)>,
    /// Names of the interfaces whose probe frames get no stamp.
    pub unstamped: Vec<String>,
    /// Places that were tampered with and not repaired, and the finding.
    pub tampered: Vec<(String, String)>,
    /// Packets that passed unread.
    pub unread: Vec<UnreadPackets>,
    /// Entries of the connection table: in use, and in all.
    pub table: [u64; 2],
    /// The reason why the audit log is not written.
    pub audit: Option<String>,
    /// Scopes that are disarmed.
    pub disarmed: Vec<String>,
    /// Facts that are no problem.
    pub notes: Vec<String>,
}

/// Use of the connection table from which a note reports it, in percent.
const NOTABLE_PERCENT: u64 = 80;

/// The problems and notes found so far.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Findings {
    fn problem(&mut self, kind: ProblemKind, location: &str, found: String, cure: &str) {
        self.problems.push(Problem::new(kind, location, found, cure));
    }

    /// Judges the attachments, and whether they can be read and last.
    fn attachments(&mut self, facts: &Facts) {
        if let Some(found) = facts.namespace.clone() {
            let cure = "run breaker there: `nsenter --net=/run/netns/NAME breaker status`";
            self.problem(ProblemKind::Namespace, HOST, found, cure);
        }
        for found in &facts.attachments {
            if let Some((kind, text)) = attachment_problem(found) {
                self.problem(kind, &found.name, text, attachment_cure(kind));
            }
        }
        if let Some(found) = facts.private_mount.clone() {
            self.problem(ProblemKind::Unpinned, HOST, found, PRIVATE_MOUNT_ADVICE);
        }
        if let Some(found) = facts.pin_mismatch.clone() {
            let cure = "`breaker unload --force`, and `breaker load` what you trust";
            self.problem(ProblemKind::Displaced, HOST, found, cure);
        }
        for interface in &facts.unstamped {
            let found = "a probe frame got no stamp: the program does not see what the host sends".to_owned();
            let cure =
                "see `bpftool net` for a program before it; `breaker unload --force` and `breaker load`";
            self.problem(ProblemKind::Probe, interface, found, cure);
        }
        for (place, found) in &facts.tampered {
            let cure = "find who did it (`breaker events`); `breaker unload --force`, and `breaker load` \
                        what you trust";
            self.problem(ProblemKind::Tampered, place, found.clone(), cure);
        }
    }

    /// Judges the traffic that the program does not see or cannot follow.
    fn traffic(&mut self, facts: Facts) {
        for (interface, found) in facts.links {
            let cure = "choose an interface that carries IP or Ethernet: see `breaker check`";
            self.problem(ProblemKind::LinkType, &interface, found, cure);
        }
        for (session, found) in facts.blind {
            let cure = "have the engine reconnect; see `desynced` in `breaker events`";
            self.problem(ProblemKind::Blind, &session, found, cure);
        }
        for unread in facts.unread {
            let UnreadPackets { interface, kind, packets, sender } = unread;
            match sender {
                None => {
                    let found =
                        format!("{packets} packets with headers of kind {kind} passed unread since the load");
                    let cure = "find the sender (`tcpdump`), and declare the interface that those packets \
                                come from; `breaker load` counts anew";
                    self.problem(ProblemKind::Unseen, &interface, found, cure);
                }
                Some(sender) => self.notes.push(format!(
                    "{interface}: {packets} packets of kind {kind} passed unread ({sender}): what they carry \
                     is not covered"
                )),
            }
        }
    }

    /// Judges the use of the connection table: entries in use, and in all.
    fn table(&mut self, [used, size]: [u64; 2]) {
        if size != 0 && used >= size {
            let found = format!("all {size} entries of the connection table are taken: see `on_table_full`");
            let cure = "close connections, or load with more [host].connections";
            self.problem(ProblemKind::Table, HOST, found, cure);
        } else if used * 100 >= size * NOTABLE_PERCENT && used != 0 {
            self.notes.push(format!("the connection table is filling: {used} of {size} entries are taken"));
        }
    }
}

impl Enforced {
    /// Judges facts.
    pub fn judge(mut facts: Facts) -> Self {
        let mut findings = Findings { notes: std::mem::take(&mut facts.notes), ..Findings::default() };
        findings.problems.extend(std::mem::take(&mut facts.bypasses).into_iter().map(bypass_problem));
        findings.attachments(&facts);
        let (table, audit) = (facts.table, facts.audit.take());
        let disarmed = std::mem::take(&mut facts.disarmed);
        findings.traffic(facts);
        findings.table(table);
        if let Some(found) = audit {
            findings.problem(ProblemKind::Audit, HOST, found, "free space, or correct [agent].audit");
        }
        for scope in disarmed {
            let found = "its limits only warn: they do not trip it".to_owned();
            findings.problem(ProblemKind::Disarmed, &scope, found, "`breaker arm` it");
        }
        let Findings { problems, notes } = findings;
        Self { ok: problems.is_empty(), problems, notes }
    }

    /// Returns true if a tripped switch does not stop all orders.
    pub fn is_open(&self) -> bool {
        self.problems.iter().any(|problem| problem.open)
    }

    /// Returns true if there is another problem than a disarmed scope or the audit log. Neither of these
    /// affects a switch.
    pub fn is_impaired(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| !matches!(problem.kind, ProblemKind::Disarmed | ProblemKind::Audit))
    }

    /// Returns true if there is a problem of this kind.
    pub fn has(&self, kind: ProblemKind) -> bool {
        self.problems.iter().any(|problem| problem.kind == kind)
    }

    /// The problems because of which a switch does not stop all orders, a line each.
    pub fn open_lines(&self) -> Vec<String> {
        self.problems.iter().filter(|problem| problem.open).map(Problem::line).collect()
    }
}

/// Returns the problem of a bypass. A bypass that is not in use is a problem too, but a switch still stops
/// the packets that are sent.
fn bypass_problem(found: Bypass) -> Problem {
    Problem {
        kind: ProblemKind::Route,
        location: found.session,
        found: found.found,
        cure: "add that interface to [host].interfaces, or remove that route".to_owned(),
        open: found.in_use,
    }
}

/// The location of a problem of the host as a whole.
const HOST: &str = "host";

/// Returns the problem of an attachment, if it has one.
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
                    "detached: the interface was made again (it is number {now}, and was {}): nothing is \
                     enforced there",
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

/// Returns the remedy for a problem of an attachment.
fn attachment_cure(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Detached => "`breaker attach` puts the program back; a trip stays",
        ProblemKind::Displaced => "remove that program: `bpftool net` and `tc filter show` name it",
        _ => "`breaker unload --force` and `breaker load`, which brings every scope up as it was",
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

    fn healthy() -> Facts {
        Facts { attachments: vec![attachment(true, true, true)], table: [79, 100], ..Facts::default() }
    }

    #[test]
    fn a_host_without_problems_is_in_force() {
        assert_eq!(Enforced::judge(healthy()), Enforced { ok: true, ..Enforced::default() });
    }

    #[test]
    fn each_problem_is_reported_alone() {
        let on = |attachment| Facts { attachments: vec![attachment], ..healthy() };
        let one = || vec![("session/x1".to_owned(), "found".to_owned())];
        let bypass =
            |in_use| vec![Bypass { session: "session/x1".to_owned(), found: "found".to_owned(), in_use }];
        let unread =
            |sender| vec![UnreadPackets { interface: "eth1".to_owned(), kind: "gre", packets: 1, sender }];
        let cases = [
            (on(attachment(false, false, true)), ProblemKind::Detached, true),
            (on(attachment(true, false, true)), ProblemKind::Displaced, true),
            (on(attachment(true, true, false)), ProblemKind::Unpinned, true),
            (Facts { private_mount: Some("found".to_owned()), ..healthy() }, ProblemKind::Unpinned, true),
            (Facts { pin_mismatch: Some("found".to_owned()), ..healthy() }, ProblemKind::Displaced, true),
            (Facts { namespace: Some("found".to_owned()), ..healthy() }, ProblemKind::Namespace, true),
            (Facts { bypasses: bypass(true), ..healthy() }, ProblemKind::Route, true),
            (Facts { bypasses: bypass(false), ..healthy() }, ProblemKind::Route, false),
            (Facts { links: one(), ..healthy() }, ProblemKind::LinkType, true),
            (Facts { unstamped: vec!["eth1".to_owned()], ..healthy() }, ProblemKind::Probe, true),
            (Facts { tampered: one(), ..healthy() }, ProblemKind::Tampered, true),
            (Facts { blind: one(), ..healthy() }, ProblemKind::Blind, false),
            (Facts { unread: unread(None), ..healthy() }, ProblemKind::Unseen, false),
            (Facts { table: [100, 100], ..healthy() }, ProblemKind::Table, false),
            (Facts { audit: Some("found".to_owned()), ..healthy() }, ProblemKind::Audit, false),
            (Facts { disarmed: vec!["host".to_owned()], ..healthy() }, ProblemKind::Disarmed, false),
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
    fn expected_packets_and_a_filling_table_are_notes_and_no_problem() {
        let unread = UnreadPackets {
            interface: "eth1".to_owned(),
            kind: "vxlan",
            packets: 9,
            sender: Some("vx0".to_owned()),
        };
        let found = Enforced::judge(Facts { unread: vec![unread], table: [80, 100], ..healthy() });
        assert!(found.ok && found.problems.is_empty());
        assert_eq!(found.notes.len(), 2, "{found:?}");
    }
}
