//! Programs that do nothing: what the others' cost is measured against.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Lets every packet pass.
#[classifier]
pub fn egress(_: TcContext) -> i32 {
    -1
}

/// Lets every frame pass.
#[xdp]
pub fn inline(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Nothing here panics.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
