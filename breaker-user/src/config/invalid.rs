//! Why a text is not a value of some kind, and near misses.

use std::fmt;

/// Why a text is not a value of the kind asked for. Prints as `what was found: what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub(super) found: String,
    pub(super) remedy: String,
}

impl Invalid {
    pub(super) fn new(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { found: found.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.found, self.remedy)
    }
}

impl std::error::Error for Invalid {}

/// The text in quotes, escaped, and cut where it is too long to read in a message.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start:?}…")
}

/// How far apart two words are: slips of one key, swapped letters included. Case does not count.
pub(super) fn distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(&a.to_lowercase(), &b.to_lowercase())
}

/// The most slips for which a word is still taken for a misspelling of another.
pub(super) fn most_slips(word: &str) -> usize {
    (word.chars().count() / 3).clamp(1, 3)
}

/// The candidate that was most likely meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nothing that long is one slip from a word of ours, and the distance costs the product of the lengths.
    if word.len() > 128 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(slips, _)| *slips <= most_slips(word))
        .min()
        .map(|(_, candidate)| candidate)
}
