//! Payload of a segment. It lies in pages, never in the linear part, so it is read by copy: `bpf_skb_load_bytes` takes any offset.

use core::hint::black_box;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_load_bytes;
use breaker_common::fix::{SIGNATURE, WINDOW, Words};
use breaker_common::stream::Payload;

use crate::packet::Packet;

/// The payload of a packet, from this offset on.
pub struct SkbPayload {
    /// The packet.
    pub skb: *mut __sk_buff,
    /// Where its payload begins.
    pub start: u32,
}

impl Payload for SkbPayload {
    #[inline(always)]
    fn window(&mut self, offset: u32, length: u32) -> Option<Words> {
        let offset = self.start.wrapping_add(offset);
        if length >= WINDOW as u32 {
            let mut window = MaybeUninit::<Words>::uninit();
            // SAFETY: the buffer is WINDOW bytes long, and whole once the helper returns 0.
            return unsafe {
                (bpf_skb_load_bytes(self.skb.cast(), offset, window.as_mut_ptr().cast(), WINDOW as u32) == 0)
                    .then(|| window.assume_init())
            };
        }
        let mut window: Words = [0; 4];
        // The verifier must see 1 to WINDOW here; what the compiler knows of `length` it would leave out.
        let length = (black_box(length).wrapping_sub(1) & (WINDOW as u32 - 1)) + 1;
        // SAFETY: `length` is at most the buffer's.
        let failed = unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, window.as_mut_ptr().cast(), length) };
        (failed == 0).then_some(window)
    }
}

/// True where a packet's payload begins like a FIX message.
#[inline(always)]
pub fn begins_like_fix(skb: *mut __sk_buff, packet: &Packet) -> bool {
    let mut bytes = MaybeUninit::<[u8; 8]>::uninit();
    if packet.segment.length < 8 {
        return false;
    }
    // SAFETY: the buffer is 8 bytes long, and whole once the helper returns 0.
    let read = unsafe {
        if bpf_skb_load_bytes(skb.cast(), packet.payload, bytes.as_mut_ptr().cast(), 8) != 0 {
            return false;
        }
        bytes.assume_init()
    };
    read.starts_with(&SIGNATURE)
}
