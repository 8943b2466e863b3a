//! Reads the top level of the file, `[host]`, `[agent]` and `[[group]]`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostics::{Problem, Problems, Span};
use super::fleet::{Fleet, fleet};
use super::invalid::quoted;
use super::limit::positive;
use super::on_event::on_event;
use super::people::{People, people};
use super::policy::{Agent, DEFAULT_AUDIT, DEFAULT_CONTROL, DEFAULT_STATE, Deadman, Group, Host, METRICS};
use super::read_scope::{Names, armed, limits};
use super::read_session::{Declared, sessions};
use super::reader::{Section, Value};
use super::text::{AbsolutePath, Interface, PolicyName, duration};
use super::words::{Hook, Inbound, Mode, Undeclared, Word};

/// Schema versions that this version reads.
const SCHEMAS: RangeInclusive<u32> = 1..=1;
/// Maximum number of groups.
pub(super) const MAX_GROUPS: usize = 64;
/// Valid sizes of the connection table.
const CONNECTIONS: RangeInclusive<NonZeroU32> = positive(64)..=positive(4_194_304);
/// Default size of the connection table.
const DEFAULT_CONNECTIONS: NonZeroU32 = positive(65_536);
/// Valid ages of the heartbeat. The scheduler may delay the agent by up to the minimum.
const DEADMAN: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);

/// The content of the file. Missing or invalid values were reported, and are the default or absent here.
pub(super) struct Read {
    pub(super) name: PolicyName,
    pub(super) host: Option<Host>,
    /// `inbound` of `[host]` with its span, if present.
    pub(super) inbound: Option<(Inbound, Span)>,
    pub(super) agent: Agent,
    pub(super) people: People,
    pub(super) fleet: Option<Fleet>,
    pub(super) groups: Vec<(Group, Span)>,
    pub(super) sessions: Vec<Declared>,
}

/// Reads the whole file.
pub(super) fn read(mut file: Section<'_>, problems: &mut Problems) -> Read {
    file.optional("schema", problems, schema);
    let name = file.optional("policy", problems, Value::text::<PolicyName>).unwrap_or_default();
    let host = file.required("host", "add [host] with interfaces = [\"eth1\"]", problems);
    let host = host.and_then(|value| problems.record(value.section("write [host], once")));
    let (host, inbound) = host.map(|section| self::host(section, problems)).unwrap_or_default();
    let agent = file.optional("agent", problems, |value| value.section("write [agent], once"));
    let agent = self::agent(agent, problems);
    let people = people(&mut file, problems);
    let fleet = fleet(&mut file, problems);
    let groups = tables(&mut file, "group", problems);
    let groups = self::groups(groups, problems);
    let tables = tables(&mut file, "session", problems);
    let group_names = groups.iter().map(|(group, _)| group.name.as_str()).collect::<Vec<_>>();
    let sessions = sessions(tables, &group_names, host.as_ref(), problems);
    file.end(problems);
    Read { name, host, inbound, agent, people, fleet, groups, sessions }
}

fn schema(value: &Value<'_>) -> Result<u32, Problem> {
    let remedy = "this version reads schema 1: write schema = 1";
    value.integer(SCHEMAS).map_err(|_| value.problem(format!("{} is not supported", value.shown()), remedy))
}

/// The tables under `[[key]]`.
fn tables<'t>(file: &mut Section<'t>, key: &'static str, problems: &mut Problems) -> Vec<Section<'t>> {
    let example = format!("write [[{key}]], in two brackets, for each {key}");
    let Some(value) = file.take(key) else { return Vec::new() };
    let items = problems.record(value.list(&example)).unwrap_or_default();
    items.iter().filter_map(|item| problems.record(item.section(&example))).collect()
}

/// Reads the host, and its `inbound` setting, which [`super::check`] compares with the limits.
fn host(mut section: Section<'_>, problems: &mut Problems) -> (Option<Host>, Option<(Inbound, Span)>) {
    let interfaces = section.required(
        "interfaces",
        "add the interfaces to protect, like interfaces = [\"eth1\"]",
        problems,
    );
    let interfaces = interfaces.and_then(|value| self::interfaces(&value, problems));
    // An invalid mode does not make a hook invalid.
    let mode = section.take("mode").map_or(Some(Mode::default()), |value| problems.record(value.word()));
    let hook = section.optional("hook", problems, |value| hook(value, mode));
    let undeclared = section.optional("undeclared", problems, Value::word::<Undeclared>);
    let undeclared_trips = section.optional("undeclared_trips", problems, Value::boolean);
    let inbound = section.take("inbound");
    let inbound = inbound.and_then(|value| Some((problems.record(value.word())?, value.span)));
    let on_trip = section.optional("on_trip", problems, Value::word);
    let while_tripped = section.optional("while_tripped", problems, Value::word);
    let on_desync = section.optional("on_desync", problems, Value::word);
    let on_table_full = section.optional("on_table_full", problems, Value::word);
    let unclean_boot = section.optional("unclean_boot", problems, Value::word);
    let connections = section.optional("connections", problems, |value| value.integer(CONNECTIONS));
    let armed = armed(&mut section, problems);
    let limits = limits(&mut section, problems);
    let deadman = section.take("deadman").and_then(|value| deadman(&value, problems));
    section.end(problems);
    let host = interfaces.map(|interfaces| Host {
        interfaces,
        mode: mode.unwrap_or_default(),
        hook: hook.unwrap_or_default(),
        undeclared: undeclared.unwrap_or_default(),
        undeclared_trips: undeclared_trips.unwrap_or_default(),
        inbound: inbound.as_ref().map(|(inbound, _)| *inbound).unwrap_or_default(),
        on_trip: on_trip.unwrap_or_default(),
        while_tripped: while_tripped.unwrap_or_default(),
        on_desync: on_desync.unwrap_or_default(),
        on_table_full: on_table_full.unwrap_or_default(),
        unclean_boot: unclean_boot.unwrap_or_default(),
        connections: connections.unwrap_or(DEFAULT_CONNECTIONS),
        armed,
        limits,
        deadman,
    });
    (host, inbound)
}

