//! `breaker(1)` and the pages of the verbs, from the command line.

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::page::{DATE, MANUAL, Page, SOURCE};
use crate::cli::{Cli, EXIT_CODES};

/// Returns the page of breaker and a page of each verb that the help lists.
pub fn pages() -> Result<Vec<Page>> {
    let mut breaker = Cli::command().disable_help_subcommand(true);
    breaker.build();
    let mut pages = Vec::new();
    add(&breaker, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<Page>) -> Result<()> {
    pages.push(page(command)?);
    command.get_subcommands().filter(|verb| !verb.is_hide_set()).try_for_each(|verb| add(verb, pages))
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> Result<Page> {
    let man = Man::new(command.clone()).date(DATE).source(SOURCE).manual(MANUAL);
    let mut roff = Vec::new();
    man.render_title(&mut roff)?;
    let mut section = Roff::new();
    section.control("SH", ["NAME"]);
    section.text([roman(format!("{} - {}", name(command), summary(command)))]);
    section.to_writer(&mut roff)?;
    man.render_synopsis_section(&mut roff)?;
    man.render_description_section(&mut roff)?;
    man.render_options_section(&mut roff)?;
    let is_breaker = command.get_name() == name(command);
    if command.has_subcommands() {
        man.render_subcommands_section(&mut roff)?;
    }
    let mut end = Roff::new();
    if is_breaker {
        exit_status(&mut end);
    }
    end.control("SH", ["SEE ALSO"]);
    if !is_breaker {
        end.text([bold("breaker"), roman("(1),")]);
    }
    end.text([bold("breaker.toml"), roman("(5)")]);
    end.to_writer(&mut roff)?;
    Ok(Page { file: man.get_filename(), roff })
}

/// Returns the first sentence of the help text, without its full stop: `whatis` shows one line.
fn summary(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let sentence = about.split_once(". ").map_or(about.as_str(), |(sentence, _)| sentence);
    sentence.trim_end_matches('.').to_owned()
}

/// Writes the table of exit codes: a line has a code, two spaces and its meaning.
fn exit_status(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES.lines().filter_map(|line| line.trim_start().split_once("  ")) {
        page.control("TP", []);
        page.text([bold(code)]);
        page.text([roman(meaning)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_of_the_help_has_a_page_and_a_hidden_verb_has_none() {
        let files: Vec<_> = pages().expect("pages").into_iter().map(|page| page.file).collect();
        for file in ["breaker.1", "breaker-trip.1", "breaker-audit.1", "breaker-audit-verify.1"] {
            assert!(files.iter().any(|found| found == file), "{file} is not in {files:?}");
        }
        assert!(!files.iter().any(|file| file.contains("control")), "{files:?}");
    }

    #[test]
    fn the_page_of_breaker_has_every_exit_code_of_the_help() {
        let pages = pages().expect("pages");
        let text = String::from_utf8_lossy(&pages[0].roff);
        for code in [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11] {
            assert!(text.contains(&format!(".TP\n\\fB{code}\\fR\n")), "{code}:\n{text}");
        }
    }
}
