//! Programs that pass every packet: the cost of a hook alone, as the zero of a measurement.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// tc verdict: continue with the next program (`TCX_NEXT`).
const NEXT: i32 = -1;

/// Passes every packet at tc.
#[classifier]
pub fn egress(_: TcContext) -> i32 {
    NEXT
}

/// Passes every packet at tc with `TC_ACT_OK`. The later programs of the chain do not run.
#[classifier]
pub fn pass(_: TcContext) -> i32 {
    0
}

/// Passes every frame at XDP.
#[xdp]
pub fn inline(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Never runs: nothing here panics.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
