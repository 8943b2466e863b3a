//! An array map of any version, mapped into this process: the map itself says how far its values lie apart.

use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;

use anyhow::{Context, Result, ensure};
use aya::maps::{MapData, MapType};
use bytemuck::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::memory::open_error;

/// See the module.
pub struct Strided {
    start: NonNull<u8>,
    stride: usize,
    entries: u32,
    bytes: usize,
}

impl Strided {
    /// Maps a pinned array whose values have at least so many bytes.
    pub fn open(path: &Path, least: usize) -> Result<Self> {
        let data = MapData::from_pin(path).map_err(|error| open_error(path, error))?;
        let info = data.info().with_context(|| format!("reading the shape of {}", path.display()))?;
        // The kernel rounds values up to 8 bytes (kernel `array_map_alloc`).
        let stride = (info.value_size() as usize).next_multiple_of(8);
        let entries = info.max_entries();
        ensure!(
            matches!(info.map_type(), Ok(MapType::Array)) && info.key_size() == 4 && stride >= least,
            "opening {}: it is no array with values of {least} bytes or more",
            path.display()
        );
        let bytes = (entries as usize * stride).next_multiple_of(rustix::param::page_size());
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, flags, data.fd().as_fd(), 0) };
        let start = start.with_context(|| format!("mapping {} into memory", path.display()))?;
        let start = NonNull::new(start.cast()).context("a mapping at address 0")?;
        Ok(Self { start, stride, entries, bytes })
    }

    /// How many values the map has.
    pub fn len(&self) -> u32 {
        self.entries
    }

    /// Writes all that another map of the same shape holds.
    pub fn copy(&self, from: &Self) -> Result<()> {
        ensure!(
            (self.stride, self.entries) == (from.stride, from.entries),
            "copying {} values of {} bytes to {} of {}",
            from.entries,
            from.stride,
            self.entries,
            self.stride
        );
        // SAFETY: both mappings have as many bytes, and they do not overlap. The kernel programs are held
        // meanwhile.
        unsafe {
            self.start
                .as_ptr()
                .copy_from_nonoverlapping(from.start.as_ptr(), self.entries as usize * self.stride)
        };
        Ok(())
    }

    /// The place of what a value begins with.
    pub fn place<T: Pod>(&self, index: u32) -> Option<NonNull<T>> {
        let is_inside = index < self.entries && size_of::<T>() <= self.stride;
        // SAFETY: inside the mapping. A stride is a multiple of 8, as the alignment of no value of a map is
        // more.
        is_inside.then(|| unsafe { self.start.add(index as usize * self.stride).cast() })
    }

    /// What a value begins with, copied.
    pub fn get<T: Pod>(&self, index: u32) -> Option<T> {
        // SAFETY: inside the mapping.
        self.place::<T>(index).map(|place| unsafe { place.as_ptr().read_volatile() })
    }
}

impl Drop for Strided {
    fn drop(&mut self) {
        // SAFETY: what `open` mapped, and no reference to it outlives self. Nothing is to be done about a
        // failure.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
