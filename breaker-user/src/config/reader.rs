//! Reads the parsed TOML by hand, so that every value keeps its span and every error is found.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Problem, Problems, Span};
use super::invalid::{Invalid, nearest, quoted};
use super::words::Word;

/// A value with its span and its path in messages: `host mode`, `session/xnys-1 limits`.
#[derive(Clone)]
pub(super) struct Value<'t> {
    pub(super) what: String,
    pub(super) span: Span,
    value: &'t DeValue<'t>,
}

impl<'t> Value<'t> {
    fn new(what: String, value: &'t Spanned<DeValue<'t>>) -> Self {
        Self { what, span: value.span(), value: value.get_ref() }
    }

    /// Makes a problem with this value.
    pub(super) fn problem(&self, found: impl AsRef<str>, remedy: impl AsRef<str>) -> Problem {
        Problem::new(self.span.clone(), &self.what, found.as_ref(), remedy.as_ref())
    }

    /// Makes a problem from an [`Invalid`].
    pub(super) fn invalid(&self, invalid: Invalid) -> Problem {
        self.problem(invalid.found, invalid.remedy)
    }

    /// The value as quoted in messages.
    pub(super) fn shown(&self) -> String {
        match self.value {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => cut(&number.to_string()),
            DeValue::Float(number) => cut(number.as_str()),
            DeValue::Boolean(yes) => yes.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    fn wrong_kind(&self, wanted: &str, remedy: &str) -> Problem {
        self.problem(format!("{} is not {wanted}", self.shown()), remedy)
    }

    pub(super) fn string(&self) -> Result<&'t str, Problem> {
        match self.value {
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong_kind("a string", "write a string in quotes")),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, Problem> {
        match self.value {
            DeValue::Boolean(yes) => Ok(*yes),
            _ => Err(self.wrong_kind("a boolean", "write true or false, without quotes")),
        }
    }

    /// Reads a whole number in a range.
    pub(super) fn integer<T>(&self, range: RangeInclusive<T>) -> Result<T, Problem>
    where
        T: TryFrom<u32> + PartialOrd + Display,
    {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = self.value else {
            return Err(self.wrong_kind("a whole number", &remedy));
        };
        let parsed =
            u32::from_str_radix(number.as_str(), number.radix()).ok().and_then(|value| value.try_into().ok());
        parsed
            .filter(|parsed| range.contains(parsed))
            .ok_or_else(|| self.problem(format!("{} is out of range", self.shown()), remedy))
    }

    /// Reads a string with the type's own parser.
    pub(super) fn text<T: FromStr<Err = Invalid>>(&self) -> Result<T, Problem> {
        self.string()?.parse().map_err(|invalid| self.invalid(invalid))
    }

    /// Reads one of a closed set of words.
    pub(super) fn word<T: Word>(&self) -> Result<T, Problem> {
        let words: Vec<String> = T::ALL.iter().map(|word| format!("{:?}", word.word())).collect();
        let choices = format!("write {}", words.join(" or "));
        let DeValue::String(text) = self.value else { return Err(self.wrong_kind(T::KIND, &choices)) };
        if let Some(word) = T::ALL.iter().find(|word| word.word() == text) {
            return Ok(*word);
        }
        let remedy = match nearest(text, T::ALL.iter().map(|word| word.word())) {
            Some(near) => format!("{choices}; did you mean {near:?}?"),
            None => choices,
        };
        Err(self.problem(format!("{} is not {}", quoted(text), T::KIND), remedy))
    }

    /// Reads the elements of an array. `example` is the remedy for another kind of value.
    pub(super) fn list(&self, example: &str) -> Result<Vec<Value<'t>>, Problem> {
        match self.value {
            DeValue::Array(array) => {
                Ok(array.iter().map(|item| Value::new(self.what.clone(), item)).collect())
            }
            _ => Err(self.wrong_kind("an array", example)),
        }
    }

    /// Reads one value or an array of values.
    pub(super) fn one_or_list(&self) -> Vec<Value<'t>> {
        self.list("").unwrap_or_else(|_| vec![self.clone()])
    }

    /// Reads a table. `example` is the remedy for another kind of value.
    pub(super) fn section(&self, example: &str) -> Result<Section<'t>, Problem> {
        match self.value {
            DeValue::Table(table) => Ok(Section::new(self.what.clone(), self.span.clone(), table)),
            _ => Err(self.wrong_kind("a table", example)),
        }
    }
}

/// A table that is being read. Keys that remain at the end are unknown.
pub(super) struct Section<'t> {
    /// The table's path in messages.
    pub(super) what: String,
    span: Span,
    rest: BTreeMap<&'t str, (Span, &'t Spanned<DeValue<'t>>)>,
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// Makes a section; `what` is empty for the top level.
    pub(super) fn new(what: String, span: Span, table: &'t DeTable<'t>) -> Self {
        let rest = table.iter().map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value))).collect();
        Self { what, span, rest, known: Vec::new() }
    }

    /// Span of the header, or of a whole inline table.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Makes a problem with the table as a whole.
    pub(super) fn problem(&self, found: impl AsRef<str>, remedy: impl AsRef<str>) -> Problem {
        Problem::new(self.span(), &self.what, found.as_ref(), remedy.as_ref())
    }

    fn name(&self, key: &str) -> String {
        if self.what.is_empty() { key.to_owned() } else { format!("{} {key}", self.what) }
    }

    /// Returns true if the key is present and not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.rest.contains_key(key)
    }

    /// Takes the value of a key, and marks the key as known.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'t>> {
        self.known.push(key);
        let (_, value) = self.rest.remove(key)?;
        Some(Value::new(self.name(key), value))
    }

    /// Reads the value of a key; `None` if the key is absent or its value is invalid.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        read: impl FnOnce(&Value<'t>) -> Result<T, Problem>,
    ) -> Option<T> {
        let value = self.take(key)?;
        problems.record(read(&value))
    }

    /// Takes the value of a required key. Reports a missing key with `example` as the remedy.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems,
    ) -> Option<Value<'t>> {
        let value = self.take(key);
        if value.is_none() {
            let missing = Problem::new(self.span(), &self.name(key), "is missing", example);
            problems.errors.push(missing.absence());
        }
        value
    }

    /// Takes the remaining keys and values of a table with arbitrary keys.
    pub(super) fn drain(&mut self) -> Vec<(&'t str, Span, Value<'t>)> {
        let rest = std::mem::take(&mut self.rest);
        rest.into_iter().map(|(key, (span, value))| (key, span, Value::new(self.name(key), value))).collect()
    }

    /// Reports every remaining key as an error: it may be the misspelled name of a limit.
    pub(super) fn end(self, problems: &mut Problems) {
        for (key, (span, _)) in &self.rest {
            let remedy = match nearest(key, self.known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known keys are {}", self.known.join(", ")),
            };
            let what = if self.what.is_empty() { "configuration" } else { &self.what };
            let found = format!("unknown key {}", quoted(key));
            problems.errors.push(Problem::new(span.clone(), what, &found, &remedy));
        }
    }
}

fn cut(number: &str) -> String {
    const MAX: usize = 24;
    if number.len() <= MAX { number.to_owned() } else { format!("{}…", &number[..MAX]) }
}
