//! The orders of the list of scopes.

/// Order of the scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The host, then each group with its sessions.
    Group,
    /// By rate, the highest first.
    Rate,
    /// By the use of the nearest limit, the highest first.
    Use,
    /// By state: tripped, disarmed, armed.
    State,
    /// By name.
    Name,
}

impl Sort {
    /// The orders with their keys, in the order of the key `s`.
    pub const ALL: [(Self, char); 5] =
        [(Self::Group, 'g'), (Self::Rate, 'r'), (Self::Use, 'u'), (Self::State, 'x'), (Self::Name, 'n')];

    /// The order after this one.
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|(sort, _)| *sort == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()].0
    }

    /// The order in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Rate => "rate",
            Self::Use => "use",
            Self::State => "state",
            Self::Name => "name",
        }
    }
}
