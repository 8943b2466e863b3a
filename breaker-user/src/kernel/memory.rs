//! Array maps mapped into this process, so that this process and the kernel program share the same words.
//!
//! A single word is written without a copy of its neighbours. A trip is an atomic operation and no system
//! call.

use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, ensure};
use aya::maps::{MapData, MapType};
use bytemuck::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::cli_error::{self, CliError, Code};

/// An array map in memory. All values of this type for one map share one mapping.
pub struct Mapped<T> {
    mapping: Arc<Mapping>,
    value: PhantomData<T>,
}

/// The mapping of a map.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    entries: u32,
    /// Keeps the map alive, and identifies it.
    data: MapData,
}

/// The mappings of this process, by the number of their map. Each mapping of a map counts anew as resident
/// memory of the process. No other map gets the number of a mapped map, because the mapping keeps it alive.
static MAPPINGS: Mutex<Vec<(u32, Weak<Mapping>)>> = Mutex::new(Vec::new());

// SAFETY: the memory is shared with the kernel, and is read and written by volatile and atomic accesses only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Returns the mapping of this process, or maps the array.
    fn of(data: MapData) -> Result<Arc<Self>> {
        let number = data.info()?.id();
        let mut mappings = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.retain(|(_, mapping)| mapping.strong_count() != 0);
        let found = mappings.iter().find(|(mapped, _)| *mapped == number);
        if let Some(mapping) = found.and_then(|(_, mapping)| mapping.upgrade()) {
            return Ok(mapping);
        }
        let mapping = Arc::new(Self::new(data)?);
        mappings.push((number, Arc::downgrade(&mapping)));
        Ok(mapping)
    }

    fn new(data: MapData) -> Result<Self> {
        let info = data.info()?;
        let (entries, stride) = (info.max_entries(), (info.value_size() as usize).next_multiple_of(8));
        let bytes = (entries as usize * stride).next_multiple_of(rustix::param::page_size());
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses the address of a new mapping.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, flags, data.fd().as_fd(), 0)? };
        let start = NonNull::new(start.cast()).context("a mapping at address 0")?;
        Ok(Self { start, bytes, entries, data })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` made the mapping, and no reference to it outlives self.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

impl<T: Pod> Mapped<T> {
    /// Opens and maps a pinned array. Checks its shape first.
    pub fn open(path: &Path) -> Result<Self> {
        let data = open(path, MapType::Array, 4, size_of::<T>())?;
        Self::from_map(data).with_context(|| format!("mapping {} into memory", path.display()))
    }

    /// Maps an array whose values begin with a `T`.
    pub fn from_map(data: MapData) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel rounds values up to 8 bytes") };
        let mapping = Mapping::of(data)?;
        let needed = mapping.entries as usize * size_of::<T>();
        ensure!(needed <= mapping.bytes, "the map has {} bytes, where {needed} are needed", mapping.bytes);
        Ok(Self { mapping, value: PhantomData })
    }

    /// Number of values.
    pub fn len(&self) -> u32 {
        self.mapping.entries
    }

    /// Returns true if the array has no value. No array map is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The map.
    pub fn data(&self) -> &MapData {
        &self.mapping.data
    }

    /// Returns a copy of a value. Its words may be of different moments.
    pub fn get(&self, index: u32) -> Option<T> {
        // SAFETY: the value lies inside the mapping.
        self.ptr(index).map(|value| unsafe { value.as_ptr().read_volatile() })
    }

    /// Replaces a value. The kernel program must not write the value.
    pub fn set(&self, index: u32, value: T) -> Result<()> {
        let target = self.ptr(index).with_context(|| format!("entry {index} of a map of {}", self.len()))?;
        // SAFETY: the value lies inside the mapping.
        unsafe { target.as_ptr().write_volatile(value) };
        Ok(())
    }

    /// Returns the address of a value.
    pub fn ptr(&self, index: u32) -> Option<NonNull<T>> {
        // SAFETY: `index` is below the length.
        (index < self.len()).then(|| unsafe { self.mapping.start.cast::<T>().add(index as usize) })
    }
}

/// A word of 64 bits in shared memory, for atomic access.
///
/// # Safety
/// `word` is aligned and lies inside a [`Mapped`] that outlives `'a`.
pub unsafe fn atomic_u64<'a>(word: *mut u64) -> &'a AtomicU64 {
    // SAFETY: the caller guarantees it.
    unsafe { AtomicU64::from_ptr(word) }
}

/// A word of 32 bits in shared memory, for atomic access.
///
/// # Safety
/// As for [`atomic_u64`].
pub unsafe fn atomic_u32<'a>(word: *mut u32) -> &'a AtomicU32 {
    // SAFETY: the caller guarantees it.
    unsafe { AtomicU32::from_ptr(word) }
}

/// Ordering of every access to shared words: the strongest, because no access is frequent.
pub const ORDER: Ordering = Ordering::SeqCst;

/// The error for a pin that could not be opened. A missing pin beside existing ones is an incomplete load.
pub fn open_error(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
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

/// Opens a pinned map. Refuses a map of another shape: type, and sizes of keys and values in bytes.
pub fn open(path: &Path, map_type: MapType, key: usize, value: usize) -> Result<MapData> {
    let data = MapData::from_pin(path).map_err(|error| open_error(path, error))?;
    let info = data.info().with_context(|| format!("reading the shape of {}", path.display()))?;
    let found = (info.map_type()?, info.key_size() as usize, info.value_size() as usize);
    if found == (map_type, key, value) {
        return Ok(data);
    }
    let text = format!(
        "adopting {}: it is a {:?} with keys of {} and values of {} bytes, where this program needs \
         {map_type:?}, {key} and {value}: unload it with the program that loaded it",
        path.display(),
        found.0,
        found.1,
        found.2
    );
    Err(CliError::new(Code::Mismatch, text).into())
}
