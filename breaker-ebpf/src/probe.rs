//! Probe frames of the agent ([`breaker_common::abi::probe`]).

use aya_ebpf::{macros::map, maps::HashMap};
use breaker_common::abi::{MAX_INTERFACES, ProbeStamp, reason};

use crate::context::Access;
use crate::exit::Exit;
use crate::{clock, policy};

/// The last stamp by interface index. User space adds the entries, so without an agent no frame is dropped.
/// The size leaves room for the old and new indexes when every interface is created again.
#[map]
static PROBES: HashMap<u32, ProbeStamp> = HashMap::with_max_entries(4 * MAX_INTERFACES as u32, 0);

/// Stamps a probe frame and returns the exit that drops it. Returns `exit`, the exit of the parser, for any
/// other packet.
#[inline(always)]
pub fn stamp(context: impl Access, exit: Exit) -> Exit {
    if !context.is_probe() {
        return exit;
    }
    let ifindex = context.ifindex();
    let Some(stamp) = PROBES.get_ptr_mut(&ifindex) else { return exit };
    // SAFETY: the pointer is to a map value. A reader that sees the new time with the old generation reads
    // again.
    unsafe { stamp.write_volatile([policy::generation(), clock::now()]) };
    Exit::drop(reason::PROBE)
}
