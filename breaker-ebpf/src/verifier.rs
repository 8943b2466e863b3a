//! The global functions that read the packet, each defined for skb and frame around one generic body.
//!
//! The verifier checks a global function once for all arguments. It follows an inlined function again for
//! each path to the call.

use core::ops::ControlFlow;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use breaker_common::abi::{Connection, Framing};

use crate::boundary::Pack;
use crate::context::{Context, Frame, Skb};
use crate::exit::Exit;
use crate::packet::{Network, Packet, Transport};
use crate::scratch::Scratch;
use crate::{judge, parse, search, walk};

/// Defines the global functions, and the methods of [`Context`] that call them. Results are packed
/// (`boundary`).
macro_rules! globals {
    ($($method:ident = $body:path, $skb:ident, $frame:ident($($name:ident: $type:ty),*) -> $result:ty;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $skb(context: *mut __sk_buff, $($name: $type),*) -> u32 {
                $body(Skb(context), $($name),*).pack()
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $frame(context: *mut xdp_md, $($name: $type),*) -> u32 {
                $body(Frame(context), $($name),*).pack()
            }
        )+

        impl Context for Skb {
            $(
                #[inline(always)]
                fn $method(self, $($name: $type),*) -> $result {
                    Pack::unpack($skb(self.0, $($name),*))
                }
            )+
        }

        impl Context for Frame {
            $(
                #[inline(always)]
                fn $method(self, $($name: $type),*) -> $result {
                    Pack::unpack($frame(self.0, $($name),*))
                }
            )+
        }
    };
}

globals! {
    parse_headers = parse::parse_headers, skb_parse_headers, frame_parse_headers
        (packet: *mut Packet) -> Result<(), Exit>;
    skip_tags = parse::tags::skip_tags, skb_skip_tags, frame_skip_tags
        () -> Result<Network, Exit>;
    skip_extensions = parse::extensions::skip_extensions, skb_skip_extensions, frame_skip_extensions
        (offset: u32, protocol: u32) -> Result<Transport, Exit>;
    joins_multipath = parse::multipath::joins_multipath, skb_joins_multipath, frame_joins_multipath
        (packet: *const Packet) -> bool;
    judge_segment = judge::judge_segment, skb_judge_segment, frame_judge_segment
        (scratch: *mut Scratch, connection: *mut Connection) -> Result<(), Exit>;
    skip_common = walk::skip_common, skb_skip_common, frame_skip_common
        (scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    walk = walk::walk, skb_walk, frame_walk
        (scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    walk_some = walk::walk_some, skb_walk_some, frame_walk_some
        (scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    step = walk::step, skb_step, frame_step
        (scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    skip_to_header = walk::skip_to_header, skb_skip_to_header, frame_skip_to_header
        (scratch: *mut Scratch, from: u32, to: u32) -> u32;
    resume_at = walk::resume_at, skb_resume_at, frame_resume_at
        (scratch: *mut Scratch, framing: *mut Framing, found: u32, to: u32) -> u32;
    find_embedded = walk::find_embedded, skb_find_embedded, frame_find_embedded
        (scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    try_embedded = walk::try_embedded, skb_try_embedded, frame_try_embedded
        (scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    find = search::find, skb_find, frame_find
        (from: u32, to: u32) -> u32;
    find_in_block = search::find_in_block, skb_find_in_block, frame_find_in_block
        (from: u32, to: u32) -> ControlFlow<u32, u32>;
}
