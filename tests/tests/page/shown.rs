//! What the page shows, and when.

use std::io::Write;
use std::time::{Duration, Instant};

use breaker_tests::agent::{Agent, state};
use breaker_tests::frame::order;
use breaker_tests::many_sessions::policy;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_tests::{require_root, slowness};
use rustix::process::Signal;
use serde_json::Value;

use crate::{PAGE, Page, desk};

/// Longest time from a trip to its words on the page.
const SHOWN: Duration = Duration::from_secs(2);
/// Longest time to the first paint, ms.
const PAINTED: f64 = 200.0;

#[test]
fn a_trip_is_shown_in_words_within_two_seconds() {
    require_root!();
    let page = Page::open(&desk());
    assert_eq!(page.browser.text("verdict-text"), "Armed and passing");
    assert!(page.browser.text("problems").contains("NOTHING"));
    page.testbed.trip("group/us-equities");
    let tripped = Instant::now();
    page.browser.wait_for("document.getElementById('verdict-text').textContent === 'TRIPPED: 1 scope'");
    let waited = tripped.elapsed();
    println!("shown after {waited:?}");
    assert!(waited < SHOWN * slowness(), "{waited:?}");
    let problems = page.browser.text("problems");
    for words in ["TRIPPED", "group/us-equities", "cause manual", "breaker reset group/us-equities --reason"]
    {
        assert!(problems.contains(words), "{words}: {problems}");
    }
    assert!(page.browser.text("sessions").contains("TRIPPED by group/us-equities"));
    let announced = page.browser.text("announce");
    assert!(announced.contains("TRIPPED: 1 scope") && announced.contains("group/us-equities"), "{announced}");
    let title = page.browser.evaluate("document.title");
    assert!(title.as_str().is_some_and(|title| title.starts_with("TRIPPED: 1 scope")), "{title}");
    page.browser.wait_for("document.getElementById('events').textContent.includes('tripped')");
    page.testbed.reset("group/us-equities");
    page.browser.wait_for("document.getElementById('verdict-text').textContent === 'Armed and passing'");
}

#[test]
fn a_warning_is_shown_until_someone_acknowledges_it() {
    require_root!();
    let page = Page::open(&desk());
    let _venue = page.testbed.listen(9001);
    let mut stream = page.testbed.connect(9001);
    // The limit is 400, and its first warning level is at 50 %.
    for number in 0..210 {
        stream.write_all(&order(number)).expect("sending");
    }
    page.browser.wait_for("document.getElementById('problems').textContent.includes('WARNED')");
    let problems = page.browser.text("problems");
    for words in ["session/xnys-1", "warning level 1", "breaker ack session/xnys-1 --reason"] {
        assert!(problems.contains(words), "{words}: {problems}");
    }
    assert_eq!(page.browser.text("verdict-text"), "Armed and passing");
    page.testbed.switch("ack", "session/xnys-1").expect_exit(0);
    page.browser.wait_for("!document.getElementById('problems').textContent.includes('WARNED')");
}

#[test]
fn figures_of_a_stopped_agent_are_greyed_in_words_and_come_back() {
    require_root!();
    let page = Page::open(&desk());
    let ink = "getComputedStyle(document.body).color";
    let before = page.browser.evaluate(ink);
    page.agent.signal(Signal::STOP);
    let stopped = Instant::now();
    page.browser.wait_for("document.documentElement.classList.contains('stale')");
    let waited = stopped.elapsed();
    assert!(waited > Duration::from_secs(1) && waited < Duration::from_secs(4) * slowness(), "{waited:?}");
    assert_ne!(page.browser.evaluate(ink), before, "the text has another colour");
    assert_eq!(page.browser.text("verdict-text"), "Last known: Armed and passing");
    let words = page.browser.text("stale");
    assert!(words.contains("s old") && words.contains("run breaker status"), "{words}");
    page.agent.signal(Signal::CONT);
    page.browser.wait_for("!document.documentElement.classList.contains('stale')");
    assert_eq!(page.browser.evaluate(ink), before);
    assert_eq!(page.browser.text("verdict-text"), "Armed and passing");
}

#[test]
fn the_page_reconnects_to_an_agent_that_was_started_again() {
    require_root!();
    let Page { browser, agent, testbed } = Page::open(&desk());
    agent.stop();
    browser.wait_for("document.documentElement.classList.contains('stale')");
    testbed.trip("host");
    let agent = Agent::start(&testbed);
    browser.wait_for("document.getElementById('verdict-text').textContent === 'TRIPPED: 1 scope'");
    agent.stop();
}

