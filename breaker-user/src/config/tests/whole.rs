//! The file as a whole: all errors at once, syntax errors, rendered text, and unreadable files.

use std::fmt::Write as _;

use super::sample::SAMPLE;
use super::{HOST, accepted, refused};
use crate::config::{Diagnostic, load, parse};

#[test]
fn every_error_at_once() {
    let text = "\
schema = ¦3
¦polciy = \"x\"

[host]
interfaces = [¦\"a b\"]
mode = ¦\"ingress\"
connections = ¦1
limits = [{ class = ¦\"trade\", max = ¦0, per = ¦\"never\" }]

[agent]
state = ¦\"here\"

¦[[group]]

[[session]]
name = \"a\"
remote = [¦\"10.0.0.1\", ¦\"10.0.0.1/8:5\"]
groups = [¦\"desk\"]
¦possdups = \"pass\"

[[session]]
name = ¦\"a\"
remote = \"10.0.0.2:5\"
sender = ¦\"\"
";
    let errors = parse("breaker.toml", &text.replace('¦', "")).unwrap_err();
    let places: Vec<_> = errors.diagnostics().iter().map(|error| (error.line(), error.column())).collect();
    assert_eq!(places, super::marks(text), "{errors}");
    assert_eq!(errors.diagnostics().len(), 16);
}

#[test]
fn syntax_errors_have_their_place() {
    let what = "TOML syntax: string values must be quoted, expected literal string: correct this line";
    refused(&format!("{HOST}mode = ¦egress\n"), &[what]);
    refused(&format!("{HOST}mode = ¦egress\non_trip = ¦drop\n"), &[what, what]);
    refused(
        &format!("{HOST}¦mode\n").replace("¦mode", "mode¦"),
        &["TOML syntax: key with no value, expected `=`: correct this line"],
    );
    let what = "TOML syntax: duplicate key: correct this line";
    refused(&format!("{HOST}mode = \"egress\"\n¦mode = \"inline\"\n"), &[what]);
    refused(&format!("{HOST}¦[host]\n").replace("¦[", "[¦"), &[what]);
}

#[test]
fn lines_above_a_syntax_error_are_checked_and_nothing_is_reported_missing() {
    let syntax = "TOML syntax: string values must be quoted, expected literal string: correct this line";
    let size = "host connections: 1 is out of range: write a whole number from 64 to 4194304";
    let text =
        "[host]\nconnections = ¦1\nmode = ¦egress\non_trip = \"what\"\n[[session]]\ngroups = [\"later\"]\n";
    refused(text, &[size, syntax]);
}

#[test]
fn an_error_shows_its_line_and_a_caret() {
    let text = format!("{HOST}\tmode = \"egres\" # ü\r\n");
    let errors = parse("/etc/breaker/breaker.toml", &text).unwrap_err();
    let shown = "\
error: host mode: \"egres\" is not a mode: write \"egress\" or \"inline\"; did you mean \"egress\"?
 --> /etc/breaker/breaker.toml:3:9
  |
3 |     mode = \"egres\" # ü
  |            ^^^^^^^";
    assert_eq!(errors.to_string(), shown);
    assert!(!shown.contains('\u{1b}'));
    let coloured = errors.diagnostics().render(true);
    assert!(coloured.contains("\u{1b}["), "{coloured}");
}

#[test]
fn a_value_of_many_lines_shows_its_first() {
    let text = format!("{HOST}limits = \"\"\"\none\ntwo\"\"\"\n");
    let errors = parse("f", &text).unwrap_err();
    let shown = "\
error: host limits: \"one\\ntwo\" is not an array: write a list of limits in [ ]
 --> f:3:10
  |
3 | limits = \"\"\"
  |          ^^^";
    assert_eq!(errors.to_string(), shown);
}

#[test]
fn columns_are_characters() {
    let text = format!("{HOST}deadman = {{ after = \"3s\", \"é\" = 1 }}\n");
    let errors = parse("f", &text).unwrap_err();
    let place = errors.diagnostics().iter().map(|error| (error.line(), error.column())).collect::<Vec<_>>();
    assert_eq!(place, [(3, 27)]);
    let text = format!("policy = \"é\" ; \n{HOST}");
    let errors = parse("f", &text).unwrap_err();
    assert_eq!(errors.diagnostics().iter().map(Diagnostic::column).collect::<Vec<_>>(), [14], "{errors}");
}

#[test]
fn line_ends_and_byte_order_marks_do_not_matter() {
    let policy = accepted(&format!("\u{feff}{}", SAMPLE.replace('\n', "\r\n")));
    assert_eq!(policy.host(), accepted(SAMPLE).host());
    assert_eq!(policy.sessions(), accepted(SAMPLE).sessions());
}

#[test]
fn the_most_sessions_and_one_more() {
    let mut text = HOST.to_owned();
    for at in 0..4_000 {
        let (high, low) = (at / 256, at % 256);
        write!(text, "[[session]]\nname = \"s{at}\"\nremote = \"10.0.{high}.{low}:9001\"\n").unwrap();
    }
    assert_eq!(accepted(&text).sessions().len(), 4_000);
    text.push_str("[[session]]\nname = \"more\"\nremote = \"10.1.0.0:9001\"\n");
    let errors = parse("f", &text).unwrap_err();
    assert!(errors.to_string().starts_with("error: session: 4001 sessions: keep at most 4000\n"), "{errors}");
    assert_eq!(errors.diagnostics().iter().map(Diagnostic::line).collect::<Vec<_>>(), [12_003]);
}

#[test]
fn a_file_in_another_format_does_not_list_an_error_for_every_line() {
    let errors = parse("f", &"a\n".repeat(20_000)).unwrap_err();
    let listed: Vec<_> = errors.diagnostics().iter().collect();
    assert_eq!(listed.len(), 5_001);
    assert_eq!(listed[5_000].message(), "configuration: 15000 more errors: correct the errors above first");
}

#[test]
fn files() {
    let directory = std::env::temp_dir().join(format!("breaker-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("breaker.toml");
    std::fs::write(&file, SAMPLE).unwrap();
    let loaded = load(&file).unwrap();
    assert_eq!(loaded.path, file);
    assert_eq!(loaded.policy.sha256(), accepted(SAMPLE).sha256());

    std::fs::write(&file, b"policy = \"\xffx\"\n").unwrap();
    let errors = load(&file).unwrap_err();
    let [error] = errors.diagnostics().iter().collect::<Vec<_>>()[..] else { panic!("{errors}") };
    assert_eq!(error.message(), "configuration: bytes that are not UTF-8: save the file as UTF-8");
    assert_eq!((error.line(), error.column()), (1, 11));

    std::fs::remove_dir_all(&directory).unwrap();
    let errors = load(&file).unwrap_err();
    let shown = format!(
        "error: configuration {}: cannot be read: No such file or directory (os error 2): \
         name a regular file that you may read with --config",
        file.display()
    );
    assert_eq!(errors.to_string(), shown);
    let errors = load("/dev/zero".as_ref()).unwrap_err();
    assert!(errors.to_string().contains("/dev/zero: cannot be read: it is a character device"), "{errors}");
    // A file of 1 TiB, and a FIFO without a writer.
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let errors = load(&file).unwrap_err();
    assert!(errors.to_string().contains("is longer than 4 MiB: "), "{errors}");
    std::fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let errors = load(&file).unwrap_err();
    assert!(errors.to_string().contains("cannot be read: it is a FIFO"), "{errors}");
    std::fs::remove_dir_all(&directory).unwrap();
}
