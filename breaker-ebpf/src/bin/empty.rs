//! A program that does nothing: what the others' cost is measured against.
#![no_std]
#![no_main]

use aya_ebpf::{macros::classifier, programs::TcContext};

/// Lets every packet pass.
#[classifier]
pub fn egress(_: TcContext) -> i32 {
    -1
}

/// Nothing here panics.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
