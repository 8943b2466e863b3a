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

/// The requests of one user.
struct User {
    since: Instant,
    logged: u32,
    omitted: u64,
    /// Requests that are served: each may be denied and logged.
    pending: u32,
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
    /// Begins a request, and returns whether it is logged if it is denied.
    pub fn begin(&mut self, uid: u32, now: Instant) -> Logging {
        let is_kept =
            |user: &User| user.omitted != 0 || user.pending != 0 || now.duration_since(user.since) < WINDOW;
        self.users.retain(|_, user| is_kept(user));
        let user = self.users.entry(uid).or_insert(User { since: now, logged: 0, omitted: 0, pending: 0 });
        if now.duration_since(user.since) >= WINDOW {
            (user.since, user.logged) = (now, 0);
        }
        let is_logged = user.logged + user.pending < MAX_LOGGED;
        user.pending += 1;
        // The first line of a minute has the number of requests without a line before it.
        match user.logged {
            _ if !is_logged => Logging::Omit,
            0 => Logging::Log(user.omitted),
            _ => Logging::Log(0),
        }
    }

    /// Ends a request. Returns true for the first denied request of a user that was not logged.
    pub fn end(&mut self, uid: u32, logging: Logging, is_denied: bool) -> bool {
        let Some(user) = self.users.get_mut(&uid) else { return false };
        user.pending = user.pending.saturating_sub(1);
        match logging {
            _ if !is_denied => false,
            Logging::Log(omitted) => {
                user.logged += 1;
                user.omitted = user.omitted.saturating_sub(omitted);
                false
            }
            Logging::Omit => {
                user.omitted += 1;
                user.omitted == 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_denied_requests_of_a_user_are_logged_in_a_minute_and_the_others_are_counted() {
        let (mut denials, start) = (Denials::default(), Instant::now());
        let mut deny = |uid, now| {
            let logging = denials.begin(uid, now);
            (logging, denials.end(uid, logging, true))
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
        // Requests at the same time are no more than others.
        let all: Vec<_> = (0..MAX_LOGGED + 5).map(|_| denials.begin(9, start)).collect();
        assert_eq!(all.iter().filter(|logging| **logging == Logging::Omit).count(), 5);
    }
}
