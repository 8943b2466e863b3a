//! A pinned map of any version, entry by entry as bytes: keys and values may have any size.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{MapData, MapInfo, MapType};
use aya::util::nr_cpus;

use super::detach_link::bpf;
use super::memory::open_error;

/// Commands of bpf(2) (kernel `uapi/linux/bpf.h`).
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;

/// The part of `union bpf_attr` that these commands read.
#[repr(C)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    /// The value, or the next key.
    value: u64,
    flags: u64,
}

/// See the module.
pub struct RawMap {
    data: MapData,
    info: MapInfo,
    /// Values of one entry: one for each CPU that the machine may ever have, or a single one.
    pub values: usize,
    /// Bytes of a value.
    pub value_size: usize,
}

impl RawMap {
    /// Opens a pinned map.
    pub fn open(path: &Path) -> Result<Self> {
        let data = MapData::from_pin(path).map_err(|error| open_error(path, error))?;
        let info = data.info().with_context(|| format!("reading the shape of {}", path.display()))?;
        let per_cpu = matches!(info.map_type()?, MapType::PerCpuArray | MapType::PerCpuHash);
        let values =
            if per_cpu { nr_cpus().map_err(|(_, error)| error).context("counting the CPUs")? } else { 1 };
        // The kernel rounds the values of each CPU up to 8 bytes (kernel `bpf_map_value_size`).
        let size = info.value_size() as usize;
        let value_size = if per_cpu { size.next_multiple_of(8) } else { size };
        Ok(Self { data, info, values, value_size })
    }

    /// Its type, bytes of a key, and entries.
    pub fn shape(&self) -> Result<(MapType, usize, u32)> {
        Ok((self.info.map_type()?, self.info.key_size() as usize, self.info.max_entries()))
    }

    /// Hands out each entry. One that is added or removed meanwhile may be among them or not.
    pub fn each(&self, mut each: impl FnMut(Vec<u8>, Vec<u8>) -> Result<()>) -> Result<()> {
        let size = self.info.key_size() as usize;
        let mut last: Option<Vec<u8>> = None;
        loop {
            let mut next = vec![0u8; size];
            let from = last.as_ref().map_or(std::ptr::null(), |key| key.as_ptr());
            if !self.call(BPF_MAP_GET_NEXT_KEY, from, next.as_mut_ptr())? {
                return Ok(());
            }
            let mut value = vec![0u8; self.values * self.value_size];
            if self.call(BPF_MAP_LOOKUP_ELEM, next.as_ptr(), value.as_mut_ptr())? {
                each(next.clone(), value)?;
            }
            last = Some(next);
        }
    }

    /// Writes an entry.
    pub fn put(&self, key: &[u8], value: &mut [u8]) -> Result<()> {
        anyhow::ensure!(
            (key.len(), value.len()) == (self.info.key_size() as usize, self.values * self.value_size),
            "writing a key of {} and a value of {} bytes to a map of another shape",
            key.len(),
            value.len()
        );
        self.call(BPF_MAP_UPDATE_ELEM, key.as_ptr(), value.as_mut_ptr()).map(drop)
    }

    /// Calls bpf(2). False where there is no such entry.
    fn call(&self, command: libc::c_int, key: *const u8, value: *mut u8) -> Result<bool> {
        let mut element = Element {
            map_fd: self.data.fd().as_fd().as_raw_fd() as u32,
            pad: 0,
            key: key as u64,
            value: value as u64,
            flags: 0,
        };
        // SAFETY: both addresses have as many bytes as the shape of the map says.
        match unsafe { bpf(command, &mut element) } {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            done => Ok(done.map(|_| true)?),
        }
    }
}
