//! Takes the terminal over as `breaker top` does, and panics in another thread.

use std::thread;
use std::time::Duration;

use breaker_user::top::terminal::Screen;

fn main() {
    let _screen = Screen::open().expect("a terminal");
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(500));
        panic!("a panic in a thread");
    });
    thread::sleep(Duration::from_secs(60));
}
