//! The header with what is wrong, and the footer with the keys. Neither scrolls.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::super::app::{App, Screen};
use super::super::problems::{Found, problems, summary};

/// Height from which each problem has its own line.
const TALL: u16 = 16;
/// Width from which the title has the policy and the agent.
const WIDE: u16 = 60;

/// The lines of the header: a title, and the problems.
pub fn header(app: &App, area: Rect) -> Vec<Line<'static>> {
    let problems = problems(app);
    let mut lines = Vec::new();
    if area.height >= 10 {
        lines.push(title(app, area.width));
    }
    if problems.is_empty() || area.height < TALL {
        lines.push(verdict(app, &problems, area.width));
        return lines;
    }
    // At most a quarter of the screen.
    let room = usize::from(area.height / 4).max(2);
    let shown = if problems.len() > room { room - 1 } else { problems.len() };
    lines.extend(problems[..shown].iter().map(|found| problem(app, found, area.width)));
    if let rest @ [_, ..] = &problems[shown..] {
        let text = format!("and {} more: {}: press p", rest.len(), summary(rest));
        lines.push(line(app, text, area.width, rest.iter().any(|found| found.is_alarm)));
    }
    lines
}

fn title(app: &App, width: u16) -> Line<'static> {
    let style = app.options.style;
    let Some(top) = &app.top else { return Line::from("breaker: reading the state") };
    let time = format!("{:.0}", top.time);
    let moment = match app.back {
        0 => time,
        back => format!("RATES OF {back} s AGO, states of now; End: now"),
    };
    let agent = if top.agent.running { "agent running" } else { "no agent" };
    let text = match (width < WIDE, app.back) {
        (true, 0) => format!("breaker  {}", time_of_day(&moment)),
        (true, _) => moment,
        (false, _) => format!("breaker  {moment}  policy {}  {agent}", top.policy.name),
    };
    Line::styled(style.fit(&text, width.into()), style.quiet())
}

/// The time of day of a time as RFC 3339 text.
fn time_of_day(time: &str) -> &str {
    time.split_once('T').map_or(time, |(_, time)| time)
}

/// One line that says whether everything is in order.
fn verdict(app: &App, problems: &[Found], width: u16) -> Line<'static> {
    if app.top.is_none() && problems.is_empty() {
        return Line::from("reading");
    }
    if problems.is_empty() {
        let text =
            if width < WIDE { "IN FORCE" } else { "IN FORCE: every scope is armed and none is tripped" };
        return Line::styled(app.options.style.fit(text, width.into()), app.options.style.good());
    }
    line(app, summary(problems), width, problems.iter().any(|found| found.is_alarm))
}

fn problem(app: &App, found: &Found, width: u16) -> Line<'static> {
    let count = if found.count == 1 { String::new() } else { format!(" {}", found.count) };
    line(app, format!("{}{count}: {}", found.word, found.text), width, found.is_alarm)
}

fn line(app: &App, text: String, width: u16, is_alarm: bool) -> Line<'static> {
    let style = app.options.style;
    let text = style.fit(&text, width.into());
    Line::styled(text, if is_alarm { style.alarm() } else { style.caution() })
}

/// The keys, the line that is being typed, or the result of the last key.
pub fn footer(app: &App, width: u16) -> Line<'static> {
    let style = app.options.style;
    let width = usize::from(width);
    let typed = |question: String, text: &str| {
        // The end of a long text stays visible.
        let all = format!("{question}{text}_");
        let surplus = all.chars().count().saturating_sub(width);
        Line::styled(all.chars().skip(surplus).collect::<String>(), style.caution())
    };
    if let Some(dialog) = &app.dialog {
        return typed(dialog.question(), &dialog.input.text);
    }
    if let Some(input) = &app.typing {
        return typed("/".to_owned(), &input.text);
    }
    if let Some(message) = &app.message {
        return Line::styled(style.fit(message, width), style.caution());
    }
    let act = if app.options.act { "t trip  " } else { "" };
    let keys = match &app.screen {
        Screen::Scopes if width < 40 => "q ? Enter / Tab".to_owned(),
        Screen::Scopes => {
            format!("q end  ? help  Enter one scope  / filter  s sort: {}  {act}", app.sort.name())
        }
        _ if width < 40 => "q Esc".to_owned(),
        _ => format!("q end  Esc back  up down scroll  {act}"),
    };
    let filter = if app.filter.is_empty() { String::new() } else { format!("filter: {}  ", app.filter) };
    Line::from(vec![
        Span::styled(style.fit(&filter, width), style.caution()),
        Span::styled(style.fit(&keys, width.saturating_sub(filter.chars().count())), style.quiet()),
    ])
}
