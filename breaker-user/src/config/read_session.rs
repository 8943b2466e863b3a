//! Reads `[[session]]`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use breaker_common::abi::{GROUPS_PER_SESSION, OVERRIDES_PER_SESSION};
use breaker_common::message::Class;

use super::diagnostics::{Problem, Problems, Span};
use super::endpoint::{Endpoint, parse_address};
use super::invalid::{nearest, quoted};
use super::policy::{COMP_IDS, Host, Session};
use super::read_scope::{Names, armed, limits};
use super::reader::{Section, Value};
use super::scope::GroupIndex;
use super::text::{CompId, MessageSize, MsgType, Name, User};
use super::words::{Mode, WireFormat};

/// Maximum number of declared sessions.
pub(super) const MAX_SESSIONS: usize = 4_000;
/// Maximum number of remotes of a session.
const MAX_REMOTES: usize = 16;

/// A session with the spans that checks across sessions need.
pub(super) struct Declared {
    pub(super) session: Session,
    /// Span of the table's header.
    pub(super) span: Span,
    /// Span of each remote.
    pub(super) remotes: Vec<Span>,
    /// True if every CompID that it declares is valid.
    pub(super) comp_ids_valid: bool,
}

/// The parts of the file that sessions refer to.
struct Context<'a> {
    groups: HashMap<&'a str, GroupIndex>,
    /// `None` if invalid.
    host: Option<&'a Host>,
}

/// Reads the sessions. `groups` are the names of the groups in the order of their indices.
pub(super) fn sessions(
    tables: Vec<Section<'_>>,
    groups: &[&str],
    host: Option<&Host>,
    problems: &mut Problems,
) -> Vec<Declared> {
    if let Some(table) = tables.get(MAX_SESSIONS) {
        let found = format!("{} sessions", tables.len());
        problems.errors.push(table.problem(found, format!("keep at most {MAX_SESSIONS}")));
    }
    let groups = groups.iter().enumerate().map(|(at, name)| (*name, GroupIndex::at(at))).collect();
    let context = Context { groups, host };
    let mut names = Names::default();
    tables.into_iter().filter_map(|table| session(table, &mut names, &context, problems)).collect()
}

