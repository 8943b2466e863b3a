//! `on_event` and `notify` of `[agent]`: the program that the agent runs for each event of some kinds.

use toml::de::DeTable;

use super::diagnostics::{Problem, Problems};
use super::reader::{Section, Value};
use super::text::AbsolutePath;
use super::words::words;

/// Example in messages.
const EXAMPLE: &str = "write a list, like [\"/usr/local/lib/breaker/notify\"]";
/// Most arguments of the program.
const MAX_ARGUMENTS: usize = 64;

words! {
    /// A kind of event that a program can be run for. The failures of that program are not among them.
    EventKind, "a kind of event" {
        /// A scope was tripped.
        Tripped = "tripped",
        /// A disarmed scope would have been tripped.
        WouldTrip = "would_trip",
        /// A limit is nearly used up, or the agent was silent.
        Warned = "warned",
        /// A scope was reset.
        Reset = "reset",
        /// A reset was refused, or failed.
        ResetRefused = "reset_refused",
        /// A reset waits for a second person.
        ResetRequested = "reset_requested",
        /// Root made a reset alone.
        BreakGlass = "break_glass",
        /// A scope was armed.
        Armed = "armed",
        /// A scope was disarmed.
        Disarmed = "disarmed",
        /// A warning was acknowledged.
        Acknowledged = "acknowledged",
        /// A policy was loaded.
        Loaded = "loaded",
        /// The policy was replaced.
        PolicyChanged = "policy_changed",
        /// A policy was refused.
        PolicyRefused = "policy_refused",
        /// The programs were replaced by those of another version.
        Upgraded = "upgraded",
        /// A tripped scope was restored after a reboot.
        Restored = "restored",
        /// The agent started.
        AgentStarted = "agent_started",
        /// A connection was fenced.
        ConnectionFenced = "connection_fenced",
        /// Sockets of fenced connections were closed.
        ConnectionsEnded = "connections_ended",
        /// Orders were sent again after a trip.
        Replayed = "replayed",
        /// A session was isolated after several fenced connections.
        Isolated = "isolated",
        /// A Logon has CompIDs that no session of its endpoint declares.
        CompIdMismatch = "comp_id_mismatch",
        /// FIX on a connection that no session declares.
        Undeclared = "undeclared",
        /// The framing of a stream was lost.
        Desynced = "desynced",
        /// A stream is blind.
        Blind = "blind",
        /// A blind stream is in sync again.
        Sighted = "sighted",
        /// The connection table is full.
        TableFull = "table_full",
        /// The connection table is filling.
        TableFilling = "table_filling",
        /// Events were lost.
        EventsLost = "events_lost",
        /// A program was detached.
        LinkLost = "link_lost",
        /// Another program decides before breaker's.
        Displaced = "displaced",
        /// A program was attached again.
        Reattached = "reattached",
        /// An interface was renamed, moved, removed or flapped.
        InterfaceChanged = "interface_changed",
        /// Maps or pins were changed, and not by breaker.
        Tampered = "tampered",
        /// A probe frame got no stamp.
        ProbeFailed = "probe_failed",
        /// A probe frame got a stamp again.
        ProbeRestored = "probe_restored",
        /// A user was denied a verb.
        Denied = "denied",
    }
}

/// The kinds without `notify`.
const DEFAULT_KINDS: [EventKind; 4] =
    [EventKind::Tripped, EventKind::WouldTrip, EventKind::Warned, EventKind::Reset];

/// The program that the agent runs for each event of some kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnEvent {
    /// Path of the program.
    pub program: AbsolutePath,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The kinds of events.
    pub kinds: Vec<EventKind>,
}

/// Reads `on_event` of a whole configuration, and ignores everything else in it. Returns `None` also for a
/// text that is no configuration.
pub fn parse_on_event(text: &str) -> Option<OnEvent> {
    let document = DeTable::parse(text).ok()?;
    let mut problems = Problems::default();
    let mut file = Section::new(String::new(), 0..0, document.get_ref());
    let mut agent = file.optional("agent", &mut problems, |value| value.section(""))?;
    on_event(&mut agent, &mut problems).filter(|_| problems.errors.is_empty())
}

/// Reads `on_event` and `notify`.
pub(super) fn on_event(section: &mut Section<'_>, problems: &mut Problems) -> Option<OnEvent> {
    let kinds = section.take("notify");
    let Some(program) = section.take("on_event") else {
        if let Some(kinds) = kinds {
            let problem = kinds.problem("there is no program for these events", "write on_event too");
            problems.errors.push(problem);
        }
        return None;
    };
    let kinds = match kinds {
        Some(kinds) => problems.record(self::kinds(&kinds)),
        None => Some(DEFAULT_KINDS.to_vec()),
    };
    let (program, arguments) = problems.record(command(&program))?;
    Some(OnEvent { program, arguments, kinds: kinds? })
}

fn kinds(value: &Value<'_>) -> Result<Vec<EventKind>, Problem> {
    let items = value.list("write a list, like [\"tripped\", \"reset\"]")?;
    if items.is_empty() {
        return Err(value.problem("it names no kind of event", "write a list, like [\"tripped\", \"reset\"]"));
    }
    items.iter().map(Value::word).collect()
}

fn command(value: &Value<'_>) -> Result<(AbsolutePath, Vec<String>), Problem> {
    let items = value.list(EXAMPLE)?;
    let Some((program, arguments)) = items.split_first() else {
        return Err(value.problem("it names no program", EXAMPLE));
    };
    if arguments.len() > MAX_ARGUMENTS {
        let found = format!("it has {} arguments", arguments.len());
        return Err(value.problem(found, format!("write at most {MAX_ARGUMENTS}")));
    }
    let argument = |item: &Value<'_>| match item.string()? {
        text if text.contains('\0') => Err(item.problem("an argument contains NUL", "remove the NUL")),
        text => Ok(text.to_owned()),
    };
    Ok((program.text()?, arguments.iter().map(argument).collect::<Result<_, _>>()?))
}
