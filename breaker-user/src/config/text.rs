//! Text types that are checked when they are parsed, and valid from then on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use breaker_common::fix;

use super::invalid::{Invalid, quoted};

/// The name of a group or a session: `[a-z0-9][a-z0-9_.-]{0,62}`. It is safe in a metric label, a path and a
/// shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name of the pseudo-session that counts undeclared connections.
    pub fn undeclared() -> Self {
        Self("undeclared".to_owned())
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let holds = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b));
        if starts && holds && text.len() <= 63 {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("{} is not a name", quoted(text)),
            "write 1 to 63 of a-z, 0-9, '_', '.' and '-', a letter or digit first",
        ))
    }
}

/// The name of a network interface, as Linux allows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface(String);

impl Interface {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // dev_valid_name() in the kernel; IFNAMSIZ includes the terminating NUL.
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(forbidden) {
            return Err(Invalid::new(
                format!("{} is not an interface name", quoted(text)),
                "write 1 to 15 bytes without '/', ':' or space, as `ip link` shows it",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A SenderCompID(49), TargetCompID(56), SenderSubID(50) or TargetSubID(57): 1 to 28 printable ASCII
/// characters.
///
/// The limit of 28 lets the field with its tag, `=` and SOH fit into the 32 bytes that the kernel program
/// reads at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompId(String);

impl CompId {
    /// Maximum length: 32 bytes less those of `49=` and SOH.
    pub const MAX: usize = 28;

    /// The value as in the message.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CompId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if (1..=Self::MAX).contains(&text.len()) && printable {
            return Ok(Self(text.to_owned()));
        }
        let found = format!("{} is not a CompID", quoted(text));
        Err(Invalid::new(found, format!("write 1 to {} printable ASCII characters", Self::MAX)))
    }
}

/// A MsgType(35): 1 to 8 printable ASCII characters without space and `=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsgType {
    text: String,
    packed: fix::MsgType,
}

impl MsgType {
    /// The value as in the message.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value packed into one word, as the kernel program compares it.
    pub fn packed(&self) -> fix::MsgType {
        self.packed
    }
}

impl FromStr for MsgType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let valid = text.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
        if let Some(packed) = fix::MsgType::new(text)
            && valid
        {
            return Ok(Self { text: text.to_owned(), packed });
        }
        let found = format!("{} is not a MsgType", quoted(text));
        Err(Invalid::new(found, "write 1 to 8 printable ASCII characters without space and '='"))
    }
}

/// The operator's name for a policy: 1 to 64 bytes of UTF-8 without control characters, the size of the map
/// field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyName(String);

impl PolicyName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PolicyName {
    fn default() -> Self {
        Self("unnamed".to_owned())
    }
}

impl FromStr for PolicyName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.trim().is_empty() || text.len() > 64 || text.contains(char::is_control) {
            let found = format!("{} is not a policy name", quoted(text));
            return Err(Invalid::new(found, "write 1 to 64 bytes of text on one line"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    /// Makes a default path, which must be absolute.
    pub(super) fn default_path(path: &'static str) -> Self {
        Self(PathBuf::from(path))
    }

    /// The path as written.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for AbsolutePath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if !text.starts_with('/') || text.len() > 4095 || text.contains(char::is_control) {
            let found = format!("{} is not an absolute path", quoted(text));
            return Err(Invalid::new(found, "write a path that starts with '/'"));
        }
        Ok(Self(PathBuf::from(text)))
    }
}

/// An account of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(u32);

impl User {
    /// The uid of the account.
    pub const fn uid(self) -> u32 {
        self.0
    }
}

impl FromStr for User {
    type Err = Invalid;

    /// Parses a uid, or a name in `/etc/passwd`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        // The kernel reserves the highest uid (`uid_valid`).
        if let Ok(uid) = text.parse::<u32>()
            && uid != u32::MAX
        {
            return Ok(Self(uid));
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let uid = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == text).then(|| fields.nth(1)?.parse().ok()).flatten()
        });
        uid.map(Self).ok_or_else(|| {
            let found = format!("there is no account {} in /etc/passwd", quoted(text));
            Invalid::new(found, "write its number, as `id -u` prints it")
        })
    }
}

/// Length of a message in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSize(u32);

impl MessageSize {
    /// Default of `longest`.
    pub const DEFAULT: Self = Self(16 * 1024);
    const MIN: u32 = 256;
    const MAX: u32 = 1 << 20;

    /// The length in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl FromStr for MessageSize {
    type Err = Invalid;

    /// Parses a whole number and a unit: `B`, `KiB` or `MiB`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "B" => Some(1),
            "KiB" => Some(1024),
            "MiB" => Some(1024 * 1024),
            _ => None,
        };
        let bytes = factor.and_then(|factor| number.parse::<u32>().ok()?.checked_mul(factor));
        match bytes {
            Some(bytes) if (Self::MIN..=Self::MAX).contains(&bytes) => Ok(Self(bytes)),
            _ => Err(Invalid::new(
                format!("{} is not a size from 256B to 1MiB", quoted(text)),
                "write a whole number and B, KiB or MiB, like \"16KiB\"",
            )),
        }
    }
}

/// Parses a whole number and a unit, `ms`, `s`, `m` (minutes) or `h`: `500ms`, `3s`, `24h`.
///
/// One unit and no fractions, so that a limit can be read aloud in an incident.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Writes the shortest text that [`duration`] parses to the same value.
pub(super) fn write_duration(f: &mut fmt::Formatter<'_>, duration: Duration) -> fmt::Result {
    let milliseconds = duration.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds.is_multiple_of(size) {
            return f.pad(&format!("{}{unit}", milliseconds / size));
        }
    }
    f.pad(&format!("{milliseconds}ms"))
}

macro_rules! display_as_str {
    ($($name:ident),+) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        })+
    };
}
display_as_str!(Name, Interface, CompId, MsgType, PolicyName);

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}
