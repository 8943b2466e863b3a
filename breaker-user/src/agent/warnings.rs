//! Keeps the warnings that nobody has acknowledged in the state directory. Their source is the audit log, so
//! that a restart of the agent loses none.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::metrics::Source;
use super::notice::notice;
use super::periodic::{Interval, run_blocking};
use crate::state;
use crate::state::warnings::{self, Warning};

const INTERVAL: Interval = Interval::new(Duration::from_secs(1));

/// Writes the warnings after each change until the shutdown.
pub async fn run(source: Arc<Source>, shutdown: impl Future<Output = ()>) {
    let written = Mutex::new(None);
    let mut is_failing = false;
    let work = move || keep(&source, &written);
    run_blocking(INTERVAL, shutdown, work, |kept| {
        if let Err(error) = &kept
            && !is_failing
        {
            notice(&format!("the warnings are not in the state directory: {error:#}: it is retried"));
        }
        is_failing = kept.is_err();
    })
    .await;
}

/// Writes the warnings if they differ from those that were written last.
fn keep(source: &Source, written: &Mutex<Option<Vec<Warning>>>) -> Result<()> {
    let now = source.read_history().warnings();
    let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
    if written.as_ref() == Some(&now) {
        return Ok(());
    }
    let store = state::store(&source.loaded.in_force().breaker);
    if warnings::read(&store) != now {
        warnings::write(&store, &now)?;
    }
    *written = Some(now);
    Ok(())
}
