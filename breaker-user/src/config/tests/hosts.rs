//! `[host]`, `[agent]`, limits, and the top level of the file.

use std::num::NonZeroU32;

use super::{HOST, accepted, refused, refused_in_host, warnings};
use crate::config::{Hook, Inbound, LimitClass, Mode, Per, Word};

#[test]
fn schema() {
    accepted(&format!("schema = 1\n{HOST}"));
    let what = "schema: 2 is not supported: this version reads schema 1: write schema = 1";
    refused(&format!("schema = ¦2\n{HOST}"), &[what]);
    let what = "schema: \"1\" is not supported: this version reads schema 1: write schema = 1";
    refused(&format!("schema = ¦\"1\"\n{HOST}"), &[what]);
}

#[test]
fn policy_name() {
    let what = "policy: \"\" is not a policy name: write 1 to 64 bytes of text on one line";
    refused(&format!("policy = ¦\"\"\n{HOST}"), &[what]);
    let what = "policy: \"a\\nb\" is not a policy name: write 1 to 64 bytes of text on one line";
    refused(&format!("policy = ¦\"a\\nb\"\n{HOST}"), &[what]);
    accepted(&format!("policy = \"{}\"\n{HOST}", "é".repeat(32)));
    let long = "é".repeat(33);
    let what = format!("policy: {long:?} is not a policy name: write 1 to 64 bytes of text on one line");
    refused(&format!("policy = ¦{long:?}\n{HOST}"), &[&what]);
}

#[test]
fn required_tables() {
    refused("¦", &["host: is missing: add [host] with interfaces = [\"eth1\"]"]);
    let what = "host interfaces: is missing: add the interfaces to protect, like interfaces = [\"eth1\"]";
    refused("¦[host]\nmode = \"inline\"\n", &[what]);
    refused("¦[[host]]\n", &["host: an array is not a table: write [host], once"]);
    let what = "session: a table is not an array: write [[session]], in two brackets, for each session";
    refused(&format!("{HOST}¦[session]\nname = \"x\"\n"), &[what]);
    let what = "group: 3 is not a table: write [[group]], in two brackets, for each group";
    refused(&format!("group = [¦3]\n{HOST}"), &[what]);
    refused(&format!("agent = ¦true\n{HOST}"), &["agent: true is not a table: write [agent], once"]);
}

#[test]
fn unknown_keys() {
    refused(
        &format!("¦polcy = \"x\"\n{HOST}"),
        &["configuration: unknown key \"polcy\": did you mean policy?"],
    );
    let known = "known keys are schema, policy, host, agent, people, fleet, group, session";
    refused(&format!("¦foo = 1\n{HOST}"), &[&format!("configuration: unknown key \"foo\": {known}")]);
    refused_in_host("¦limit = []", "host: unknown key \"limit\": did you mean limits?");
    refused_in_host("¦Mode = \"egress\"", "host: unknown key \"Mode\": did you mean mode?");
    let limit = "limits = [{ class = \"order\", max = 1, per = \"1s\", ¦wran = [] }]";
    refused_in_host(limit, "host limits: unknown key \"wran\": did you mean warn?");
    refused(
        &format!("{HOST}[agent]\n¦metric = 1\n"),
        &["agent: unknown key \"metric\": did you mean metrics?"],
    );
}

#[test]
fn choices() {
    let what = "host mode: \"egres\" is not a mode: write \"egress\" or \"inline\"; did you mean \"egress\"?";
    refused_in_host("mode = ¦\"egres\"", what);
    refused_in_host("mode = ¦\"tc\"", "host mode: \"tc\" is not a mode: write \"egress\" or \"inline\"");
    refused_in_host("mode = ¦1", "host mode: 1 is not a mode: write \"egress\" or \"inline\"");
    let what = "host hook: \"tc\" is not a hook: \
                write \"auto\" or \"tcx\" or \"clsact\" or \"native\" or \"generic\"; did you mean \"tcx\"?";
    refused_in_host("hook = ¦\"tc\"", what);
    let what = "host undeclared: \"\" is not a treatment of undeclared connections: write \"ignore\" \
                or \"watch\" or \"block\"";
    refused_in_host("undeclared = ¦\"\"", what);
    let what = "host inbound: \"drop\" is not a treatment of inbound messages: write \"watch\" or \"ignore\"";
    refused_in_host("inbound = ¦\"drop\"", what);
    let what = "host on_trip: \"rst\" is not an action: write \"reset\" or \"drop\"";
    refused_in_host("on_trip = ¦\"rst\"", what);
    let what = "host while_tripped: \"reduce_only\" is not a rule: \
                write \"reduce-only\" or \"admin-only\" or \"isolate\"; did you mean \"reduce-only\"?";
    refused_in_host("while_tripped = ¦\"reduce_only\"", what);
    refused_in_host(
        "on_desync = ¦2024-01-01",
        "host on_desync: 2024-01-01 is not an action: write \"count\" or \"warn\" or \"trip\"",
    );
    let what = "host on_table_full: \"drop\" is not an action: write \"block\" or \"pass\"";
    refused_in_host("on_table_full = ¦\"drop\"", what);
    let what = "host unclean_boot: \"block\" is not an action: write \"trip\" or \"pass\"";
    refused_in_host("unclean_boot = ¦\"block\"", what);
    refused_in_host(
        "armed = ¦\"yes\"",
        "host armed: \"yes\" is not a boolean: write true or false, without quotes",
    );
}

