//! Scopes: their names, and their numbers in the kernel program's maps.
//!
//! # Numbering
//! The numbering is a contract with the kernel program, and only [`Scopes`] implements it. With G groups and
//! S sessions:
//!
//! | scope | session | name |
//! |---|---|---|
//! | 0 | | `host` |
//! | 1 … G | | the groups, in the order of the file |
//! | G + 1 | 0 | `session/undeclared`, which always exists |
//! | G + 2 … G + 1 + S | 1 … S | the declared sessions, in the order of the file |
//!
//! This is the numbering of a file and of a first load. A reload keeps the numbers of scopes that remain, so
//! that connections and windows keep their owners ([`Scopes::labelled`]).

use std::fmt;
use std::str::FromStr;

use super::invalid::{Invalid, distance, max_edits, nearest, quoted};
use super::text::Name;

/// The name of a scope, to which switches, limits and verbs apply.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScopeName {
    /// Everything on this host: `host`.
    Host,
    /// A group of sessions: `group/NAME`.
    Group(Name),
    /// One session: `session/NAME`.
    Session(Name),
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("host"),
            Self::Group(name) => f.pad(&format!("group/{name}")),
            Self::Session(name) => f.pad(&format!("session/{name}")),
        }
    }
}

impl FromStr for ScopeName {
    type Err = Invalid;

    /// Checks the form of the name. [`Scopes::find`] checks that the scope exists.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.split_once('/') {
            None if text == "host" => Ok(Self::Host),
            Some(("group", name)) => name.parse().map(Self::Group),
            Some(("session", name)) => name.parse().map(Self::Session),
            _ => Err(Invalid::new(
                format!("{} is not a scope", quoted(text)),
                match nearest(text.split('/').next().unwrap_or_default(), ["host", "group", "session"]) {
                    Some("host") => "did you mean host?",
                    Some("group") => "did you mean group/NAME?",
                    Some("session") => "did you mean session/NAME?",
                    _ => "write host, group/NAME or session/NAME",
                },
            )),
        }
    }
}

/// Number of a scope: an index into the kernel program's scope tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeIndex(u32);

/// Index of a group in the file, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(u32);

/// Number of a session: an index into the kernel program's session table. 0 is `undeclared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionIndex(u32);

impl ScopeIndex {
    /// The scope `host`.
    pub const HOST: Self = Self(0);

    /// Makes an index from the number of a scope label that the kernel's maps contain.
    pub(crate) fn labelled(number: u32) -> Self {
        Self(number)
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl GroupIndex {
    /// Makes an index from a position in the file.
    pub(super) fn at(position: usize) -> Self {
        Self(number(position))
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl SessionIndex {
    /// The pseudo-session that counts undeclared connections.
    pub const UNDECLARED: Self = Self(0);

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Position among the declared sessions of the file, from 0; `None` for `undeclared`.
    pub fn declared(self) -> Option<usize> {
        self.0.checked_sub(1).map(|position| position as usize)
    }
}

/// The label of a scope number: a name, and for a session its session number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeLabel {
    /// The host.
    Host,
    /// A group.
    Group(Name),
    /// A session.
    Session(u32, Name),
}

/// The meaning of a scope number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The host.
    Host,
    /// A group.
    Group(GroupIndex),
    /// A session, `undeclared` included.
    Session(SessionIndex),
}

/// The names and the numbering of all scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Indexed by scope number; `None` for an unused number.
    scopes: Vec<Option<Scope>>,
    /// Name and scope number of each group.
    groups: Vec<(Name, u32)>,
    /// Name and scope number of each session, indexed by session number; `undeclared` first, `None` if
    /// unused.
    sessions: Vec<(Name, Option<u32>)>,
}

impl Scopes {
    /// Numbers the groups and the declared sessions of a file.
    pub fn new(groups: Vec<Name>, declared: Vec<Name>) -> Self {
        let sessions = std::iter::once(Name::undeclared()).chain(declared).enumerate();
        let sessions = sessions.map(|(at, name)| ScopeLabel::Session(number(at), name));
        let labels = std::iter::once(ScopeLabel::Host)
            .chain(groups.into_iter().map(ScopeLabel::Group))
            .chain(sessions);
        Self::labelled(labels.map(Some))
    }

    /// Makes the scopes from the label of each scope number, `None` for an unused number. After a reload, the
    /// numbers differ from those of the file.
    pub fn labelled(labels: impl Iterator<Item = Option<ScopeLabel>>) -> Self {
        let mut made = Self { scopes: Vec::new(), groups: Vec::new(), sessions: Vec::new() };
        for (place, label) in labels.enumerate() {
            let scope = match label {
                None => None,
                Some(ScopeLabel::Host) => Some(Scope::Host),
                Some(ScopeLabel::Group(name)) => {
                    made.groups.push((name, number(place)));
                    Some(Scope::Group(GroupIndex(number(made.groups.len() - 1))))
                }
                Some(ScopeLabel::Session(session, name)) => {
                    let at = session as usize;
                    if made.sessions.len() <= at {
                        made.sessions.resize(at + 1, (Name::undeclared(), None));
                    }
                    made.sessions[at] = (name, Some(number(place)));
                    Some(Scope::Session(SessionIndex(session)))
                }
            };
            made.scopes.push(scope);
        }
        made
    }

