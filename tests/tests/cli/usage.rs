//! Errors of usage and configuration: exit 2, all errors at once, and nothing changed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use breaker_tests::command::{self, CliOutput, breaker};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use tempfile::TempDir;

use super::POLICY;

#[test]
fn wrong_usage_ends_with_2_and_names_the_error() {
    for (args, found) in [
        (&[][..], "Usage: breaker"),
        (&["stauts"], "'status'"),
        (&["trip"], "<SCOPE>"),
        (&["trip", "--reason", "x"], "<SCOPE>"),
        (&["reset", "host"], "--reason <TEXT>"),
        (&["arm", "host", "--reason"], "a value is required"),
        (&["disarm", "host", "--reason", ""], "it is empty: write a reason"),
        (&["reset", "host", "--reason", " \t"], "it is empty: write a reason"),
        (&["trip", "host", "session/x", "--reason", "x"], "unexpected argument 'session/x'"),
        (&["status", "--jsn"], "--json"),
        (&["load", "--config"], "a value is required"),
        (&["drill", "--scenario", "night"], "knight"),
        (&["audit"], "Usage: breaker audit"),
        (&["unload", "--force=yes"], "unexpected value 'yes'"),
    ] {
        let output = breaker(args).expect_exit(2).expect_stderr(found);
        assert_eq!(output.stdout, "", "{args:?}");
    }
    let long = "x".repeat(1001);
    breaker(&["reset", "host", "--reason", &long])
        .expect_exit(2)
        .expect_stderr("it has 1001 bytes: write at most 1000");
}

#[test]
fn arguments_that_are_not_utf_8_are_wrong_usage() {
    let bytes = OsStr::from_bytes(b"session/\xff\xfe");
    for verb in ["trip", "status"] {
        let ran = command::command().arg(verb).arg(bytes).output().expect("running breaker");
        CliOutput::new(ran).expect_exit(2).expect_stderr("invalid UTF-8");
    }
    let ran = command::command().arg("check").arg("--config").arg(bytes).output().expect("running breaker");
    CliOutput::new(ran).expect_exit(2).expect_stderr("cannot be read");
}

