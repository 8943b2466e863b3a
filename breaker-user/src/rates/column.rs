//! A column of the ring: the values of the last 15 minutes, in as few bytes as they allow.

use super::SECONDS;

/// The largest value of a column.
pub const MAX: u32 = u32::MAX - 1;

/// The values of a session, by second modulo [`SECONDS`].
#[derive(Debug, Default)]
pub struct Column {
    /// The second of the first value; `None` before it.
    first: Option<u64>,
    values: Values,
}

/// The width of a column grows with its values. The largest number of a width is a gap.
#[derive(Debug)]
enum Values {
    /// The same value in each second.
    Same(u32),
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

impl Default for Values {
    fn default() -> Self {
        Self::Same(u32::MAX)
    }
}

impl Values {
    fn get(&self, slot: usize) -> u32 {
        match self {
            Self::Same(value) => *value,
            Self::Narrow(values) => widened(values[slot]),
            Self::Wide(values) => values[slot],
        }
    }

    fn set(&mut self, slot: usize, value: u32) {
        if let Self::Same(all) = self
            && *all != value
        {
            *self = narrowed(*all).map_or_else(
                || Self::Wide(vec![*all; SECONDS].into()),
                |narrow| Self::Narrow(vec![narrow; SECONDS].into()),
            );
        }
        if let Self::Narrow(values) = self
            && narrowed(value).is_none()
        {
            *self = Self::Wide(values.iter().copied().map(widened).collect());
        }
        match self {
            Self::Same(_) => {}
            Self::Narrow(values) => values[slot] = narrowed(value).unwrap_or(u16::MAX),
            Self::Wide(values) => values[slot] = value,
        }
    }
}

impl Column {
    /// Sets the value of a second; `None` is a gap. No second is before the last one.
    pub fn set(&mut self, second: u64, value: Option<u32>) {
        match (self.first, value) {
            (None, None) => {}
            (None, Some(value)) => {
                self.first = Some(second);
                self.values = Values::Same(value);
            }
            (Some(_), value) => self.values.set(slot(second), value.map_or(u32::MAX, |value| value.min(MAX))),
        }
    }

    /// The value of one of the last [`SECONDS`] seconds; `None` for a gap.
    pub fn get(&self, second: u64) -> Option<u32> {
        let value = self.values.get(slot(second));
        (self.first.is_some_and(|first| first <= second) && value != u32::MAX).then_some(value)
    }

    /// Bytes of the values.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.values {
                Values::Same(_) => 0,
                Values::Narrow(values) => size_of_val(&**values),
                Values::Wide(values) => size_of_val(&**values),
            }
    }
}

fn slot(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

/// The value in 16 bits, if it fits or is a gap.
fn narrowed(value: u32) -> Option<u16> {
    if value == u32::MAX {
        Some(u16::MAX)
    } else {
        u16::try_from(value).ok().filter(|value| *value != u16::MAX)
    }
}

fn widened(value: u16) -> u32 {
    if value == u16::MAX { u32::MAX } else { u32::from(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_and_gap_is_kept_while_the_width_grows() {
        let mut column = Column::default();
        let first = SECONDS as u64 - 2;
        let values = [None, Some(0), Some(0), None, Some(65_534), Some(65_535), None, Some(MAX), Some(7)];
        let mut bytes = Vec::new();
        for (second, value) in (first..).zip(values) {
            column.set(second, value);
            for (before, expected) in (first..=second).zip(values) {
                assert_eq!(column.get(before), expected, "second {before} after second {second}");
            }
            assert_eq!(column.get(first - 1), None);
            bytes.push(column.bytes());
        }
        assert!(bytes.is_sorted(), "{bytes:?}");
        assert_eq!(bytes[2], bytes[0], "equal values need no memory");
    }
}
