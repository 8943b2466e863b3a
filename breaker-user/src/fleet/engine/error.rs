//! Errors of calls to the cluster, with each member's reason.

use std::error::Error as _;
use std::fmt;

use etcd_client::Error as CallError;
use tonic::{Code, Status};

/// The result of a call to the cluster.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. A later kind says more: a call has the latest kind of its members' reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No member answered.
    Unreachable,
    /// A member answered, but has no leader, or no majority confirmed.
    NoMajority,
    /// The certificate of a member or of this client is not accepted.
    Certificate,
    /// A member belongs to another cluster.
    Foreign,
    /// The lease has expired.
    LeaseLost,
    /// The cluster refused the request.
    Refused,
    /// The database of the cluster is full.
    NoSpace,
    /// The user of the certificate lacks the permission.
    Denied,
    /// An endpoint or a file is wrong; no member was asked.
    Setup,
}

impl Kind {
    /// What to do.
    const fn cure(self) -> &'static str {
        match self {
            Self::Unreachable => "check that etcd runs, and the way to its members",
            Self::NoMajority => "start the missing members: `etcdctl endpoint status --cluster` names them",
            Self::Certificate => "compare the certificates and their dates with the certificate authority's",
            Self::Foreign => "correct the endpoints, or start again if the cluster was made anew",
            Self::LeaseLost => "make a new lease",
            Self::Refused => "see the reason, and the log of etcd",
            Self::NoSpace => {
                "compact and defragment etcd, raise --quota-backend-bytes, then run `etcdctl alarm disarm`"
            }
            Self::Denied => "grant the role of this key prefix to the user that the certificate names",
            Self::Setup => "correct the configuration",
        }
    }
}

/// A failed call to the cluster.
///
/// A call that creates or changes something may still take effect if its kind is [`Kind::Unreachable`] or
/// [`Kind::NoMajority`].
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    action: String,
    reasons: Vec<(String, String)>,
}

impl Error {
    /// An error before any member was asked: the name of the wrong endpoint or file, and what was found.
    pub(super) fn setup(action: &str, name: impl fmt::Display, found: impl fmt::Display) -> Self {
        let reasons = vec![(name.to_string(), found.to_string())];
        Self { kind: Kind::Setup, action: action.to_owned(), reasons }
    }

    /// The error of a call, from the reasons of the members.
    pub(super) fn of_members(action: &str, failures: Vec<(&str, Failure)>) -> Self {
        let kind = failures.iter().map(|(_, failure)| failure.kind).max().unwrap_or(Kind::Unreachable);
        let reasons = failures.into_iter().map(|(url, failure)| (url.to_owned(), failure.reason)).collect();
        Self { kind, action: action.to_owned(), reasons }
    }

    /// Why the call failed.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.action)?;
        for (name, reason) in &self.reasons {
            write!(f, "{name}: {reason}; ")?;
        }
        f.write_str(self.kind.cure())
    }
}

impl std::error::Error for Error {}

/// Why one member did not do what was asked.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub kind: Kind,
    pub reason: String,
}

impl Failure {
    /// A failure with this reason.
    pub fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// Returns true if asking the member again cannot help.
    pub fn is_final(&self) -> bool {
        self.kind > Kind::NoMajority
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::GRpcStatus(status) => of_status(&status),
            CallError::LeaseKeepAliveError(reason) if reason == "lease not found" => {
                Self::new(Kind::LeaseLost, reason)
            }
            other => of_transport(chain(&other)),
        }
    }
}

/// Texts of etcd's client.go and rpctypes/error.go. Its codes alone do not say enough: a full database and
/// too many requests have the same code.
fn of_status(status: &Status) -> Failure {
    let message = status.message();
    if status.source().is_some() {
        return of_transport(chain(status));
    }
    let kind = match status.code() {
        _ if message.contains("database space exceeded") => Kind::NoSpace,
        _ if message.contains("auth revision") || message.contains("revision in header is old") => {
            Kind::NoMajority
        }
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::InvalidArgument if message.contains("user name") => Kind::Denied,
        Code::NotFound if message.contains("lease not found") => Kind::LeaseLost,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::Unimplemented => Kind::Refused,
        _ if message.starts_with("etcdserver:") => Kind::NoMajority,
        _ => return of_transport(message.to_owned()),
    };
    Failure::new(kind, message)
}

/// Texts of rustls for a certificate that this side or the other does not accept.
fn of_transport(reason: String) -> Failure {
    let is_certificate = ["invalid peer certificate", "received fatal alert"];
    let is_certificate = is_certificate.iter().any(|text| reason.contains(text));
    Failure::new(if is_certificate { Kind::Certificate } else { Kind::Unreachable }, reason)
}

/// The texts of an error and its causes, each once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: Code, message: &str) -> Kind {
        Failure::from(CallError::GRpcStatus(Status::new(code, message))).kind
    }

    #[test]
    fn a_full_database_is_no_overload() {
        assert_eq!(kind(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"), Kind::NoSpace);
        assert_eq!(kind(Code::ResourceExhausted, "etcdserver: too many requests"), Kind::NoMajority);
    }

    #[test]
    fn a_denied_request_is_not_asked_again() {
        let failure = Failure::from(CallError::GRpcStatus(Status::permission_denied("permission denied")));
        assert!(failure.is_final() && failure.kind == Kind::Denied);
    }

    #[test]
    fn an_election_is_waited_for() {
        assert_eq!(kind(Code::Unavailable, "etcdserver: no leader"), Kind::NoMajority);
        assert_eq!(kind(Code::Unavailable, "etcdserver: leader changed"), Kind::NoMajority);
    }

    #[test]
    fn the_error_has_each_members_reason_and_the_kind_that_says_most() {
        let failures = vec![
            ("http://a", Failure::new(Kind::Unreachable, "connection refused")),
            ("http://b", Failure::new(Kind::NoMajority, "no leader")),
        ];
        let error = Error::of_members("creating trip/all", failures);
        assert_eq!(error.kind(), Kind::NoMajority);
        let text = error.to_string();
        assert!(text.starts_with("creating trip/all: http://a: connection refused; http://b: no leader; "));
    }
}
