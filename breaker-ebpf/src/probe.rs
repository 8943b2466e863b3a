//! Probe frames of the agent ([`breaker_common::abi::probe`]).

use aya_ebpf::{macros::map, maps::HashMap};
use breaker_common::abi::{MAX_INTERFACES, ProbeStamp, reason};

use crate::context::Access;
use crate::exit::Exit;
use crate::{clock, policy};

/// The last stamp by interface number. User space adds the entries: without an agent no frame is dropped.
/// There is room for the numbers before and after every interface was made again.
#[map]
static PROBES: HashMap<u32, ProbeStamp> = HashMap::with_max_entries(4 * MAX_INTERFACES as u32, 0);

/// Stamps a probe frame. Returns the exit of a packet that is not TCP, and that the parser lets go with
/// `exit`.
#[inline(always)]
pub fn stamp(context: impl Access, exit: Exit) -> Exit {
    if !context.is_probe() {
        return exit;
    }
    let ifindex = context.ifindex();
    let Some(stamp) = PROBES.get_ptr_mut(&ifindex) else { return exit };
    // SAFETY: words of a map value. A reader that sees the new time with the old generation reads again.
    unsafe { stamp.write_volatile([policy::generation(), clock::now()]) };
    Exit::drop(reason::PROBE)
}
