//! The reason of a verb: checked for every verb but `trip`, which accepts any reason.

use std::ffi::{OsStr, OsString};

/// Longest reason, in bytes.
pub const MAX_REASON: usize = 1000;

/// Returns the reason of a `trip` for the log, and the problem of the given reason if it was replaced.
pub(super) fn trip_reason(words: &[OsString]) -> (String, Option<String>) {
    let given = words.join(OsStr::new(" "));
    let text = given.to_string_lossy();
    let text = text.trim();
    if text.is_empty() {
        let found = if words.is_empty() { "it is missing" } else { "it is empty" };
        return ("no reason given".to_owned(), Some(found.to_owned()));
    }
    let found = match (given.to_str(), text.len()) {
        (_, length) if length > MAX_REASON => Some(format!("it has {length} bytes, cut to {MAX_REASON}")),
        (None, _) => Some("it is not UTF-8".to_owned()),
        _ => None,
    };
    (text[..text.floor_char_boundary(MAX_REASON)].to_owned(), found)
}

/// Joins the reason of a `trip` to its option, as `--reason=TEXT`, so that no reason can prevent the trip:
/// neither one that starts with a hyphen nor a missing one.
pub fn normalize_trip_reason(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let typed: Vec<_> = typed.into_iter().collect();
    if !typed.iter().any(|word| word == "trip") {
        return typed;
    }
    let mut words = typed.into_iter().peekable();
    let mut normalized = Vec::new();
    while let Some(mut word) = words.next() {
        if word == "--reason" {
            word.push("=");
            if let Some(text) = words.next_if(|next| !is_option_of_trip(next)) {
                word.push(text);
            }
        }
        normalized.push(word);
    }
    normalized
}

/// Returns true for an option of `trip`, which is no reason.
fn is_option_of_trip(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        matches!(
            name,
            "--json"
                | "--explain"
                | "--config"
                | "--timeout"
                | "--pin-root"
                | "--private-pins"
                | "--control"
                | "--reason"
                | "--help"
                | "-h"
        )
    })
}

/// Parses a reason, which must not be empty.
pub fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty: write a reason for the audit log".to_owned()),
        text if text.len() > MAX_REASON => {
            Err(format!("it has {} bytes: write at most {MAX_REASON}", text.len()))
        }
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    /// Parses a trip with these words after its scope. Returns the reason, its problem, and the JSON flag.
    fn trip(words: &[&OsStr]) -> (String, Option<String>, bool) {
        let typed = ["breaker", "trip", "session/x"].map(OsStr::new);
        let parsed =
            Cli::try_parse_from(normalize_trip_reason(typed.iter().chain(words).map(OsString::from)));
        let Ok(Cli { verb: Verb::Trip(args), .. }) = parsed else { panic!("{words:?}: {parsed:?}") };
        let (reason, found) = args.reason();
        (reason, found, args.json)
    }

    #[test]
    fn a_trip_accepts_any_reason_and_reports_a_replaced_one() {
        let long = "ü".repeat(600);
        for (words, reason, found, json) in [
            (&[][..], "no reason given", Some("it is missing"), false),
            (&["--json"], "no reason given", Some("it is missing"), true),
            (&["--reason"], "no reason given", Some("it is empty"), false),
            (&["--reason="], "no reason given", Some("it is empty"), false),
            (&["--reason", " \t"], "no reason given", Some("it is empty"), false),
            (&["--reason", "--json"], "no reason given", Some("it is empty"), true),
            (&["--reason", "--pin-root", "/x"], "no reason given", Some("it is empty"), false),
            (&["--reason", "--pin-root=/x", "--json"], "no reason given", Some("it is empty"), true),
            (&["--reason", "-5 % in a minute"], "-5 % in a minute", None, false),
            (&["--reason", "--"], "--", None, false),
            (&["--json", "--reason", "--jsn"], "--jsn", None, true),
            (&["--reason=-x"], "-x", None, false),
            (&["--reason", "a", "--reason", "b"], "a b", None, false),
            (&["--reason", &long], &long[..1000], Some("it has 1200 bytes, cut to 1000"), false),
            (&["--reason", "runaway"], "runaway", None, false),
        ] {
            let words: Vec<_> = words.iter().map(OsStr::new).collect();
            assert_eq!(trip(&words), (reason.to_owned(), found.map(str::to_owned), json), "{words:?}");
        }
        let (reason, found, _) = trip(&[OsStr::new("--reason"), OsStr::from_bytes(b"runaway \xff")]);
        assert_eq!((reason.as_str(), found.as_deref()), ("runaway \u{fffd}", Some("it is not UTF-8")));
    }

    #[test]
    fn other_verbs_require_a_reason() {
        for words in
            [&["reset", "host"][..], &["reset", "host", "--reason"], &["arm", "host", "--reason", "-x"]]
        {
            assert!(
                Cli::try_parse_from(normalize_trip_reason(
                    ["breaker"].iter().chain(words).map(OsString::from)
                ))
                .is_err()
            );
        }
    }
}
