//! Reads a hash map with BPF_MAP_LOOKUP_BATCH, a thousand entries a system call. aya reads a key and then its
//! value, which is most of the time of `status` on a full connection table. aya also starts again if its
//! current key is removed. Here no entry is read twice.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;
use bytemuck::Pod;

use super::detach_link::bpf;

/// Command of bpf(2) (kernel `uapi/linux/bpf.h`), since Linux 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Entries a system call.
const BATCH_SIZE: usize = 1024;

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

/// Calls `visit` for every entry of a hash map. The types must be those of the map's keys and values. An
/// entry that is added or removed meanwhile may be among them or not.
pub fn for_each<K: Pod, V: Pod>(map: &MapData, mut visit: impl FnMut(&K, &V)) -> io::Result<()> {
    let mut keys = vec![K::zeroed(); BATCH_SIZE];
    let mut values = vec![V::zeroed(); BATCH_SIZE];
    // The number of the bucket where the kernel continues.
    let (mut bucket, mut next_bucket) = (0u32, 0u32);
    let mut is_first = true;
    loop {
        let mut batch = Batch {
            in_batch: if is_first { 0 } else { &raw const bucket as u64 },
            out_batch: &raw mut next_bucket as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len() as u32,
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the arrays have room for `count` entries, and every address outlives the call.
        let found = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) };
        let is_end = match found.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => false,
            Err((Some(libc::ENOENT), _)) => true,
            // One bucket has more entries than the arrays have room for.
            Err((Some(libc::ENOSPC), _)) => {
                keys.resize(2 * keys.len(), K::zeroed());
                values.resize(keys.len(), V::zeroed());
                continue;
            }
            Err((_, error)) => return Err(error),
        };
        keys.iter().zip(&values).take(batch.count as usize).for_each(|(key, value)| visit(key, value));
        if is_end {
            return Ok(());
        }
        (bucket, is_first) = (next_bucket, false);
    }
}
