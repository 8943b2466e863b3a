//! Which alternatives count orders correctly: coalesced, cut at random, and retransmitted.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::alternative::{Alternative, Kind, UNLIMITED, Unavailable};
use super::counting_server::CountingServer;
use super::figures::spread;
use super::order::{LENGTH, orders};
use super::report::Table;
use super::scale::Scale;
use super::shell::run_with_input;
use crate::rng::Rng;

/// Drops packets behind the alternative.
const LOSSY: &str = "table ip loss { chain input { type filter hook input priority 0; tcp dport 9001 \
                     numgen random mod 100 < 3 drop; }; }";

/// A pattern in which orders are sent.
struct SendPattern {
    name: &'static str,
    orders: usize,
    send: fn(&mut TcpStream, &CountingServer, &[u8], u64),
}

const PATTERNS: [SendPattern; 3] = [
    SendPattern { name: "500 in one send", orders: 500, send: whole },
    SendPattern { name: "500 cut at random", orders: 500, send: cut },
    SendPattern { name: "200 one by one under 3 % loss", orders: 200, send: lost },
];

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let title = format!("counted orders, minimum and maximum of {} runs", scale.counts);
    let head: Vec<&str> =
        std::iter::once("between").chain(PATTERNS.iter().map(|pattern| pattern.name)).collect();
    let mut table = Table::new(title, &head);
    for kind in Kind::ALL.into_iter().filter(|kind| ![Kind::Nothing, Kind::Again].contains(kind)) {
        let cells = PATTERNS.iter().map(|pattern| {
            cell(kind, pattern, scale.counts).unwrap_or_else(|why| format!("not available: {why}"))
        });
        let cells: Vec<String> = std::iter::once(kind.name().to_owned()).chain(cells).collect();
        if kind == Kind::Breaker {
            let right: Vec<String> = PATTERNS.iter().map(|pattern| pattern.orders.to_string()).collect();
            assert_eq!(cells[1..], right, "breaker counts correctly");
        }
        table.line(cells);
    }
    vec![table]
}

fn cell(kind: Kind, pattern: &SendPattern, times: usize) -> Result<String, Unavailable> {
    let found: Result<Vec<String>, Unavailable> = (0..times as u64)
        .map(|seed| counted(kind, pattern, seed + 1).map(|count| count.to_string()))
        .collect();
    Ok(spread(&found?))
}

fn counted(kind: Kind, pattern: &SendPattern, seed: u64) -> Result<u64, Unavailable> {
    let alternative = Alternative::open(kind, UNLIMITED)?;
    alternative.counted()?;
    let server = CountingServer::listen(alternative.venue(), false);
    let mut stream = alternative.connect();
    if pattern.name.contains("loss") {
        run_with_input(alternative.venue(), "nft -f -", LOSSY)?;
    }
    (pattern.send)(&mut stream, &server, &orders(0, pattern.orders), seed);
    server.wait((pattern.orders * LENGTH) as u64);
    alternative.counted()
}

fn whole(stream: &mut TcpStream, _: &CountingServer, orders: &[u8], _: u64) {
    stream.write_all(orders).expect("sending");
}

fn cut(stream: &mut TcpStream, server: &CountingServer, orders: &[u8], seed: u64) {
    let mut rng = Rng(seed * 0x9e37_79b9_7f4a_7c15);
    let (mut rest, mut sent) = (orders, 0);
    while !rest.is_empty() {
        let piece;
        (piece, rest) = rest.split_at(rest.len().min(1 + rng.below(3 * LENGTH as u64) as usize));
        stream.write_all(piece).expect("sending");
        sent += piece.len() as u64;
        // So that the piece is a segment of its own.
        server.wait(sent);
    }
}

fn lost(stream: &mut TcpStream, server: &CountingServer, orders: &[u8], _: u64) {
    for (number, order) in orders.chunks(LENGTH).enumerate() {
        stream.write_all(order).expect("sending");
        // Most orders become segments of their own, and an order behind a loss does not wait for the
        // retransmit.
        let until = Instant::now() + Duration::from_millis(1);
        while server.bytes() < ((number + 1) * LENGTH) as u64 && Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}
