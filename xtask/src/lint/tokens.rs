//! Splits Rust source into tokens, without comments, literals and items for tests.

/// An identifier, `::`, or another single character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The text of the token.
    pub text: &'a str,
    /// The line of the token, counted from 1.
    pub line: usize,
}

/// Returns the tokens of a source, without comments, literals and items behind `#[cfg(test)]`.
pub fn product_tokens(source: &str) -> Vec<Token<'_>> {
    without_test_items(&tokens(source))
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_length(rest);
        let length = skipped.unwrap_or_else(|| match rest {
            _ if is_word(first) => word_length(rest),
            _ if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        });
        let (text, after) = rest.split_at(length);
        if skipped.is_none() {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// Returns the length of the white space, comment or literal at the start of the source.
fn skipped_length(source: &str) -> Option<usize> {
    let first = source.chars().next()?;
    if first.is_whitespace() {
        return Some(first.len_utf8());
    }
    if source.starts_with("//") {
        return Some(source.find('\n').unwrap_or(source.len()));
    }
    if source.starts_with("/*") {
        return Some(block_comment_length(source));
    }
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        source.strip_prefix(prefix).is_some_and(|rest| {
            let raw = prefix.ends_with('r');
            rest.starts_with('"') || (raw && rest.trim_start_matches('#').starts_with('"'))
        })
    });
    match prefix {
        Some(prefix) if prefix.ends_with('r') => Some(prefix.len() + raw_length(&source[prefix.len()..])),
        Some(prefix) => Some(prefix.len() + quoted_length(&source[prefix.len()..], '"')),
        None if source.starts_with("b'") => Some(1 + quoted_length(&source[1..], '\'')),
        None if is_character(source) => Some(quoted_length(source, '\'')),
        None => None,
    }
}

/// Returns true at a character literal, and false at a lifetime.
fn is_character(source: &str) -> bool {
    let mut characters = source.chars();
    characters.next() == Some('\'')
        && match characters.next() {
            Some('\\') => true,
            Some(_) => characters.next() == Some('\''),
            None => false,
        }
}

fn quoted_length(source: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in source.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    source.len()
}

fn raw_length(source: &str) -> usize {
    let hashes = source.len() - source.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let content = hashes + 1;
    source[content..].find(&end).map_or(source.len(), |at| content + at + end.len())
}

/// Block comments nest.
fn block_comment_length(source: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < source.len() {
        let rest = &source[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    source.len()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn word_length(source: &str) -> usize {
    source.find(|character| !is_word(character)).unwrap_or(source.len())
}

fn without_test_items<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let attribute = attribute_length(&tokens[at..]);
        let content = &tokens[at..at + attribute];
        let contains = |word| content.iter().any(|token| token.text == word);
        if contains("cfg") && contains("test") && !contains("not") {
            at += attribute;
            at += item_length(&tokens[at..]);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Returns the length of the attribute `#[…]` at the start, or 0.
fn attribute_length(tokens: &[Token<'_>]) -> usize {
    match tokens {
        [hash, open, ..] if hash.text == "#" && open.text == "[" => 1 + group_length(&tokens[1..]),
        _ => 0,
    }
}

/// Returns the length of an item: its attributes, and all tokens up to `;` or to the end of its first block.
fn item_length(tokens: &[Token<'_>]) -> usize {
    let mut at = 0;
    while attribute_length(&tokens[at..]) > 0 {
        at += attribute_length(&tokens[at..]);
    }
    while let Some(token) = tokens.get(at) {
        match token.text {
            ";" => return at + 1,
            "{" => return at + group_length(&tokens[at..]),
            "(" | "[" => at += group_length(&tokens[at..]),
            _ => at += 1,
        }
    }
    tokens.len()
}

/// Returns the length of the group in brackets at the start.
fn group_length(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        product_tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_left_out() {
        assert_eq!(texts("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(texts(r###"a "b\"c" r#"d " e"# b'f' '"' '\'' g"###), ["a", "g"]);
        assert_eq!(texts("a<'b>(&'b c)"), ["a", "<", "'", "b", ">", "(", "&", "'", "b", "c", ")"]);
        assert_eq!(texts("crate::a"), ["crate", "::", "a"]);
    }

    #[test]
    fn a_token_has_its_line() {
        let tokens = product_tokens("\"one\ntwo\"\n// three\na");
        assert_eq!(tokens, [Token { text: "a", line: 4 }]);
    }

    #[test]
    fn test_items_are_left_out() {
        assert_eq!(texts("a; #[cfg(test)] mod tests { b { c } } d"), ["a", ";", "d"]);
        assert_eq!(texts("#[cfg(test)] #[derive(A)] const B: [u8; 2] = [0; 2]; d"), ["d"]);
        assert_eq!(texts("#[cfg(not(test))] d").last(), Some(&"d"));
    }
}
