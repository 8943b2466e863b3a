//! Manual pages, as the programs that show them read them, and completions, as the shells load them.

use std::path::PathBuf;
use std::process::Command;

use breaker_tests::cli::argument;
use breaker_tests::command::{CliOutput, breaker};
use tempfile::TempDir;

/// Runs a program that must succeed.
#[track_caller]
fn run(program: &str, args: &[&str]) -> CliOutput {
    let output = Command::new(program).args(args).env("MANWIDTH", "100").output();
    CliOutput::new(output.unwrap_or_else(|error| panic!("{program}: {error}"))).expect_exit(0)
}

/// Writes the manual pages.
fn pages(directory: &TempDir) -> Vec<PathBuf> {
    let pages = directory.path().join("man");
    breaker(&["man", argument(&pages)]).expect_exit(0);
    let files = std::fs::read_dir(pages).expect("the pages").map(|file| file.expect("a page").path());
    files.collect()
}

#[test]
fn the_manual_has_a_page_for_each_verb_and_each_renders_without_a_warning() {
    let directory = TempDir::new().expect("a directory");
    let pages = pages(&directory);
    let help = breaker(&["--help"]).expect_exit(0).stdout;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.take_while(|line| !line.is_empty() && !line.starts_with("  help"));
    let verbs: Vec<_> = verbs.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(verbs.contains(&"trip"), "{verbs:?}");
    for verb in verbs.iter().filter(|verb| !verb.is_empty()) {
        let page = format!("breaker-{verb}.1");
        assert!(pages.iter().any(|path| path.ends_with(&page)), "no {page}: {pages:?}");
    }
    for page in &pages {
        run("mandoc", &["-T", "lint", "-W", "error", argument(page)]);
        let shown = run("man", &["--warnings", "-l", argument(page)]);
        assert_eq!(shown.stderr, "", "{page:?}");
        assert!(shown.stdout.contains("NAME"), "{shown:?}");
    }
}

#[test]
fn the_page_of_the_configuration_has_every_key_of_the_documentation() {
    let directory = TempDir::new().expect("a directory");
    let page = pages(&directory).into_iter().find(|page| page.ends_with("breaker.toml.5"));
    let page = page.expect("breaker.toml.5");
    run("mandoc", &["-T", "lint", "-W", "warning", argument(&page)]);
    let shown = run("man", &["-l", argument(&page)]).stdout;
    let text = include_str!("../../../docs/configuration.md");
    let keys = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let keys: Vec<_> = keys.collect();
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        let tag = format!("       {key}");
        assert!(shown.lines().any(|line| line.starts_with(&tag)), "{key} is not in\n{shown}");
    }
}

/// Writes the completions of a shell. Returns the path of the file.
fn completions(directory: &TempDir, shell: &str, name: &str) -> String {
    let text = breaker(&["completions", shell]).expect_exit(0).stdout;
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("writing the completions");
    argument(&path).to_owned()
}

#[test]
fn bash_completes_the_verbs() {
    let directory = TempDir::new().expect("a directory");
    let file = completions(&directory, "bash", "breaker");
    let script = format!(
        "source {file} && complete -p breaker && COMP_WORDS=(breaker '') COMP_CWORD=1 && \
         _breaker breaker '' breaker; echo ${{COMPREPLY[@]}}"
    );
    let shown = run("bash", &["--norc", "-c", &script]).stdout;
    assert!(shown.contains("-F _breaker breaker"), "{shown}");
    let words: Vec<_> = shown.lines().last().unwrap_or_default().split(' ').collect();
    assert!(words.contains(&"trip") && words.contains(&"reset"), "{shown}");
    assert!(!words.contains(&"control"), "a hidden verb: {shown}");
}

#[test]
fn zsh_registers_the_completions() {
    let directory = TempDir::new().expect("a directory");
    completions(&directory, "zsh", "_breaker");
    let path = argument(directory.path());
    let script = format!(
        "fpath=({path} $fpath); autoload -U compinit; compinit -u -d {path}/dump; print $_comps[breaker]; \
         autoload +X _breaker && print loaded"
    );
    assert_eq!(run("zsh", &["-fc", &script]).stdout, "_breaker\nloaded\n");
}

#[test]
fn fish_completes_the_verbs() {
    let directory = TempDir::new().expect("a directory");
    let file = completions(&directory, "fish", "breaker.fish");
    let shown = run("fish", &["--no-config", "-c", &format!("source {file}; complete -C 'breaker '")]).stdout;
    let verbs: Vec<_> = shown.lines().filter_map(|line| line.split('\t').next()).collect();
    assert!(verbs.contains(&"trip") && !verbs.contains(&"control"), "{verbs:?}");
}