fn session(
    mut section: Section<'_>,
    names: &mut Names,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<Declared> {
    let name = self::name(&mut section, names, problems);
    let example = "add the session's remote address and port, like remote = \"10.9.0.2:9001\"";
    let remotes = section.required("remote", example, problems);
    let (remotes, spans) = remotes.map(|value| self::remotes(&value, problems)).unwrap_or_default();
    let local = section.take("local").and_then(|value| problems.record(self::local(&value, &remotes)));
    let wire = section.optional("wire", problems, Value::word).unwrap_or_default();
    let longest = section.optional("longest", problems, Value::text);
    let user = section.take("user").and_then(|value| problems.record(self::user(&value, context.host)));
    let declared = COMP_IDS.iter().filter(|(key, _)| section.has(key)).count();
    let comp_ids = COMP_IDS.map(|(key, _)| comp_id(&mut section, key, wire, problems));
    let comp_ids_valid = comp_ids.iter().flatten().count() == declared;
    let [sender, target, sender_sub, target_sub] = comp_ids;
    let member_of = section.take("groups").map(|value| self::groups(&value, &context.groups, problems));
    let armed = armed(&mut section, problems);
    let limits = limits(&mut section, problems);
    let possdup = section.optional("possdup", problems, Value::word);
    let on_trip = section.optional("on_trip", problems, Value::word);
    let while_tripped = section.optional("while_tripped", problems, Value::word);
    let on_desync = section.optional("on_desync", problems, Value::word);
    let cancel_on_disconnect = section.optional("cancel_on_disconnect", problems, Value::word);
    let drill = section.optional("drill", problems, Value::boolean).unwrap_or(false);
    let classes = section.take("classes").map(|value| self::classes(&value, wire, problems));
    let span = section.span();
    section.end(problems);
    let host = context.host;
    // Without a valid host the file is refused, so that the defaults do not matter.
    let session = Session {
        name: name?,
        remotes,
        local,
        sender,
        target,
        sender_sub,
        target_sub,
        groups: member_of.unwrap_or_default(),
        user,
        wire,
        longest: longest.unwrap_or(MessageSize::DEFAULT),
        armed,
        possdup: possdup.unwrap_or_default(),
        on_trip: on_trip.or(host.map(|host| host.on_trip)).unwrap_or_default(),
        while_tripped: while_tripped.or(host.map(|host| host.while_tripped)).unwrap_or_default(),
        on_desync: on_desync.or(host.map(|host| host.on_desync)).unwrap_or_default(),
        cancel_on_disconnect,
        drill,
        limits,
        classes: classes.unwrap_or_default(),
    };
    Some(Declared { session, span, remotes: spans, comp_ids_valid })
}

fn name(section: &mut Section<'_>, names: &mut Names, problems: &mut Problems) -> Option<Name> {
    let (name, span) = names.read(section, "session", problems)?;
    if name == Name::undeclared() {
        let remedy = "choose another name: this one counts connections that no session declares";
        problems.errors.push(Problem::new(span, "session name", "\"undeclared\" is reserved", remedy));
    }
    Some(name)
}

fn remotes(value: &Value<'_>, problems: &mut Problems) -> (Vec<Endpoint>, Vec<Span>) {
    let items = value.one_or_list();
    if items.is_empty() || items.len() > MAX_REMOTES {
        let found = format!("{} endpoints", items.len());
        problems
            .errors
            .push(value.problem(found, format!("write 1 to {MAX_REMOTES}, each an address and port")));
    }
    let mut seen: HashMap<Endpoint, Span> = HashMap::new();
    let (mut remotes, mut spans) = (Vec::new(), Vec::new());
    for item in items {
        let Some(remote) = problems.record(item.text::<Endpoint>()) else { continue };
        if let Some(first) = seen.get(&remote) {
            let found = format!("{remote} is listed twice");
            problems
                .errors
                .push(item.problem(found, "remove one of the two").related(first.clone(), "the first"));
            continue;
        }
        seen.insert(remote, item.span.clone());
        remotes.push(remote);
        spans.push(item.span);
    }
    (remotes, spans)
}

fn local(value: &Value<'_>, remotes: &[Endpoint]) -> Result<IpAddr, Problem> {
    let local = parse_address(value.string()?).map_err(|invalid| value.invalid(invalid))?;
    match remotes.iter().find(|remote| remote.prefix().address().is_ipv4() != local.is_ipv4()) {
        Some(remote) => {
            let found = format!("{local} and the remote {remote} are of different families");
            Err(value.problem(found, "write IPv4 for both or IPv6 for both, in separate sessions if needed"))
        }
        None => Ok(local),
    }
}

fn comp_id(
    section: &mut Section<'_>,
    key: &'static str,
    wire: WireFormat,
    problems: &mut Problems,
) -> Option<CompId> {
    let value = section.take(key)?;
    refuse_opaque(&value, wire, problems);
    problems.record(value.text())
}

/// Reads the account of a session: its uid or its name. Frames on a gateway do not show which socket sent
/// them.
fn user(value: &Value<'_>, host: Option<&Host>) -> Result<User, Problem> {
    let user = match value.integer(0..=u32::MAX - 1) {
        Ok(uid) => uid.to_string().parse().map_err(|invalid| value.invalid(invalid))?,
        Err(_) => value.text()?,
    };
    if host.is_some_and(|host| host.mode == Mode::Inline) {
        let found = "a gateway cannot see the account of a socket";
        return Err(value.problem(found, "remove this key, or write mode = \"egress\" on the trading host"));
    }
    Ok(user)
}

/// Refuses a key that needs FIX to be read on an opaque session, which would never match.
fn refuse_opaque(value: &Value<'_>, wire: WireFormat, problems: &mut Problems) {
    if wire == WireFormat::Opaque {
        let found = "a session with wire = \"opaque\" is not read";
        problems.errors.push(value.problem(found, "remove this key, or write wire = \"fix\""));
    }
}

fn groups(value: &Value<'_>, known: &HashMap<&str, GroupIndex>, problems: &mut Problems) -> Vec<GroupIndex> {
    let items = problems.record(value.list("write a list, like [\"us-equities\"]")).unwrap_or_default();
    if items.len() > GROUPS_PER_SESSION {
        let found = format!("{} groups", items.len());
        problems.errors.push(value.problem(found, format!("keep at most {GROUPS_PER_SESSION}")));
    }
    let mut seen = HashSet::new();
    let mut groups = Vec::new();
    for item in items {
        let Some(name) = problems.record(item.string()) else { continue };
        let Some(group) = known.get(name) else {
            let remedy = match nearest(name, known.keys().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "declare it with [[group]]".to_owned(),
            };
            problems
                .errors
                .push(item.problem(format!("there is no group {}", quoted(name)), remedy).absence());
            continue;
        };
        if !seen.insert(*group) {
            problems
                .errors
                .push(item.problem(format!("{} is listed twice", quoted(name)), "remove one of the two"));
            continue;
        }
        groups.push(*group);
    }
    groups
}

fn classes(value: &Value<'_>, wire: WireFormat, problems: &mut Problems) -> Vec<(MsgType, Class)> {
    refuse_opaque(value, wire, problems);
    let Some(mut section) = problems.record(value.section("write { U1 = \"cancel\" }")) else {
        return Vec::new();
    };
    let entries = section.drain();
    if entries.len() > OVERRIDES_PER_SESSION {
        let found = format!("{} MsgTypes", entries.len());
        problems.errors.push(value.problem(found, format!("keep at most {OVERRIDES_PER_SESSION}")));
    }
    let mut classes = Vec::new();
    for (key, span, entry) in entries {
        let msg_type = key
            .parse::<MsgType>()
            .map_err(|invalid| Problem::new(span, &value.what, &invalid.found, &invalid.remedy));
        let class = problems.record(entry.word());
        let (Some(msg_type), Some(class)) = (problems.record(msg_type), class) else { continue };
        warn_if_looser(&entry, &msg_type, class, problems);
        classes.push((msg_type, class));
    }
    classes
}

/// Warns of a MsgType that adds risk in the FIX dictionaries but passes while the session is tripped.
fn warn_if_looser(entry: &Value<'_>, msg_type: &MsgType, class: Class, problems: &mut Problems) {
    let withheld = |class| matches!(class, Class::Order | Class::Interest);
    let standard = breaker_common::class::TABLE.iter().find(|(name, _)| *name == msg_type.as_str());
    if let Some((_, usual)) = standard
        && withheld(*usual)
        && !withheld(class)
    {
        let found = format!("MsgType {msg_type} of class {} counts as {} here", usual.name(), class.name());
        problems.warnings.push(
            entry.problem(found, "it passes while the session is tripped: check that this is intended"),
        );
    }
}
