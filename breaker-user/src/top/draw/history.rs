//! The rates of the last minutes, a value for each cell of a sparkline.

use super::super::app::{App, CELL_S};

/// The highest rate of sessions in each of the last cells, before the shown moment.
pub fn cells(app: &App, sessions: &[usize], count: usize) -> Vec<Option<u32>> {
    let seconds: Vec<_> = app.ring.orders(sessions, count * CELL_S, app.back).collect();
    let mut cells: Vec<_> =
        seconds.rchunks(CELL_S).map(|chunk| chunk.iter().flatten().max().copied()).collect();
    cells.resize(count, None);
    cells.reverse();
    cells
}
