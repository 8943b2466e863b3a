//! Throughput of orders in one direction.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use super::alternative::Alternative;
use super::counting_server::CountingServer;
use super::figures::Row;
use super::order::{LENGTH, orders};
use super::report::Table;
use super::scale::Scale;

/// Orders in one send of nearly 64 KB.
const COALESCED: usize = 65_536 / LENGTH;

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let title = format!(
        "orders of {LENGTH} bytes a second one way over veth, thousands, medians of {} rounds. The sender \
         writes to proxies over loopback, where single sends coalesce",
        scale.short_rounds
    );
    let head = ["between", "one a send", "against nothing", "64 KB a send", "against nothing"];
    let mut table = Table::new(title, &head);
    let (alternatives, absent) = Alternative::all();
    let mut lines: Vec<(CountingServer, TcpStream, [Row; 2])> = alternatives
        .iter()
        .map(|alternative| {
            let server = CountingServer::listen(alternative.venue(), false);
            let name = alternative.kind.name();
            let rows =
                ["one a send", "64 KB a send"].map(|how| Row::new(format!("{name}: {how}"), "orders/s"));
            (server, alternative.connect(), rows)
        })
        .collect();
    for _ in 0..scale.short_rounds {
        for (server, stream, rows) in &mut lines {
            rows[0].rounds.push(send(server, stream, 1, scale.messages));
            rows[1].rounds.push(send(server, stream, COALESCED, scale.coalesced / COALESCED));
        }
    }
    for (alternative, (.., rows)) in alternatives.iter().zip(&lines) {
        let cells = rows.iter().zip(&lines[0].2).flat_map(|(row, zero)| {
            [format!("{:.0}", row.median() / 1e3), format!("{:.3}", row.ratio(zero))]
        });
        table.line(std::iter::once(alternative.kind.name().to_owned()).chain(cells));
        table.keep(rows);
    }
    absent.into_iter().for_each(|line| table.line(line));
    vec![table]
}

/// Sends orders, and waits until all have arrived. Returns orders/s.
fn send(server: &CountingServer, stream: &mut TcpStream, each: usize, times: usize) -> f64 {
    let payload = orders(0, each);
    let before = server.bytes();
    let start = Instant::now();
    for _ in 0..times {
        stream.write_all(&payload).expect("sending");
    }
    server.wait(before + (payload.len() * times) as u64);
    (each * times) as f64 / start.elapsed().as_secs_f64()
}