#[test]
fn hooks() {
    for mode in Mode::ALL {
        for hook in Hook::ALL {
            let fits = mode.hooks().contains(hook);
            let lines = format!("hook = ¦\"{hook}\"\nmode = \"{mode}\"");
            if fits {
                let host = accepted(&format!("{HOST}{}\n", lines.replace('¦', ""))).host().clone();
                assert_eq!((host.mode, host.hook), (*mode, *hook));
                continue;
            }
            let words = match mode {
                Mode::Egress => "\"auto\" or \"tcx\" or \"clsact\"",
                Mode::Inline => "\"auto\" or \"native\" or \"generic\"",
            };
            let found = format!("\"{hook}\" is not possible with mode = \"{mode}\"");
            refused_in_host(&lines, &format!("host hook: {found}: write {words}, or another mode"));
        }
    }
    let what = "host hook: \"native\" is not possible with mode = \"egress\": \
                write \"auto\" or \"tcx\" or \"clsact\", or another mode";
    refused_in_host("hook = ¦\"native\"", what);
    // An invalid mode is the only error, because the hook cannot be checked then.
    let what = "host mode: \"xdp\" is not a mode: write \"egress\" or \"inline\"";
    refused_in_host("mode = ¦\"xdp\"\nhook = \"native\"", what);
}

#[test]
fn inbound() {
    let of = |lines: &str| accepted(&format!("{HOST}{lines}\n")).host().inbound;
    let order = "limits = [{ class = \"order\", max = 1, per = \"1s\" }]";
    let reject = "limits = [{ class = \"reject\", max = 50, per = \"1m\" }]";
    let fill = "limits = [{ class = \"fill\", max = 9, per = \"total\" }]";
    let ratio = "limits = [{ class = \"order\", per_fill = 100, after = 10 }]";
    let group = |limits: &str| format!("[[group]]\nname = \"g\"\n{limits}");
    let session = |limits: &str| format!("[[session]]\nname = \"x\"\nremote = \"10.0.0.1:1\"\n{limits}");
    for nothing in ["", order, &group(order), &session("preset = \"cme\"")] {
        assert_eq!(of(nothing), Inbound::Ignore, "{nothing}");
        assert_eq!(of(&format!("inbound = \"ignore\"\n{nothing}")), Inbound::Ignore);
        assert_eq!(of(&format!("inbound = \"watch\"\n{nothing}")), Inbound::Watch);
    }
    for (needed, what) in [
        (reject.to_owned(), "a limit of class reject in host"),
        (group(fill), "a limit of class fill in group/g"),
        (session(ratio), "a limit per_fill in session/x"),
        (format!("{}\n{}", group(order), session(reject)), "a limit of class reject in session/x"),
    ] {
        assert_eq!(of(&needed), Inbound::Watch, "{needed}");
        assert_eq!(of(&format!("inbound = \"watch\"\n{needed}")), Inbound::Watch);
        let what = format!(
            "host inbound: \"ignore\" is not possible with {what}: write \"watch\", or remove the limit"
        );
        refused_in_host(&format!("inbound = ¦\"ignore\"\n{needed}"), &what);
    }
}

