//! Conditions of a reset, for `breaker reset` and for the resets of a fleet.

use anyhow::Result;
use breaker_common::abi::cause;

use crate::config::ScopeIndex;
use crate::display;
use crate::kernel::{Breaker, recorded};

/// A sender counts as stopped if none of its segments was withheld for this long, in ns.
const STOPPED_NS: u64 = 5_000_000_000;

/// What was found that makes a reset unsafe, and what to do; `None` if it is safe.
pub fn objection(
    breaker: &Breaker,
    scope: ScopeIndex,
    causes: u64,
    force: bool,
) -> Result<Option<(String, String)>> {
    if causes == 0 {
        return Ok(Some(("it is not tripped".to_owned(), "run `breaker status` to see what is".to_owned())));
    }
    if let Some((after, age)) = breaker.heartbeat_silence_ns()?
        && causes & cause::DEADMAN != 0
        && age > after
    {
        let (after, age) = (display::duration(after), age / 1_000_000);
        let found = format!("the agent has been silent for {age} ms, and the policy allows {after}");
        let cure = "start `breaker agent`: without it, the next message trips the scope again";
        return Ok(Some((found, cure.to_owned())));
    }
    let program = breaker.program()?;
    if !recorded::is_recorded(breaker.root(), &program)? {
        let (tag, loaded_tag) = (program.tag(), breaker.meta().program_tag);
        let found = format!("the attached program is {tag:016x}, and {loaded_tag:016x} was loaded");
        return Ok(Some((
            found,
            "run `breaker unload --force`, and load a program that you trust".to_owned(),
        )));
    }
    // A person may override this objection alone. A full window without a recent sender is no objection.
    if force { Ok(None) } else { sender_not_stopped(breaker, scope) }
}

/// Objects to a reset if a limit is reached and the sender has not stopped.
fn sender_not_stopped(breaker: &Breaker, scope: ScopeIndex) -> Result<Option<(String, String)>> {
    let limits = breaker.limits(scope)?;
    let full = limits.into_iter().find(|found| found.limit.per_ns != 0 && found.used >= found.limit.max);
    let Some(full) = full else { return Ok(None) };
    let Some(age) = breaker.withheld_age_ns(scope)?.filter(|age| *age < STOPPED_NS) else {
        return Ok(None);
    };
    let found = format!(
        "its rate is at the limit, {} {} messages in the last {}, and its sender has not stopped: a segment \
         was withheld \
         {} ms ago",
        full.used,
        display::class(full.limit.class),
        display::interval(&full.limit),
        age / 1_000_000
    );
    let cure = "stop the sender and wait 5s, or reset with --force, which is logged";
    Ok(Some((found, cure.to_owned())))
}
