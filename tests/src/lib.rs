//! What the tests share: a loaded breaker between namespaces, and crafted packets.
//!
//! Everything is made in namespaces without names and on a BPF file system of their own, so that nothing can be left behind.

pub mod allow;
pub mod bench;
pub mod counts;
pub mod cpu;
pub mod crowd;
pub mod dice;
pub mod empty;
pub mod frame;
pub mod fresh;
pub mod gateway;
pub mod raw;
pub mod rig;
pub mod sink;
pub mod venue;

/// True where the privileged tests can run. Without root they say so and pass: they are for `cargo xtask test`, which asks for it.
pub fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: needs root");
    }
    root
}

/// How many times slower than a processor this machine is: 1, or what `cargo xtask kernels` says of the machine that it emulates.
/// Tests take that many times fewer cases, and wait that many times longer.
pub fn slowness() -> u32 {
    std::env::var("BREAKER_TESTS_SLOWNESS")
        .map_or(1, |text| text.parse().expect("a number in BREAKER_TESTS_SLOWNESS"))
}
