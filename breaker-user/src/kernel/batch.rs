//! Walks over a hash map, a thousand entries a system call. aya asks for one key and then for its value: of a full connection table that
//! is most of the time that `status` takes. And it begins anew where a key that it stands at is removed; here nothing is met twice.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;
use bytemuck::Pod;

use super::detach_link::bpf;

/// Of bpf(2) (kernel `uapi/linux/bpf.h`), since Linux 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Entries that are asked for at once.
const AT_ONCE: usize = 1024;

/// The part of `union bpf_attr` that BPF_MAP_LOOKUP_BATCH reads and writes.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Hands out every entry of a hash map whose keys and values are of these types. One that is added or removed meanwhile may be among
/// them or not.
pub fn walk<K: Pod, V: Pod>(map: &MapData, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
    let mut keys = vec![K::zeroed(); AT_ONCE];
    let mut values = vec![V::zeroed(); AT_ONCE];
    // Where the kernel goes on: the number of a bucket.
    let (mut from, mut to) = (0u32, 0u32);
    let mut begun = false;
    loop {
        let mut batch = Batch {
            in_batch: if begun { &raw const from as u64 } else { 0 },
            out_batch: &raw mut to as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len() as u32,
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the arrays have room for as many as are asked for, and all that is pointed at outlives the call.
        let found = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) };
        let is_end = match found.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => false,
            Err((Some(libc::ENOENT), _)) => true,
            // One bucket has more than that.
            Err((Some(libc::ENOSPC), _)) => {
                keys.resize(2 * keys.len(), K::zeroed());
                values.resize(keys.len(), V::zeroed());
                continue;
            }
            Err((_, error)) => return Err(error),
        };
        keys.iter().zip(&values).take(batch.count as usize).for_each(|(key, value)| each(key, value));
        if is_end {
            return Ok(());
        }
        (from, begun) = (to, true);
    }
}
