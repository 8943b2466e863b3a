//! How much of each thing is done: for figures, or only to see that everything works.

/// Counts.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Rounds of everything that is measured interleaved,
    pub rounds: usize,
    /// and of what takes so short that the machine's speed would else differ more than what is compared.
    pub short_rounds: usize,
    /// Repeats of a frame in a test run.
    pub repeat: u32,
    /// Frames that are run once each.
    pub singles: u32,
    /// Round trips a round.
    pub pings: usize,
    /// Frames of a blast,
    pub frames: usize,
    /// messages sent one way a round, one a send,
    pub messages: usize,
    /// and coalesced.
    pub coalesced: usize,
    /// Sends of each kind whose time the kernel takes.
    pub sends: usize,
    /// Times that a program is started to look at something.
    pub looks: usize,
    /// Kills of each kind.
    pub kills: usize,
    /// Times that what is counted is counted.
    pub counts: usize,
}

impl Scale {
    /// For figures.
    pub const FULL: Self = Self {
        rounds: 7,
        short_rounds: 35,
        repeat: 500_000,
        singles: 10_000,
        pings: 5_000,
        frames: 40_000,
        messages: 40_000,
        coalesced: 200_000,
        sends: 100,
        looks: 100,
        kills: 200,
        counts: 5,
    };
    /// So few that all sections together take about a minute.
    pub const SMOKE: Self = Self {
        rounds: 1,
        short_rounds: 1,
        repeat: 1_000,
        singles: 100,
        pings: 300,
        frames: 2_000,
        messages: 1_000,
        coalesced: 5_000,
        sends: 20,
        looks: 3,
        kills: 2,
        counts: 1,
    };
}
