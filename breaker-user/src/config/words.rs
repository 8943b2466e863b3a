//! Settings with a closed set of words.

use std::fmt;

use breaker_common::message::{Class, LimitClass};

/// A setting that is one of a closed set of words.
pub trait Word: Copy + 'static {
    /// The kind of setting with its article, for messages: `a mode`.
    const KIND: &'static str;
    /// Every variant, in the documented order.
    const ALL: &'static [Self];

    /// The word in the file, in JSON and in metrics.
    fn word(self) -> &'static str;
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $kind:literal {
        $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)?
    }) => {
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
    // `pad` lets tables align the word.
    f.pad(word.word())
}

words! {
    /// Position of the hook in the packet path.
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
    /// Type of the attachment to an interface. [`Mode::hooks`] lists the hooks of each mode.
    #[derive(Default)]
    Hook, "a hook" {
        /// The best available hook. Egress: tcx from Linux 6.6 on, else clsact. Inline: native, else generic.
        #[default]
        Auto = "auto",
        /// Egress: a tcx link, which `tc` cannot remove.
        Tcx = "tcx",
        /// Egress: a filter of the clsact qdisc, which root can remove with `tc filter del` or `tc qdisc
        /// del`.
        Clsact = "clsact",
        /// Inline: XDP in the driver, before the kernel allocates an skb. Not every driver supports it.
        Native = "native",
        /// Inline: XDP in the network stack, for any driver, at a higher cost for each packet.
        Generic = "generic",
    }
}

impl Mode {
    /// The hooks of this mode.
    pub const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Egress => &[Hook::Auto, Hook::Tcx, Hook::Clsact],
            Self::Inline => &[Hook::Auto, Hook::Native, Hook::Generic],
        }
    }
}

words! {
    /// Treatment of FIX connections that no session declares.
    #[derive(Default)]
    Undeclared, "a treatment of undeclared connections" {
        /// They pass and are not counted.
        Ignore = "ignore",
        /// They pass, counted under the session `undeclared` and the host's limits.
        #[default]
        Watch = "watch",
        /// They are withheld.
        Block = "block",
    }
}

words! {
    /// Whether inbound messages are read. The default depends on whether a limit needs them.
    #[derive(Default)]
    Inbound, "a treatment of inbound messages" {
        /// They are read, for the limits that count fills or rejects.
        Watch = "watch",
        /// They are not read, at no cost. No limit may count them.
        #[default]
        Ignore = "ignore",
    }
}

words! {
    /// Treatment of a connection when its scope trips.
    #[derive(Default)]
    OnTrip, "an action" {
        /// RST to both ends, so that the venue's cancel-on-disconnect starts at once.
        #[default]
        Reset = "reset",
        /// Payload is dropped. Pure ACKs pass, so that the host still receives fills.
        Drop = "drop",
    }
}

words! {
    /// The orders that a venue cancels by itself when a connection ends.
    CancelOnDisconnect, "an effect of a disconnection" {
        /// All orders of the session.
        All = "all",
        /// The day orders of the session.
        Day = "day",
        /// No order.
        None = "none",
    }
}

words! {
    /// Messages that a new connection of a tripped scope may send.
    #[derive(Default)]
    WhileTripped, "a rule" {
        /// Admin messages, queries and cancels.
        #[default]
        ReduceOnly = "reduce-only",
        /// Admin messages only.
        AdminOnly = "admin-only",
        /// None: the SYN is withheld.
        Isolate = "isolate",
    }
}

words! {
    /// Treatment of a FIX stream that is out of sync.
    #[derive(Default)]
    OnDesync, "an action" {
        /// Its bytes count as orders: each 100 bytes of a segment, or part of 100, as one.
        #[default]
        Count = "count",
        /// An event; its messages are not counted.
        Warn = "warn",
        /// The session trips.
        Trip = "trip",
    }
}

words! {
    /// State of armed scopes after the host went down while an agent was running.
    #[derive(Default)]
    UncleanBoot, "an action" {
        /// Tripped: the state file may lack a trip that the kernel made.
        #[default]
        Trip = "trip",
        /// As in the state file.
        Pass = "pass",
    }
}

words! {
    /// Treatment of a new connection while the connection table is full.
    #[derive(Default)]
    OnTableFull, "an action" {
        /// It is withheld.
        #[default]
        Block = "block",
        /// It passes, neither counted nor limited.
        Pass = "pass",
    }
}

words! {
    /// Reaction to a heartbeat that is too old.
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
    /// Format of the bytes on a session's connections.
    #[derive(Default)]
    WireFormat, "a wire" {
        /// Unencrypted FIX in tag=value encoding.
        #[default]
        Fix = "fix",
        /// Anything else, such as TLS: each segment with payload counts as one order.
        Opaque = "opaque",
    }
}

words! {
    /// Treatment of orders with PossDupFlag(43)=Y after a trip.
    #[derive(Default)]
    PossDup, "an action" {
        /// They are withheld and trip the session again.
        #[default]
        Block = "block",
        /// They pass like other orders.
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