#[test]
fn a_thousand_sessions_paint_at_once_and_only_one_page_of_rows_exists() {
    require_root!();
    let page = Page::open(&policy(1_000, 64));
    let browser = &page.browser;
    let paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
    let state = "performance.getEntriesByName('state')[0].startTime";
    let times = (0..5).map(|_| {
        browser.open(PAGE);
        browser.wait_for("performance.getEntriesByName('state').length === 1");
        browser.wait_for(&format!("{paint} > 0"));
        [paint, state].map(|of| browser.evaluate(of).as_f64().expect("a time"))
    });
    let [painted, drawn] = times.reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1])]).expect("a time");
    println!("1,000 sessions: first paint after {painted:.0} ms, figures after {drawn:.0} ms");
    assert!(painted < PAINTED * f64::from(slowness()), "{painted} ms");
    let rows = "document.querySelectorAll('#sessions > tr').length";
    assert_eq!(browser.evaluate(rows), 25);
    assert!(browser.text("sessions-pages").starts_with("1–25 of 1,001"));
    browser.evaluate("document.querySelector('#sessions-pages button:last-child').click()");
    assert!(browser.text("sessions-pages").starts_with("26–50 of 1,001"));
    browser.evaluate("document.getElementById('filter').focus()");
    browser.write("s99");
    browser.wait_for(&format!("{rows} === 11"));
    assert!(browser.text("sessions").contains("s999"));
    browser.write("zzz");
    browser.wait_for(&format!("{rows} === 0"));
    assert_eq!(browser.text("sessions-none"), "No session matches the filter.");
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
}

#[test]
fn the_hashes_and_the_attachment_are_those_of_verify() {
    require_root!();
    let page = Page::open(&desk());
    let verified = page.testbed.cli("verify --json").json();
    page.browser.wait_for("!document.getElementById('attest').textContent.includes('being hashed')");
    let shown = page.browser.text("attest");
    for (part, key) in
        [("binary", "sha256"), ("binary", "object_sha256"), ("policy", "sha256"), ("breaker", "program_tag")]
    {
        let value = verified[part][key].as_str().expect("a hash");
        assert!(value.len() >= 16 && shown.contains(value), "{part} {key} {value}: {shown}");
    }
    assert!(shown.contains("attached, first in its chain, pinned"), "{shown}");
    assert!(page.browser.text("failures").contains("table full"));
}

#[test]
fn the_page_has_the_status_of_the_command_line() {
    require_root!();
    let testbed = Testbed::load(&desk());
    testbed.switch("disarm", "group/eu-equities").expect_exit(0);
    testbed.trip("session/xnys-1");
    let agent = Agent::start(&testbed);
    // The agent's own findings follow its first check.
    wait_for("the agent reports the disarmed group", || {
        (state(&testbed)["status"]["enforced"]["ok"] == false).then_some(())
    });
    // The agent writes its first line and reads the log independently of its first check.
    wait_for("the page has the events of both verbs and of the agent's start", || {
        let shown = state(&testbed);
        let kinds = shown["events"].as_array().expect("events").iter().map(|event| event["kind"].as_str());
        kinds.eq(["agent_started", "tripped", "disarmed"].map(Some)).then_some(())
    });
    let shown = state(&testbed);
    let status = testbed.status_json().0;
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&shown["status"]), keys(&status));
    for part in ["scopes", "sessions", "policy", "interfaces", "failure_policy", "enforced"] {
        assert_eq!(shown["status"][part], status[part], "{part}");
    }
    assert_eq!(shown["status"]["sessions"][1]["groups"], serde_json::json!(["us-equities"]));
    agent.stop();
}

#[test]
fn the_figures_of_the_charts_are_in_a_table_too() {
    require_root!();
    let page = Page::open(&desk());
    let _traffic = crate::traffic::Traffic::start(&page.testbed, &[(9001, 50)]);
    page.browser.wait_for("document.querySelectorAll('#sessions tr')[0].textContent.includes('passing')");
    page.browser.evaluate("document.querySelector('#sessions button').click()");
    page.browser.wait_for(
        "[...document.querySelectorAll('#chart-figures td:nth-child(2)')] \
         .some((cell) => Number(cell.textContent) > 0)",
    );
}
