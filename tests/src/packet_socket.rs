//! Packet sockets: whole frames in and out of an interface. See `packet(7)`.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use breaker_user::testbed::Namespace;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// A packet socket at an interface.
pub struct PacketSocket(OwnedFd);

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl PacketSocket {
    /// A socket that only sends. Its frames pass the hooks of the host.
    pub fn send_only(namespace: &Namespace, interface: &str) -> Self {
        Self::at(namespace, interface, 0)
    }

    /// A socket that only sends, past every hook of the host and at full speed.
    pub fn bypass_qdisc(namespace: &Namespace, interface: &str) -> Self {
        Self::at(namespace, interface, 0).past_hooks()
    }

    /// A socket that receives all frames, and sends past every hook of the host.
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        Self::at(namespace, interface, libc::ETH_P_ALL as u16).past_hooks()
    }

    fn past_hooks(self) -> Self {
        let on: libc::c_int = 1;
        // SAFETY: setsockopt reads a value of the given length.
        let done = unsafe {
            let value = (&raw const on).cast();
            libc::setsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, value, 4)
        };
        assert_eq!(done, 0, "bypassing the qdisc: {}", std::io::Error::last_os_error());
        self
    }

    /// No maintained crate has a safe wrapper.
    fn at(namespace: &Namespace, interface: &str, protocol: u16) -> Self {
        let index = namespace.index(interface).expect("the interface");
        // SAFETY: the address has the given length, and the new descriptor has no other owner.
        let bind = move || unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
            let socket = OwnedFd::from_raw_fd(socket);
            let mut at: libc::sockaddr_ll = std::mem::zeroed();
            at.sll_family = libc::AF_PACKET as u16;
            at.sll_protocol = protocol.to_be();
            at.sll_ifindex = index as i32;
            let bound = libc::bind(socket.as_raw_fd(), (&raw const at).cast(), size_of_val(&at) as u32);
            assert_eq!(bound, 0, "binding a packet socket: {}", std::io::Error::last_os_error());
            socket
        };
        Self(namespace.run(bind))
    }

    /// Sends a frame. Returns false if the hook of the interface dropped it.
    pub fn send(&self, frame: &[u8]) -> bool {
        match send(&self.0, frame, SendFlags::empty()) {
            Err(Errno::NOBUFS) => false,
            sent => {
                assert_eq!(sent.expect("sending a frame"), frame.len());
                true
            }
        }
    }

    /// Sends frames with one system call. Returns the number that were sent: at a full queue, the first frame
    /// that was not is dropped.
    pub fn send_all(&self, frames: &[Vec<u8>]) -> usize {
        let part = |frame: &Vec<u8>| libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        };
        let mut parts: Vec<libc::iovec> = frames.iter().map(part).collect();
        let header = |part: &mut libc::iovec| {
            // SAFETY: an all-zero header is a message without parts and without an address.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (part, 1);
            header
        };
        let mut headers: Vec<libc::mmsghdr> = parts.iter_mut().map(header).collect();
        // SAFETY: each header has one part, a frame that the kernel only reads. Headers, parts and frames
        // outlive the call.
        let sent =
            unsafe { libc::sendmmsg(self.0.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, 0) };
        usize::try_from(sent).unwrap_or(0)
    }

    /// Waits for a frame of which `look` returns a value.
    pub fn wait<R>(&self, patience: Duration, look: impl Fn(&[u8]) -> Option<R>) -> Option<R> {
        let until = Instant::now() + patience;
        let mut frame = vec![0; 1 << 17];
        loop {
            // A zero timeout would wait forever.
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
            set_socket_timeout(&self.0, Timeout::Recv, Some(left)).expect("setting the timeout");
            let length = match recv(&self.0, &mut frame[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return None,
                Err(error) => panic!("receiving frames: {error}"),
            };
            if let Some(answer) = look(&frame[..length]) {
                return Some(answer);
            }
            if Instant::now() >= until {
                return None;
            }
        }
    }
}
