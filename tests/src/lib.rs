//! The test kit: breaker on hosts that are network namespaces, crafted packets, and peers that record what
//! arrives.
//!
//! Namespaces have no names, and each has a BPF file system of its own. Both end with the test, so that
//! nothing is left behind.

pub mod agent;
pub mod allow_list;
pub mod bench;
pub mod browser;
pub mod certificates;
pub mod cli;
pub mod command;
pub mod confined;
pub mod cpu;
pub mod empty_program;
pub mod etcd;
pub mod frame;
pub mod gateway;
pub mod instructions;
pub mod many_sessions;
pub mod network;
pub mod other_layout;
pub mod packaged_host;
pub mod packet_socket;
pub mod pcap_file;
pub mod receiver;
pub mod rng;
pub mod root;
pub mod sequence;
pub mod test_run;
pub mod testbed;
pub mod tmux;
pub mod traffic;
pub mod user_tcp;
pub mod users;
pub mod venue;

/// How many times slower than a processor this machine is: 1, or the number in `BREAKER_TESTS_SLOWNESS`.
/// `cargo xtask kernels` sets the variable for an emulated machine. Tests then take that many times fewer
/// cases and wait that many times longer.
///
/// # Panics
/// If the variable holds no number.
pub fn slowness() -> u32 {
    std::env::var("BREAKER_TESTS_SLOWNESS")
        .map_or(1, |text| text.parse().expect("BREAKER_TESTS_SLOWNESS must be a number"))
}
