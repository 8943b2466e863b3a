//! The table of failures in `docs/guarantees.md` is the one that `status` prints for a policy with defaults.

use std::fs;
use std::path::Path;

use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

use super::POLICY;

/// Environment variable that writes the table instead of comparing it.
const RENEW: &str = "BREAKER_RENEW_GUARANTEES";
/// Lines around the table.
const MARKS: [&str; 2] = ["<!-- failures: begin -->\n", "<!-- failures: end -->"];

#[test]
fn the_documented_failures_are_those_of_status() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let status = testbed.cli("status --json").json();
    let rows = status["failure_policy"].as_array().expect("the failures").iter().map(|row| {
        let word = |key: &str| row[key].as_str().expect("a text").to_owned();
        format!("| {} | {} |\n", word("failure"), word("then"))
    });
    let table = format!("| failure | behaviour |\n|---|---|\n{}", rows.collect::<String>());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guarantees.md");
    let text = fs::read_to_string(&path).expect("the page");
    let (head, rest) = text.split_once(MARKS[0]).expect("the first mark");
    let (documented, tail) = rest.split_once(MARKS[1]).expect("the second mark");
    if std::env::var_os(RENEW).is_some() {
        let renewed = [head, MARKS[0], &table, MARKS[1], tail].concat();
        return fs::write(&path, renewed).expect("writing the page");
    }
    assert_eq!(
        documented, table,
        "run `{RENEW}=1 cargo test -p breaker-tests --test cli documented_failures`"
    );
}
