//! Scopes: what can be tripped, what it is called, and which number the kernel program knows it by.
//!
//! # Numbering
//! This is a contract with the kernel program, and [`Scopes`] is the one place that knows it. With G groups and S sessions:
//!
//! | scope | session | what |
//! |---|---|---|
//! | 0 | | `host` |
//! | 1 … G | | the groups, in the order of the file |
//! | G + 1 | 0 | `session/undeclared`, which is always there |
//! | G + 2 … G + 1 + S | 1 … S | the declared sessions, in the order of the file |
//!
//! That is how a file is numbered, and what a load has first. A policy that replaces another keeps the numbers of what stays, so that
//! connections and windows keep their owners ([`Scopes::labelled`]).

use std::fmt;
use std::str::FromStr;

use super::invalid::{Invalid, distance, most_slips, nearest, quoted};
use super::text::Name;

/// What a switch, a limit and a verb apply to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScopeName {
    /// Everything on this host: `host`.
    Host,
    /// Sessions with something in common: `group/NAME`.
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

    /// Says what a scope looks like; whether there is one of this name is for [`Scopes::find`].
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

/// The number of a scope: a position in the kernel program's scope tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeIndex(u32);

/// The number of a group: its position in the file, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(u32);

/// The number of a session: a position in the kernel program's session table. 0 is `undeclared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionIndex(u32);

impl ScopeIndex {
    /// The scope `host`.
    pub const HOST: Self = Self(0);

    /// The scope with this number. Only who has seen its label may say so.
    pub(crate) fn labelled(number: u32) -> Self {
        Self(number)
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl GroupIndex {
    /// The group at this position in the file. Only the readers, who have seen it there, may say so.
    pub(super) fn at(position: usize) -> Self {
        Self(number(position))
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl SessionIndex {
    /// The pseudo-session under which undeclared flow counts.
    pub const UNDECLARED: Self = Self(0);

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Its position among the declared sessions in the file, from 0; `None` for `undeclared`.
    pub fn declared(self) -> Option<usize> {
        self.0.checked_sub(1).map(|position| position as usize)
    }
}

/// What a scope's number stands for, by name; a session with the session's own number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeLabel {
    /// The host.
    Host,
    /// A group.
    Group(Name),
    /// A session.
    Session(u32, Name),
}

/// What a scope's number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The host.
    Host,
    /// A group.
    Group(GroupIndex),
    /// A session, `undeclared` included.
    Session(SessionIndex),
}

/// The names of all scopes, and the numbering (see the module).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// By number; `None` for one that is not in use (any more).
    scopes: Vec<Option<Scope>>,
    /// With the number of the scope of each.
    groups: Vec<(Name, u32)>,
    /// By number, likewise; `undeclared` is the first. Without a scope where the number is not in use (any more).
    sessions: Vec<(Name, Option<u32>)>,
}

impl Scopes {
    /// From the names of the groups and of the declared sessions, each in the order of the file.
    pub fn new(groups: Vec<Name>, declared: Vec<Name>) -> Self {
        let sessions = std::iter::once(Name::undeclared()).chain(declared).enumerate();
        let sessions = sessions.map(|(at, name)| ScopeLabel::Session(number(at), name));
        let labels = std::iter::once(ScopeLabel::Host)
            .chain(groups.into_iter().map(ScopeLabel::Group))
            .chain(sessions);
        Self::labelled(labels.map(Some))
    }

    /// From what each number stands for, `None` where it stands for nothing (any more). A policy that was changed after its load has
    /// numbers that no file gives.
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

    /// Where the numbers of the scopes end.
    pub fn count(&self) -> u32 {
        number(self.scopes.len())
    }

    /// Where the numbers of the sessions, `undeclared` included, end.
    pub fn session_count(&self) -> u32 {
        number(self.sessions.len())
    }

    /// All scopes, by number.
    pub fn iter(&self) -> impl Iterator<Item = ScopeIndex> + '_ {
        let numbered = self.scopes.iter().enumerate();
        numbered.filter(|(_, scope)| scope.is_some()).map(|(at, _)| ScopeIndex(number(at)))
    }

