//! UTCTimestamp, the FIX format of wall time: `20120801-13:30:00.123`.

/// A cache of the text of the current millisecond, which most messages share with the one before.
#[derive(Clone, Debug)]
pub(super) struct Timestamp {
    /// Milliseconds since 1970.
    millisecond: i64,
    text: String,
}

impl Timestamp {
    pub fn new() -> Self {
        Self { millisecond: i64::MIN, text: String::new() }
    }

    /// The text of the current time.
    pub fn now(&mut self) -> &str {
        let now = jiff::Timestamp::now();
        if now.as_millisecond() != self.millisecond {
            self.millisecond = now.as_millisecond();
            self.text = now.strftime("%Y%m%d-%H:%M:%S.%3f").to_string();
        }
        &self.text
    }
}