    /// One more than the highest scope number.
    pub fn count(&self) -> u32 {
        number(self.scopes.len())
    }

    /// One more than the highest session number.
    pub fn session_count(&self) -> u32 {
        number(self.sessions.len())
    }

    /// All scopes by number.
    pub fn iter(&self) -> impl Iterator<Item = ScopeIndex> + '_ {
        let numbered = self.scopes.iter().enumerate();
        numbered.filter(|(_, scope)| scope.is_some()).map(|(at, _)| ScopeIndex(number(at)))
    }

    /// All sessions by number, `undeclared` first.
    pub fn sessions(&self) -> impl Iterator<Item = SessionIndex> + '_ {
        let numbered = self.sessions.iter().enumerate();
        numbered.filter(|(_, (_, scope))| scope.is_some()).map(|(at, _)| SessionIndex(number(at)))
    }

    /// The scope with this number; `None` if there is none.
    pub fn scope(&self, number: u32) -> Option<ScopeIndex> {
        self.scopes.get(number as usize)?.map(|_| ScopeIndex(number))
    }

    /// The session with this number; `None` if there is none.
    pub fn session(&self, number: u32) -> Option<SessionIndex> {
        self.sessions.get(number as usize)?.1.map(|_| SessionIndex(number))
    }

    /// The scope of a group.
    pub fn of_group(&self, group: GroupIndex) -> ScopeIndex {
        ScopeIndex(self.groups[group.0 as usize].1)
    }

    /// The scope of a session. The index must be from this set.
    pub fn of_session(&self, session: SessionIndex) -> ScopeIndex {
        ScopeIndex(self.sessions[session.0 as usize].1.unwrap_or(u32::MAX))
    }

    /// The meaning of a scope number. The index must be from this set.
    pub fn what(&self, scope: ScopeIndex) -> Scope {
        self.scopes[scope.0 as usize].unwrap_or(Scope::Host)
    }

    /// The name of a scope. The index must be from this set.
    pub fn name(&self, scope: ScopeIndex) -> ScopeName {
        match self.what(scope) {
            Scope::Host => ScopeName::Host,
            Scope::Group(group) => ScopeName::Group(self.groups[group.0 as usize].0.clone()),
            Scope::Session(session) => ScopeName::Session(self.session_name(session).clone()),
        }
    }

    /// The name of a session. The index must be from this set.
    pub fn session_name(&self, session: SessionIndex) -> &Name {
        &self.sessions[session.0 as usize].0
    }

    /// Finds a scope by its name.
    ///
    /// # Errors
    /// If there is no such scope; the error lists similar names.
    pub fn find(&self, text: &str) -> Result<ScopeIndex, UnknownScope> {
        let found = text.parse().ok().and_then(|name| match name {
            ScopeName::Host => Some(ScopeIndex::HOST),
            ScopeName::Group(name) => {
                self.groups.iter().find(|(own, _)| *own == name).map(|(_, at)| ScopeIndex(*at))
            }
            ScopeName::Session(name) => {
                self.sessions.iter().find(|(own, at)| *own == name && at.is_some())?.1.map(ScopeIndex)
            }
        });
        found.ok_or_else(|| UnknownScope { given: text.to_owned(), similar: self.similar(text) })
    }

    /// Scopes with a similar name, most similar first: by edit distance with or without the prefix, or by a
    /// common part.
    fn similar(&self, text: &str) -> Vec<ScopeName> {
        const MAX_RESULTS: usize = 5;
        // A shorter part occurs in too many names.
        const MIN_PART: usize = 3;
        // No name is longer, and the cost is the product of the two lengths.
        if text.len() > 128 {
            return Vec::new();
        }
        let bare = text.rsplit('/').next().unwrap_or_default();
        let edits = |name: &ScopeName| match name {
            ScopeName::Host => distance(text, "host"),
            ScopeName::Group(own) | ScopeName::Session(own) => {
                let part = bare.len() >= MIN_PART && own.as_str().contains(bare);
                distance(text, &name.to_string()).min(distance(bare, own.as_str())).min(if part {
                    1
                } else {
                    usize::MAX
                })
            }
        };
        let names = self.iter().map(|scope| self.name(scope)).map(|name| (edits(&name), name));
        let mut similar: Vec<_> = names.filter(|(edits, _)| *edits <= max_edits(bare)).collect();
        similar.sort();
        similar.into_iter().take(MAX_RESULTS).map(|(_, name)| name).collect()
    }
}

/// The error for a scope name that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScope {
    given: String,
    similar: Vec<ScopeName>,
}

impl UnknownScope {
    /// Scopes with a similar name, most similar first; may be empty.
    pub fn similar(&self) -> &[ScopeName] {
        &self.similar
    }
}

impl fmt::Display for UnknownScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scope: {} is not in the policy: ", quoted(&self.given))?;
        match self.similar.as_slice() {
            [] => {
                f.write_str("write host, group/NAME or session/NAME, with a name that `breaker status` lists")
            }
            [one] => write!(f, "did you mean {one}?"),
            several => {
                let names: Vec<String> = several.iter().map(ScopeName::to_string).collect();
                write!(f, "did you mean one of {}?", names.join(", "))
            }
        }
    }
}

impl std::error::Error for UnknownScope {}

/// Converts a position to a number. The readers limit the scopes to a few thousand.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
