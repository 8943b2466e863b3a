//! The rows of the list of scopes: which are shown, in which order.

use super::app::{App, Screen};
use super::sort::Sort;
use crate::view::scope::{Limit, Scope};
use crate::view::top::Top;

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Position in `top.scopes`.
    pub scope: usize,
    /// True for a session below its group.
    pub is_indented: bool,
}

impl App {
    /// The rows of the list of scopes, filtered and sorted.
    pub fn rows(&self) -> Vec<Row> {
        self.top.as_ref().map_or_else(Vec::new, |top| rows(self, top))
    }

    /// Position of the selected scope in the rows, or the first row.
    pub fn position(&self, rows: &[Row]) -> usize {
        let Some((top, name)) = self.top.as_ref().zip(self.selected.as_ref()) else { return 0 };
        rows.iter().position(|row| top.scopes[row.scope].scope == *name).unwrap_or_default()
    }

    /// Selects the row at a distance from the selected one.
    pub fn select(&mut self, distance: isize) {
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else { return };
        let position = self.position(&rows).saturating_add_signed(distance).min(last);
        let name = self.top.as_ref().map(|top| top.scopes[rows[position].scope].scope.clone());
        self.selected = name;
    }

    /// Name of the scope that `Enter` and `t` concern.
    pub fn subject(&self) -> Option<String> {
        if let Screen::Details(name) = &self.screen {
            return Some(name.clone());
        }
        let rows = self.rows();
        let row = rows.get(self.position(&rows))?;
        Some(self.top.as_ref()?.scopes[row.scope].scope.clone())
    }
}

/// The rows in their order.
fn rows(app: &App, top: &Top) -> Vec<Row> {
    let filter = app.filter.to_lowercase();
    let is_shown = |row: &Row| top.scopes[row.scope].scope.contains(&filter);
    let mut rows = match app.sort {
        Sort::Group => by_group(app, top),
        _ => (0..top.scopes.len()).map(|scope| Row { scope, is_indented: false }).collect(),
    };
    rows.retain(is_shown);
    let scope = |row: &Row| &top.scopes[row.scope];
    match app.sort {
        Sort::Group => {}
        Sort::Rate => rows.sort_by_key(|row| std::cmp::Reverse(rate(app, top, row.scope, 0).unwrap_or(0))),
        Sort::Use => rows.sort_by_key(|row| std::cmp::Reverse(nearest(scope(row)).map_or(0, permille))),
        Sort::State => rows.sort_by_key(|row| (!scope(row).tripped, scope(row).armed)),
        Sort::Name => rows.sort_by(|a, b| scope(a).scope.cmp(&scope(b).scope)),
    }
    rows
}

/// The host, each group with the sessions whose first group it is, and the sessions without a group.
fn by_group(app: &App, top: &Top) -> Vec<Row> {
    // The sessions follow the host and the groups, in the order of `top.sessions`.
    let first = top.scopes.iter().position(|scope| scope.scope.starts_with("session/"));
    let first = first.unwrap_or(top.scopes.len());
    let row_of = |session: usize, is_indented| {
        let name = &top.sessions[session].session.name;
        let guess = first + session;
        let is_own = |scope: &Scope| scope.scope.strip_prefix("session/") == Some(name.as_str());
        let scope = match top.scopes.get(guess) {
            Some(scope) if is_own(scope) => Some(guess),
            _ => top.scopes.iter().position(is_own),
        };
        scope.map(|scope| Row { scope, is_indented })
    };
    let mut rows = Vec::with_capacity(top.scopes.len());
    for (at, scope) in top.scopes[..first].iter().enumerate() {
        rows.push(Row { scope: at, is_indented: false });
        let Some(group) = scope.scope.strip_prefix("group/").map(Some) else { continue };
        let is_first_group =
            |session: &&usize| top.sessions[**session].session.groups.first().map(String::as_str) == group;
        let own = app.members.get(at).into_iter().flatten().filter(is_first_group);
        rows.extend(own.filter_map(|session| row_of(*session, true)));
    }
    let alone = top.sessions.iter().enumerate().filter(|(_, session)| session.session.groups.is_empty());
    rows.extend(alone.filter_map(|(session, _)| row_of(session, false)));
    rows
}

/// The limit of a scope that is used most, relative to its maximum; its first one if none is used.
pub fn nearest(scope: &Scope) -> Option<&Limit> {
    // The first of equal ones: `max_by_key` returns the last.
    scope.limits.iter().rev().max_by_key(|limit| permille(limit))
}

/// Use of a limit in permille.
pub fn permille(limit: &Limit) -> u64 {
    limit.used.saturating_mul(1000).checked_div(limit.max).unwrap_or(1000)
}

/// Passed orders of a scope in the second this long before the last one; `None` for a gap.
pub fn rate(app: &App, top: &Top, scope: usize, back: usize) -> Option<u32> {
    let sessions = app.members.get(scope)?;
    if back == 0 {
        return sum(sessions.iter().map(|session| top.sessions[*session].order_per_s));
    }
    app.ring.orders(sessions, 1, back).next()?
}

/// Withheld orders of a scope in the last second.
pub fn withheld(app: &App, top: &Top, scope: usize) -> Option<u32> {
    let sessions = app.members.get(scope)?;
    sum(sessions.iter().map(|session| top.sessions[*session].withheld_per_s))
}

/// The sum of the known values; `None` if there is none.
fn sum(values: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    values.flatten().fold(None, |sum, value| Some(sum.unwrap_or(0u32).saturating_add(value)))
}
