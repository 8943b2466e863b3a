//! The history of rates that an agent serves.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use breaker_tests::agent::{Agent, get};
use breaker_tests::frame::order;
use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_user::view::rates::{Rates, SessionRates};
use rustix::process::Signal;

use super::POLICY;

/// The body of an answer with this status.
#[track_caller]
fn body(answer: &str, status: &str) -> String {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

fn history(testbed: &Testbed, query: &str) -> Rates<Vec<SessionRates>> {
    let answer = get(testbed, &format!("/history{query}"));
    assert!(answer.contains("\r\ncontent-type: application/json\r\n"), "{answer}");
    serde_json::from_str(&body(&answer, "200")).expect("the rates")
}

fn session<'a>(rates: &'a Rates<Vec<SessionRates>>, name: &str) -> Option<&'a SessionRates> {
    rates.sessions.iter().find(|session| session.name == name)
}

fn sum(rates: &[Option<u32>]) -> u32 {
    rates.iter().flatten().sum()
}

#[test]
fn the_history_has_the_orders_of_each_second() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let agent = Agent::start(&testbed);
    wait_for("two samples", || session(&history(&testbed, ""), "x2")?.order.contains(&Some(0)).then_some(()));
    let _receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    // The limit is 5: the sixth order trips the session, and the limit counts five.
    for n in 1..=5 {
        stream.write_all(&order(n)).expect("sending");
    }
    stream.write_all(&order(6)).expect("sending");
    let rates = wait_for("the orders", || {
        let rates = history(&testbed, "");
        let x1 = session(&rates, "x1").expect("x1");
        (sum(&x1.order) == 5 && sum(&x1.withheld) >= 1).then_some(rates)
    });
    let x1 = session(&rates, "x1").expect("x1");
    assert!(x1.limit_permille.contains(&Some(1000)), "{x1:?}");
    let names: Vec<_> = rates.sessions.iter().map(|session| session.name.as_str()).collect();
    assert_eq!(names, ["undeclared", "x1", "x2"]);
    assert_eq!(sum(&session(&rates, "x2").expect("x2").order), 0);
    let end = rates.end.expect("an end").as_second();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the time").as_secs() as i64;
    assert!((now - 3..=now).contains(&end), "{end} at {now}");
    for session in &rates.sessions {
        let lengths = [session.order.len(), session.withheld.len(), session.limit_permille.len()];
        assert_eq!(lengths, [rates.sessions[0].order.len(); 3], "{session:?}");
    }
    let last = history(&testbed, "?seconds=2");
    assert!(last.sessions.iter().all(|session| session.order.len() == 2), "{last:?}");
    let error = body(&get(&testbed, "/history?seconds=x"), "400");
    assert!(error.contains("write seconds=N, N from 1 to 900"), "{error}");
    agent.stop();
}

#[test]
fn the_history_has_gaps_while_the_agent_is_stopped_and_follows_a_reload() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let agent = Agent::start(&testbed);
    let has_rate = |name: &str| session(&history(&testbed, ""), name)?.order.last()?.is_some().then_some(());
    wait_for("two samples", || has_rate("x2"));
    let before = history(&testbed, "").sessions[0].order.len();
    agent.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(3200));
    agent.signal(Signal::CONT);
    wait_for("a sample after the pause", || has_rate("x2"));
    let rates = history(&testbed, "");
    let gaps = rates.sessions[0].order[before..].iter().filter(|rate| rate.is_none()).count();
    assert!(gaps >= 2, "{:?}", rates.sessions[0]);

    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let path = testbed.write_config("other.toml", &text.replace("name = \"x2\"", "name = \"x9\""));
    testbed.cli(&format!("reload --config {}", path.display())).expect_exit(0);
    wait_for("the added session", || has_rate("x9"));
    let rates = history(&testbed, "");
    assert!(session(&rates, "x2").is_none(), "{rates:?}");
    let [added, kept] = ["x9", "x1"].map(|name| session(&rates, name).expect("the session"));
    assert!(added.order.iter().take_while(|rate| rate.is_none()).count() > gaps, "{added:?}");
    assert_eq!(added.order.len(), kept.order.len());
    assert!(kept.order[1..before].iter().all(|rate| *rate == Some(0)), "{kept:?}");
    agent.stop();
}
