//! Reads the state that the page shows.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::system::uname;

use crate::agent::metrics::Source;
use crate::agent::notice::notice;
use crate::state;
use crate::view::attestation::Binary;
use crate::view::page::Page;
use crate::view::status::{Observed, Status};

/// The binary of the agent, once its file is hashed.
static BINARY: OnceLock<Binary> = OnceLock::new();

/// Hashes the binary of the agent for all later states, unless it was hashed before.
pub fn hash_binary() {
    if BINARY.get().is_some() {
        return;
    }
    match Binary::read() {
        // Only the first of two calls at the same time has an effect.
        Ok(binary) => drop(BINARY.set(binary)),
        Err(error) => notice(&format!("the page does not show the hashes of this binary: {error:#}")),
    }
}

/// Reads the state as JSON. An error takes its place, because the viewers must see it.
pub fn read(source: &Source) -> String {
    let json = page(source).and_then(|page| serde_json::to_string(&page).context("writing the page's state"));
    json.unwrap_or_else(|error| {
        let found = format!("{error:#}");
        serde_json::json!({ "time": Timestamp::now(), "host": host(), "error": found }).to_string()
    })
}

fn page(source: &Source) -> Result<Page> {
    let history = source.read_history();
    let events = history.newest();
    drop(history);
    let in_force = source.loaded.in_force();
    let breaker = &in_force.breaker;
    let observed = Observed {
        attachments: source.loaded.attachments(),
        connections: breaker.connection_table()?.by_session,
        enforced: source.monitor.enforced(),
        state: state::health(breaker),
    };
    let status = Status::of(breaker, None, observed)?;
    let (time, host, rates) = (Timestamp::now(), host(), source.recorder.last_second());
    Ok(Page { time, host, binary: BINARY.get(), status, rates, events })
}

fn host() -> String {
    uname().nodename().to_string_lossy().into_owned()
}
