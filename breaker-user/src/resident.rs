//! The resident memory of this process: pages that are not needed now go back to the kernel.

use std::ffi::{c_int, c_void};

/// Makes the allocator return the memory of a large response, instead of caching it for each thread. Call
/// this before a second thread exists.
pub fn limit_allocator_caches() {
    // SAFETY: sets two parameters.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Releases free pages of the heap, and the pages of the binary and its libraries that were read from files.
/// The kernel maps the latter again at their next use, as a rule from its page cache.
pub fn release() {
    // SAFETY: the allocator allows it at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: the function has the type that the loader calls, and uses no data.
    unsafe { libc::dl_iterate_phdr(Some(release_segments), std::ptr::null_mut()) };
}

/// Releases the read-only segments of a loaded object. Returns 0, so that the loader goes on with the next.
///
/// # Safety
/// `object` is the description of a loaded object.
unsafe extern "C" fn release_segments(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    let page = rustix::param::page_size();
    // SAFETY: the loader passes a valid description with this many program headers.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    // Relocations wrote only to writable segments, so the pages of the others are those of the file.
    let read_only = headers.iter().filter(|one| one.p_type == libc::PT_LOAD && one.p_flags & libc::PF_W == 0);
    for segment in read_only {
        let start = base + segment.p_vaddr as usize;
        let end = start + segment.p_filesz as usize;
        // The first and the last page may also belong to the segments beside.
        let (start, end) = (start.next_multiple_of(page), end & !(page - 1));
        if start < end {
            // SAFETY: the pages are read again from their file. A failure leaves them resident.
            unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident pages of files, in KiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("a line");
        line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    }

    #[test]
    fn a_release_lowers_the_resident_pages_of_files_and_the_process_goes_on() {
        let before = resident();
        release();
        let after = resident();
        assert!(after < before, "{before} KiB, then {after} KiB");
        assert_eq!(format!("{:.2}", 2.0_f64.sqrt()), "1.41");
    }
}
