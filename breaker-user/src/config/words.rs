//! The choices of the configuration, each a closed set of words.

use std::fmt;

use breaker_common::message::{Class, LimitClass};

/// A choice that is written as one of a few words.
pub trait Word: Copy + 'static {
    /// What the words are for, with its article: `a mode`.
    const KIND: &'static str;
    /// Every choice, in the order in which they are documented.
    const ALL: &'static [Self];

    /// The word in the file, in JSON and in metrics.
    fn word(self) -> &'static str;
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $kind:literal { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_meta])* $variant),+
        }

        impl $crate::config::words::Word for $name {
            const KIND: &'static str = $kind;
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::config::words::display(*self, f)
            }
        }
    };
}
pub(super) use words;

pub(super) fn display(word: impl Word, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // `pad`, so that tables may align it.
    f.pad(word.word())
}

words! {
    /// Where breaker stands in the path of the packets.
    #[derive(Default)]
    Mode, "a mode" {
        /// On the trading host, at the tc egress hook.
        #[default]
        Egress = "egress",
        /// On a gateway in front of the trading hosts, at the XDP hook.
        Inline = "inline",
    }
}

words! {
    /// How the program hangs on an interface. [`Mode::hooks`] says which goes with which mode.
    #[derive(Default)]
    Hook, "a hook" {
        /// The best that is there. At egress: tcx from Linux 6.6 on, else clsact. Inline: native, else generic.
        #[default]
        Auto = "auto",
        /// At egress: a link of its own, which `tc` does not touch.
        Tcx = "tcx",
        /// At egress: a filter of the clsact qdisc, which any `tc filter del` and `tc qdisc del` of root's removes.
        Clsact = "clsact",
        /// Inline: XDP in the driver, before the kernel makes a packet of what it received. Not every driver has it.
        Native = "native",
        /// Inline: XDP in the stack, for any driver. A packet costs more there.
        Generic = "generic",
    }
}

impl Mode {
    /// The hooks that there are in this mode.
    pub const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Egress => &[Hook::Auto, Hook::Tcx, Hook::Clsact],
            Self::Inline => &[Hook::Auto, Hook::Native, Hook::Generic],
        }
    }
}

words! {
    /// What happens to FIX to a place that no session declares.
    #[derive(Default)]
    Undeclared, "a treatment of undeclared flow" {
        /// It passes and is not counted.
        Ignore = "ignore",
        /// It passes, counted under the session `undeclared` and the host's limits.
        #[default]
        Watch = "watch",
        /// It is withheld.
        Block = "block",
    }
}

words! {
    /// Whether what comes in is read. Where the file does not say, it is where a limit needs it.
    #[derive(Default)]
    Inbound, "a treatment of what comes in" {
        /// It is read, for the limits that count fills or rejects.
        Watch = "watch",
        /// It costs nothing, and no limit may count it.
        #[default]
        Ignore = "ignore",
    }
}

words! {
    /// What a connection sees when its scope trips.
    #[derive(Default)]
    OnTrip, "an action" {
        /// RST both ways, so that the venue's cancel-on-disconnect starts at once.
        #[default]
        Reset = "reset",
        /// Its payload vanishes; pure ACKs still flow, so inbound fills are still seen.
        Drop = "drop",
    }
}

words! {
    /// What a new connection of a tripped scope may send.
    #[derive(Default)]
    WhileTripped, "a rule" {
        /// Administration, queries and cancels.
        #[default]
        ReduceOnly = "reduce-only",
        /// Administration only.
        AdminOnly = "admin-only",
        /// Nothing: its SYN is withheld.
        Isolate = "isolate",
    }
}

words! {
    /// What follows when a FIX stream cannot be followed.
    #[derive(Default)]
    OnDesync, "an action" {
        /// Its bytes count as orders: every 100 of a segment, or part of them, as one.
        #[default]
        Count = "count",
        /// An event, and nothing of it is counted.
        Warn = "warn",
        /// The session trips.
        Trip = "trip",
    }
}

words! {
    /// What happens to a connection for which the table has no room.
    #[derive(Default)]
    OnTableFull, "an action" {
        /// It is not let through.
        #[default]
        Block = "block",
        /// It passes, not counted and not limited.
        Pass = "pass",
    }
}

words! {
    /// What follows when the agent's heartbeat is too old.
    #[derive(Default)]
    DeadmanAction, "an action" {
        /// An event and a metric.
        #[default]
        Warn = "warn",
        /// The host trips.
        Trip = "trip",
    }
}

words! {
    /// What a session's connections carry.
    #[derive(Default)]
    WireFormat, "a wire" {
        /// FIX tag=value in the clear.
        #[default]
        Fix = "fix",
        /// Something that cannot be read here, like TLS: each payload segment counts as one order.
        Opaque = "opaque",
    }
}

words! {
    /// What happens, after a trip, to orders with PossDupFlag(43)=Y.
    #[derive(Default)]
    PossDup, "an action" {
        /// They are withheld and trip the session again.
        #[default]
        Block = "block",
        /// They pass like any order.
        Pass = "pass",
    }
}

impl Word for Class {
    const KIND: &'static str = "a message class";
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Word for LimitClass {
    const KIND: &'static str = "a class that a limit counts";
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}
