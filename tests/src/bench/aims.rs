//! The performance aims of breaker, and whether the results meet them.

use super::figures::Row;
use super::report::Results;

/// An aim, or a figure without an aim that is worth a line.
struct Aim {
    what: &'static str,
    unit: &'static str,
    /// Decimal places of the figure.
    places: usize,
    bound: Bound,
    /// Whether the README shows the aim too.
    first: bool,
    found: fn(&Results) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Bound {
    Most(f64),
    Least(f64),
    /// No bound: the figure is shown without a verdict.
    Unbounded,
}
use Bound::{Least, Most, Unbounded};

const fn first(
    what: &'static str,
    bound: Bound,
    unit: (&'static str, usize),
    found: fn(&Results) -> Option<f64>,
) -> Aim {
    Aim { first: true, ..aim(what, bound, unit, found) }
}

const fn aim(
    what: &'static str,
    bound: Bound,
    (unit, places): (&'static str, usize),
    found: fn(&Results) -> Option<f64>,
) -> Aim {
    Aim { what, unit, places, bound, first: false, found }
}

const TIMES: (&str, usize) = ("times", 2);
const NS: (&str, usize) = ("ns", 0);
const MS: (&str, usize) = ("ms", 2);
const MIB: (&str, usize) = ("MiB", 1);
const OF_NOTHING: (&str, usize) = ("of no filter", 2);

const EMPTY: &str = "empty program";
const ORDER: &str = "an order, 3 scopes, 4 limits";
const BREAKER: &str = "breaker, 3 scopes, 4 limits";
const TRIP: &str = "breaker: `breaker trip`";
const AGAIN: &str = "the same connection again";
const LARGEST: &str = "sessions: 1000, groups: 64, connections: 60000";

const AIMS: &[Aim] = &[
    first("another application's segment, against an empty program", Most(5.0), TIMES, |of| {
        Some(of.row("hook", "another application's segment")?.ratio(of.row("hook", EMPTY)?))
    }),
    first("an order, three scopes and four limits, above an empty program", Most(150.0), NS, one),
    aim("an order, the stricter aim", Most(87.0), NS, one),
    aim("an order, with limits that keep its time, each run by itself", Most(150.0), NS, |of| {
        let row = |what| of.row("hook", what);
        Some(above(
            row("an order, 3 scopes, 4 limits that keep its time, once")?,
            row("empty program, once")?,
        ))
    }),
    aim("another application's segment, above an empty program", Most(15.0), NS, |of| {
        Some(above(of.row("hook", "another application's segment")?, of.row("hook", EMPTY)?))
    }),
    first("each further message in a segment", Most(60.0), NS, further),
    aim("each further message in a segment, the stricter aim", Most(25.0), NS, further),
    first("a round trip's median, against no filter", Most(1.02), TIMES, |of| against(of, "latency", "p50")),
    aim("a round trip's 99th percentile, against no filter", Most(1.05), TIMES, |of| {
        against(of, "latency", "p99")
    }),
    aim("one order a send, every order counted", Least(0.97), OF_NOTHING, |of| {
        against(of, "throughput", "one a send")
    }),
    first("64 KB a send, every order counted", Least(0.6), OF_NOTHING, |of| {
        against(of, "throughput", "64 KB a send")
    }),
    first("new segments of an order each through XDP, one core", Unbounded, ("million a second", 1), |of| {
        Some(1e3 / of.row("inline", "breaker: new segments")?.median())
    }),
    aim("the switch's write alone, to the last order byte, p50", Most(0.05), ("ms", 3), |of| {
        Some(of.row("kill", "breaker: the switch's write alone (library): last byte")?.median())
    }),
    first("`breaker trip`, from its start to the last order byte, p50", Most(1.0), MS, |of| trip(of, 0.5)),
    first("`breaker trip`, the same, p99", Most(5.0), MS, |of| trip(of, 0.99)),
    first("orders that left after `breaker trip` had returned", Most(0.0), ("orders", 0), |of| {
        let tables = &of.sections.get("kill")?.tables;
        let late = tables
            .iter()
            .map(|table| table.cell(TRIP, "orders that left after the return, max")?.parse::<f64>().ok());
        // Of both tables, or none.
        late.collect::<Option<Vec<_>>>()?.into_iter().reduce(f64::max)
    }),
    aim("an order with 1,000 sessions, against one session", Most(1.25), TIMES, |of| grown(of, 1_000.0)),
    first("an order among 60,000 connections, against one connection", Most(1.25), TIMES, |of| {
        grown(of, 60_000.0)
    }),
    aim("`breaker status`, 1,000 sessions, p50", Most(20.0), ("ms", 1), |of| status_time(of, "status", 0)),
    aim("`breaker status --json`, 1,000 sessions, p50", Most(20.0), ("ms", 1), |of| {
        status_time(of, "status --json", 0)
    }),
    aim("`breaker status`, with 60,000 connections too", Most(20.0), ("ms", 1), |of| {
        status_time(of, "status", 60_000)
    }),
    aim("`breaker status --json`, with 60,000 connections too", Most(20.0), ("ms", 1), |of| {
        status_time(of, "status --json", 60_000)
    }),
    aim("a redraw of `breaker top`, 1,000 sessions, p50", Most(20.0), ("ms", 1), |of| {
        Some(of.row("people", "redraw of top: 1000 sessions")?.median())
    }),
    aim("`breaker replay` from the page cache, one core", Least(2.0), ("GB/s", 1), |of| {
        Some(of.row("people", "replay: nothing trips")?.median())
    }),
    aim("an agent's memory, 1,000 sessions and 60,000 connections", Most(20.0), MIB, |of| {
        Some(of.row("size", &format!("agent: {LARGEST}"))?.median())
    }),
    aim("the binary", Most(10.0), MIB, |of| Some(of.row("size", "breaker")?.median())),
];

/// The text for a mark with one of these names; `None` for other names.
pub fn part(results: &Results, name: &str) -> Option<String> {
    match name {
        "aims" => Some(table(results, |_| true)),
        "first aims" => Some(table(results, |aim| aim.first)),
        _ => None,
    }
}

fn table(results: &Results, wanted: fn(&Aim) -> bool) -> String {
    let lines: String =
        AIMS.iter().filter(|aim| wanted(aim)).map(|aim| aim.line((aim.found)(results))).collect();
    format!("| | aim | found | |\n|---|---|---|---|\n{lines}")
}

impl Aim {
    fn line(&self, found: Option<f64>) -> String {
        let number = |figure: f64| format!("{figure:.0$} {1}", self.places, self.unit);
        let unit = self.unit;
        let (wanted, is_met) = match self.bound {
            Most(most) => (format!("at most {most} {unit}"), found.map(|found| found <= most)),
            Least(least) => (format!("at least {least} {unit}"), found.map(|found| found >= least)),
            Unbounded => (String::new(), None),
        };
        let met = is_met.map_or("", |is_met| if is_met { "met" } else { "**not met**" });
        format!(
            "| {} | {wanted} | {} | {met} |\n",
            self.what,
            found.map_or("not measured".to_owned(), number)
        )
    }
}

fn above(row: &Row, zero: &Row) -> f64 {
    row.median() - zero.median()
}

fn one(of: &Results) -> Option<f64> {
    // The other row of an empty program repeats the same packet.
    Some(above(of.row("hook", ORDER)?, of.rows("hook", EMPTY).last()?))
}

fn further(of: &Results) -> Option<f64> {
    Some(above(of.row("hook", "ten orders in a segment")?, of.row("hook", ORDER)?) / 9.0)
}

fn against(of: &Results, section: &str, how: &str) -> Option<f64> {
    let row = |what| of.row(section, &format!("{what}: {how}"));
    Some(row(BREAKER)?.ratio(row("nothing")?))
}

fn trip(of: &Results, share: f64) -> Option<f64> {
    Some(of.row("kill", &format!("{TRIP}: last byte"))?.quantile(share))
}

/// Ratio of an order's cost at the end of a curve to that at its start, on one connection.
fn grown(of: &Results, at: f64) -> Option<f64> {
    let tables = &of.sections.get("growth")?.tables;
    let curves =
        || tables.iter().take(2).flat_map(|table| table.curves()).filter(|rows| rows[0].what == AGAIN);
    let curve = curves().find(|rows| rows.last().is_some_and(|last| last.at == Some(at)))?;
    Some(curve.last()?.ratio(curve[0]))
}

fn status_time(of: &Results, verb: &str, connections: usize) -> Option<f64> {
    let what = format!("{verb}: sessions: 1000, groups: 64, connections: {connections}");
    Some(of.row("size", &what)?.median())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_met_up_to_its_bound_and_not_beyond() {
        let line = |bound, found| aim("a", bound, NS, |_| None).line(found);
        assert_eq!(line(Most(5.0), Some(5.0)), "| a | at most 5 ns | 5 ns | met |\n");
        assert_eq!(line(Most(5.0), Some(5.1)), "| a | at most 5 ns | 5 ns | **not met** |\n");
        assert_eq!(line(Least(0.97), Some(0.9)), "| a | at least 0.97 ns | 1 ns | **not met** |\n");
        assert_eq!(line(Unbounded, Some(7.0)), "| a |  | 7 ns |  |\n");
        assert_eq!(line(Most(5.0), None), "| a | at most 5 ns | not measured |  |\n");
    }

    #[test]
    fn the_results_of_the_repository_have_a_figure_for_each() {
        let results = Results::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/results.json").as_ref());
        for aim in AIMS {
            let found = (aim.found)(&results);
            assert!(found.is_some_and(f64::is_finite), "{}: {found:?}", aim.what);
        }
    }
}
