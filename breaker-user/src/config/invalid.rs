//! Errors of text that is no valid value, and suggestions for misspelled words.

use std::fmt;

/// Why a text is no valid value. Displays as `what was found: what to do`.
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

/// The text in quotes, escaped, and cut to a readable length.
pub(super) fn quoted(text: &str) -> String {
    const MAX: usize = 60;
    if text.chars().count() <= MAX {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MAX).collect();
    format!("{start:?}…")
}

/// Edit distance of two words, ignoring case. A swap of two adjacent letters counts as one edit.
pub(super) fn distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(&a.to_lowercase(), &b.to_lowercase())
}

/// Largest edit distance at which a word counts as a misspelling of another.
pub(super) fn max_edits(word: &str) -> usize {
    (word.chars().count() / 3).clamp(1, 3)
}

/// The most similar candidate, if it is similar enough to be a misspelling.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No keyword is that long, and the cost is the product of the two lengths.
    if word.len() > 128 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= max_edits(word))
        .min()
        .map(|(_, candidate)| candidate)
}