fn hook(value: &Value<'_>, mode: Option<Mode>) -> Result<Hook, Problem> {
    let hook: Hook = value.word()?;
    match mode {
        Some(mode) if !mode.hooks().contains(&hook) => {
            let hooks: Vec<String> = mode.hooks().iter().map(|hook| format!("{:?}", hook.word())).collect();
            let found = format!("{:?} is not possible with mode = {:?}", hook.word(), mode.word());
            Err(value.problem(found, format!("write {}, or another mode", hooks.join(" or "))))
        }
        _ => Ok(hook),
    }
}

fn interfaces(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Interface>> {
    let items = problems.record(value.list("write a list, like [\"eth1\"]"))?;
    if items.is_empty() {
        problems.errors.push(value.problem("is empty", "name at least one interface, like [\"eth1\"]"));
        return None;
    }
    let mut seen: HashMap<Interface, Span> = HashMap::new();
    let mut interfaces = Vec::new();
    for item in items {
        let Some(interface) = problems.record(item.text::<Interface>()) else { continue };
        if let Some(first) = seen.get(&interface) {
            let found = format!("{} is listed twice", quoted(interface.as_str()));
            problems
                .errors
                .push(item.problem(found, "remove one of the two").related(first.clone(), "the first"));
            continue;
        }
        seen.insert(interface.clone(), item.span);
        interfaces.push(interface);
    }
    Some(interfaces)
}

fn deadman(value: &Value<'_>, problems: &mut Problems) -> Option<Deadman> {
    let mut section = problems.record(value.section("write { after = \"3s\", action = \"warn\" }"))?;
    let after =
        section.required("after", "add the longest age of the heartbeat, like after = \"3s\"", problems);
    let action = section.optional("action", problems, Value::word);
    section.end(problems);
    let after = after.and_then(|value| problems.record(heartbeat_age(&value)))?;
    Some(Deadman { after, action: action.unwrap_or_default() })
}

fn heartbeat_age(value: &Value<'_>) -> Result<Duration, Problem> {
    let text = value.string()?;
    let remedy = "write a whole number and ms, s, m or h, from \"100ms\" to \"24h\"";
    let Some(after) = duration(text) else {
        return Err(value.problem(format!("{} is not a time", quoted(text)), remedy));
    };
    if !DEADMAN.contains(&after) {
        return Err(value.problem(format!("{} is out of range", quoted(text)), remedy));
    }
    Ok(after)
}

fn agent(section: Option<Section<'_>>, problems: &mut Problems) -> Agent {
    let mut agent = Agent {
        metrics: METRICS,
        control: AbsolutePath::default_path(DEFAULT_CONTROL),
        state: AbsolutePath::default_path(DEFAULT_STATE),
        audit: AbsolutePath::default_path(DEFAULT_AUDIT),
        on_event: None,
    };
    let Some(mut section) = section else { return agent };
    if let Some(value) = section.take("metrics")
        && let Some(metrics) = problems.record(self::metrics(&value))
    {
        agent.metrics = metrics;
        if !metrics.ip().is_loopback() {
            let found = format!("{metrics} is reachable from other hosts");
            problems
                .warnings
                .push(value.problem(found, "use a loopback address unless a firewall protects it"));
        }
    }
    if let Some(control) = section.optional("control", problems, socket_path) {
        agent.control = control;
    }
    if let Some(state) = section.optional("state", problems, Value::text) {
        agent.state = state;
    }
    if let Some(audit) = section.optional("audit", problems, Value::text) {
        agent.audit = audit;
    }
    agent.on_event = on_event(&mut section, problems);
    section.end(problems);
    agent
}

fn metrics(value: &Value<'_>) -> Result<SocketAddr, Problem> {
    let text = value.string()?;
    text.parse().map_err(|_| {
        let found = format!("{} is not an address and port", quoted(text));
        value.problem(found, "write \"127.0.0.1:9469\" or \"[::1]:9469\"")
    })
}

/// A path that fits into `sockaddr_un` with its terminating NUL.
fn socket_path(value: &Value<'_>) -> Result<AbsolutePath, Problem> {
    const MAX: usize = 107;
    let path: AbsolutePath = value.text()?;
    let length = path.as_path().as_os_str().len();
    if length > MAX {
        let found = format!("{length} bytes are too many for a socket's path");
        return Err(value.problem(found, format!("write a path of at most {MAX} bytes")));
    }
    Ok(path)
}

fn groups(tables: Vec<Section<'_>>, problems: &mut Problems) -> Vec<(Group, Span)> {
    if let Some(table) = tables.get(MAX_GROUPS) {
        let found = format!("{} groups", tables.len());
        problems.errors.push(table.problem(found, format!("keep at most {MAX_GROUPS}")));
    }
    let mut names = Names::default();
    let mut groups = Vec::new();
    for mut section in tables {
        let name = names.read(&mut section, "group", problems);
        let span = section.span();
        let armed = armed(&mut section, problems);
        let limits = limits(&mut section, problems);
        section.end(problems);
        if let Some((name, _)) = name {
            groups.push((Group { name, armed, limits }, span));
        }
    }
    groups
}
