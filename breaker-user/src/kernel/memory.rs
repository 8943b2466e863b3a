//! Array maps mapped into this process: the kernel program and we look at the same words.
//!
//! So a single word is written without copying over its neighbours, a switch is an atomic operation with no system call, and what is
//! read is what the kernel program reads.

use std::marker::PhantomData;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context, Result};
use aya::maps::{MapData, MapType};
use bytemuck::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::AsFd;

use crate::cli_error::{self, CliError, Code};

/// An array map in memory.
pub struct Mapped<T> {
    start: NonNull<T>,
    entries: u32,
    bytes: usize,
    /// Keeps the map alive; also its identity.
    data: MapData,
    of: PhantomData<T>,
}

// SAFETY: memory shared with the kernel, read and written by volatile and atomic accesses only.
unsafe impl<T: Pod> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Pod> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// Maps a pinned array, once its shape is what this program was built for.
    pub fn open(path: &Path) -> Result<Self> {
        let data = open(path, MapType::Array, 4, size_of::<T>())?;
        Self::of(data).with_context(|| format!("mapping {} into memory", path.display()))
    }

    /// Maps an array.
    pub fn of(data: MapData) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel rounds values up to 8 bytes") };
        let entries = data.info()?.max_entries();
        let bytes = (entries as usize * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, flags, data.fd().as_fd(), 0)? };
        let start = NonNull::new(start.cast()).context("a mapping at address 0")?;
        Ok(Self { start, entries, bytes, data, of: PhantomData })
    }

    /// How many values it holds.
    pub fn len(&self) -> u32 {
        self.entries
    }

    /// True where it holds none, which no array does.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The map.
    pub fn data(&self) -> &MapData {
        &self.data
    }

    /// A value, copied. Words of it may be of different moments.
    pub fn get(&self, index: u32) -> Option<T> {
        // SAFETY: inside the mapping.
        self.place(index).map(|place| unsafe { place.as_ptr().read_volatile() })
    }

    /// Replaces a value. For values that the kernel program does not write.
    pub fn set(&self, index: u32, value: T) -> Result<()> {
        let place =
            self.place(index).with_context(|| format!("entry {index} of a map of {}", self.entries))?;
        // SAFETY: inside the mapping.
        unsafe { place.as_ptr().write_volatile(value) };
        Ok(())
    }

    /// Where a value lies.
    pub fn place(&self, index: u32) -> Option<NonNull<T>> {
        // SAFETY: `index` is below the length.
        (index < self.entries).then(|| unsafe { self.start.add(index as usize) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: what was mapped in `of`, and no reference to it outlives self. Nothing is to be done about a failure.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A word of shared memory, for atomic use.
///
/// # Safety
/// `word` is aligned and lies inside a [`Mapped`] that outlives `'a`.
pub unsafe fn word<'a>(word: *mut u64) -> &'a AtomicU64 {
    // SAFETY: as the caller says.
    unsafe { AtomicU64::from_ptr(word) }
}

/// As [`word`], of 32 bits.
///
/// # Safety
/// As for [`word`].
pub unsafe fn half<'a>(word: *mut u32) -> &'a AtomicU32 {
    // SAFETY: as the caller says.
    unsafe { AtomicU32::from_ptr(word) }
}

/// Ordering of every access to shared words: the strongest, for none is hot.
pub const ORDER: Ordering = Ordering::SeqCst;

/// Why a pin could not be opened. One that is missing while others are there is no whole load any more.
pub fn unopened(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into().context(format!("opening {}", path.display()));
    if path.exists() || cli_error::is_denied(&error) {
        return error;
    }
    let root = path.parent().unwrap_or(path);
    let (code, cure) = if root.exists() {
        (
            Code::Mismatch,
            format!("what is loaded is incomplete: `rm -r {}` detaches it, then load again", root.display()),
        )
    } else {
        (Code::NotLoaded, "it was unloaded in this moment: load first with `breaker load`".to_owned())
    };
    CliError::new(code, format!("{error:#}: {cure}")).into()
}

/// Opens a pinned map and compares its shape with what this program was built for.
pub fn open(path: &Path, map_type: MapType, key: usize, value: usize) -> Result<MapData> {
    let data = MapData::from_pin(path).map_err(|error| unopened(path, error))?;
    let info = data.info().with_context(|| format!("asking after {}", path.display()))?;
    let found = (info.map_type()?, info.key_size() as usize, info.value_size() as usize);
    if found == (map_type, key, value) {
        return Ok(data);
    }
    let text = format!(
        "adopting {}: it is a {:?} with keys of {} and values of {} bytes, where this program needs {map_type:?}, {key} and {value}: \
         unload it with the program that loaded it",
        path.display(),
        found.0,
        found.1,
        found.2
    );
    Err(CliError::new(Code::Mismatch, text).into())
}
