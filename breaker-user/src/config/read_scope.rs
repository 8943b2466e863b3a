//! Reads what every scope has: switch, limits, preset.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use breaker_common::abi::LIMITS_PER_SCOPE;
use breaker_common::message::LimitClass;

use super::diagnostics::{Problem, Problems, Span};
use super::limit::{Limit, Limits, MAX, Per, Preset, WarnLevels};
use super::reader::{Section, Value};
use super::text::Name;

/// `armed`, which is true where it is absent.
pub(super) fn armed(section: &mut Section<'_>, problems: &mut Problems) -> bool {
    section.optional("armed", problems, Value::boolean).unwrap_or(true)
}

/// `limits` and `preset`, put together.
pub(super) fn limits(section: &mut Section<'_>, problems: &mut Problems) -> Limits {
    let preset_value = section.take("preset");
    let preset = preset_value.as_ref().and_then(|value| problems.note(value.word::<Preset>()));
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
        problems.errors.push(place.problem(found, format!("leave at most {LIMITS_PER_SCOPE} in a scope")));
    }
    limits
}

fn own_limits(value: &Value<'_>, problems: &mut Problems) -> Vec<Limit> {
    let mut seen: BTreeMap<_, Span> = BTreeMap::new();
    let mut limits = Vec::new();
    for item in problems.note(value.list("write a list of limits in [ ]")).unwrap_or_default() {
        let Some(limit) = limit(&item, problems) else { continue };
        // A ratio counts since the last reset too, and means something else than a total.
        let kind = (limit.class, limit.per, limit.per_fill.is_some());
        if let Some(first) = seen.get(&kind) {
            let per = if limit.per_fill.is_some() { "fill".to_owned() } else { limit.per.to_string() };
            let found = format!("a second limit for class {} per {per}", limit.class.name());
            let problem = item.problem(found, "leave one of the two").related(first.clone(), "the first");
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
    let mut section = problems.note(value.section(example))?;
    let classes = "add class = \"order\", \"cancel\", \"message\", \"fill\" or \"reject\"";
    let class = section.required("class", classes, problems);
    // With one key of each kind, `after` is the one that is too many: a limit is more often meant than a ratio.
    let windowed = section.has("max") || section.has("per");
    let ratio = section.has("per_fill") || section.has("after") && !windowed;
    let rule = if ratio { ratio_rule(&mut section, problems) } else { window_rule(&mut section, problems) };
    let warn = section.optional("warn", problems, warn_levels);
    section.end(problems);
    let word = class.as_ref().and_then(|class| problems.note(class.word::<LimitClass>()));
    if ratio
        && let (Some(class), Some(word)) = (&class, word)
        && word != LimitClass::Order
    {
        let found = format!("{:?} does not go with per_fill", word.name());
        problems
            .errors
            .push(class.problem(found, "write class = \"order\": a ratio is one of orders to fills"));
        return None;
    }
    let (max, per, per_fill) = rule?;
    Some(Limit { class: word?, max, per, per_fill, warn: warn.unwrap_or_default() })
}

/// What a limit says besides its class: most messages, over what, and of a ratio how many for each fill.
type Rule = (NonZeroU32, Per, Option<NonZeroU32>);

fn window_rule(section: &mut Section<'_>, problems: &mut Problems) -> Option<Rule> {
    let max = section.required("max", "add the most messages that may cross, like max = 500", problems);
    let per =
        section.required("per", "add the time they count over, like per = \"3s\", or \"total\"", problems);
    // It is not here; taking it makes it a key that is known when a misspelt one is explained.
    section.take("per_fill");
    if let Some(after) = section.take("after") {
        let remedy = "leave it out, or write per_fill, the most orders for each fill, instead of max and per";
        problems.errors.push(after.problem("does not go with max and per", remedy));
    }
    let max = max.and_then(|max| problems.note(max.integer(MAX)));
    let per = per.and_then(|per| problems.note(per.text::<Per>()));
    Some((max?, per?, None))
}

fn ratio_rule(section: &mut Section<'_>, problems: &mut Problems) -> Option<Rule> {
    for (key, remedy) in [
        ("max", "leave it out: after says how many orders may cross before the ratio holds"),
        ("per", "leave it out: a ratio is of what crossed since the last reset"),
    ] {
        if let Some(value) = section.take(key) {
            problems.errors.push(value.problem("does not go with per_fill", remedy));
        }
    }
    let per_fill =
        section.required("per_fill", "add the most orders for each fill, like per_fill = 100", problems);
    let example = "add how many orders may cross before the ratio holds, like after = 1000";
    let after = section.required("after", example, problems);
    let per_fill = per_fill.and_then(|per_fill| problems.note(per_fill.integer(MAX)));
    let after = after.and_then(|after| problems.note(after.integer(MAX)));
    Some((after?, Per::Total, Some(per_fill?)))
}

fn warn_levels(value: &Value<'_>) -> Result<WarnLevels, Problem> {
    let levels = value.list("write a list, like [50, 75, 90]")?;
    let levels = levels.iter().map(|level| level.integer(1..=99)).collect::<Result<Vec<u8>, Problem>>()?;
    WarnLevels::new(&levels).map_err(|invalid| value.invalid(invalid))
}

/// Names that must differ, with the place of each.
#[derive(Default)]
pub(super) struct Names(HashMap<Name, Span>);

impl Names {
    /// Reads `name`, which must be there and new, and puts it into the words for the section.
    pub(super) fn read(
        &mut self,
        section: &mut Section<'_>,
        kind: &str,
        problems: &mut Problems,
    ) -> Option<(Name, Span)> {
        let value = section.required("name", "add a name of its own, like name = \"xnys-1\"", problems)?;
        let name: Name = problems.note(value.text())?;
        section.what = format!("{kind}/{name}");
        if let Some(first) = self.0.get(&name) {
            let found = format!("{:?} is the name of another {kind}", name.as_str());
            let problem =
                value.problem(found, "give each a name of its own").related(first.clone(), "the first");
            problems.errors.push(problem);
        } else {
            self.0.insert(name.clone(), value.span.clone());
        }
        Some((name, value.span))
    }
}
