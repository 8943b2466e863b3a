//! The verbs, one in each file, and their dispatch.

mod ack;
mod agent;
mod arm;
mod attach;
mod audit;
mod check;
mod completions;
mod consent;
mod drill;
mod events;
mod explain;
#[cfg(feature = "fleet")]
mod fleet;
mod learn;
mod load;
mod man;
mod other_layout;
mod output;
mod reload;
mod replay;
mod reset;
mod scope;
mod status;
mod top;
mod trip;
mod unload;
mod upgrade;
mod verify;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Verb};
use crate::cli_error::{CliError, Code};
use crate::kernel::PinRoot;

pub use output::report;

/// Runs the verb of the command line.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let root = PinRoot::new(cli.pin_root);
    let root = if cli.private_pins { root.private() } else { root };
    match cli.verb {
        Verb::Check(args) => check::run(&args),
        Verb::Load(args) => load::run(&root, &args),
        Verb::Reload(args) => reload::run(&root, &args),
        Verb::Unload(args) => unload::run(&root, &args),
        Verb::Upgrade(args) => upgrade::run(&root, &args),
        Verb::Attach(args) => attach::run(&root, &args),
        Verb::Agent(args) => agent::run(&root, &args),
        Verb::Status(args) => status::run(&root, &args),
        Verb::Top(args) => top::run(&root, &args),
        Verb::Ack(args) => ack::run(&root, &args),
        Verb::Arm(args) => arm::run(&root, &args, true),
        Verb::Disarm(args) => arm::run(&root, &args, false),
        Verb::Trip(args) => trip::run(&root, &args),
        Verb::Reset(args) => reset::run(&root, &args),
        Verb::Verify(args) => verify::run(&root, &args),
        Verb::Events(args) => events::run(&root, &args),
        Verb::Audit(verb) => audit::run(&root, &verb),
        #[cfg(feature = "fleet")]
        Verb::Fleet(args) => fleet::run(&args),
        Verb::Drill(args) => drill::run(&root, &args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
        Verb::Learn(args) => learn::run(&root, &args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Control(_) => {
            let text = "serving control: a request cannot contain another one: name another verb";
            Err(CliError::new(Code::Usage, text).into())
        }
    }
}