#[test]
fn interfaces() {
    let refused =
        |value: &str, messages: &[&str]| refused(&format!("[host]\ninterfaces = {value}\n"), messages);
    accepted("[host]\ninterfaces = [\"eth1\", \"bond0.100\", \"fifteen-bytes-x\"]\n");
    refused("¦[]", &["host interfaces: is empty: name at least one interface, like [\"eth1\"]"]);
    refused("¦\"eth1\"", &["host interfaces: \"eth1\" is not an array: write a list, like [\"eth1\"]"]);
    let remedy = "write 1 to 15 bytes without '/', ':' or space, as `ip link` shows it";
    for bad in ["", "sixteen-bytes-xy", "a/b", "a b", "a:1", "..", "a\u{7f}"] {
        let what = format!("host interfaces: {bad:?} is not an interface name: {remedy}");
        refused(
            &format!("[\"eth0\", ¦\"{}\"]", bad.escape_default().to_string().replace("{7f}", "007f")),
            &[&what],
        );
    }
    let twice = "host interfaces: \"a\" is listed twice: remove one of the two";
    refused("[\"a\", ¦\"a\", ¦7]", &[twice, "host interfaces: 7 is not a string: write a string in quotes"]);
}

#[test]
fn connections() {
    for good in ["64", "4_194_304", "0x1000"] {
        accepted(&format!("{HOST}connections = {good}\n"));
    }
    for bad in ["63", "4194305", "-1", "99999999999999999999"] {
        let what =
            format!("host connections: {bad} is out of range: write a whole number from 64 to 4194304");
        refused_in_host(&format!("connections = ¦{bad}"), &what);
    }
    let what = "host connections: 1.5 is not a whole number: write a whole number from 64 to 4194304";
    refused_in_host("connections = ¦1.5", what);
}

#[test]
fn deadman() {
    let remedy = "write a whole number and ms, s, m or h, from \"100ms\" to \"24h\"";
    refused_in_host(
        "deadman = ¦{ action = \"warn\" }",
        "host deadman after: is missing: add the longest age of the heartbeat, like after = \"3s\"",
    );
    refused_in_host(
        "deadman = { after = ¦\"3\" }",
        &format!("host deadman after: \"3\" is not a time: {remedy}"),
    );
    refused_in_host(
        "deadman = { after = ¦\"99ms\" }",
        &format!("host deadman after: \"99ms\" is out of range: {remedy}"),
    );
    refused_in_host(
        "deadman = { after = ¦\"25h\" }",
        &format!("host deadman after: \"25h\" is out of range: {remedy}"),
    );
    refused_in_host(
        "deadman = { after = \"3s\", action = ¦\"kill\" }",
        "host deadman action: \"kill\" is not an action: write \"warn\" or \"trip\"",
    );
    let what = "host deadman: \"3s\" is not a table: write { after = \"3s\", action = \"warn\" }";
    refused_in_host("deadman = ¦\"3s\"", what);
}

#[test]
fn limits() {
    refused_in_host("limits = ¦5", "host limits: 5 is not an array: write a list of limits in [ ]");
    let what =
        "host limits: 5 is not a table: write a limit like { class = \"order\", max = 500, per = \"3s\" }";
    refused_in_host("limits = [¦5]", what);
    let missing = [
        "host limits class: is missing: add class = \"order\", \"cancel\", \"message\", \"fill\" \
         or \"reject\"",
        "host limits max: is missing: add the most messages that may pass, like max = 500",
        "host limits per: is missing: add the interval to count over, like per = \"3s\", or \"total\"",
    ];
    let text = format!("{HOST}limits = [¦{{}}]\n");
    let errors = crate::config::parse("breaker.toml", &text.replace('¦', "")).unwrap_err();
    assert_eq!(errors.diagnostics().iter().map(|error| error.message()).collect::<Vec<_>>(), missing);
    let what = "host limits class: \"orders\" is not a class that a limit counts: \
                write \"order\" or \"cancel\" or \"message\" or \"fill\" or \"reject\"; did you \
                mean \"order\"?";
    refused_in_host("limits = [{ class = ¦\"orders\", max = 1, per = \"1s\" }]", what);
    for bad in ["0", "-5", "1000000001"] {
        let what =
            format!("host limits max: {bad} is out of range: write a whole number from 1 to 1000000000");
        refused_in_host(&format!("limits = [{{ class = \"order\", max = ¦{bad}, per = \"1s\" }}]"), &what);
    }
    accepted(&format!("{HOST}limits = [{{ class = \"message\", max = 1_000_000_000, per = \"24h\" }}]\n"));
}

