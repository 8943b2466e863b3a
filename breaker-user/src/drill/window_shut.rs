//! The scenario `window-shut`: the venue has stopped reading, so that TCP holds thousands of orders on the
//! trading host. They wait across a trip and a reset.

use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::environment::{Environment, SCOPE, TIMEOUT};
use super::figures::Report;
use super::traffic::{announce, trade};
use crate::testbed::fix::{Initiator, InitiatorSettings};

/// Without resets the connection stays open, and TCP keeps the queued orders and tries to send them.
/// Orders that the engine tries to send: more than both ends can buffer.
const ORDERS: u64 = 200_000;

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let title = "The venue stops reading; orders that wait in TCP do not outlive a trip and a reset";
    let mut report = Report::new("window-shut", title);
    let environment = Environment::new("on_trip = \"drop\"", "")?;
    environment.log_on()?;
    environment.venue.pause_reading();
    announce("window shut", "the venue stops reading while the engine sends; then a trip and a reset")?;
    let (wrote, (waiting, tripped)) = scope(|threads| {
        let sender = threads.spawn(|| environment.engine.send_orders("Q", 1..=ORDERS).messages);
        let done = wait_until_shut(&environment).and_then(|crossed| {
            let tripped = environment.trip(SCOPE, 1)?;
            environment.venue.resume_reading();
            // Long enough for every window probe and retransmission.
            sleep(Duration::from_secs(1));
            environment.reset(SCOPE)?;
            sleep(Duration::from_secs(1));
            Ok((crossed, tripped))
        });
        environment.engine.abort();
        let wrote = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        Ok::<_, anyhow::Error>((wrote, done?))
    })?;
    let crossed = environment.crossed(1)?;
    let received = environment.venue.order_count() as u64;
    // The venue waits for the old connection until a heartbeat is missed, and accepts one connection of a FIX
    // session at a time.
    let other = InitiatorSettings {
        sender: "FIRM2".to_owned(),
        ..InitiatorSettings::new(environment.venue.local_address())
    };
    let engine = Initiator::new(other);
    environment.hosts.firm.run(|| engine.connect())?;
    engine.logon()?;
    let after = trade(&engine, "A", 20, 200);
    environment.venue.wait_for_orders((received + after) as usize, TIMEOUT)?;
    report.orders(wrote + after, crossed + after);
    report.count("orders that had crossed when the window was shut", waiting);
    report.promise(
        "orders wait on the trading host at the trip",
        wrote.saturating_sub(tripped.crossed).to_string(),
        wrote > tripped.crossed,
    );
    report.promise_count(
        "none of them crosses after the trip, nor after the reset",
        0,
        crossed - tripped.crossed,
    );
    report.promise(
        "the venue receives each order that crossed whole, but for one that may be cut off",
        format!("{received} of {crossed}"),
        received <= crossed && received + 1 >= crossed,
    );
    report.promise_count("after the reset new orders pass on a new connection", 20, after);
    Ok(report)
}

/// Waits until no order crosses any more. Returns how many have crossed.
fn wait_until_shut(environment: &Environment) -> Result<u64> {
    let (deadline, mut before) = (Instant::now() + TIMEOUT, 0);
    loop {
        sleep(Duration::from_millis(300));
        let crossed = environment.crossed(1)?;
        if crossed == before && crossed != 0 {
            return Ok(crossed);
        }
        ensure!(Instant::now() < deadline, "the window did not shut: {crossed} orders have crossed");
        before = crossed;
    }
}
