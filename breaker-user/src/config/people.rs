//! `[people]`: the users of the control socket and their roles.

use std::str::FromStr;

use toml::de::DeTable;

use super::diagnostics::{Problem, Problems};
use super::invalid::{Invalid, quoted};
use super::reader::{Section, Value};

/// The people of a policy. By default only root may use the control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People {
    /// People who may trip and arm.
    pub operators: Vec<Person>,
    /// People who may also disarm, reset, load and reload.
    pub risk: Vec<Person>,
    /// People who may only trip. This list precedes the other lists.
    pub barred: Vec<Person>,
    /// Whether a reset needs two people of `risk`.
    pub two_person: bool,
}

/// A user or a group, by name or number. A group is written `%name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Person {
    /// One user.
    User(String),
    /// All members of a group.
    Group(String),
}

impl FromStr for Person {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, is_group) = text.strip_prefix('%').map_or((text, false), |name| (name, true));
        // The characters that end a field or a list in /etc/passwd and /etc/group.
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || ":,%".contains(c);
        if name.is_empty() || name.len() > 255 || name.contains(forbidden) {
            let remedy = "write a user or its number, like \"ann\", or a group with '%', like \"%risk\"";
            return Err(Invalid::new(format!("{} is no user and no group", quoted(text)), remedy));
        }
        let name = name.to_owned();
        Ok(if is_group { Self::Group(name) } else { Self::User(name) })
    }
}

impl Person {
    /// Returns the uid of a user or the gid of a group; `None` if this host does not know the name.
    pub fn id(&self) -> Option<u32> {
        let (name, path) = match self {
            Self::User(name) => (name, "/etc/passwd"),
            Self::Group(name) => (name, "/etc/group"),
        };
        // The kernel reserves the highest id.
        if let Ok(id) = name.parse::<u32>() {
            return (id != u32::MAX).then_some(id);
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    }
}

/// Reads `[people]` of a whole configuration. Ignores all other sections, and accepts names that this host
/// does not know: a removed account must not disable the control socket for other users.
///
/// # Errors
/// Fails if the text is not valid TOML, or if `[people]` itself is invalid.
pub fn parse_people(text: &str) -> Result<People, String> {
    let document = DeTable::parse(text).map_err(|error| error.message().to_owned())?;
    let mut problems = Problems::default();
    let mut file = Section::new(String::new(), 0..0, document.get_ref());
    let people = file.optional("people", &mut problems, section);
    let people = people.map(|section| read(section, &mut problems, |_| Ok(())));
    match problems.errors.as_slice() {
        [] => Ok(people.unwrap_or_default()),
        errors => Err(format!("[people] has {} errors", errors.len())),
    }
}

/// Reads `[people]`, and reports names that this host does not know.
pub(super) fn people(file: &mut Section<'_>, problems: &mut Problems) -> People {
    let section = file.optional("people", problems, section);
    section.map(|section| read(section, problems, check_exists)).unwrap_or_default()
}

fn section<'t>(value: &Value<'t>) -> Result<Section<'t>, Problem> {
    value.section("write [people], once")
}

/// Checks that this host knows a person.
fn check_exists(person: &Person) -> Result<(), Invalid> {
    if person.id().is_some() {
        return Ok(());
    }
    let (name, kind, path, cure) = match person {
        Person::User(name) => (name, "account", "/etc/passwd", "write its number, as `id -u` prints it"),
        Person::Group(name) => (name, "group", "/etc/group", "write '%' and its number"),
    };
    Err(Invalid::new(format!("there is no {kind} {} in {path}", quoted(name)), cure))
}

fn read(
    mut section: Section<'_>,
    problems: &mut Problems,
    check: impl Fn(&Person) -> Result<(), Invalid>,
) -> People {
    let mut list = |key: &'static str, problems: &mut Problems| -> Vec<Person> {
        let Some(value) = section.take(key) else { return Vec::new() };
        let items = problems.record(value.list("write a list, like [\"ann\", \"%trading\"]"));
        let person = |item: &Value<'_>| {
            let person: Person = item.text()?;
            check(&person).map_err(|invalid| item.invalid(invalid)).map(|()| person)
        };
        let items = items.unwrap_or_default();
        items.iter().filter_map(|item| problems.record(person(item))).collect()
    };
    let operators = list("operators", problems);
    let risk = list("risk", problems);
    let barred = list("barred", problems);
    let two_person = section.optional("two_person", problems, Value::boolean).unwrap_or_default();
    section.end(problems);
    People { operators, risk, barred, two_person }
}
