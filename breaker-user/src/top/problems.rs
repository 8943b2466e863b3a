//! The problems in the header: what is wrong, the worst first.

use std::time::Duration;

use super::app::App;
use crate::enforced::{Problem, ProblemKind};
use crate::state::warnings::Warning;
use crate::view::scope::Scope;
use crate::view::top::Top;

/// Age of the last reading from which its figures are called old.
const STALE: Duration = Duration::from_secs(3);

/// A problem in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// True if orders pass that a limit or a switch must stop, or if a scope is tripped.
    pub is_alarm: bool,
    /// One word or two, in capitals.
    pub word: String,
    /// Number of places with this problem.
    pub count: usize,
    /// The places and the fact.
    pub text: String,
    /// The remedy.
    pub cure: String,
}

/// All problems, the worst first.
pub fn problems(app: &App) -> Vec<Found> {
    let mut all = Vec::new();
    if let Some(failure) = &app.failure {
        let cure = "nothing is shown as current until the state can be read again".to_owned();
        all.push(Found::new(true, "NO STATE", failure.clone(), cure));
    } else if app.top.is_some() && app.read_at.elapsed() > STALE {
        let text = format!("the figures are {} s old", app.read_at.elapsed().as_secs());
        all.push(Found::new(true, "OLD", text, "the kernel's state takes long to read".to_owned()));
    }
    let Some(top) = &app.top else { return all };
    let of_kind = |is_open: bool| {
        let problems = top.enforced.problems.iter().filter(move |problem| problem.open == is_open);
        problems.filter(|problem| problem.kind != ProblemKind::Disarmed).map(of_problem)
    };
    all.extend(of_kind(true));
    all.extend(of_scopes(top, "TRIPPED", true, "`breaker reset SCOPE --reason TEXT`", |scope| scope.tripped));
    all.extend(of_kind(false));
    let cure = "`breaker arm SCOPE --reason TEXT`: until then its limits only warn";
    all.extend(of_scopes(top, "DISARMED", false, cure, |scope| !scope.armed));
    all.extend(warnings(top));
    all.extend(agent(top));
    all
}

/// The problems in a few words, such as `DETACHED, TRIPPED 2`.
pub fn summary(problems: &[Found]) -> String {
    let mut words: Vec<(&str, usize)> = Vec::new();
    for found in problems {
        match words.iter_mut().find(|(word, _)| *word == found.word) {
            Some((_, count)) => *count += found.count,
            None => words.push((&found.word, found.count)),
        }
    }
    let words = words.into_iter().map(|(word, count)| match count {
        1 => word.to_owned(),
        count => format!("{word} {count}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

impl Found {
    fn new(is_alarm: bool, word: &str, text: String, cure: String) -> Self {
        Self { is_alarm, word: word.to_owned(), count: 1, text, cure }
    }
}

fn of_problem(problem: &Problem) -> Found {
    let text = format!("{}: {}", problem.location, problem.found);
    Found::new(problem.open, &problem.kind.name().to_uppercase(), text, problem.cure.clone())
}

/// One problem of all scopes for which the test is true.
fn of_scopes(
    top: &Top,
    word: &str,
    is_alarm: bool,
    cure: &str,
    test: impl Fn(&Scope) -> bool,
) -> Option<Found> {
    let name = |scope: &Scope| match scope.causes.as_slice() {
        [] => scope.scope.clone(),
        causes => format!("{} ({})", scope.scope, causes.join(", ")),
    };
    let names: Vec<_> = top.scopes.iter().filter(|scope| test(scope)).map(name).collect();
    let found = Found::new(is_alarm, word, names.join(", "), cure.to_owned());
    (!names.is_empty()).then_some(Found { count: names.len(), ..found })
}

/// The warnings that nobody has acknowledged.
fn warnings(top: &Top) -> Option<Found> {
    let text = |warning: &Warning| {
        let Warning { scope, limit, level, used, since } = warning;
        format!("{scope} (level {level}, {used} used of {limit}, since {since:.0})")
    };
    let cure = "`breaker ack SCOPE --reason TEXT`".to_owned();
    let found =
        Found::new(false, "WARNED", top.warnings.iter().map(text).collect::<Vec<_>>().join(", "), cure);
    (!top.warnings.is_empty()).then_some(Found { count: top.warnings.len(), ..found })
}

/// The problem of an agent that does not run. Enforcement needs none.
fn agent(top: &Top) -> Option<Found> {
    if top.agent.running {
        return None;
    }
    let text = match top.agent.heartbeat_age_ms {
        Some(age) => format!("last seen {:.1} s ago; enforcement goes on", age as f64 / 1000.0),
        None => "none has run since the load; enforcement needs none".to_owned(),
    };
    Some(Found::new(false, "AGENT ABSENT", text, "start `breaker agent`".to_owned()))
}
