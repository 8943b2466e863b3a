//! Reloads: as a whole or not at all, their output and events, and all that is refused.

mod agent;
mod policy;
mod refusals;

use breaker_tests::command::CliOutput;
use breaker_tests::testbed::Testbed;
use serde_json::Value;

/// Writes a changed copy of the configuration. Returns its path.
fn changed(testbed: &Testbed, changes: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let text = changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to)
    });
    testbed.write_config("next.toml", &text).display().to_string()
}

fn reload(testbed: &Testbed, changes: &[(&str, &str)]) -> CliOutput {
    let path = changed(testbed, changes);
    testbed.cli(&format!("reload --json --config {path}"))
}

/// The events in the audit log.
fn events(testbed: &Testbed) -> Vec<Value> {
    let output = testbed.cli("events --json").expect_exit(0);
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
