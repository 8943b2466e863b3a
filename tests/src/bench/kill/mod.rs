//! The kill under full blast: from the moment that somebody acts to the last byte of an order at the venue, and who is told when.

mod shot;
mod stamp;
mod weapon;

pub use shot::blast;

use self::shot::{Arena, Shot};
use self::weapon::Weapon;
use super::figures::{Row, quantile};
use super::report::Table;
use super::scale::Scale;

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let title = format!(
        "the kill of a sender that writes without pause, {} times each in turns. Times in ms from the call of the program, or of the \
         function, to the last order byte at the venue's kernel; orders that came there after it had returned; times until each end is told",
        scale.kills
    );
    let head = [
        "by",
        "last byte p50",
        "p99",
        "max",
        "took p50",
        "orders after it returned, most",
        "sender told p50",
        "max",
        "venue told p50",
        "max",
    ];
    let mut table = Table::new(title, &head);
    let arenas: Vec<(Weapon, Result<Arena, String>)> = Weapon::ALL.map(|weapon| (weapon, Arena::lay(weapon))).into();
    let mut shots: Vec<Vec<Shot>> = arenas.iter().map(|_| Vec::new()).collect();
    for number in 0..scale.kills {
        for ((weapon, arena), shots) in arenas.iter().zip(&mut shots) {
            if let Ok(arena) = arena {
                shots.push(arena.shoot(*weapon, number));
            }
        }
    }
    for ((weapon, arena), shots) in arenas.iter().zip(&shots) {
        match arena {
            Ok(_) => line(&mut table, *weapon, shots),
            Err(why) => table.line([weapon.name().to_owned(), format!("not available: {why}")]),
        }
    }
    vec![table]
}

fn line(table: &mut Table, weapon: Weapon, shots: &[Shot]) {
    let row = |what: &str, figure: fn(&Shot) -> Option<f64>| {
        let mut row = Row::new(format!("{}: {what}", weapon.name()), "ms");
        row.rounds = shots.iter().filter_map(figure).collect();
        row
    };
    let last = row("last byte", |shot| Some(shot.last_byte));
    let took = row("took", |shot| Some(shot.took));
    let sender = row("sender told", |shot| shot.sender_told);
    let venue = row("venue told", |shot| shot.venue_told);
    let at = |row: &Row, share| format!("{:.3}", quantile(row.rounds.clone(), share));
    let told = |row: &Row| match row.rounds.len() {
        0 => ["never".to_owned(), String::new()],
        some if some < shots.len() => [at(row, 0.5), format!("{} of {} never", shots.len() - some, shots.len())],
        _ => [at(row, 0.5), at(row, 1.0)],
    };
    let after = shots.iter().map(|shot| shot.after).max().unwrap_or(0);
    let mut cells = vec![weapon.name().to_owned(), at(&last, 0.5), at(&last, 0.99), at(&last, 1.0), at(&took, 0.5)];
    cells.push(after.to_string());
    cells.extend(told(&sender).into_iter().chain(told(&venue)));
    table.line(cells);
    table.keep([&last, &took, &sender, &venue]);
    if weapon == Weapon::Trip {
        assert_eq!(after, 0, "no order comes after `breaker trip` has returned");
    }
}
