//! The chain of tcx programs of an interface. The query of aya opens every program, for which the kernel
//! requires CAP_SYS_ADMIN. This query reads program ids alone, for which CAP_NET_ADMIN is enough.

use std::io;

use super::detach_link::bpf;
use super::direction::Direction;

/// Command of bpf(2) (kernel `uapi/linux/bpf.h`).
const BPF_PROG_QUERY: libc::c_int = 16;
/// Programs in one chain at most (kernel `BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;

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
        Direction::Ingress => 46,
        Direction::Egress => 47,
    }
}

/// The chain of programs of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Ids of the programs, in the order in which they run.
    pub programs: Vec<u32>,
    /// Ids of their links; 0 for a program without a link.
    pub links: Vec<u32>,
    /// Number that the kernel raises with each attachment, detachment and replacement in the chain. It
    /// restarts with the first program of an empty chain.
    pub revision: u64,
}

/// Returns the chain of programs of an interface.
pub fn chain(ifindex: u32, direction: Direction) -> io::Result<Chain> {
    let (mut programs, mut links) = ([0u32; MAX_PROGRAMS], [0u32; MAX_PROGRAMS]);
    let mut query = Query {
        target_ifindex: ifindex,
        attach_type: attach_type(direction),
        prog_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    // SAFETY: the arrays have room for `count` ids, and outlive the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut query) }?;
    let count = (query.count as usize).min(MAX_PROGRAMS);
    let first = |ids: [u32; MAX_PROGRAMS]| ids[..count].to_vec();
    Ok(Chain { programs: first(programs), links: first(links), revision: query.revision })
}
