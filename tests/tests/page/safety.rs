//! What the page requests, and what the server refuses.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};

use crate::{PAGE, Page, desk};

/// Sends a request to the agent, and returns the whole answer.
pub fn request(testbed: &Testbed, request: &[u8]) -> String {
    let mut stream = testbed.on_host(|| TcpStream::connect("127.0.0.1:9469")).expect("connecting");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    stream.write_all(request).expect("sending the whole request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the whole answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn no_request_leaves_the_origin_and_nothing_complains() {
    require_root!();
    let page = Page::open(&desk());
    page.browser.wait_for("document.querySelectorAll('#chart-rate canvas').length === 1");
    page.browser.resize(360, 700, "dark");
    page.browser.evaluate("document.querySelector('#sessions tr:nth-child(3) button').click()");
    page.browser.wait_for("document.getElementById('chart-session').textContent === 'xnas-1'");
    let requests = page.browser.requests();
    let expected =
        ["", "page.css", "page.js", "dom.js", "uplot.js", "uplot.css", "icon.svg", "live", "history"];
    for path in expected {
        let url = format!("{PAGE}{path}");
        assert!(requests.iter().any(|found| found.split('?').next() == Some(&url)), "{url}: {requests:#?}");
    }
    let elsewhere: Vec<_> = requests.iter().filter(|url| !url.starts_with(PAGE)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert_eq!(page.browser.complaints(), Vec::<serde_json::Value>::new());
    // The policy holds: the browser itself refuses another origin and code inside the page.
    let other = "fetch('http://10.9.0.2:9001/').then(() => 'sent', () => 'refused')";
    assert_eq!(page.browser.evaluate(other), "refused");
    let inline = "(() => { const script = document.createElement('script'); \
                  script.textContent = 'window.ran = 1'; \
                  document.head.append(script); return window.ran === undefined; })()";
    assert_eq!(page.browser.evaluate(inline), true);
    let complaints = page.browser.complaints();
    assert!(complaints.len() >= 2, "{complaints:#?}");
    assert!(complaints.iter().all(|found| found.to_string().contains("Content Security Policy")));
}

#[test]
fn nothing_on_the_page_changes_anything() {
    require_root!();
    let page = Page::open(&desk());
    let forms = "document.querySelectorAll('form, [onclick], a[href^=http], [contenteditable]').length";
    assert_eq!(page.browser.evaluate(forms), 0);
    let before = page.testbed.cli("events --json").expect_exit(0).stdout;
    page.browser.evaluate("document.querySelectorAll('button').forEach((button) => button.click())");
    let methods: Vec<_> = page
        .browser
        .events("Network.requestWillBeSent")
        .iter()
        .map(|event| event["request"]["method"].as_str().expect("a method").to_owned())
        .collect();
    assert!(methods.iter().all(|method| method == "GET"), "{methods:?}");
    assert_eq!(page.testbed.cli("events --json").expect_exit(0).stdout, before);
    let refused = request(&page.testbed, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
}

#[test]
fn a_request_with_a_megabyte_of_headers_gets_a_whole_refusal() {
    require_root!();
    let page = Page::open(&desk());
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "y".repeat(1 << 20));
    for _ in 0..5 {
        let answer = request(&page.testbed, large.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431 ") && answer.ends_with("\r\n\r\n"), "{answer:?}");
    }
    assert!(request(&page.testbed, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn every_file_has_the_safe_headers_and_is_sent_again_only_if_it_changed() {
    require_root!();
    let page = Page::open(&desk());
    let policy = "content-security-policy: default-src 'self';";
    for path in ["/", "/page.js", "/page.css", "/uplot.js", "/icon.svg", "/metrics", "/nothing"] {
        let answer = request(&page.testbed, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let (head, _) = answer.split_once("\r\n\r\n").expect("a header");
        assert!(head.contains(policy) && head.contains("x-content-type-options: nosniff"), "{path}: {head}");
    }
    let first = request(&page.testbed, b"GET /page.js HTTP/1.1\r\nHost: x\r\n\r\n");
    let tag = first.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").to_owned();
    let again = format!("GET /page.js HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n");
    let answer = request(&page.testbed, again.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 304 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    let old = request(&page.testbed, b"GET /page.js HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"old\"\r\n\r\n");
    assert!(old.starts_with("HTTP/1.1 200 ") && old.len() == first.len(), "{old:.200}");
}

#[test]
fn text_from_outside_is_shown_as_text() {
    require_root!();
    let page = Page::open(&desk());
    let reason = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>";
    page.testbed.cli_args(&["trip", "session/xnys-1", "--reason", reason]).expect_exit(0);
    let shown = format!("document.getElementById('events').textContent.includes({reason:?})");
    wait_for("the reason is shown", || (page.browser.evaluate(&shown) == true).then_some(()));
    assert_eq!(page.browser.evaluate("document.querySelectorAll('#events img').length"), 0);
    assert_eq!(page.browser.complaints(), Vec::<serde_json::Value>::new());
}
