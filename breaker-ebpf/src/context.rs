//! Where a packet is: an skb at tc, or a frame at XDP. All that differs between the two is here.
//!
//! The verifier checks a *global* function once and not once a way to it, but it must know the type of its context. So those that
//! touch the packet are declared once for each, around one generic body.

use core::hint::black_box;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{
    bpf_check_mtu, bpf_get_socket_uid, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_xdp_load_bytes,
};
use breaker_common::abi::Connection;
use breaker_common::abi::Framing;
use breaker_common::fix::{CHUNK, Chunk};

use crate::forwarded;
use crate::packet::{self, Packet};
use crate::pages;
use crate::payload;
use crate::scratch::{self, Scratch};

/// A packet in the kernel's hands.
pub trait Access: Copy {
    /// Where its linear part begins and ends.
    fn bounds(self) -> (usize, usize);
    /// Bytes of it in all.
    fn length(self) -> u32;
    /// Segments that it will leave as, with so many bytes of payload.
    fn segments(self, payload: u32) -> u32;
    /// Makes its first bytes linear.
    fn pull(self, bytes: u32) -> bool;
    /// The interface that it passes.
    fn interface(self) -> u32;
    /// The account of the socket that sends it; [`Connection::NO_USER`] where that is not known.
    fn uid(self) -> u32;
    /// IPv4's TTL, or IPv6's hop limit, where it is forwarded by this host; else 0.
    fn hops(self, packet: &Packet) -> u32;
    /// Messages that are hopped over at once: as many as most packets hold.
    fn max_skips(self) -> u32;
    /// True where not all bytes before this offset are in its linear part.
    #[inline(always)]
    fn is_paged(self, offset: u32) -> bool {
        let (start, end) = self.bounds();
        start + offset as usize > end
    }
    /// True where its sender may still change its payload ([`crate::pages`]).
    fn is_shared(self) -> bool;
    /// True where it is forwarded and will not get to its peer, or not be taken there ([`crate::forwarded`]).
    fn is_lost(self, scratch: *mut Scratch, connection: *const Connection) -> bool;
    /// Copies bytes of it, at least one, into a buffer.
    ///
    /// # Safety
    /// The buffer has room for them.
    unsafe fn load(self, offset: u32, to: *mut u8, bytes: u32) -> bool;

    /// A whole window of it, from here on.
    #[inline(always)]
    fn chunk(self, offset: u32) -> Option<Chunk> {
        self.copied(offset)
    }

    /// The same, by copy.
    #[inline(always)]
    fn copied(self, offset: u32) -> Option<Chunk> {
        let mut window = MaybeUninit::<Chunk>::uninit();
        // SAFETY: the buffer is CHUNK bytes long, and whole once they are loaded.
        unsafe { self.load(offset, window.as_mut_ptr().cast(), CHUNK as u32).then(|| window.assume_init()) }
    }
}

