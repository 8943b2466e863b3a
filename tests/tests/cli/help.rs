//! Help and version.

use breaker_tests::command::breaker;

/// Every verb, with words that its help must contain.
const VERBS: [(&[&str], &[&str]); 27] = [
    (&["check"], &["--config <FILE>", "/etc/breaker/breaker.toml", "--json"]),
    (&["load"], &["--config <FILE>", "/etc/breaker/breaker.toml", "--json"]),
    (&["reload"], &["--config <FILE>", "/etc/breaker/breaker.toml", "--json"]),
    (&["unload"], &["--force"]),
    (&["upgrade"], &["--force", "--json", "older"]),
    (&["attach"], &["--json", "detached"]),
    (&["top"], &["--act", "--once", "--json"]),
    (&["agent"], &["--config <FILE>"]),
    (&["status"], &["[SCOPE]", "--json", "10", "11"]),
    (&["ack"], &["<SCOPE>", "--reason <TEXT>", "--json"]),
    (&["arm"], &["<SCOPE>", "--reason <TEXT>", "--json"]),
    (&["disarm"], &["<SCOPE>", "--reason <TEXT>", "--json"]),
    (&["trip"], &["<SCOPE>", "--reason <TEXT>", "--json", "--explain", "group/NAME"]),
    (&["reset"], &["<SCOPE>", "--reason <TEXT>", "--json", "--force"]),
    (&["verify"], &["--json", "--expect <FILE>", "11"]),
    (&["events"], &["--follow", "--json", "--audit <FILE>"]),
    (&["audit"], &["verify"]),
    (&["audit", "verify"], &["--json", "--audit <FILE>"]),
    (&["learn"], &["[CAPTURE]...", "--config <FILE>", "--factor <NUMBER>", "--json"]),
    (&["replay"], &["--config <FILE>", "<CAPTURE>", "--json", "--plot <FILE>"]),
    (&["drill"], &["--scenario <NAME>", "--all", "--live <session/NAME>", "--report <FILE>", "knight"]),
    (&["fleet"], &["--config <FILE>", "--timeout <MS>", "publish", "inventory", "12", "13"]),
    (&["fleet", "trip"], &["<SCOPE>", "--reason <TEXT>", "host/NAME", "SSH"]),
    (&["fleet", "reset"], &["<SCOPE>", "--reason <TEXT>", "--json"]),
    (&["fleet", "inventory", "add"], &["<HOST>", "--ssh <DESTINATION>"]),
    (&["completions"], &["<SHELL>", "bash", "zsh", "fish"]),
    (&["man"], &["<DIR>"]),
];

#[test]
fn every_verb_has_help_that_names_its_arguments_and_fits_a_terminal() {
    for (verb, words) in VERBS {
        for help in ["--help", "-h"] {
            let output = breaker(&[verb, &[help]].concat()).expect_exit(0);
            assert_eq!(output.stderr, "");
            let usage = format!("Usage: breaker {}", verb.join(" "));
            for word in words.iter().chain(&["--pin-root <DIR>", usage.as_str()]) {
                assert!(
                    output.stdout.contains(word),
                    "{verb:?} {help} does not mention {word}:\n{}",
                    output.stdout
                );
            }
            fits(&output.stdout);
        }
    }
}

#[test]
fn the_overview_lists_every_verb_and_every_exit_code() {
    let output = breaker(&["--help"]).expect_exit(0);
    fits(&output.stdout);
    let listed =
        |line: &str| line.strip_prefix("  ").and_then(|line| line.split(' ').next().map(str::to_owned));
    let listed: Vec<_> =
        output.stdout.lines().skip_while(|line| *line != "Commands:").filter_map(listed).collect();
    for (verb, _) in VERBS {
        assert!(listed.iter().any(|name| name == verb[0]), "{verb:?} is not listed:\n{}", output.stdout);
    }
    // The table above is complete.
    let verbs = listed.iter().take_while(|name| *name != "help").filter(|name| !name.is_empty());
    for verb in verbs {
        assert!(VERBS.iter().any(|(known, _)| known[0] == verb), "the test does not know {verb}");
    }
    let codes = output.stdout.lines().skip_while(|line| *line != "Exit codes:").skip(1);
    let codes: Vec<u8> = codes.map_while(|line| line.trim_start().split_once("  ")?.0.parse().ok()).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "{}", output.stdout);
}

#[test]
fn version_names_the_version_and_the_commit() {
    let expected = format!("breaker {} ({})\n", breaker_user::VERSION, breaker_user::GIT);
    assert_eq!(breaker(&["--version"]).expect_exit(0).stdout, expected);
    assert_eq!(breaker(&["-V"]).expect_exit(0).stdout, expected);
}

/// Asserts that output to a pipe is at most 100 columns wide, without colours.
#[track_caller]
fn fits(text: &str) {
    let long = text.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None);
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
}
