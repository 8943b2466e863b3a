//! Usage and configuration errors: exit 2, everything that is wrong at once, nothing changed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use breaker_tests::privileged;
use breaker_tests::rig::{self, Rig};
use tempfile::TempDir;

use super::host::{Host, POLICY, Said, breaker};

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    for (args, found) in [
        (&[][..], "Usage: breaker"),
        (&["stauts"], "'status'"),
        (&["trip"], "<SCOPE>"),
        (&["trip", "--reason", "x"], "<SCOPE>"),
        (&["reset", "host"], "--reason <TEXT>"),
        (&["arm", "host", "--reason"], "a value is required"),
        (&["disarm", "host", "--reason", ""], "it is empty: say why"),
        (&["reset", "host", "--reason", " \t"], "it is empty: say why"),
        (&["trip", "host", "session/x", "--reason", "x"], "unexpected argument 'session/x'"),
        (&["status", "--jsn"], "--json"),
        (&["load", "--config"], "a value is required"),
        (&["drill", "--scenario", "night"], "knight"),
        (&["audit"], "Usage: breaker audit"),
        (&["unload", "--force=yes"], "unexpected value 'yes'"),
    ] {
        let said = breaker(args).expect_exit(2).because(found);
        assert_eq!(said.out, "", "{args:?}");
    }
    let long = "x".repeat(1001);
    breaker(&["reset", "host", "--reason", &long])
        .expect_exit(2)
        .because("it has 1001 bytes: write at most 1000");
}

#[test]
fn bytes_that_are_no_text_are_wrong_usage_and_no_panic() {
    let bytes = OsStr::from_bytes(b"session/\xff\xfe");
    for verb in ["trip", "status"] {
        let ran = rig::command().arg(verb).arg(bytes).output().expect("running breaker");
        Said::of(ran).expect_exit(2).because("invalid UTF-8");
    }
    let ran = rig::command().arg("check").arg("--config").arg(bytes).output().expect("running breaker");
    Said::of(ran).expect_exit(2).because("cannot be read");
}

#[test]
fn every_error_of_a_configuration_is_told_at_once_with_its_place() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("wrong.toml");
    let text = "[host]\ninterfaces = [\"a b\"]\nmode = \"ingress\"\nhook = \"xdp\"\n\n[[session]]\nname = \"x\"\nremote = \"10.0.0.1\"\npossdups = 1\n";
    std::fs::write(&file, text).expect("writing");
    let file = file.to_str().expect("UTF-8");
    for verb in ["check", "load", "agent"] {
        let mut said = breaker(&[verb, "--config", file]).expect_exit(2);
        for place in ["2:15", "3:8", "4:8", "8:10", "9:1"] {
            said = said.because(&format!("{file}:{place}\n"));
        }
        said = said.because("breaker: the configuration is refused\n").because("hook = \"xdp\"");
        assert_eq!(said.err.matches("error: ").count(), 5, "{}", said.err);
        assert!(!said.err.contains('\u{1b}'), "no colour in a pipe");
        assert_eq!(said.out, "");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_ends_with_2() {
    for verb in ["check", "load", "agent"] {
        breaker(&[verb, "--config", "/nonexistent.toml"])
            .expect_exit(2)
            .because("/nonexistent.toml: cannot be read");
        breaker(&[verb, "--config", "/tmp"]).expect_exit(2).because("/tmp: cannot be read");
    }
    // The usual file, on a machine that has none.
    if !std::path::Path::new("/etc/breaker/breaker.toml").exists() {
        breaker(&["check"]).expect_exit(2).because("/etc/breaker/breaker.toml: cannot be read");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let fifo = rig.config().with_file_name("fifo");
    rig.shell(&format!("mkfifo {}", fifo.display()));
    let link = rig.config().with_file_name("link.toml");
    std::os::unix::fs::symlink(rig.config(), &link).expect("a link");
    for (path, found) in [
        (fifo.as_path(), "it is a FIFO"),
        (link.as_path(), "it is a symbolic link"),
        (Path::new("/dev/zero"), "it is a character device"),
        (Path::new("/tmp"), "it is a directory"),
    ] {
        for verb in ["check", "load", "reload", "agent"] {
            rig.types(&format!("{verb} --config {}", path.display())).expect_exit(2).because(found);
        }
        if path != link {
            rig.types(&format!("events --audit {}", path.display())).expect_exit(1).because(found);
            rig.types(&format!("audit verify --audit {}", path.display())).expect_exit(1).because(found);
        }
    }
    // And as the log of a policy.
    let text = std::fs::read_to_string(rig.config()).expect("the configuration");
    let text = text.replace(&format!("{:?}", rig.audit()), &format!("{fifo:?}"));
    let config = rig.configure("fifo.toml", &text);
    for verb in ["check", "load", "agent"] {
        let found = format!("agent audit: {} is a FIFO: name a regular file", fifo.display());
        rig.types(&format!("{verb} --config {}", config.display())).expect_exit(2).because(&found);
    }
    rig.is_clean();
    // One that took the log's place keeps no trip back.
    rig.load();
    rig.shell(&format!("rm {0}; mkfifo {0}", rig.audit().display()));
    rig.switch("trip", "host").expect_exit(0).because("it is a FIFO");
    rig.switch("reset", "host").expect_exit(4).because("it is a FIFO");
    rig.types("events").expect_exit(1).because("it is a FIFO");
}

#[test]
fn what_does_not_fit_the_maps_is_an_error_of_the_configuration() {
    let directory = TempDir::new().expect("a directory");
    let refused = |text: &str, found: &str| {
        let file = directory.path().join("large.toml");
        std::fs::write(&file, text).expect("writing");
        for verb in ["check", "load"] {
            breaker(&[verb, "--config", file.to_str().expect("UTF-8")]).expect_exit(2).because(found);
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
fn an_unknown_scope_lists_the_near_ones_and_changes_nothing() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    let scopes = || rig.types("status --json").expect_exit(0).json()["scopes"].clone();
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
            let said = rig.switch(verb, scope).expect_exit(2).because(near);
            assert_eq!(said.out, "");
        }
        rig.types(&format!("status {scope}")).expect_exit(2).because(near);
    }
    assert_eq!(scopes(), before);
    assert!(!rig.audit().exists(), "nothing to tell");
}
