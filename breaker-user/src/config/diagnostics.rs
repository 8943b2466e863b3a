//! Errors and warnings about a configuration file, with their position and what to do.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A range of bytes in the file.
pub(super) type Span = Range<usize>;

/// An error or warning as the readers report it, with its position in bytes.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The value or key that it is about.
    pub(super) span: Span,
    /// What failed, what was found, what to do.
    pub(super) message: String,
    /// A second position that is involved, with its label.
    pub(super) related: Option<(Span, &'static str)>,
    /// True if the error is about a missing key. Such an error means nothing if part of the file is
    /// unreadable.
    pub(super) absence: bool,
}

impl Problem {
    /// Makes a problem with the message `what: found: remedy`.
    pub(super) fn new(span: Span, what: &str, found: &str, remedy: &str) -> Self {
        Self { span, message: format!("{what}: {found}: {remedy}"), related: None, absence: false }
    }

    /// Adds a second position: the first of two values that clash.
    pub(super) fn related(mut self, span: Span, label: &'static str) -> Self {
        self.related = Some((span, label));
        self
    }

    /// Marks an error about a missing key.
    pub(super) fn absence(mut self) -> Self {
        self.absence = true;
        self
    }
}

/// Errors and warnings found while a file is read. Errors refuse the file; warnings do not.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) errors: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Problems {
    /// Records an error, or returns the value, so that reading continues in both cases.
    pub(super) fn record<T>(&mut self, read: Result<T, Problem>) -> Option<T> {
        read.map_err(|problem| self.errors.push(problem)).ok()
    }
}

/// Severity of a [`Diagnostic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted.
    Warning,
}

/// An error or warning with its position in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    place: Option<Place>,
    related: Option<(Place, &'static str)>,
}

impl Diagnostic {
    /// Error or warning.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// One line: what failed, what was found, what to do, with `: ` between them.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Line in the file, from 1; 0 if it is about the file as a whole.
    pub fn line(&self) -> usize {
        self.place.as_ref().map_or(0, |place| place.line)
    }

    /// Column in the line in characters, from 1; 0 if it is about the file as a whole.
    pub fn column(&self) -> usize {
        self.place.as_ref().map_or(0, |place| place.column)
    }
}

/// A position in the file, cut to one line so that the caret stays readable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    /// The bytes of the line, without its end.
    text: Span,
    /// The bytes to mark, counted from the start of the line.
    caret: Span,
}

/// The diagnostics of one file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file: String,
    source: Arc<str>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Sorts the problems and computes their lines.
    pub(super) fn new(file: &str, source: &str, severity: Severity, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        let lines = Lines::new(source);
        let list = problems
            .into_iter()
            .map(|problem| Diagnostic {
                severity,
                message: problem.message,
                place: Some(lines.place(problem.span)),
                related: problem.related.map(|(span, label)| (lines.place(span), label)),
            })
            .collect();
        Self { file: file.to_owned(), source: source.into(), list }
    }

    /// Makes one error about the file as a whole.
    pub(super) fn about_file(file: &str, found: &str, remedy: &str) -> Self {
        let message = format!("configuration {file}: {found}: {remedy}");
        let error = Diagnostic { severity: Severity::Error, message, place: None, related: None };
        Self { file: file.to_owned(), source: "".into(), list: vec![error] }
    }

    /// Name of the file, as given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The diagnostics in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Number of diagnostics.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Renders all diagnostics, each with its file, line and column, the line itself and a caret. An empty
    /// line separates two of them. `colour` is for terminals only.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let texts: Vec<String> = self.list.iter().map(|one| renderer.render(&[self.group(one)])).collect();
        texts.join("\n\n")
    }

    fn group<'a>(&'a self, one: &'a Diagnostic) -> Group<'a> {
        let level = match one.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(one.message.as_str());
        let Some(place) = &one.place else { return Group::with_title(title) };
        let primary = AnnotationKind::Primary.span(place.caret.clone());
        let Some((other, label)) = &one.related else {
            return title.element(self.snippet(place).annotation(primary));
        };
        let context = AnnotationKind::Context.span(other.caret.clone()).label(*label);
        if other.line == place.line {
            return title.element(self.snippet(place).annotation(primary).annotation(context));
        }
        title
            .element(self.snippet(place).annotation(primary))
            .element(self.snippet(other).annotation(context))
    }

    fn snippet<'a, T: Clone>(&'a self, place: &Place) -> Snippet<'a, T> {
        Snippet::source(&self.source[place.text.clone()]).line_start(place.line).path(self.file.as_str())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// The errors for which a file was refused; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Diagnostics);

impl ConfigErrors {
    pub(super) fn new(diagnostics: Diagnostics) -> Self {
        Self(diagnostics)
    }

    /// The errors one by one, and their rendered text.
    pub fn diagnostics(&self) -> &Diagnostics {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ConfigErrors {}

/// The start of each line of a text.
pub(super) struct Lines<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        let after_newline =
            source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { source, starts: std::iter::once(0).chain(after_newline).collect() }
    }

    /// Index of the line that contains a byte, from 0.
    pub(super) fn index(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    fn place(&self, span: Span) -> Place {
        // The parser points past the end for missing text, and may point into the middle of a character.
        let at = self.source.floor_char_boundary(span.start.min(self.source.len()));
        let index = self.index(at);
        let start = self.starts[index];
        let line = self.source[start..].split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let end = start + line.len();
        let at = at.min(end);
        let last = self.source.ceil_char_boundary(span.end.min(self.source.len())).clamp(at, end);
        Place {
            line: index + 1,
            column: self.source[start..at].chars().count() + 1,
            text: start..end,
            caret: at - start..last - start,
        }
    }
}
