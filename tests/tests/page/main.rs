//! The web page in a real browser: what it shows, what it requests, and what it costs the agent.

mod barriers;
mod pictures;
mod safety;
mod shown;
mod traffic;
mod viewers;

use breaker_tests::agent::Agent;
use breaker_tests::browser::Browser;
use breaker_tests::network::Network;
use breaker_tests::testbed::Testbed;

/// Address of the page on the host.
const PAGE: &str = "http://127.0.0.1:9469/";

/// Two groups and twelve sessions.
fn desk() -> String {
    let group = |name: &str, max: u32| {
        format!(
            "[[group]]\nname = \"{name}\"\nlimits = [{{ class = \"order\", max = {max}, per = \"1s\" }}]\n"
        )
    };
    let names = ["xnys-1", "xnys-2", "xnas-1", "xnas-2", "bats-1", "edgx-1", "arcx-1", "iexg-1"];
    let europe = ["xlon-1", "xpar-1", "xetr-1", "xswx-1"];
    let session = |(number, name): (usize, &&str)| {
        let group = if number < names.len() { "us-equities" } else { "eu-equities" };
        let (port, orders) = (9001 + number, 400 + 100 * (number % 3));
        format!(
            "[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:{port}\"\ngroups = [\"{group}\"]\nlimits = [\
             {{ class = \"order\", max = {orders}, per = \"3s\", warn = [50, 75, 90] }}, \
             {{ class = \"cancel\", max = 1000, per = \"3s\" }}]\n"
        )
    };
    let sessions: String = names.iter().chain(&europe).enumerate().map(session).collect();
    format!(
        "limits = [{{ class = \"order\", max = 5000, per = \"1s\" }}]\n{}{}{sessions}",
        group("us-equities", 2000),
        group("eu-equities", 1000)
    )
}

/// A host with an agent, and a browser on it that has opened the page and drawn a state.
struct Page {
    browser: Browser,
    agent: Agent,
    testbed: Testbed,
}

impl Page {
    fn open(policy: &str) -> Self {
        let testbed = Testbed::unloaded(policy);
        // The testbed begins the file with a table, and the name of the policy belongs before all tables.
        let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
        std::fs::write(testbed.config(), format!("policy = \"us-equities 2026-11-22.1\"\n{text}"))
            .expect("it");
        testbed.load_policy();
        let agent = Agent::start(&testbed);
        let browser = Browser::start(testbed.host());
        browser.resize(1280, 900, "light");
        browser.open(PAGE);
        browser.wait_for("performance.getEntriesByName('state').length === 1");
        Self { browser, agent, testbed }
    }
}
