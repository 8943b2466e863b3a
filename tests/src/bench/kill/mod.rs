//! The time to stop a sender at full load: from the call to the last byte of an order at the venue, and until
//! each end notices.

mod load;
mod method;
mod tap;
mod timestamp;
mod trial;

pub use trial::blast;

use self::load::Load;
use self::method::Method;
use self::trial::{Trial, TrialNetwork};
use super::figures::{Row, quantile};
use super::order::LENGTH;
use super::report::Table;
use super::scale::Scale;

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let networks: Vec<(Method, Result<TrialNetwork, String>)> =
        Method::ALL.map(|method| (method, TrialNetwork::new(method))).into();
    [Load::Backlog, Load::OneByOne].map(|load| table(scale, load, &networks)).into()
}

fn table(scale: &Scale, load: Load, networks: &[(Method, Result<TrialNetwork, String>)]) -> Table {
    let how = match load {
        Load::Backlog => "writes until its socket is full, and continues",
        Load::OneByOne => "writes one order at a time, as soon as the order before has left",
    };
    let title = format!(
        "stopping a sender that {how}, {} runs each in turns. Times in ms from the call of the program or \
         function to the last order byte at the venue's kernel, and to the moment when this byte left the \
         host, as seen by a tap behind the hook (0 if it had left before the call). Then orders that left \
         and that arrived after the return, and the times until each end noticed. A function returns while \
         the segment that has just passed, of up to 64 KiB, is on its way; bytes that the venue reads at \
         once, up to 256 KiB or {} orders, count as arrived with the last of these bytes",
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
        "orders that left after the return, max",
        "that arrived",
        "sender noticed p50",
        "max",
        "venue noticed p50",
        "max",
    ];
    let mut table = Table::new(title, &head);
    let mut trials: Vec<Vec<Trial>> = networks.iter().map(|_| Vec::new()).collect();
    for number in 0..scale.kills {
        for ((method, network), trials) in networks.iter().zip(&mut trials) {
            if let Ok(network) = network {
                trials.push(network.run(*method, load, number));
            }
        }
    }
    for ((method, network), trials) in networks.iter().zip(&trials) {
        match network {
            Ok(_) => line(&mut table, *method, trials),
            Err(why) => table.line([method.name().to_owned(), format!("not available: {why}")]),
        }
    }
    table
}

fn line(table: &mut Table, method: Method, trials: &[Trial]) {
    let row = |what: &str, figure: fn(&Trial) -> Option<f64>| {
        let mut row = Row::new(format!("{}: {what}", method.name()), "ms");
        row.rounds = trials.iter().filter_map(figure).collect();
        row
    };
    let last = row("last byte", |trial| Some(trial.last_byte));
    let left = row("left", |trial| Some(trial.last_left));
    let took = row("took", |trial| Some(trial.took));
    let sender = row("sender noticed", |trial| trial.sender_noticed);
    let venue = row("venue noticed", |trial| trial.venue_noticed);
    let at = |row: &Row, share| format!("{:.3}", quantile(row.rounds.clone(), share));
    let noticed_at = |row: &Row| match row.rounds.len() {
        0 => ["never".to_owned(), String::new()],
        some if some < trials.len() => {
            [at(row, 0.5), format!("{} of {} never", trials.len() - some, trials.len())]
        }
        _ => [at(row, 0.5), at(row, 1.0)],
    };
    let most = |figure: fn(&Trial) -> usize| trials.iter().map(figure).max().unwrap_or(0);
    let (left_after, after) = (most(|trial| trial.left_after), most(|trial| trial.after));
    let mut cells = vec![method.name().to_owned(), at(&last, 0.5), at(&last, 0.99), at(&last, 1.0)];
    cells.extend([
        at(&left, 0.5),
        at(&left, 0.99),
        at(&took, 0.5),
        left_after.to_string(),
        after.to_string(),
    ]);
    cells.extend(noticed_at(&sender).into_iter().chain(noticed_at(&venue)));
    table.line(cells);
    table.keep([&last, &left, &took, &sender, &venue]);
    if method == Method::Trip {
        // Orders that had left the host may arrive later: a busy host receives packets milliseconds after
        // they were sent.
        assert_eq!(left_after, 0, "no order leaves after `breaker trip` has returned");
    }
}
