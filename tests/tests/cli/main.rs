//! The command line as a user types it: its output, its exit codes, and what it leaves behind. Most tests
//! load a breaker in namespaces of their own, and need root.

mod ack;
mod anchors;
mod audit;
mod broken;
mod clsact;
mod codes;
mod denied;
mod enforced;
mod explain;
mod faults;
mod guarantees;
mod help;
mod history;
mod layouts;
mod learn;
mod load;
mod manual;
mod on_event;
mod output;
mod pins;
mod race;
mod reload;
mod replay;
mod runbook;
mod state;
mod switch;
mod tamper;
mod top;
mod upgrade;
mod usage;
mod verify;

/// Two sessions in a group. Each scope has a limit that takes a while to fill.
const POLICY: &str = r#"
limits = [{ class = "order", max = 5000, per = "1s" }]
[[group]]
name = "desk"
limits = [{ class = "order", max = 2000, per = "1s" }]
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
groups = ["desk"]
limits = [{ class = "order", max = 5, per = "2s" }, { class = "cancel", max = 1000, per = "2s" }]
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
groups = ["desk"]
"#;
