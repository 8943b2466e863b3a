//! What a limit and a stop by hand hold back: how many orders cross, whether they stop for good, and which
//! come after the stop is lifted.

use std::io::Write;
use std::time::{Duration, Instant};

use breaker_user::testbed::TwoHosts;

use super::alternative::{Alternative, Kind, UNLIMITED, Unavailable};
use super::figures::spread;
use super::order::{LENGTH, order, orders};
use super::report::Table;
use super::scale::Scale;
use crate::receiver::Receiver;

/// The limit, orders/s.
const LIMIT: usize = 100;
/// Orders in one burst.
const BLAST: usize = 2_000;
/// Orders that are sent while the session is stopped.
const BLOCKED: usize = 50;
/// Longer than the limit's window, and than two retransmits.
const LATER: Duration = Duration::from_millis(1_500);

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let title = format!(
        "a limit of {LIMIT} orders a second, and a manual stop, {} runs each. One by one: {} orders, each \
         sent after the arrival of the order before. After the stop: {BLOCKED} orders are sent, and the \
         stop is lifted 300 ms later",
        scale.counts,
        2 * LIMIT
    );
    let one_blast = format!("crossed of {BLAST} in one blast");
    let head = [
        "between",
        "crossed one by one",
        "more within 1.5 s",
        "a new connection then",
        &one_blast,
        "stale orders after lifting",
    ];
    let mut table = Table::new(title, &head);
    for kind in Kind::ALL.into_iter().filter(|kind| ![Kind::Nothing, Kind::Again].contains(kind)) {
        let found: Vec<[String; 5]> = (0..scale.counts).map(|_| once(kind)).collect();
        let cells =
            (0..5).map(|column| spread(&found.iter().map(|cells| cells[column].clone()).collect::<Vec<_>>()));
        table.line(std::iter::once(kind.name().to_owned()).chain(cells));
    }
    vec![table]
}

fn once(kind: Kind) -> [String; 5] {
    let unable = |why: Unavailable| format!("not available: {why}");
    let [first, more, new_connection] =
        one_by_one(kind).unwrap_or_else(|why| [unable(why), "-".to_owned(), "-".to_owned()]);
    let blast = in_a_blast(kind).unwrap_or_else(|_| "-".to_owned());
    let stale = stale(kind).unwrap_or_else(unable);
    if kind == Kind::Breaker {
        let found = [&first, &more, &new_connection, &stale].map(String::as_str);
        assert_eq!(found, ["100", "0", "withheld", "0"], "breaker keeps its limit");
        assert!(blast.parse::<usize>().is_ok_and(|crossed| crossed <= LIMIT), "{blast} crossed in a blast");
    }
    [first, more, new_connection, blast, stale]
}

/// An alternative with a limit, if it has limits.
fn limited(kind: Kind) -> Result<Alternative, Unavailable> {
    match kind {
        Kind::Haproxy => Err("limits connections, not messages".to_owned()),
        _ => Alternative::open(kind, LIMIT as u32),
    }
}

fn listen(alternative: &Alternative) -> Receiver {
    Receiver::listen(alternative.venue(), TwoHosts::venue_socket(super::alternative::PORT))
}

/// Number of orders received on all connections.
fn received(receiver: &Receiver) -> usize {
    receiver.received().iter().map(|one| one.complete("D")).sum()
}

/// Whether that many orders arrive in time.
fn arrive(receiver: &Receiver, count: usize, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while received(receiver) < count {
        if Instant::now() > until {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn one_by_one(kind: Kind) -> Result<[String; 3], Unavailable> {
    let alternative = limited(kind)?;
    let receiver = listen(&alternative);
    let mut stream = alternative.connect();
    for id in 0..2 * LIMIT {
        // A dead connection shows in the count below.
        let sent = stream.write_all(&order(id));
        if sent.is_err() || !arrive(&receiver, id + 1, Duration::from_millis(20)) {
            break;
        }
    }
    let first = received(&receiver);
    for id in 0..10 {
        let _ = stream.write_all(&order(1_000 + id));
    }
    std::thread::sleep(LATER);
    let second = received(&receiver);
    drop(stream);
    let new_connection = alternative
        .firm()
        .run(|| std::net::TcpStream::connect_timeout(&alternative.address(), Duration::from_millis(500)));
    let crossed = new_connection.is_ok_and(|mut new_connection| {
        new_connection.write_all(&order(2_000)).is_ok()
            && arrive(&receiver, second + 1, Duration::from_millis(300))
    });
    Ok([
        first.to_string(),
        (second - first).to_string(),
        if crossed { "trades" } else { "withheld" }.to_owned(),
    ])
}

fn in_a_blast(kind: Kind) -> Result<String, Unavailable> {
    let alternative = limited(kind)?;
    let receiver = listen(&alternative);
    let mut stream = alternative.connect();
    stream.write_all(&order(0)).map_err(|error| error.to_string())?;
    arrive(&receiver, 1, Duration::from_secs(1));
    // Within the window of the first order. The write may fail halfway.
    let _ = stream.write_all(&orders(1, BLAST - 1));
    std::thread::sleep(Duration::from_millis(400));
    Ok(received(&receiver).to_string())
}

fn stale(kind: Kind) -> Result<String, Unavailable> {
    let alternative = Alternative::open(kind, UNLIMITED)?;
    let receiver = listen(&alternative);
    let mut stream = alternative.connect();
    for id in 0..10 {
        stream.write_all(&order(id)).map_err(|error| error.to_string())?;
    }
    assert!(arrive(&receiver, 10, Duration::from_secs(2)), "{kind:?}: orders cross before the stop");
    alternative.stop()?;
    for id in 0..BLOCKED {
        // An error tells the application that its connection is dead: nothing is queued.
        if stream.write_all(&order(100 + id)).is_err() {
            break;
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(received(&receiver), 10, "{kind:?}: no order crosses while it is stopped");
    alternative.resume()?;
    std::thread::sleep(2 * LATER);
    let bytes: usize = receiver.received().iter().map(|one| one.bytes.len()).sum();
    Ok(((bytes - 10 * LENGTH) / LENGTH).to_string())
}
