//! The round trip of an order that the venue echoes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use super::alternative::Alternative;
use super::counting_server::CountingServer;
use super::figures::{Row, quantile};
use super::order::{LENGTH, order};
use super::report::Table;
use super::scale::Scale;
use crate::cpu::pin_to_cpu;

const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let title = format!(
        "round trip of {LENGTH} bytes of FIX over veth, the ends on two CPUs, {} a round, us, medians of \
         {} rounds",
        scale.pings, scale.short_rounds
    );
    let mut table = Table::new(title, &["between", "p50", "p99", "p99.9", "p50 against nothing"]);
    let (alternatives, absent) = Alternative::all();
    let mut lines: Vec<(TcpStream, [Row; 3])> = alternatives
        .iter()
        .map(|alternative| {
            CountingServer::listen(alternative.venue(), true);
            (
                alternative.connect(),
                SHARES.map(|(share, _)| Row::new(format!("{}: {share}", alternative.kind.name()), "us")),
            )
        })
        .collect();
    for round in 0..=scale.short_rounds {
        for (stream, rows) in &mut lines {
            let times = from_another_cpu(|| ping(stream, scale.pings));
            // The first round warms up.
            for (row, (_, share)) in rows.iter_mut().zip(SHARES).filter(|_| round > 0) {
                row.rounds.push(quantile(times.clone(), share));
            }
        }
    }
    for (alternative, (_, rows)) in alternatives.iter().zip(&lines) {
        let figures = rows.iter().map(|row| format!("{:.2}", row.median()));
        let ratio = format!("{:.3}", rows[0].ratio(&lines[0].1[0]));
        table.line(std::iter::once(alternative.kind.name().to_owned()).chain(figures).chain([ratio]));
        table.keep(rows);
        // Alternatives that count have counted every order.
        if let Ok(counted) = alternative.counted() {
            assert!(
                counted as usize >= scale.short_rounds * scale.pings,
                "{}: {counted} orders",
                alternative.kind.name()
            );
        }
    }
    absent.into_iter().for_each(|line| table.line(line));
    vec![table]
}

/// Runs a function on another CPU than that of the echo.
fn from_another_cpu<R: Send>(what: impl FnOnce() -> R + Send) -> R {
    let there = || {
        pin_to_cpu(0);
        what()
    };
    thread::scope(|scope| scope.spawn(there).join().expect("a measurement"))
}

/// The time of each round trip, us.
fn ping(stream: &mut TcpStream, count: usize) -> Vec<f64> {
    let (order, mut buffer) = (order(1), [0; LENGTH]);
    let once = |_| {
        let start = Instant::now();
        stream.write_all(&order).expect("sending");
        stream.read_exact(&mut buffer).expect("receiving");
        start.elapsed().as_nanos() as f64 / 1e3
    };
    (0..count).map(once).collect()
}
