//! `breaker top`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread::sleep;

use anyhow::Result;

use super::output::print;
use crate::cli::TopArgs;
use crate::cli_error::{CliError, Code};
use crate::kernel::PinRoot;
use crate::top::{self, App, Options, Source, Style};

/// Shows the live view, or prints it as text or JSON.
pub fn run(root: &PinRoot, args: &TopArgs) -> Result<ExitCode> {
    let is_terminal = std::io::stdout().is_terminal();
    if !is_terminal && !args.once && !args.json {
        let text = "showing the live view: standard output is not a terminal: use --once or --json";
        return Err(CliError::new(Code::Usage, text).into());
    }
    let style = Style::of(|name| std::env::var(name).ok());
    let options = Options { act: args.act, style };
    let source = Source::open(root.clone())?;
    if args.json {
        print_json(source, options, args.once)?;
    } else if args.once {
        print_once(source, options)?;
    } else {
        top::run(root, source, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a document each second. The first one follows after a second, because a rate needs two samples.
fn print_json(mut source: Source, options: Options, is_once: bool) -> Result<()> {
    let mut app = App::new(options);
    app.show(source.read(None, true)?);
    loop {
        sleep(source.until_next_second());
        app.show(source.read(None, true)?);
        if let Some(document) = &app.top {
            print(&serde_json::to_string(document)?)?;
        }
        if is_once {
            return Ok(());
        }
    }
}

/// Prints one screen as text, after a second unless an agent has recorded rates.
fn print_once(mut source: Source, options: Options) -> Result<()> {
    let mut app = App::new(options);
    if let Some((second, rates)) = source.recorded() {
        app.continue_rates(second, &rates);
    }
    app.show(source.read(None, true)?);
    sleep(source.until_next_second());
    app.show(source.read(None, true)?);
    print(&top::text(&mut app, top::size()))
}
