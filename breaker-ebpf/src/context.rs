//! The packet's context: an skb at tc or a frame at XDP. All differences between the two are here.
//!
//! The verifier must know the type of a global function's context argument. `verifier` therefore defines each
//! global function that reads the packet twice, and [`Context`] calls the right one.

use core::hint::black_box;
use core::mem::MaybeUninit;
use core::ops::ControlFlow;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{
    bpf_check_mtu, bpf_get_socket_uid, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_xdp_load_bytes,
};
use breaker_common::abi::{Connection, Framing, probe};
use breaker_common::fix::{CHUNK, Chunk};

use crate::exit::Exit;
use crate::packet::{Network, Packet, Transport};
use crate::scratch::Scratch;
use crate::shared_pages;

/// Access to a packet.
pub trait Access: Copy {
    /// Most messages of the common layout that one call skips: as many as most packets hold.
    const MAX_SKIPS: u32;
    /// Returns the frame, if this host only forwards the packet.
    fn forwarded(self) -> Option<Frame>;
    /// Returns the addresses of the linear part's start and end.
    ///
    /// The loads are volatile: LLVM may else reuse an earlier load, and widen the pointer by a 32-bit
    /// move that loses it ("R2 invalid mem access 'scalar'", 6.1 and 6.18).
    fn bounds(self) -> (usize, usize);
    /// Returns the packet's length in bytes.
    fn length(self) -> u32;
    /// Returns the number of segments on the wire for `payload` bytes of payload, at least 1.
    fn wire_segments(self, payload: u32) -> u32;
    /// Makes the first `bytes` bytes linear, and returns whether they are. The bounds change.
    fn make_linear(self, bytes: u32) -> bool;
    /// Returns the number of the packet's interface.
    fn ifindex(self) -> u32;
    /// Returns true for a probe frame of the agent.
    fn is_probe(self) -> bool;
    /// Returns the account of the sending socket; [`Connection::NO_USER`] if it is unknown.
    fn socket_uid(self) -> u32;
    /// Returns true if not all bytes before this offset are linear.
    fn is_paged(self, offset: u32) -> bool;
    /// Returns true if the sender may still change the payload ([`shared_pages`]).
    fn has_shared_pages(self) -> bool;
    /// Copies `bytes` bytes, at least one, into a buffer, and returns whether the packet has them.
    ///
    /// # Safety
    /// The buffer has `bytes` bytes.
    unsafe fn load(self, offset: u32, to: *mut u8, bytes: u32) -> bool;

    /// Reads a whole chunk.
    #[inline(always)]
    fn chunk(self, offset: u32) -> Option<Chunk> {
        self.copy_chunk(offset)
    }

    /// Copies a whole chunk.
    #[inline(always)]
    fn copy_chunk(self, offset: u32) -> Option<Chunk> {
        let mut chunk = MaybeUninit::<Chunk>::uninit();
        // SAFETY: the buffer is CHUNK bytes long, and initialised if the load succeeds.
        unsafe { self.load(offset, chunk.as_mut_ptr().cast(), CHUNK as u32).then(|| chunk.assume_init()) }
    }
}

