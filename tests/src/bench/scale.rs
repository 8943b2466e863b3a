//! How often each measurement is repeated: for figures, or only to see that everything works.

/// Numbers of repeats.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Rounds of measurements in turns.
    pub rounds: usize,
    /// Rounds of short measurements, which the machine's speed would disturb more.
    pub short_rounds: usize,
    /// Repeats of a frame in a test run.
    pub repeat: u32,
    /// Frames that run once each.
    pub singles: u32,
    /// Round trips in a round.
    pub pings: usize,
    /// Frames of a burst.
    pub frames: usize,
    /// Messages sent one way in a round, one in each send.
    pub messages: usize,
    /// Messages sent one way in a round, coalesced.
    pub coalesced: usize,
    /// Sends of each kind that the kernel measures.
    pub sends: usize,
    /// Starts of a program that shows the status.
    pub looks: usize,
    /// Bytes of a capture.
    pub captured: usize,
    /// Trials of each method.
    pub kills: usize,
    /// Repeats of each count.
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
        captured: 1_000_000_000,
        kills: 200,
        counts: 5,
    };
    /// For a test of the bench: all sections together take about a minute.
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
        captured: 10_000_000,
        kills: 2,
        counts: 1,
    };
}
