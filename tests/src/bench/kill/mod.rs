//! The kill under full blast: from the moment that somebody acts to the last byte of an order at the venue, and who is told when.

mod flood;
mod shot;
mod stamp;
mod tap;
mod weapon;

pub use shot::blast;

use self::flood::Flood;
use self::shot::{Arena, Shot};
use self::weapon::Weapon;
use super::figures::{Row, quantile};
use super::order::LENGTH;
use super::report::Table;
use super::scale::Scale;

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let arenas: Vec<(Weapon, Result<Arena, String>)> =
        Weapon::ALL.map(|weapon| (weapon, Arena::lay(weapon))).into();
    [Flood::Backlog, Flood::OneByOne].map(|flood| table(scale, flood, &arenas)).into()
}

fn table(scale: &Scale, flood: Flood, arenas: &[(Weapon, Result<Arena, String>)]) -> Table {
    let how = match flood {
        Flood::Backlog => "writes until its socket is full, and on",
        Flood::OneByOne => "writes one order at a time, as soon as the one before has left",
    };
    let title = format!(
        "the kill of a sender that {how}, {} times each in turns. Times in ms from the call of the program, or of the function, to the \
         last order byte at the venue's kernel, and to when that one left the host, by a tap behind the hook (0 where it had left \
         before); orders that left, and that came, after it had returned; times until each end is told. A function returns while the \
         segment that has just passed, of up to 64 KiB, is on its way; and what the venue reads at once, up to 256 KiB or {} orders, \
         counts as come when its last byte did",
        scale.kills,
        (1 << 18) / LENGTH
    );
    let head = [
        "by",
        "last byte p50",
        "p99",
        "max",
        "left p50",
        "p99",
        "took p50",
        "orders that left after it returned, most",
        "that came",
        "sender told p50",
        "max",
        "venue told p50",
        "max",
    ];
    let mut table = Table::new(title, &head);
    let mut shots: Vec<Vec<Shot>> = arenas.iter().map(|_| Vec::new()).collect();
    for number in 0..scale.kills {
        for ((weapon, arena), shots) in arenas.iter().zip(&mut shots) {
            if let Ok(arena) = arena {
                shots.push(arena.shoot(*weapon, flood, number));
            }
        }
    }
    for ((weapon, arena), shots) in arenas.iter().zip(&shots) {
        match arena {
            Ok(_) => line(&mut table, *weapon, shots),
            Err(why) => table.line([weapon.name().to_owned(), format!("not available: {why}")]),
        }
    }
    table
}

fn line(table: &mut Table, weapon: Weapon, shots: &[Shot]) {
    let row = |what: &str, figure: fn(&Shot) -> Option<f64>| {
        let mut row = Row::new(format!("{}: {what}", weapon.name()), "ms");
        row.rounds = shots.iter().filter_map(figure).collect();
        row
    };
    let last = row("last byte", |shot| Some(shot.last_byte));
    let left = row("left", |shot| Some(shot.last_left));
    let took = row("took", |shot| Some(shot.took));
    let sender = row("sender told", |shot| shot.sender_told);
    let venue = row("venue told", |shot| shot.venue_told);
    let at = |row: &Row, share| format!("{:.3}", quantile(row.rounds.clone(), share));
    let told = |row: &Row| match row.rounds.len() {
        0 => ["never".to_owned(), String::new()],
        some if some < shots.len() => {
            [at(row, 0.5), format!("{} of {} never", shots.len() - some, shots.len())]
        }
        _ => [at(row, 0.5), at(row, 1.0)],
    };
    let most = |figure: fn(&Shot) -> usize| shots.iter().map(figure).max().unwrap_or(0);
    let (left_after, after) = (most(|shot| shot.left_after), most(|shot| shot.after));
    let mut cells = vec![weapon.name().to_owned(), at(&last, 0.5), at(&last, 0.99), at(&last, 1.0)];
    cells.extend([
        at(&left, 0.5),
        at(&left, 0.99),
        at(&took, 0.5),
        left_after.to_string(),
        after.to_string(),
    ]);
    cells.extend(told(&sender).into_iter().chain(told(&venue)));
    table.line(cells);
    table.keep([&last, &left, &took, &sender, &venue]);
    if weapon == Weapon::Trip {
        // What had left may come later: a busy host takes packets in milliseconds after they were sent.
        assert_eq!(left_after, 0, "no order leaves after `breaker trip` has returned");
    }
}
