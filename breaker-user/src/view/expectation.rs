//! Compares an attestation with an earlier one.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// The parts of an attestation that stay the same while nobody changes anything.
const STABLE: [&str; 7] = ["binary", "breaker", "programs", "policy", "host", "pins", "interfaces"];
/// Keys within these parts that a reload of the same policy or a reboot changes.
const VOLATILE: [&str; 2] = ["loaded_at", "ifindex"];

/// A difference between two attestations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Path of the value, such as `policy.sha256`.
    pub key: String,
    /// The earlier value; null if it did not exist.
    pub expected: Option<Value>,
    /// The value now; null if it does not exist.
    pub found: Option<Value>,
}

impl Difference {
    /// The difference in one line.
    pub fn line(&self) -> String {
        let side = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), text);
        format!("DIFFERENT: {}: expected {}, found {}", self.key, side(&self.expected), side(&self.found))
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Compares the stable parts of two attestations.
///
/// # Errors
/// Names the parts that the expected document does not have.
pub fn compare(expected: &Value, found: &Value) -> Result<Vec<Difference>, String> {
    let missing: Vec<_> = STABLE.into_iter().filter(|part| expected.get(part).is_none()).collect();
    if !missing.is_empty() {
        return Err(format!("it has no {}", missing.join(", no ")));
    }
    let (mut before, mut now) = (BTreeMap::new(), BTreeMap::new());
    for part in STABLE {
        flatten(part.to_owned(), &expected[part], &mut before);
        flatten(part.to_owned(), &found[part], &mut now);
    }
    let mut keys: Vec<_> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    let differing = keys.into_iter().filter(|key| before.get(*key) != now.get(*key));
    let difference = |key: &String| Difference {
        key: key.clone(),
        expected: before.get(key).cloned(),
        found: now.get(key).cloned(),
    };
    Ok(differing.map(difference).collect())
}

/// Lists the values of a document by their paths. An element of a list is named by its `name` and `mode`.
fn flatten(path: String, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(key, _)| !VOLATILE.contains(&key.as_str())) {
                flatten(format!("{path}.{key}"), value, into);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                let names = ["name", "mode"].into_iter().filter_map(|key| item[key].as_str());
                flatten(format!("{path}[{}]", names.collect::<Vec<_>>().join(" ")), item, into);
            }
        }
        value => drop(into.insert(path, value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(policy: &str, interfaces: Value, ifindex: u32) -> Value {
        let mut document = json!({ "policy": { "sha256": policy }, "interfaces": interfaces, "ok": true });
        for part in STABLE {
            document[part] = document.get(part).cloned().unwrap_or_else(|| json!({ "loaded_at": ifindex }));
        }
        document
    }

    #[test]
    fn each_difference_is_named_with_both_sides() {
        let one = json!({ "name": "eth1", "mode": "egress", "ifindex": 2, "first": true, "ahead": [] });
        let moved = json!({ "name": "eth1", "mode": "egress", "ifindex": 9, "first": false, "ahead": ["x"] });
        let before = document("aa", json!([one]), 1);
        assert_eq!(compare(&before, &document("aa", json!([one]), 2)), Ok(Vec::new()));
        let found = compare(&before, &document("bb", json!([moved]), 1)).expect("two attestations");
        let lines: Vec<_> = found.iter().map(Difference::line).collect();
        assert_eq!(
            lines,
            [
                "DIFFERENT: interfaces[eth1 egress].ahead: expected [], found [\"x\"]",
                "DIFFERENT: interfaces[eth1 egress].first: expected true, found false",
                "DIFFERENT: policy.sha256: expected aa, found bb",
            ]
        );
        let none = compare(&before, &document("aa", json!([]), 1)).expect("two attestations");
        assert!(none.iter().any(|difference| difference.found.is_some()), "{none:?}");
    }

    #[test]
    fn another_document_is_refused() {
        let found = compare(&json!({ "policy": {} }), &document("aa", json!([]), 1));
        assert_eq!(
            found,
            Err("it has no binary, no breaker, no programs, no host, no pins, no interfaces".into())
        );
    }
}
