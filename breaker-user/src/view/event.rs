//! An event as one line of text, safe for a terminal.

use crate::audit::Entry;

/// Escapes characters that a terminal obeys or that change the order of text: control characters that JSON
/// allows unescaped, and bidirectional formatting. They occur in strings only, so that the JSON value stays
/// the same.
pub fn escape_controls(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// An event as one line for a person.
pub fn event_line(line: &Entry) -> String {
    let scope = line.scope.as_deref().unwrap_or("-");
    let mut words = vec![format!("{:.3}  {:<16}", line.time, line.kind), scope.to_owned()];
    words.extend(line.cause.as_ref().map(|cause| format!("({cause})")));
    words.push(format!("by {} via {}", line.actor.user.escape_debug(), line.actor.via));
    words.extend(line.reason.as_ref().map(|reason| format!("{reason:?}")));
    if line.counts.as_object().is_some_and(|counts| !counts.is_empty()) {
        words.push(escape_controls(&line.counts.to_string()));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::escape_controls;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown_and_the_json_is_the_same() {
        let all: String = (0u32..=0x2100).filter_map(char::from_u32).collect();
        let json = serde_json::to_string(&all).expect("JSON");
        let shown = escape_controls(&json);
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), all);
        let obeyed = |c: &char| {
            c.is_control()
                || matches!(*c, '\u{61c}' | '\u{200e}'..='\u{200f}')
                || matches!(*c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert_eq!(shown.chars().find(obeyed), None);
        assert_eq!(escape_controls("{\"reason\":\"ü — 漢\"}"), "{\"reason\":\"ü — 漢\"}");
    }
}
