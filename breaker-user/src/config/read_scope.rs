//! Reads the settings that every scope has: `armed`, `limits`, `preset`.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use breaker_common::abi::LIMITS_PER_SCOPE;
use breaker_common::message::LimitClass;

use super::diagnostics::{Problem, Problems, Span};
use super::limit::{Limit, Limits, MAX, Per, Preset, WarnLevels};
use super::reader::{Section, Value};
use super::text::Name;

/// Reads `armed`; the default is true.
pub(super) fn armed(section: &mut Section<'_>, problems: &mut Problems) -> bool {
    section.optional("armed", problems, Value::boolean).unwrap_or(true)
}

/// Reads `limits` and `preset`, and merges them.
pub(super) fn limits(section: &mut Section<'_>, problems: &mut Problems) -> Limits {
    let preset_value = section.take("preset");
    let preset = preset_value.as_ref().and_then(|value| problems.record(value.word::<Preset>()));
    let value = section.take("limits");
    let own = value.as_ref().map(|value| own_limits(value, problems)).unwrap_or_default();
    let own_count = own.len();
    let limits = Limits::merge(own, preset);
    if limits.len() > LIMITS_PER_SCOPE
        && let Some(place) = value.or(preset_value)
    {
        let found = match limits.len() - own_count {
            0 => format!("{own_count} limits"),
            added => format!("{own_count} limits and {added} of the preset"),
        };
        problems.errors.push(place.problem(found, format!("keep at most {LIMITS_PER_SCOPE} in a scope")));
    }
    limits
}

fn own_limits(value: &Value<'_>, problems: &mut Problems) -> Vec<Limit> {
    let mut seen: BTreeMap<_, Span> = BTreeMap::new();
    let mut limits = Vec::new();
    for item in problems.record(value.list("write a list of limits in [ ]")).unwrap_or_default() {
        let Some(limit) = limit(&item, problems) else { continue };
        // A ratio also counts since the last reset, but is different from a total.
        let kind = (limit.class, limit.per, limit.per_fill.is_some());
        if let Some(first) = seen.get(&kind) {
            let per = if limit.per_fill.is_some() { "fill".to_owned() } else { limit.per.to_string() };
            let found = format!("a second limit for class {} per {per}", limit.class.name());
            let problem = item.problem(found, "remove one of the two").related(first.clone(), "the first");
            problems.errors.push(problem);
            continue;
        }
        seen.insert(kind, item.span);
        limits.push(limit);
    }
    limits
}

fn limit(value: &Value<'_>, problems: &mut Problems) -> Option<Limit> {
    let example = "write a limit like { class = \"order\", max = 500, per = \"3s\" }";
    let mut section = problems.record(value.section(example))?;
    let classes = "add class = \"order\", \"cancel\", \"message\", \"fill\" or \"reject\"";
    let class = section.required("class", classes, problems);
    // With one key of each kind, `after` is reported as excess: a window limit is more likely meant than a
    // ratio.
    let windowed = section.has("max") || section.has("per");
    let ratio = section.has("per_fill") || section.has("after") && !windowed;
    let rule = if ratio { ratio_rule(&mut section, problems) } else { window_rule(&mut section, problems) };
    let warn = section.optional("warn", problems, warn_levels);
    section.end(problems);
    let word = class.as_ref().and_then(|class| problems.record(class.word::<LimitClass>()));
    if ratio
        && let (Some(class), Some(word)) = (&class, word)
        && word != LimitClass::Order
    {
        let found = format!("{:?} is not possible with per_fill", word.name());
        problems.errors.push(class.problem(found, "write class = \"order\": a ratio is of orders to fills"));
        return None;
    }
    let (max, per, per_fill) = rule?;
    Some(Limit { class: word?, max, per, per_fill, warn: warn.unwrap_or_default() })
}

/// A limit without its class: maximum, interval, and orders for each fill of a ratio.
type Rule = (NonZeroU32, Per, Option<NonZeroU32>);

fn window_rule(section: &mut Section<'_>, problems: &mut Problems) -> Option<Rule> {
    let max = section.required("max", "add the most messages that may pass, like max = 500", problems);
    let per =
        section.required("per", "add the interval to count over, like per = \"3s\", or \"total\"", problems);
    // The key is absent; `take` lists it among the known keys in the error for a misspelled key.
    section.take("per_fill");
    if let Some(after) = section.take("after") {
        let remedy = "remove it, or write per_fill, the most orders for each fill, instead of max and per";
        problems.errors.push(after.problem("is not possible with max and per", remedy));
    }
    let max = max.and_then(|max| problems.record(max.integer(MAX)));
    let per = per.and_then(|per| problems.record(per.text::<Per>()));
    Some((max?, per?, None))
}

fn ratio_rule(section: &mut Section<'_>, problems: &mut Problems) -> Option<Rule> {
    for (key, remedy) in [
        ("max", "remove it: after is the number of orders that may pass before the ratio applies"),
        ("per", "remove it: a ratio counts since the last reset"),
    ] {
        if let Some(value) = section.take(key) {
            problems.errors.push(value.problem("is not possible with per_fill", remedy));
        }
    }
    let per_fill =
        section.required("per_fill", "add the most orders for each fill, like per_fill = 100", problems);
    let example = "add how many orders may pass before the ratio applies, like after = 1000";
    let after = section.required("after", example, problems);
    let per_fill = per_fill.and_then(|per_fill| problems.record(per_fill.integer(MAX)));
    let after = after.and_then(|after| problems.record(after.integer(MAX)));
    Some((after?, Per::Total, Some(per_fill?)))
}

fn warn_levels(value: &Value<'_>) -> Result<WarnLevels, Problem> {
    let levels = value.list("write a list, like [50, 75, 90]")?;
    let levels = levels.iter().map(|level| level.integer(1..=99)).collect::<Result<Vec<u8>, Problem>>()?;
    WarnLevels::new(&levels).map_err(|invalid| value.invalid(invalid))
}

/// The names of one kind of table, which must differ, with their spans.
#[derive(Default)]
pub(super) struct Names(HashMap<Name, Span>);

impl Names {
    /// Reads `name`, which must be present and new, and adds it to the section's path in messages.
    pub(super) fn read(
        &mut self,
        section: &mut Section<'_>,
        kind: &str,
        problems: &mut Problems,
    ) -> Option<(Name, Span)> {
        let value = section.required("name", "add a unique name, like name = \"xnys-1\"", problems)?;
        let name: Name = problems.record(value.text())?;
        section.what = format!("{kind}/{name}");
        if let Some(first) = self.0.get(&name) {
            let found = format!("{:?} is the name of another {kind}", name.as_str());
            let problem = value.problem(found, "use different names").related(first.clone(), "the first");
            problems.errors.push(problem);
        } else {
            self.0.insert(name.clone(), value.span.clone());
        }
        Some((name, value.span))
    }
}
