//! Arrival times of bytes: the time stamps that the kernel gives a segment on arrival, not the time of the
//! read.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use rustix::time::{ClockId, clock_gettime};

/// The current time on the clock of the time stamps, ns.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Enables time stamps on a socket. Connections that a listener accepts inherit them.
pub fn enable(socket: RawFd) {
    let on: libc::c_int = 1;
    // SAFETY: setsockopt reads a value of the given length.
    let done = unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, (&raw const on).cast(), 4)
    };
    assert_eq!(done, 0, "SO_TIMESTAMPNS: {}", io::Error::last_os_error());
}

/// Reads the available bytes. Returns their number, and the time stamp of the last segment among them.
/// `flags` are those of recv(2).
pub fn read(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> io::Result<(usize, Option<u64>)> {
    let mut control = MaybeUninit::<[u64; 16]>::uninit();
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero header is a message without parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
    // SAFETY: the buffers have the given lengths, and outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written the control messages and their length.
    let stamp = unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        (!first.is_null() && (*first).cmsg_type == libc::SCM_TIMESTAMPNS)
            .then(|| libc::CMSG_DATA(first).cast::<libc::timespec>().read_unaligned())
    };
    let nanos =
        |time: libc::timespec| time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    Ok((length, stamp.map(nanos)))
}