#[test]
fn ratios() {
    let limit = |text: &str| format!("limits = [{{ {text} }}]");
    let policy = accepted(&format!(
        "{HOST}{}\n",
        limit("class = \"order\", per_fill = 100, after = 1_000, warn = []")
    ));
    let [ratio] = policy.host().limits[..] else { panic!("one limit") };
    assert_eq!((ratio.class, ratio.max.get(), ratio.per), (LimitClass::Order, 1_000, Per::Total));
    assert_eq!((ratio.per_fill.map(NonZeroU32::get), ratio.warn.as_slice()), (Some(100), &[][..]));

    for (text, message) in [
        (
            "class = \"order\", per_fill = 9, after = 1, max = ¦5",
            "max: is not possible with per_fill: \
             remove it: after is the number of orders that may pass before the ratio applies",
        ),
        (
            "class = \"order\", per_fill = 9, after = 1, per = ¦\"1s\"",
            "per: is not possible with per_fill: remove it: a ratio counts since the last reset",
        ),
        (
            "class = \"order\", max = 5, per = \"1s\", after = ¦1",
            "after: is not possible with max and per: \
             remove it, or write per_fill, the most orders for each fill, instead of max and per",
        ),
        (
            "class = ¦\"cancel\", per_fill = 9, after = 1",
            "class: \"cancel\" is not possible with per_fill: write class = \"order\": a ratio is of orders \
             to fills",
        ),
        (
            "class = \"order\", per_fill = ¦0, after = 1",
            "per_fill: 0 is out of range: write a whole number from 1 to 1000000000",
        ),
        (
            "class = \"order\", per_fill = 9, after = ¦1.5",
            "after: 1.5 is not a whole number: write a whole number from 1 to 1000000000",
        ),
    ] {
        refused_in_host(&limit(text), &format!("host limits {message}"));
    }
    for (text, message) in [
        (
            "class = \"order\", per_fill = 9",
            "after: is missing: add how many orders may pass before the ratio applies, like after = 1000",
        ),
        (
            "class = \"order\", after = 1",
            "per_fill: is missing: add the most orders for each fill, like per_fill = 100",
        ),
    ] {
        refused_in_host(&format!("limits = [¦{{ {text} }}]"), &format!("host limits {message}"));
    }
    let misspelt = limit("class = \"order\", max = 1, per = \"1s\", ¦per_fil = 2");
    refused_in_host(&misspelt, "host limits: unknown key \"per_fil\": did you mean per_fill?");
}

#[test]
fn one_ratio_in_a_scope_and_a_total_beside_it() {
    let ratio = "{ class = \"order\", per_fill = 100, after = 10 }";
    let total = "{ class = \"order\", max = 10, per = \"total\" }";
    accepted(&format!("{HOST}limits = [{ratio}, {total}]\n"));
    let another = "{ class = \"order\", per_fill = 5, after = 7 }";
    let what = "host limits: a second limit for class order per fill: remove one of the two";
    refused_in_host(&format!("limits = [{ratio}, {total}, ¦{another}]"), what);
}

#[test]
fn times_of_limits() {
    let remedy = "write a whole number and ms, s, m or h, like \"500ms\" or \"3s\", or \"total\"";
    for bad in ["", "3", "s", "3 s", "1.5s", "-1s", "1m30s", "3us", "Total", "1d", "99999999999999999999s"] {
        let what = format!("host limits per: {bad:?} is not a time: {remedy}");
        refused_in_host(&format!("limits = [{{ class = \"order\", max = 1, per = ¦{bad:?} }}]"), &what);
    }
    for bad in ["0ms", "0s", "86400001ms", "25h"] {
        let what = format!("host limits per: {bad:?} is out of range: write a time from 1ms to 24h");
        refused_in_host(&format!("limits = [{{ class = \"order\", max = 1, per = ¦{bad:?} }}]"), &what);
    }
    let what = "host limits per: 3 is not a string: write a string in quotes";
    refused_in_host("limits = [{ class = \"order\", max = 1, per = ¦3 }]", what);
}

#[test]
fn warning_levels() {
    let line =
        |levels: &str| format!("limits = [{{ class = \"order\", max = 1, per = \"1s\", warn = {levels} }}]");
    for good in ["[]", "[1]", "[98, 99]", "[1, 2, 3]"] {
        accepted(&format!("{HOST}{}\n", line(good)));
    }
    for bad in ["[50, 50]", "[90, 50]", "[1, 2, 3, 4]"] {
        let what = format!(
            "host limits warn: {bad} are not valid warning levels: \
             write at most 3 percentages from 1 to 99, each above the one before"
        );
        refused_in_host(&line(&format!("¦{bad}")), &what);
    }
    let what = "host limits warn: 100 is out of range: write a whole number from 1 to 99";
    refused_in_host(&line("[50, ¦100]"), what);
    refused_in_host(&line("¦50"), "host limits warn: 50 is not an array: write a list, like [50, 75, 90]");
}

