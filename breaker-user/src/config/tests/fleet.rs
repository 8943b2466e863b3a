//! `[fleet]`.

use std::time::Duration;

use super::{HOST, accepted, refused};
use crate::config::{EngineLoss, EngineLossAction, EtcdUrl};

const TLS: &str = "ca = \"/c\"\ncert = \"/d\"\nkey = \"/k\"";

#[test]
fn a_fleet_has_members_and_defaults() {
    let text = format!(
        "{HOST}[fleet]\nname = \"desk\"\nendpoints = [\"https://etcd-1\", \"https://[::1]:99/\"]\n{TLS}\n"
    );
    let policy = accepted(&text);
    let fleet = policy.fleet().expect("a fleet");
    let urls: Vec<_> = fleet.endpoints.iter().map(EtcdUrl::as_str).collect();
    assert_eq!(urls, ["https://etcd-1:2379", "https://[::1]:99"]);
    assert_eq!((fleet.name.as_str(), &fleet.host), ("desk", &None));
    let loss = EngineLoss { after: Duration::from_secs(5), action: EngineLossAction::Hold };
    assert_eq!(fleet.on_engine_loss, loss);
    assert_eq!(accepted(HOST).fleet(), None);
}

#[test]
fn http_is_for_loopback_only_and_https_needs_certificates() {
    for host in ["127.0.0.1", "127.9.8.7:1", "[::1]:2379", "localhost"] {
        let text = format!("{HOST}[fleet]\nname = \"d\"\nendpoints = [\"http://{host}\"]\n");
        assert_eq!(accepted(&text).fleet().expect("a fleet").tls, None);
    }
    let refused = |lines: &str, messages: &[&str]| {
        refused(&format!("{HOST}¦[fleet]\nname = \"d\"\n{lines}\n").replacen('¦', "", 1), messages);
    };
    for host in ["10.0.0.1:2379", "etcd-1", "[2001:db8::1]"] {
        let found = format!("fleet endpoints: \"http://{host}\" is neither encrypted nor on loopback: ");
        let message = format!("{found}write https:// and the keys ca, cert and key");
        refused(&format!("endpoints = [¦\"http://{host}\"]"), &[&message]);
    }
    for url in ["", "etcd-1:2379", "https://", "https://a:0", "https://a:x", "https://a b", "ftp://a"] {
        let found = format!("fleet endpoints: {url:?} is no client URL of etcd: ");
        let message = format!("{found}write a client URL, like \"https://etcd-1:2379\"");
        refused(&format!("endpoints = [¦{url:?}]"), &[&message]);
    }
}

#[test]
fn invalid_settings_of_a_fleet_are_refused() {
    let refused = |lines: &str, message: &str| {
        let fleet = "[fleet]\nname = \"d\"\nendpoints = [\"http://[::1]\"]";
        refused(&format!("{HOST}{fleet}\n{lines}\n"), &[message]);
    };
    let time = "write a whole number and s, m or h, from \"1s\" to \"24h\"";
    for after in ["1", "500ms", "25h"] {
        let message = format!("fleet on_engine_loss after: {after:?} is not such a time: {time}");
        refused(&format!("on_engine_loss = {{ after = ¦{after:?} }}"), &message);
    }
    refused(
        "on_engine_loss = { action = ¦\"holt\" }",
        "fleet on_engine_loss action: \"holt\" is not an action: write \"hold\" or \"trip\"; did you mean \
         \"hold\"?",
    );
    refused(
        "host = ¦\"a/b\"",
        "fleet host: \"a/b\" is not a name: write 1 to 63 of a-z, 0-9, '_', '.' and '-', a letter or digit \
         first",
    );
    refused("¦hosts = 1", "fleet: unknown key \"hosts\": did you mean host?");
}
