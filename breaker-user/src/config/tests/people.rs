//! `[people]`.

use super::super::parse_people;
use super::{HOST, accepted, refused};
use crate::config::Person;

#[test]
fn people_are_users_and_groups_by_name_or_number() {
    let text =
        "[people]\noperators = [\"root\", \"70001\"]\nrisk = [\"%root\", \"%70001\"]\ntwo_person = true\n";
    let policy = accepted(&format!("{HOST}{text}"));
    let people = policy.people();
    assert_eq!(people.operators, [Person::User("root".to_owned()), Person::User("70001".to_owned())]);
    assert_eq!(people.operators.iter().map(Person::id).collect::<Vec<_>>(), [Some(0), Some(70_001)]);
    assert_eq!(people.risk.iter().map(Person::id).collect::<Vec<_>>(), [Some(0), Some(70_001)]);
    assert_eq!(people.risk[0], Person::Group("root".to_owned()));
    assert!(people.two_person && people.barred.is_empty());
    assert_eq!(accepted(HOST).people(), &Default::default());
}

#[test]
fn invalid_people_are_refused() {
    let refused = |line: &str, message: &str| refused(&format!("{HOST}[people]\n{line}\n"), &[message]);
    let unknown = "people risk: there is no account \"no-such-user\" in /etc/passwd: write its number, as \
                   `id -u` prints it";
    refused("risk = [¦\"no-such-user\"]", unknown);
    let unknown =
        "people barred: there is no group \"no-such-group\" in /etc/group: write '%' and its number";
    refused("barred = [¦\"%no-such-group\"]", unknown);
    let remedy = "write a user or its number, like \"ann\", or a group with '%', like \"%risk\"";
    for text in ["", "%", "a b", "a:b", "a,b", "%%a"] {
        let found = format!("people operators: {text:?} is no user and no group: {remedy}");
        refused(&format!("operators = [¦{text:?}]"), &found);
    }
    let highest = "people risk: there is no account \"4294967295\" in /etc/passwd: write its number, as \
                   `id -u` prints it";
    refused("risk = [¦\"4294967295\"]", highest);
    let list = "people risk: \"ann\" is not an array: write a list, like [\"ann\", \"%trading\"]";
    refused("risk = ¦\"ann\"", list);
    refused("¦two_persons = true", "people: unknown key \"two_persons\": did you mean two_person?");
}

#[test]
fn parse_people_ignores_the_rest_of_a_file() {
    // A removed account, and a key that this version does not know, must not disable the control socket.
    let text = "[host]\nfuture = 1\n[people]\nrisk = [\"no-such-user\", \"70001\"]\n";
    let people = parse_people(text).expect("people");
    assert_eq!(people.risk.iter().map(Person::id).collect::<Vec<_>>(), [None, Some(70_001)]);
    assert_eq!(parse_people("").expect("people"), Default::default());
    for invalid in ["[people", "[people]\nbarred = \"x\"", "[people]\nbarrd = []", "people = 1"] {
        assert!(parse_people(invalid).is_err(), "{invalid}");
    }
}
