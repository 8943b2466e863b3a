//! Collects the items and imports of one file.

use std::collections::BTreeSet;

use super::tokens::{Token, product_tokens};

/// The names and imports of one file.
#[derive(Default)]
pub struct Module {
    /// The names of the items in the file, at any depth.
    pub items: BTreeSet<String>,
    /// All names that the file imports.
    pub uses: Vec<Use>,
    /// Paths with at least two segments, outside of `use`.
    pub paths: Vec<Reference>,
    /// All identifiers outside of `use`.
    pub words: BTreeSet<String>,
    /// The names of the child modules in files of their own.
    pub children: Vec<String>,
}

/// One name that a `use` declaration imports.
pub struct Use {
    /// The name in this module, or `None` for a glob.
    pub name: Option<String>,
    /// True for `pub use` of any visibility.
    pub is_public: bool,
    /// The imported item or module.
    pub reference: Reference,
}

/// A path as written, with `crate`, `self` and `super` resolved.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Segments from the root of the crate, or from the module if `is_relative`.
    pub segments: Vec<String>,
    /// True if the first segment is a name in the module or another crate.
    pub is_relative: bool,
    /// The line in the file.
    pub line: usize,
}

/// Parses the source of the module with this path from the root of the crate.
pub fn parse(path: &[String], source: &str) -> Module {
    let mut parser = Parser { path: path.to_vec(), ..Parser::default() };
    parser.parse(&product_tokens(source));
    parser.module
}

/// Collects the imports of one file.
#[derive(Default)]
struct Parser {
    path: Vec<String>,
    /// Names of the open inline modules, each with the depth of its braces.
    inline: Vec<(String, usize)>,
    depth: usize,
    module: Module,
}

impl Parser {
    fn parse(&mut self, tokens: &[Token<'_>]) {
        let mut at = 0;
        while at < tokens.len() {
            let text = |offset: usize| tokens.get(at + offset).map_or("", |token| token.text);
            let before = if at == 0 { "" } else { tokens[at - 1].text };
            match (text(0), text(2)) {
                ("{", _) => self.depth += 1,
                ("}", _) => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inline.retain(|(_, depth)| *depth <= self.depth);
                }
                ("mod", ";") => self.module.children.push(text(1).to_owned()),
                ("mod", "{") => {
                    self.module.items.insert(text(1).to_owned());
                    self.inline.push((text(1).to_owned(), self.depth + 1));
                    at += 1;
                }
                ("use", _) if before != "." => {
                    let is_public = before == "pub" || (before == ")" && is_visibility(&tokens[..at]));
                    let end = at + tokens[at..].iter().take_while(|token| token.text != ";").count();
                    self.use_tree(&tokens[at + 1..end], &mut Vec::new(), is_public);
                    at = end;
                }
                (word, _) if is_name(word) => {
                    if matches!(before, "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const")
                        || matches!(before, "static" | "mut" | "!")
                    {
                        self.module.items.insert(word.to_owned());
                    }
                    let length = path_length(&tokens[at..]);
                    if length > 1 && before != "::" && before != "." {
                        let segments: Vec<&str> =
                            tokens[at..at + length].iter().step_by(2).map(|token| token.text).collect();
                        let reference = self.reference(&segments, tokens[at].line);
                        self.module.paths.push(reference);
                    }
                    self.module
                        .words
                        .extend(tokens[at..at + length].iter().step_by(2).map(|token| token.text.to_owned()));
                    at += length.saturating_sub(1);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Adds every name of a `use` tree, and returns the number of its tokens.
    fn use_tree(&mut self, tokens: &[Token<'_>], prefix: &mut Vec<String>, is_public: bool) -> usize {
        let base = prefix.len();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token.text {
                "::" => {}
                "{" => {
                    at += 1;
                    while tokens.get(at).is_some_and(|token| token.text != "}") {
                        at += self.use_tree(&tokens[at..], prefix, is_public);
                        at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                    }
                    prefix.truncate(base);
                    return at + 1;
                }
                "," | "}" => break,
                "*" => {
                    self.add_use(None, prefix, token.line, is_public);
                    prefix.truncate(base);
                    return at + 1;
                }
                "as" => {
                    let name = tokens.get(at + 1).map(|token| token.text.to_owned());
                    self.add_use(name, prefix, token.line, is_public);
                    prefix.truncate(base);
                    return at + 2;
                }
                word => prefix.push(word.to_owned()),
            }
            at += 1;
        }
        if prefix.last().is_some_and(|name| name == "self") && prefix.len() > 1 {
            prefix.pop();
        }
        let line = tokens[at.saturating_sub(1)].line;
        self.add_use(prefix.last().cloned(), prefix, line, is_public);
        prefix.truncate(base);
        at.max(1)
    }

    fn add_use(&mut self, name: Option<String>, segments: &[String], line: usize, is_public: bool) {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let reference = self.reference(&segments, line);
        self.module.uses.push(Use { name, is_public, reference });
    }

    fn reference(&self, segments: &[&str], line: usize) -> Reference {
        let here = || {
            let inline = self.inline.iter().map(|(name, _)| name.clone());
            self.path.iter().cloned().chain(inline).collect::<Vec<_>>()
        };
        let (mut absolute, mut rest) = (Vec::new(), segments);
        let mut is_relative = true;
        while let Some((&first, after)) = rest.split_first() {
            match first {
                "crate" => {}
                "self" if is_relative => absolute = here(),
                "super" => {
                    absolute = if is_relative { here() } else { absolute };
                    absolute.pop();
                }
                _ => break,
            }
            (is_relative, rest) = (false, after);
        }
        absolute.extend(rest.iter().map(|&segment| segment.to_owned()));
        Reference { segments: absolute, is_relative, line }
    }
}

/// Returns true if the tokens end with `pub(…)`.
fn is_visibility(tokens: &[Token<'_>]) -> bool {
    let open = tokens.iter().rposition(|token| token.text == "(");
    open.and_then(|at| tokens.get(at.checked_sub(1)?)).is_some_and(|token| token.text == "pub")
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Returns the number of tokens of a path such as `a::b::c`.
fn path_length(tokens: &[Token<'_>]) -> usize {
    let mut length = 1;
    while let [colons, name, ..] = &tokens[length..] {
        if colons.text != "::" || !is_name(name.text) {
            break;
        }
        length += 2;
    }
    length
}