/// The global functions of a context, defined in `verifier`.
pub trait Context: Access {
    /// `parse::parse_headers`
    fn parse_headers(self, packet: *mut Packet) -> Result<(), Exit>;
    /// `parse::tags::skip_tags`
    fn skip_tags(self) -> Result<Network, Exit>;
    /// `parse::extensions::skip_extensions`
    fn skip_extensions(self, offset: u32, protocol: u32) -> Result<Transport, Exit>;
    /// `parse::multipath::joins_multipath`
    fn joins_multipath(self, packet: *const Packet) -> bool;
    /// `judge::judge_segment`
    fn judge_segment(self, scratch: *mut Scratch, connection: *mut Connection) -> Result<(), Exit>;
    /// `walk::skip_common`
    fn skip_common(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// `walk::walk`
    fn walk(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// `walk::walk_some`
    fn walk_some(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// `walk::step`
    fn step(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// `walk::skip_to_header`
    fn skip_to_header(self, scratch: *mut Scratch, from: u32, to: u32) -> u32;
    /// `walk::resume_at`
    fn resume_at(self, scratch: *mut Scratch, framing: *mut Framing, found: u32, to: u32) -> u32;
    /// `walk::find_embedded`
    fn find_embedded(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// `walk::try_embedded`
    fn try_embedded(self, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32;
    /// `search::find`
    fn find(self, from: u32, to: u32) -> u32;
    /// `search::find_in_block`
    fn find_in_block(self, from: u32, to: u32) -> ControlFlow<u32, u32>;
}

/// A packet at tc.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

/// A frame at XDP.
#[derive(Clone, Copy)]
pub struct Frame(pub *mut xdp_md);

impl Access for Skb {
    const MAX_SKIPS: u32 = 32;

    #[inline(always)]
    fn forwarded(self) -> Option<Frame> {
        None
    }

    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: the program's own context.
        unsafe {
            (
                (&raw const (*self.0).data).read_volatile() as usize,
                (&raw const (*self.0).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn length(self) -> u32 {
        // SAFETY: the program's own context.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn wire_segments(self, payload: u32) -> u32 {
        // SAFETY: the program's own context.
        let (segments, size) = unsafe { ((*self.0).gso_segs, (*self.0).gso_size) };
        // A packet from a virtual machine may have a segment size and no number of segments.
        let by_size = if size == 0 { 1 } else { payload.div_ceil(size) };
        segments.max(by_size)
    }

    #[inline(always)]
    fn make_linear(self, bytes: u32) -> bool {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_skb_pull_data(self.0, self.length().min(bytes)) == 0 }
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: the program's own context.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    fn is_probe(self) -> bool {
        // SAFETY: the program's own context.
        let (protocol, mark, from) =
            unsafe { ((*self.0).protocol, (*self.0).mark, (*self.0).ingress_ifindex) };
        // A frame that came in proves nothing about the way out.
        protocol == probe::ETHERTYPE.to_be() as u32 && mark == probe::MARK && from == 0
    }

    #[inline(always)]
    fn socket_uid(self) -> u32 {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_get_socket_uid(self.0) }
    }

    #[inline(always)]
    fn is_paged(self, offset: u32) -> bool {
        let (start, end) = self.bounds();
        start + offset as usize > end
    }

    #[inline(always)]
    fn has_shared_pages(self) -> bool {
        shared_pages::has_shared_pages(self.0)
    }

    #[inline(always)]
    unsafe fn load(self, offset: u32, to: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller promises the buffer.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to.cast(), bytes) == 0 }
    }
}

impl Frame {
    /// Returns the MTU, if the frame is longer: a virtual machine on this host has left the segmentation to
    /// the receiver.
    #[inline(always)]
    fn exceeded_mtu(self) -> Option<u32> {
        let mut mtu = 0;
        // SAFETY: a helper on the program's own context; interface 0 is the frame's own.
        let exceeded = unsafe { bpf_check_mtu(self.0.cast(), 0, &raw mut mtu, 0, 0) != 0 };
        exceeded.then_some(mtu)
    }

    /// Returns true if the frame holds several segments.
    #[inline(always)]
    pub fn is_merged(self) -> bool {
        self.exceeded_mtu().is_some()
    }
}

impl Access for Frame {
    const MAX_SKIPS: u32 = 12;

    #[inline(always)]
    fn forwarded(self) -> Option<Frame> {
        Some(self)
    }

    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: the program's own context.
        unsafe {
            (
                (&raw const (*self.0).data).read_volatile() as usize,
                (&raw const (*self.0).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn length(self) -> u32 {
        // The frame has one linear buffer: a program without BPF_F_XDP_HAS_FRAGS gets no others (kernel
        // `dev_xdp_install`).
        let (start, end) = self.bounds();
        // Without the black box the compiler subtracts in 32 bits: "32-bit pointer arithmetic prohibited"
        // (all kernels).
        black_box(end - start) as u32
    }

    #[inline(always)]
    fn wire_segments(self, payload: u32) -> u32 {
        let Some(mtu) = self.exceeded_mtu() else { return 1 };
        /// Bytes of an IPv4 and a TCP header without options, the fewest of a segment.
        const HEADERS: u32 = 40;
        let size = if mtu > HEADERS { mtu - HEADERS } else { 1 };
        payload.div_ceil(size).max(1)
    }

    #[inline(always)]
    fn make_linear(self, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: the program's own context.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Returns false: a frame that this host makes does not pass its own XDP program.
    #[inline(always)]
    fn is_probe(self) -> bool {
        false
    }

    #[inline(always)]
    fn socket_uid(self) -> u32 {
        Connection::NO_USER
    }

    #[inline(always)]
    fn is_paged(self, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn has_shared_pages(self) -> bool {
        false
    }

    #[inline(always)]
    unsafe fn load(self, offset: u32, to: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller promises the buffer.
        unsafe { bpf_xdp_load_bytes(self.0, offset, to.cast(), bytes) == 0 }
    }

    /// Reads the chunk in place, for a frame is linear.
    #[inline(always)]
    fn chunk(self, offset: u32) -> Option<Chunk> {
        /// The verifier tracks packet offsets up to 65,535 (kernel `verifier.c`, MAX_PACKET_OFF).
        const MAX_OFFSET: u32 = 0xffff - CHUNK as u32;
        let offset = black_box(offset);
        if offset > MAX_OFFSET {
            return self.copy_chunk(offset);
        }
        let (start, end) = self.bounds();
        let from = start + offset as usize;
        if from + CHUNK > end {
            return None;
        }
        // SAFETY: inside the packet by the comparison above, which the verifier checks too; the read needs no
        // alignment.
        Some(unsafe { (from as *const Chunk).read_unaligned() })
    }
}
