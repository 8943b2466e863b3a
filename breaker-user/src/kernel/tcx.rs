//! The chains of programs that tcx runs at an interface. aya's own query opens every program in it, for which the kernel
//! wants CAP_SYS_ADMIN; their numbers are enough here, and those it tells whoever has CAP_NET_ADMIN.

use std::io;

use super::detach_link::bpf;
use super::hook::Direction;

/// Of bpf(2) (kernel `uapi/linux/bpf.h`).
const BPF_PROG_QUERY: libc::c_int = 16;
/// The kernel takes no more programs in one chain (`BPF_MPROG_MAX`).
const MOST: usize = 64;

/// The part of `union bpf_attr` that BPF_PROG_QUERY reads and writes.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The value of `enum bpf_attach_type` for a direction.
const fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::In => 46,
        Direction::Out => 47,
    }
}

/// Numbers of the programs at an interface, in the order in which they run.
pub fn chain(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MOST];
    let mut query = Query {
        target_ifindex: ifindex,
        attach_type: attach_type(direction),
        prog_ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        ..Query::default()
    };
    // SAFETY: the array has room for as many as the query says, and outlives the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut query) }?;
    Ok(ids[..(query.count as usize).min(MOST)].to_vec())
}
