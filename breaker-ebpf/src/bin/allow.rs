//! An allow-list in the manner of xdp-filter (xdp-tools): a frame of TCP in IPv4 passes where its destination's port and address are
//! both listed, each in a map with a count of hits, and is dropped else. What comparing breaker with less takes.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::XdpContext;

const ETH_P_IP: [u8; 2] = [0x08, 0x00];
const ETHERNET: usize = 14;
const IPPROTO_TCP: u8 = 6;

/// Ports that may be reached, as in the packet, and how often they were.
#[map]
static PORTS: PerCpuHashMap<u16, u64> = PerCpuHashMap::with_max_entries(1024, 0);
/// Addresses that may be reached, as in the packet, and how often they were.
#[map]
static ADDRESSES: PerCpuHashMap<u32, u64> = PerCpuHashMap::with_max_entries(1024, 0);

/// XDP on the inside interface of a gateway.
#[xdp]
pub fn allow(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel's own structure, valid for the length of the call.
    let (data, end) = unsafe { ((*ctx.ctx).data as usize, (*ctx.ctx).data_end as usize) };
    match listed(data, end) {
        Some(false) => XDP_DROP,
        // Not TCP in IPv4, or listed.
        None | Some(true) => XDP_PASS,
    }
}

/// Whether the destination is listed; nothing where the frame is not TCP in IPv4.
#[inline(always)]
fn listed(data: usize, end: usize) -> Option<bool> {
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
    Some(hit(PORTS.get_ptr_mut(port)) && hit(ADDRESSES.get_ptr_mut(address)))
}

#[inline(always)]
fn hit(found: Option<*mut u64>) -> bool {
    let Some(count) = found else { return false };
    // SAFETY: this CPU's own value, which the map keeps alive; a program is not moved to another CPU.
    unsafe { *count += 1 };
    true
}

#[inline(always)]
fn read<const N: usize>(data: usize, end: usize, offset: usize) -> Option<[u8; N]> {
    if data + offset + N > end {
        return None;
    }
    // SAFETY: inside the packet, as just compared (the verifier checks it again).
    Some(unsafe { ((data + offset) as *const [u8; N]).read_unaligned() })
}

/// Nothing here panics.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
