//! An allow-list at XDP like xdp-filter's (xdp-tools), to compare breaker with.
//!
//! A TCP frame over IPv4 passes if its destination port and its destination address are both listed, and is
//! dropped otherwise. Each list is a map with a hit counter for each entry. All other frames pass.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::XdpContext;

const ETH_P_IP: [u8; 2] = [0x08, 0x00];
const ETHERNET: usize = 14;
const IPPROTO_TCP: u8 = 6;

/// Listed destination ports in network order, each with its number of hits.
#[map]
static PORTS: PerCpuHashMap<u16, u64> = PerCpuHashMap::with_max_entries(1024, 0);
/// Listed destination addresses in network order, each with its number of hits.
#[map]
static ADDRESSES: PerCpuHashMap<u32, u64> = PerCpuHashMap::with_max_entries(1024, 0);

/// XDP on the inside interface of a gateway.
#[xdp]
pub fn allow(ctx: XdpContext) -> u32 {
    // SAFETY: the program's own context.
    let (data, end) = unsafe { ((*ctx.ctx).data as usize, (*ctx.ctx).data_end as usize) };
    match is_listed(data, end) {
        Some(false) => XDP_DROP,
        None | Some(true) => XDP_PASS,
    }
}

/// Returns whether the destination is listed; `None` if the frame is not TCP over IPv4.
#[inline(always)]
fn is_listed(data: usize, end: usize) -> Option<bool> {
    let ethertype: [u8; 2] = read(data, end, 12)?;
    if ethertype != ETH_P_IP {
        return None;
    }
    let [first]: [u8; 1] = read(data, end, ETHERNET)?;
    let [protocol]: [u8; 1] = read(data, end, ETHERNET + 9)?;
    if protocol != IPPROTO_TCP {
        return None;
    }
    let address = u32::from_ne_bytes(read(data, end, ETHERNET + 16)?);
    let port = u16::from_ne_bytes(read(data, end, ETHERNET + (first & 0x0f) as usize * 4 + 2)?);
    Some(count_hit(PORTS.get_ptr_mut(port)) && count_hit(ADDRESSES.get_ptr_mut(address)))
}

/// Counts a hit of a list entry, and returns whether the entry exists.
#[inline(always)]
fn count_hit(entry: Option<*mut u64>) -> bool {
    let Some(count) = entry else { return false };
    // SAFETY: this CPU's own value, valid while the program runs; a program does not move to another CPU.
    unsafe { *count += 1 };
    true
}

/// Copies `N` bytes of the frame; `None` if the frame ends before them.
#[inline(always)]
fn read<const N: usize>(data: usize, end: usize, offset: usize) -> Option<[u8; N]> {
    if data + offset + N > end {
        return None;
    }
    // SAFETY: inside the packet by the comparison above, which the verifier checks too.
    Some(unsafe { ((data + offset) as *const [u8; N]).read_unaligned() })
}

/// Never runs: nothing here panics.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