#[test]
fn every_error_of_a_configuration_is_reported_with_its_position() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("wrong.toml");
    let text = "[host]\ninterfaces = [\"a b\"]\nmode = \"ingress\"\nhook = \"xdp\"\n\n[[session]]\nname = \
                \"x\"\nremote = \"10.0.0.1\"\npossdups = 1\n";
    std::fs::write(&file, text).expect("writing");
    let file = file.to_str().expect("UTF-8");
    for verb in ["check", "load", "agent"] {
        let mut output = breaker(&[verb, "--config", file]).expect_exit(2);
        for place in ["2:15", "3:8", "4:8", "8:10", "9:1"] {
            output = output.expect_stderr(&format!("{file}:{place}\n"));
        }
        output =
            output.expect_stderr("breaker: the configuration is refused\n").expect_stderr("hook = \"xdp\"");
        assert_eq!(output.stderr.matches("error: ").count(), 5, "{}", output.stderr);
        assert!(!output.stderr.contains('\u{1b}'), "no colour in a pipe");
        assert_eq!(output.stdout, "");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_ends_with_2() {
    for verb in ["check", "load", "agent"] {
        breaker(&[verb, "--config", "/nonexistent.toml"])
            .expect_exit(2)
            .expect_stderr("/nonexistent.toml: cannot be read");
        breaker(&[verb, "--config", "/tmp"]).expect_exit(2).expect_stderr("/tmp: cannot be read");
    }
    // The default file, on a machine without one.
    if !std::path::Path::new("/etc/breaker/breaker.toml").exists() {
        breaker(&["check"]).expect_exit(2).expect_stderr("/etc/breaker/breaker.toml: cannot be read");
    }
}

#[test]
fn a_file_that_is_not_regular_is_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let fifo = testbed.config().with_file_name("fifo");
    testbed.shell(&format!("mkfifo {}", fifo.display()));
    let link = testbed.config().with_file_name("link.toml");
    std::os::unix::fs::symlink(testbed.config(), &link).expect("a link");
    for (path, found) in [
        (fifo.as_path(), "it is a FIFO"),
        (link.as_path(), "it is a symbolic link"),
        (Path::new("/dev/zero"), "it is a character device"),
        (Path::new("/tmp"), "it is a directory"),
    ] {
        for verb in ["check", "load", "reload", "agent"] {
            testbed.cli(&format!("{verb} --config {}", path.display())).expect_exit(2).expect_stderr(found);
        }
        if path != link {
            testbed.cli(&format!("events --audit {}", path.display())).expect_exit(1).expect_stderr(found);
            testbed
                .cli(&format!("audit verify --audit {}", path.display()))
                .expect_exit(1)
                .expect_stderr(found);
        }
    }
    // The same for the audit log of a policy.
    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let text = text.replace(&format!("{:?}", testbed.audit()), &format!("{fifo:?}"));
    let config = testbed.write_config("fifo.toml", &text);
    for verb in ["check", "load", "agent"] {
        let found = format!("agent audit: {} is a FIFO: name a regular file", fifo.display());
        testbed.cli(&format!("{verb} --config {}", config.display())).expect_exit(2).expect_stderr(&found);
    }
    testbed.assert_clean();
    // A FIFO in place of the log does not prevent a trip.
    testbed.load_cli();
    testbed.shell(&format!("rm {0}; mkfifo {0}", testbed.audit().display()));
    testbed.switch("trip", "host").expect_exit(0).expect_stderr("it is a FIFO");
    testbed.switch("reset", "host").expect_exit(4).expect_stderr("it is a FIFO");
    testbed.cli("events").expect_exit(1).expect_stderr("it is a FIFO");
}

#[test]
fn a_policy_too_large_for_the_maps_is_an_error_of_the_configuration() {
    let directory = TempDir::new().expect("a directory");
    let refused = |text: &str, found: &str| {
        let file = directory.path().join("large.toml");
        std::fs::write(&file, text).expect("writing");
        for verb in ["check", "load"] {
            breaker(&[verb, "--config", file.to_str().expect("UTF-8")]).expect_exit(2).expect_stderr(found);
        }
    };
    let names: Vec<_> = (0..17).map(|n| format!("\"eth{n}\"")).collect();
    refused(&format!("[host]\ninterfaces = [{}]\n", names.join(", ")), "attaching to 17 interfaces");
    let audit = format!("/{}", "a".repeat(256));
    refused(
        &format!("[host]\ninterfaces = [\"lo\"]\n[agent]\naudit = {audit:?}\n"),
        "it has 257 bytes where 256 fit",
    );
}

#[test]
fn an_unknown_scope_lists_similar_ones_and_changes_nothing() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let scopes = || testbed.cli("status --json").expect_exit(0).json()["scopes"].clone();
    let before = scopes();
    for (scope, near) in [
        ("x1", "did you mean one of session/x1, session/x2?"),
        ("sesion/x1", "did you mean one of session/x1, session/x2?"),
        ("group/dsek", "did you mean group/desk?"),
        ("desk", "did you mean group/desk?"),
        ("HOST", "did you mean host?"),
        ("session/none-of-these", "`breaker status` lists"),
        ("session/../host", "is not in the policy"),
    ] {
        for verb in ["trip", "reset", "arm", "disarm"] {
            let output = testbed.switch(verb, scope).expect_exit(2).expect_stderr(near);
            assert_eq!(output.stdout, "");
        }
        testbed.cli(&format!("status {scope}")).expect_exit(2).expect_stderr(near);
    }
    assert_eq!(scopes(), before);
    assert!(!testbed.audit().exists(), "nothing is logged");
}