#[test]
fn number_of_limits() {
    let limit =
        |class: &str, seconds: u32| format!("{{ class = \"{class}\", max = 1, per = \"{seconds}s\" }}");
    let four = (1..=4).map(|seconds| limit("order", seconds)).collect::<Vec<_>>().join(", ");
    accepted(&format!("{HOST}limits = [{four}]\n"));
    let what = "host limits: 5 limits: keep at most 4 in a scope";
    refused_in_host(&format!("limits = ¦[{four}, {}]", limit("cancel", 1)), what);
    let what = "host limits: 4 limits and 1 of the preset: keep at most 4 in a scope";
    refused_in_host(&format!("preset = \"cme\"\nlimits = ¦[{four}]"), what);
    accepted(&format!("{HOST}preset = \"eurex-hf\"\nlimits = [{four}]\n"));
    let what = "host limits: a second limit for class order per 1m: remove one of the two";
    refused_in_host(&format!("limits = [{}, ¦{}]", limit("order", 60), limit("order", 60)), what);
    let what = "host preset: \"CBOE\" is not a preset: write \"cme\" or \"eurex-hf\" or \"eurex-lf\" or \
                \"cboe-digital\" or \"cboe-us\" or \"refinitiv\"";
    refused_in_host("preset = ¦\"CBOE\"", what);
}

#[test]
fn groups() {
    let names: String = (0..64).map(|at| format!("[[group]]\nname = \"g{at}\"\n")).collect();
    accepted(&format!("{HOST}{names}"));
    refused(&format!("{HOST}{names}¦[[group]]\nname = \"more\"\n"), &["group: 65 groups: keep at most 64"]);
    let what = "group name: is missing: add a unique name, like name = \"xnys-1\"";
    refused(&format!("{HOST}¦[[group]]\n"), &[what]);
    let what = "group name: \"a\" is the name of another group: use different names";
    refused(&format!("{HOST}[[group]]\nname = \"a\"\n[[group]]\nname = ¦\"a\"\n"), &[what]);
    let what = "group/a armed: 1 is not a boolean: write true or false, without quotes";
    refused(&format!("{HOST}[[group]]\nname = \"a\"\narmed = ¦1\n"), &[what]);
}

#[test]
fn agent() {
    let refused = |line: &str, message: &str| refused(&format!("{HOST}[agent]\n{line}\n"), &[message]);
    let what = "agent metrics: \"localhost:1\" is not an address and port: write \"127.0.0.1:9469\" \
                or \"[::1]:9469\"";
    refused("metrics = ¦\"localhost:1\"", what);
    let what = "agent state: \"var/lib\" is not an absolute path: write a path that starts with '/'";
    refused("state = ¦\"var/lib\"", what);
    refused("audit = ¦\"\"", "agent audit: \"\" is not an absolute path: write a path that starts with '/'");
    let long = format!("/{}", "x".repeat(107));
    let what = "agent control: 108 bytes are too many for a socket's path: write a path of at most 107 bytes";
    refused(&format!("control = ¦\"{long}\""), what);
    let example = "write a list, like [\"/usr/local/lib/breaker/notify\"]";
    refused("on_event = ¦\"x\"", &format!("agent on_event: \"x\" is not an array: {example}"));
    refused("on_event = ¦[]", &format!("agent on_event: it names no program: {example}"));
    let what = "agent on_event: \"notify\" is not an absolute path: write a path that starts with '/'";
    refused("on_event = [¦\"notify\"]", what);
    refused(
        "notify = ¦[\"tripped\"]",
        "agent notify: there is no program for these events: write on_event too",
    );
    accepted(&format!("{HOST}[agent]\non_event = [\"/x\", \"a b\"]\nnotify = [\"tripped\", \"warned\"]\n"));
    accepted(&format!("{HOST}[agent]\ncontrol = \"{}\"\nmetrics = \"[::1]:1\"\n", &long[..107]));
    let what = "agent metrics: 0.0.0.0:9469 is reachable from other hosts: use a loopback address unless a \
                firewall protects it";
    assert_eq!(warnings(&format!("{HOST}[agent]\nmetrics = \"0.0.0.0:9469\"\n")), [(4, 11, what.to_owned())]);
}