    /// All sessions, by number, `undeclared` first.
    pub fn sessions(&self) -> impl Iterator<Item = SessionIndex> + '_ {
        let numbered = self.sessions.iter().enumerate();
        numbered.filter(|(_, (_, scope))| scope.is_some()).map(|(at, _)| SessionIndex(number(at)))
    }

    /// The scope with this number, as the kernel program reports it; `None` where there is none.
    pub fn scope(&self, number: u32) -> Option<ScopeIndex> {
        self.scopes.get(number as usize)?.map(|_| ScopeIndex(number))
    }

    /// The session with this number, as the kernel program reports it; `None` where there is none.
    pub fn session(&self, number: u32) -> Option<SessionIndex> {
        self.sessions.get(number as usize)?.1.map(|_| SessionIndex(number))
    }

    /// The scope of a group.
    pub fn of_group(&self, group: GroupIndex) -> ScopeIndex {
        ScopeIndex(self.groups[group.0 as usize].1)
    }

    /// The scope of a session. The index must be of these scopes.
    pub fn of_session(&self, session: SessionIndex) -> ScopeIndex {
        ScopeIndex(self.sessions[session.0 as usize].1.unwrap_or(u32::MAX))
    }

    /// What the scope is. The index must be of these scopes.
    pub fn what(&self, scope: ScopeIndex) -> Scope {
        self.scopes[scope.0 as usize].unwrap_or(Scope::Host)
    }

    /// What the scope is called. The index must be of these scopes.
    pub fn name(&self, scope: ScopeIndex) -> ScopeName {
        match self.what(scope) {
            Scope::Host => ScopeName::Host,
            Scope::Group(group) => ScopeName::Group(self.groups[group.0 as usize].0.clone()),
            Scope::Session(session) => ScopeName::Session(self.session_name(session).clone()),
        }
    }

    /// What the session is called. The index must be of these scopes.
    pub fn session_name(&self, session: SessionIndex) -> &Name {
        &self.sessions[session.0 as usize].0
    }

    /// The scope that a person named.
    ///
    /// # Errors
    /// Where there is no such scope, with the scopes that were most likely meant.
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
        found.ok_or_else(|| UnknownScope { given: text.to_owned(), near: self.near(text) })
    }

    /// The scopes whose name is a few slips away, or whose bare name is, or that have it as a part; the nearest first.
    fn near(&self, text: &str) -> Vec<ScopeName> {
        const MOST: usize = 5;
        // A shorter part would be in too many names.
        const LEAST_PART: usize = 3;
        // No name is longer, and the distance costs the product of the lengths.
        if text.len() > 128 {
            return Vec::new();
        }
        let bare = text.rsplit('/').next().unwrap_or_default();
        let slips = |name: &ScopeName| match name {
            ScopeName::Host => distance(text, "host"),
            ScopeName::Group(own) | ScopeName::Session(own) => {
                let part = bare.len() >= LEAST_PART && own.as_str().contains(bare);
                distance(text, &name.to_string()).min(distance(bare, own.as_str())).min(if part {
                    1
                } else {
                    usize::MAX
                })
            }
        };
        let names = self.iter().map(|scope| self.name(scope)).map(|name| (slips(&name), name));
        let mut near: Vec<_> = names.filter(|(slips, _)| *slips <= most_slips(bare)).collect();
        near.sort();
        near.into_iter().take(MOST).map(|(_, name)| name).collect()
    }
}

/// There is no scope of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScope {
    given: String,
    near: Vec<ScopeName>,
}

impl UnknownScope {
    /// The scopes that were most likely meant, the likeliest first; may be empty.
    pub fn near(&self) -> &[ScopeName] {
        &self.near
    }
}

impl fmt::Display for UnknownScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scope: {} is not in the policy: ", quoted(&self.given))?;
        match self.near.as_slice() {
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

/// There are some thousands of scopes at most: the readers see to that.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
