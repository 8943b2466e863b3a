//! Detaches a pinned link, even if another process holds it open (BPF_LINK_DETACH). aya only closes its own
//! descriptor. That would detach nothing while the agent runs: the agent holds every link open, so that a
//! removed pin does not end enforcement.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands of bpf(2) (kernel `uapi/linux/bpf.h`).
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_DETACH: libc::c_int = 34;

/// The part of `union bpf_attr` that BPF_OBJ_GET and BPF_OBJ_PIN read.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` that BPF_LINK_DETACH reads.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Detaches a pinned link. The link of a removed interface is detached already.
pub fn detach_link(pin: &Path) -> io::Result<()> {
    let link = open_pin(pin)?;
    // SAFETY: the structure contains no addresses.
    unsafe { bpf(BPF_LINK_DETACH, &mut LinkDetach { link_fd: link.as_raw_fd() as u32 }) }.map(drop)
}

/// Opens a pinned object.
pub(super) fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut get = Object { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the path lives until the call returns.
    let found = unsafe { bpf(BPF_OBJ_GET, &mut get) }?;
    // SAFETY: the kernel has just opened this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(found) })
}

/// Pins an object.
pub(super) fn pin_object(object: BorrowedFd, pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attr =
        Object { pathname: path.as_ptr() as u64, bpf_fd: object.as_raw_fd() as u32, file_flags: 0 };
    // SAFETY: the path lives until the call returns.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Calls bpf(2).
///
/// # Safety
/// `attr` has the layout that the command reads and writes, and each address in it is valid.
pub(super) unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the caller guarantees the layout and the addresses; the kernel checks the size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