/// And its global functions.
pub trait Context: Access {
    /// [`packet::parse_headers`].
    fn parse_headers(self, packet: *mut Packet) -> u32;
    /// [`packet::step_over_tags`].
    fn step_over_tags(self) -> u32;
    /// [`packet::step_over_extensions`].
    fn step_over_extensions(self, offset: u32, protocol: u32) -> u32;
    /// [`packet::joins_multipath`].
    fn joins_multipath(self, packet: *const Packet) -> u32;
    /// [`crate::judge_segment`].
    fn judge_segment(self, scratch: *mut Scratch, connection: *mut Connection) -> u32;
    /// [`scratch::skip_common`].
    fn skip_common(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// [`scratch::walk`].
    fn walk(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// [`scratch::walk_some`].
    fn walk_some(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// [`scratch::step`].
    fn step(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// [`scratch::skip_to_header`].
    fn skip_to_header(self, scratch: *mut Scratch, from: u32, to: u32) -> u32;
    /// [`scratch::resume_at`].
    fn resume_at(self, scratch: *mut Scratch, framing: *mut Framing, found: u32, to: u32) -> u32;
    /// [`scratch::find_embedded`].
    fn find_embedded(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// [`payload::find`].
    fn find(self, from: u32, to: u32) -> u32;
    /// [`payload::find_in_chunk`].
    fn find_in_chunk(self, from: u32, to: u32) -> u32;
}

/// At tc.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

/// At XDP.
#[derive(Clone, Copy)]
pub struct Frame(pub *mut xdp_md);

/// Declares the global functions of a context, and its methods that call them.
macro_rules! globals {
    ($context:ident($raw:ty): $($method:ident as $global:ident($($name:ident: $type:ty),*) is $body:path;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $global(context: $raw, $($name: $type),*) -> u32 {
                $body($context(context), $($name),*)
            }
        )+

        impl Context for $context {
            $(
                #[inline(always)]
                fn $method(self, $($name: $type),*) -> u32 {
                    $global(self.0, $($name),*)
                }
            )+
        }
    };
}

globals! {
    Skb(*mut __sk_buff):
    parse_headers as skb_parse_headers(packet: *mut Packet) is packet::parse_headers;
    step_over_tags as skb_step_over_tags() is packet::step_over_tags;
    step_over_extensions as skb_step_over_extensions(offset: u32, protocol: u32) is packet::step_over_extensions;
    joins_multipath as skb_joins_multipath(packet: *const Packet) is packet::joins_multipath;
    judge_segment as skb_judge_segment(scratch: *mut Scratch, connection: *mut Connection) is crate::judge_segment;
    skip_common as skb_skip_common(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::skip_common;
    walk as skb_walk(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::walk;
    walk_some as skb_walk_some(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::walk_some;
    step as skb_step(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::step;
    skip_to_header as skb_skip_to_header(scratch: *mut Scratch, from: u32, to: u32) is scratch::skip_to_header;
    resume_at as skb_resume_at(scratch: *mut Scratch, framing: *mut Framing, found: u32, to: u32) is scratch::resume_at;
    find_embedded as skb_find_embedded(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::find_embedded;
    find as skb_find(from: u32, to: u32) is payload::find;
    find_in_chunk as skb_find_in_chunk(from: u32, to: u32) is payload::find_in_chunk;
}

impl Access for Skb {
    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: fields of the program's own context.
        unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    #[inline(always)]
    fn length(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn segments(self, payload: u32) -> u32 {
        // SAFETY: as above.
        let (segments, size) = unsafe { ((*self.0).gso_segs, (*self.0).gso_size) };
        // What a virtual machine hands over may say how large they are and not how many.
        let by_size = if size == 0 { 1 } else { payload.div_ceil(size) };
        segments.max(by_size)
    }

    #[inline(always)]
    fn pull(self, bytes: u32) -> bool {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_skb_pull_data(self.0, self.length().min(bytes)) == 0 }
    }

    #[inline(always)]
    fn interface(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    fn uid(self) -> u32 {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_get_socket_uid(self.0) }
    }

    #[inline(always)]
    fn max_skips(self) -> u32 {
        32
    }

    #[inline(always)]
    fn hops(self, _: &Packet) -> u32 {
        0
    }

    #[inline(always)]
    fn is_shared(self) -> bool {
        pages::are_shared(self.0)
    }

    #[inline(always)]
    fn is_lost(self, _: *mut Scratch, _: *const Connection) -> bool {
        false
    }

    #[inline(always)]
    unsafe fn load(self, offset: u32, to: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller vouches for the buffer.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to.cast(), bytes) == 0 }
    }
}

globals! {
    Frame(*mut xdp_md):
    parse_headers as frame_parse_headers(packet: *mut Packet) is packet::parse_headers;
    step_over_tags as frame_step_over_tags() is packet::step_over_tags;
    step_over_extensions as frame_step_over_extensions(offset: u32, protocol: u32) is packet::step_over_extensions;
    joins_multipath as frame_joins_multipath(packet: *const Packet) is packet::joins_multipath;
    judge_segment as frame_judge_segment(scratch: *mut Scratch, connection: *mut Connection) is crate::judge_segment;
    skip_common as frame_skip_common(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::skip_common;
    walk as frame_walk(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::walk;
    walk_some as frame_walk_some(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::walk_some;
    step as frame_step(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::step;
    skip_to_header as frame_skip_to_header(scratch: *mut Scratch, from: u32, to: u32) is scratch::skip_to_header;
    resume_at as frame_resume_at(scratch: *mut Scratch, framing: *mut Framing, found: u32, to: u32) is scratch::resume_at;
    find_embedded as frame_find_embedded(scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) is scratch::find_embedded;
    find as frame_find(from: u32, to: u32) is payload::find;
    find_in_chunk as frame_find_in_chunk(from: u32, to: u32) is payload::find_in_chunk;
}

impl Frame {
    /// True where it is longer than any frame of its interface: a neighbour in memory has left it to others to segment.
    #[inline(always)]
    pub fn is_merged(self) -> bool {
        let mut mtu = 0;
        // SAFETY: a helper on the program's own context; interface 0 is the one it came by.
        unsafe { bpf_check_mtu(self.0.cast(), 0, &raw mut mtu, 0, 0) != 0 }
    }
}

impl Access for Frame {
    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: fields of the program's own context.
        unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    #[inline(always)]
    fn length(self) -> u32 {
        // A frame of one buffer is all linear. Programs that do not say so get no others (kernel `dev_xdp_install`).
        let (start, end) = self.bounds();
        // In 64 bits: the verifier knows no half pointers.
        black_box(end - start) as u32
    }

    #[inline(always)]
    fn segments(self, payload: u32) -> u32 {
        let mut mtu = 0;
        // SAFETY: a helper on the program's own context; interface 0 is the one it came by.
        if unsafe { bpf_check_mtu(self.0.cast(), 0, &raw mut mtu, 0, 0) } == 0 {
            return 1;
        }
        // Merged: as many as an IPv4 and a TCP header without options leave room for.
        const HEADERS: u32 = 40;
        let size = if mtu > HEADERS { mtu - HEADERS } else { 1 };
        payload.div_ceil(size).max(1)
    }

    #[inline(always)]
    fn pull(self, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn interface(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn uid(self) -> u32 {
        Connection::NO_USER
    }

    #[inline(always)]
    fn max_skips(self) -> u32 {
        12
    }

    #[inline(always)]
    fn hops(self, packet: &Packet) -> u32 {
        packet::hops(self, packet)
    }

    #[inline(always)]
    fn is_paged(self, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn is_shared(self) -> bool {
        false
    }

    #[inline(always)]
    fn is_lost(self, scratch: *mut Scratch, connection: *const Connection) -> bool {
        forwarded::is_lost(self, scratch, connection)
    }

    #[inline(always)]
    unsafe fn load(self, offset: u32, to: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller vouches for the buffer.
        unsafe { bpf_xdp_load_bytes(self.0, offset, to.cast(), bytes) == 0 }
    }

    /// In place: a frame is all linear.
    #[inline(always)]
    fn chunk(self, offset: u32) -> Option<Chunk> {
        /// The verifier follows no offsets of 64 KiB and more.
        const MOST: u32 = 0xffff - CHUNK as u32;
        let offset = black_box(offset);
        if offset > MOST {
            return self.copied(offset);
        }
        let (start, end) = self.bounds();
        let from = start + offset as usize;
        if from + CHUNK > end {
            return None;
        }
        // SAFETY: inside the packet, as just compared (the verifier checks it again), and of alignment 1.
        Some(unsafe { (from as *const Chunk).read_unaligned() })
    }
}
