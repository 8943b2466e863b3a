//! The page with a keyboard, on a small screen, and for readers who do not see it.

use std::collections::BTreeSet;

use breaker_tests::require_root;
use rustix::process::Signal;
use serde_json::Value;

use crate::{Page, desk};

const AXE: &str = include_str!("../../assets/axe-core/axe.min.js");
const TAB: u32 = 9;
const ENTER: u32 = 13;

/// Asserts that axe-core finds no violation.
#[track_caller]
fn check(page: &Page, what: &str) {
    if page.browser.evaluate("typeof axe") != "object" {
        page.browser.evaluate(&format!("{AXE};0"));
    }
    let found = page.browser.evaluate(
        "axe.run(document, { resultTypes: ['violations'] }).then((found) => ({ passes: found.passes.length, \
         violations: found.violations.map((rule) => rule.id + ': ' + rule.nodes.map((node) => \
         node.html + ' ' + node.failureSummary).join(' | ')) }))",
    );
    assert!(found["passes"].as_u64().is_some_and(|passes| passes > 20), "{what}: {found}");
    assert_eq!(found["violations"], Value::Array(Vec::new()), "{what}");
}

#[test]
fn axe_finds_no_violation_in_any_state() {
    require_root!();
    let page = Page::open(&desk());
    let check_both = |state: &str| {
        for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
            page.browser.resize(width, 900, scheme);
            check(&page, &format!("{state}, {scheme}, {width}"));
        }
    };
    check_both("well");
    page.testbed.trip("session/xnys-1");
    page.testbed.switch("disarm", "group/eu-equities").expect_exit(0);
    page.browser.wait_for("document.getElementById('problems').textContent.includes('DISARMED')");
    check_both("tripped and disarmed");
    page.agent.signal(Signal::STOP);
    page.browser.wait_for("document.documentElement.classList.contains('stale')");
    check_both("old");
    page.agent.signal(Signal::CONT);
}

#[test]
fn a_phone_never_scrolls_sideways() {
    require_root!();
    let page = Page::open(&desk());
    page.testbed.trip("session/xnys-1");
    page.browser.wait_for("document.getElementById('verdict-text').textContent === 'TRIPPED: 1 scope'");
    for width in [360, 600, 768, 1021, 1061, 1261, 1280] {
        page.browser.resize(width, 740, "light");
        let found = page.browser.evaluate("document.documentElement.scrollWidth");
        assert_eq!(found, width, "the page is wider than the window");
        // Nothing is cut off either.
        let cut = page.browser.evaluate(
            "[...document.querySelectorAll('main *:not(.unseen, .unseen *, thead, thead *)')] \
             .filter((element) => element.getBoundingClientRect().right > innerWidth + 1) \
             .map((element) => element.outerHTML.slice(0, 90))",
        );
        assert_eq!(cut, Value::Array(Vec::new()), "{width}");
    }
}

#[test]
fn the_keyboard_reaches_everything_with_a_visible_focus() {
    require_root!();
    let page = Page::open(&desk());
    let browser = &page.browser;
    let mut seen = BTreeSet::new();
    let focused = "(() => { const found = document.activeElement; const style = getComputedStyle(found); \
                   return [found.id || found.textContent.slice(0, 30) || found.tagName, \
                   found === document.body, \
                   style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]; })()";
    for _ in 0..40 {
        browser.press("Tab", TAB);
        let found = browser.evaluate(focused);
        if found[1] == true {
            break;
        }
        assert_eq!(found[2], true, "the focus of {} is not visible", found[0]);
        seen.insert(found[0].as_str().expect("a name").to_owned());
    }
    let all = browser.evaluate(
        "[...document.querySelectorAll('a, button:not(:disabled), input, select, [tabindex=\"0\"]')] \
         .map((found) => found.id || found.textContent.slice(0, 30))",
    );
    let all: BTreeSet<_> = all
        .as_array()
        .expect("elements")
        .iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect();
    assert!(all.len() > 14 && all.is_subset(&seen), "{all:?} {seen:?}");
    browser.evaluate("document.querySelector('#sessions tr:nth-child(5) button').focus()");
    browser.press("Enter", ENTER);
    // A headless browser makes no click of a raw key without its character.
    browser
        .call("Input.dispatchKeyEvent", serde_json::json!({ "type": "char", "text": "\r", "key": "Enter" }));
    browser.wait_for("document.getElementById('chart-session').textContent === 'bats-1'");
    // A second later the row was drawn again, and the focus is where it was.
    browser.wait_for("document.activeElement.getAttribute('aria-pressed') === 'true'");
    let age = "parseFloat(document.getElementById('age').textContent.slice(5))";
    browser.wait_for(&format!("{age} > 0.6"));
    browser.wait_for(&format!("{age} < 0.3"));
    assert_eq!(browser.evaluate("document.activeElement.textContent"), "bats-1");
}

#[test]
fn nothing_moves_for_those_who_asked_for_no_motion() {
    require_root!();
    let page = Page::open(&desk());
    let duration = "getComputedStyle(document.querySelector('.gauge i')).transitionDuration";
    assert_eq!(page.browser.evaluate(duration), "0.25s");
    let features =
        serde_json::json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
    page.browser.call("Emulation.setEmulatedMedia", features);
    assert_eq!(page.browser.evaluate(duration), "0s");
}
