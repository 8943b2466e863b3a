//! Limits how many denied requests of a user are logged, so that no user can fill the disk or hide an event
//! among denied requests.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Most logged denied requests of a user within [`WINDOW`].
const MAX_LOGGED: u32 = 20;
/// Length of the interval of [`MAX_LOGGED`].
const WINDOW: Duration = Duration::from_secs(60);

/// The denied requests of each user.
#[derive(Default)]
pub struct Denials {
    users: HashMap<u32, User>,
}

/// The denied requests of one user.
struct User {
    since: Instant,
    logged: u32,
    omitted: u64,
}

/// Whether the next denied request of a user is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logging {
    /// The request is logged, with the number of earlier requests that were not logged.
    Log(u64),
    /// The request is not logged.
    Omit,
}

impl Denials {
    /// Returns whether a denied request that a user sends now is logged.
    pub fn logging(&self, uid: u32, now: Instant) -> Logging {
        match self.users.get(&uid) {
            Some(user) if now.duration_since(user.since) >= WINDOW => Logging::Log(user.omitted),
            Some(user) if user.logged >= MAX_LOGGED => Logging::Omit,
            _ => Logging::Log(0),
        }
    }

    /// Counts a denied request. Returns true for the first request of a user that was not logged.
    pub fn count(&mut self, uid: u32, logging: Logging, now: Instant) -> bool {
        self.users.retain(|_, user| user.omitted != 0 || now.duration_since(user.since) < WINDOW);
        let user = self.users.entry(uid).or_insert(User { since: now, logged: 0, omitted: 0 });
        if now.duration_since(user.since) >= WINDOW {
            (user.since, user.logged) = (now, 0);
        }
        match logging {
            Logging::Log(omitted) => {
                user.logged += 1;
                user.omitted = user.omitted.saturating_sub(omitted);
            }
            Logging::Omit => user.omitted += 1,
        }
        logging == Logging::Omit && user.omitted == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_denied_requests_of_a_user_are_logged_in_a_minute_and_the_others_are_counted() {
        let (mut denials, start) = (Denials::default(), Instant::now());
        let mut deny = |uid, now| {
            let logging = denials.logging(uid, now);
            (logging, denials.count(uid, logging, now))
        };
        for _ in 0..MAX_LOGGED {
            assert_eq!(deny(7, start), (Logging::Log(0), false));
        }
        assert_eq!(deny(7, start), (Logging::Omit, true));
        assert_eq!(deny(7, start), (Logging::Omit, false));
        assert_eq!(deny(8, start), (Logging::Log(0), false), "another user");
        assert_eq!(deny(7, start + WINDOW), (Logging::Log(2), false));
        assert_eq!(deny(7, start + WINDOW), (Logging::Log(0), false));
        assert_eq!(deny(7, start + 3 * WINDOW), (Logging::Log(0), false));
    }
}
