//! A flood of orders of a tripped session. A frame that the hook does not drop counts as leaked.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::{Frame, order};
use breaker_tests::packet_socket::PacketSocket;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// Frames between two pauses of a millisecond.
const BURST: u32 = 20;

/// The counts of a flood.
#[derive(Default)]
pub struct Flood {
    stop: AtomicBool,
    /// Frames that the hook dropped.
    pub withheld: AtomicU64,
    /// Frames that the hook let through.
    pub leaked: AtomicU64,
}

impl Flood {
    /// Runs a function while the flood is sent. Returns its result, and the numbers of withheld and of leaked
    /// frames.
    pub fn during<R>(testbed: &Testbed, body: impl FnOnce(&Self) -> R) -> (R, u64, u64) {
        let flood = Self::default();
        std::thread::scope(|threads| {
            threads.spawn(|| flood.send(testbed));
            // A panic of the body must end the flood too, or the scope never joins its thread.
            let done = catch_unwind(AssertUnwindSafe(|| body(&flood)));
            flood.stop.store(true, Ordering::Relaxed);
            let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (done, flood.withheld.load(Ordering::Relaxed), flood.leaked.load(Ordering::Relaxed))
        })
    }

    /// Returns the number of frames leaked so far.
    pub fn leaked(&self) -> u64 {
        self.leaked.load(Ordering::Relaxed)
    }

    fn send(&self, testbed: &Testbed) {
        let firm = &testbed.network.firm;
        let from = "10.9.0.1:40000".parse().expect("an address");
        let frame = Frame::new(from, TwoHosts::venue_socket(9001), 1, &order(1)).bytes();
        let mut socket = None;
        while !self.stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1));
            if socket.is_none() && firm.index("eth1").is_ok() {
                // The interface may be removed after the check.
                socket = catch_unwind(AssertUnwindSafe(|| PacketSocket::send_only(firm, "eth1"))).ok();
            }
            let Some(open) = &socket else { continue };
            // SAFETY: the socket outlives the borrow.
            let descriptor = unsafe { BorrowedFd::borrow_raw(open.as_raw_fd()) };
            for _ in 0..BURST {
                match send(descriptor, &frame, SendFlags::empty()) {
                    Ok(_) => drop(self.leaked.fetch_add(1, Ordering::Relaxed)),
                    Err(Errno::NOBUFS) => drop(self.withheld.fetch_add(1, Ordering::Relaxed)),
                    // The interface is down or removed.
                    Err(_) => {
                        socket = None;
                        break;
                    }
                }
            }
        }
    }
}
