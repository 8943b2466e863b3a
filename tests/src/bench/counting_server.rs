//! A venue that counts bytes, or echoes them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use breaker_user::testbed::{Namespace, TwoHosts};

use super::alternative::PORT;
use crate::cpu::pin_to_cpu;

/// Number of received bytes.
pub struct CountingServer(Arc<AtomicU64>);

/// CPU of the echo.
const ECHO_CPU: usize = 1;

impl CountingServer {
    /// Listens at the venue and serves one connection after the other. With `echo` all bytes go back, from
    /// [`ECHO_CPU`].
    pub fn listen(venue: &Namespace, echo: bool) -> Self {
        let listener = venue.run(|| TcpListener::bind(TwoHosts::venue_socket(PORT))).expect("listening");
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        venue.spawn(move || {
            // An echo on the sender's own CPU answers in a third of the time.
            if echo {
                pin_to_cpu(ECHO_CPU);
            }
            let mut buffer = vec![0; 1 << 18];
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nodelay(true).expect("setting TCP_NODELAY");
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if echo && stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                    counted.fetch_add(length as u64, Ordering::Release);
                }
            }
        });
        Self(count)
    }

    /// Number of bytes received.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Waits until that many bytes are received, for at most 60 s.
    pub fn wait(&self, bytes: u64) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.bytes() < bytes {
            assert!(Instant::now() < until, "{} of {bytes} bytes arrived", self.bytes());
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}
