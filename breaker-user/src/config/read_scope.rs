//! Reads what every scope has: switch, limits, preset.

use std::collections::{BTreeMap, HashMap};

use breaker_common::abi::LIMITS_PER_SCOPE;

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
        if let Some(first) = seen.get(&(limit.class, limit.per)) {
            let found = format!("a second limit for class {} per {}", limit.class.name(), limit.per);
            let problem = item.problem(found, "leave one of the two").related(first.clone(), "the first");
            problems.errors.push(problem);
            continue;
        }
        seen.insert((limit.class, limit.per), item.span);
        limits.push(limit);
    }
    limits
}

fn limit(value: &Value<'_>, problems: &mut Problems) -> Option<Limit> {
    let example = "write a limit like { class = \"order\", max = 500, per = \"3s\" }";
    let mut section = problems.note(value.section(example))?;
    let class = section.required("class", "add class = \"order\", \"cancel\" or \"message\"", problems);
    let max = section.required("max", "add the most messages that may cross, like max = 500", problems);
    let per = section.required("per", "add the time they count over, like per = \"3s\", or \"total\"", problems);
    let warn = section.optional("warn", problems, warn_levels);
    section.end(problems);
    let class = class.and_then(|class| problems.note(class.word()));
    let max = max.and_then(|max| problems.note(max.integer(MAX)));
    let per = per.and_then(|per| problems.note(per.text::<Per>()));
    Some(Limit { class: class?, max: max?, per: per?, warn: warn.unwrap_or_default() })
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
            let problem = value.problem(found, "give each a name of its own").related(first.clone(), "the first");
            problems.errors.push(problem);
        } else {
            self.0.insert(name.clone(), value.span.clone());
        }
        Some((name, value.span))
    }
}
