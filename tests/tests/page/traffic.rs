//! Orders of several sessions, at rates of their own.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use breaker_tests::frame::order;
use breaker_tests::receiver::Receiver;
use breaker_tests::rng::Rng;
use breaker_tests::testbed::Testbed;

/// Time between two sends of a session.
const STEP: Duration = Duration::from_millis(100);

/// Sessions that send orders until the value is dropped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
    _venue: Vec<Receiver>,
}

impl Traffic {
    /// Starts sessions: the port of each at the venue, and about how many orders it sends a second.
    pub fn start(testbed: &Testbed, sessions: &[(u16, u64)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let venue = sessions.iter().map(|(port, _)| testbed.listen(*port)).collect();
        let sender = |&(port, rate): &(u16, u64)| {
            let (mut stream, stop) = (testbed.connect(port), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut rng = Rng(u64::from(port));
                let mut id = 0;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..rng.below(rate / 5 + 1) {
                        id += 1;
                        if stream.write_all(&order(id)).is_err() {
                            return;
                        }
                    }
                    sleep(STEP);
                }
            })
        };
        let senders = sessions.iter().map(sender).collect();
        Self { stop, senders, _venue: venue }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            let _ = sender.join();
        }
    }
}
