//! A request to the control socket: one verb as one JSON object.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::{
    self, AttachArgs, Cli, ConfigArgs, LoadArgs, MAX_REASON, ResetArgs, StatusArgs, SwitchArgs, TripArgs,
    UnloadArgs, UpgradeArgs, Verb,
};
use crate::kernel::PinRoot;
use crate::people::ControlVerb;

/// A verb and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The verb.
    pub verb: ControlVerb,
    /// The scope; `None` for the verbs without one.
    #[serde(default)]
    pub scope: Option<String>,
    /// The reason; `None` for the verbs without one.
    #[serde(default)]
    pub reason: Option<String>,
    /// `--force`.
    #[serde(default)]
    pub force: bool,
    /// `--break-glass`.
    #[serde(default)]
    pub break_glass: bool,
    /// `--explain` of `trip`. A version without this key refuses the request, and does not trip.
    #[serde(default, skip_serializing_if = "is_false")]
    pub explain: bool,
    /// `--json`.
    #[serde(default)]
    pub json: bool,
    /// The configuration file on the user's command line; `None` for the verbs without one.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// The pin root on the user's command line; `None` for the pin root that the socket serves.
    #[serde(default)]
    pub pin_root: Option<PathBuf>,
}

impl Request {
    /// Returns the request for a command line; `None` for a verb that the socket does not serve.
    pub fn of(cli: &Cli) -> Option<Self> {
        let pin_root = Some(PinRoot::new(&cli.pin_root).path().to_owned());
        let empty = Self {
            verb: ControlVerb::Status,
            scope: None,
            reason: None,
            force: false,
            break_glass: false,
            explain: false,
            json: false,
            config: None,
            pin_root,
        };
        let switch = |verb, SwitchArgs { scope, reason, json }: &SwitchArgs| Self {
            verb,
            scope: Some(scope.clone()),
            reason: Some(fit_to_message(reason)),
            json: *json,
            ..empty.clone()
        };
        Some(match &cli.verb {
            Verb::Trip(TripArgs { scope, reason, explain, json }) => Self {
                verb: ControlVerb::Trip,
                scope: Some(scope.clone()),
                reason: Some(fit_to_message(&reason.join(OsStr::new(" ")).to_string_lossy())),
                explain: *explain,
                json: *json,
                ..empty
            },
            Verb::Ack(args) => switch(ControlVerb::Ack, args),
            Verb::Arm(args) => switch(ControlVerb::Arm, args),
            Verb::Disarm(args) => switch(ControlVerb::Disarm, args),
            Verb::Reset(ResetArgs { switch: args, force, break_glass }) => {
                Self { force: *force, break_glass: *break_glass, ..switch(ControlVerb::Reset, args) }
            }
            Verb::Status(StatusArgs { scope, json }) => Self { scope: scope.clone(), json: *json, ..empty },
            Verb::Load(LoadArgs { config: ConfigArgs { json, config }, last_if_invalid: false }) => {
                Self { verb: ControlVerb::Load, json: *json, config: Some(config.clone()), ..empty }
            }
            Verb::Reload(ConfigArgs { json, config }) => {
                Self { verb: ControlVerb::Reload, json: *json, config: Some(config.clone()), ..empty }
            }
            Verb::Upgrade(UpgradeArgs { force, json }) => {
                Self { verb: ControlVerb::Upgrade, force: *force, json: *json, ..empty }
            }
            Verb::Attach(AttachArgs { json }) => Self { verb: ControlVerb::Attach, json: *json, ..empty },
            _ => return None,
        })
    }

    /// Returns the verb of the request. The configuration is always the file of this host, never a file of
    /// the user.
    ///
    /// # Errors
    /// Describes a missing or invalid argument and the remedy.
    pub fn to_verb(&self, config: &Path) -> Result<Verb, String> {
        if self.config.as_deref().is_some_and(|asked| asked != config) {
            return Err(format!("it names another configuration: name {}", config.display()));
        }
        let scope = || self.scope.clone().ok_or("it has no scope: name one, like \"host\"".to_owned());
        let switch = || {
            let reason = cli::reason(self.reason.as_deref().unwrap_or_default());
            let reason = reason.map_err(|found| format!("its reason: {found}"))?;
            Ok::<_, String>(SwitchArgs { scope: scope()?, reason, json: self.json })
        };
        let config = || ConfigArgs { config: config.to_owned(), json: self.json };
        Ok(match self.verb {
            ControlVerb::Trip => {
                let reason = self.reason.iter().map(Into::into).collect();
                Verb::Trip(TripArgs { scope: scope()?, reason, explain: self.explain, json: self.json })
            }
            ControlVerb::Ack => Verb::Ack(switch()?),
            ControlVerb::Arm => Verb::Arm(switch()?),
            ControlVerb::Disarm => Verb::Disarm(switch()?),
            ControlVerb::Reset => {
                Verb::Reset(ResetArgs { switch: switch()?, force: self.force, break_glass: self.break_glass })
            }
            ControlVerb::Status => Verb::Status(StatusArgs { scope: self.scope.clone(), json: self.json }),
            ControlVerb::Load => Verb::Load(LoadArgs { config: config(), last_if_invalid: false }),
            ControlVerb::Reload => Verb::Reload(config()),
            ControlVerb::Upgrade => Verb::Upgrade(UpgradeArgs { force: self.force, json: self.json }),
            ControlVerb::Attach => Verb::Attach(AttachArgs { json: self.json }),
            ControlVerb::Unload => Verb::Unload(UnloadArgs { force: self.force }),
        })
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Shortens a reason so that it fits into a message. Replaces control characters, which take six bytes of
/// JSON.
fn fit_to_message(reason: &str) -> String {
    let text: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // A reason that is too long stays too long, so that the verb refuses it.
    text[..text.floor_char_boundary(MAX_REASON + 4)].to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::seqpacket::MAX_MESSAGE;

    #[test]
    fn any_reason_fits_into_a_message() {
        for reason in ["\u{1}".repeat(2000), "\"\\".repeat(1000), "ü".repeat(2000), "漢".repeat(1000)] {
            let line = ["breaker", "trip", "session/x", &format!("--reason={reason}")];
            let request = Request::of(&Cli::parse_from(line)).expect("a request");
            let length = serde_json::to_vec(&request).expect("JSON").len();
            assert!(length <= MAX_MESSAGE, "{length}");
        }
    }

    #[test]
    fn a_request_becomes_the_verb_that_was_typed() {
        for line in [
            "trip host --reason x --json",
            "trip host",
            "ack session/x --reason y",
            "arm session/x --reason y",
            "disarm group/g --reason y",
            "reset host --reason z --force --break-glass",
            "status",
            "status host --json",
            "reload --json",
            "load",
            "upgrade --force",
            "attach --json",
        ] {
            let cli = Cli::parse_from(std::iter::once("breaker").chain(line.split(' ')));
            let request = Request::of(&cli).expect("a request");
            let sent = serde_json::to_vec(&request).expect("JSON");
            let received: Request = serde_json::from_slice(&sent).expect("a request");
            let config = Path::new(crate::config::DEFAULT_PATH);
            let verb = format!("{:?}", received.to_verb(config).expect("a verb"));
            let typed = format!("{:?}", cli.verb).replace("reason: []", "reason: [\"\"]");
            assert_eq!(verb, typed, "{line}");
        }
    }
}
