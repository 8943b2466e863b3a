//! Lists and destroys TCP sockets of this host over sock_diag(7). SOCK_DESTROY is what `ss -K` uses.
//!
//! The hook resets a connection at its next payload. An idle connection has none, so its socket is destroyed
//! to end it.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SOCK_DESTROY, SockDiagMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::io::Errno;

/// A TCP socket of this host.
pub struct TcpSocket {
    family: u8,
    state: u8,
    id: SocketId,
    /// Inode of the socket, as in the links of `/proc/PID/fd`.
    inode: u32,
    /// The data that it has sent, if that was requested.
    sent: Option<SentData>,
}

/// The data that a socket has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentData {
    /// Segments with data.
    pub segments: u32,
    /// Time since the last one, ms.
    pub age_ms: u32,
    /// Sequence numbers that the peer has acknowledged: bytes, and 1 for the SYN of this host.
    pub acknowledged: u64,
}

impl SentData {
    /// Reads a `struct tcp_info` (kernel `uapi/linux/tcp.h`). Newer kernels append fields to it.
    fn parse(info: &[u8]) -> Option<Self> {
        let word = |offset: usize| Some(u32::from_ne_bytes(info.get(offset..offset + 4)?.try_into().ok()?));
        let acknowledged = u64::from_ne_bytes(info.get(120..128)?.try_into().ok()?);
        Some(Self { segments: word(156)?, age_ms: word(44)?, acknowledged })
    }
}

impl TcpSocket {
    /// The local address and port.
    pub fn local(&self) -> (IpAddr, u16) {
        (self.id.source_address.to_canonical(), self.id.source_port)
    }

    /// Returns true after the handshake: TCP_ESTABLISHED and later states (kernel `tcp_states.h`).
    pub fn is_established(&self) -> bool {
        const SYN_SENT: u8 = 2;
        const SYN_RECEIVED: u8 = 3;
        !matches!(self.state, SYN_SENT | SYN_RECEIVED)
    }

    /// Returns true while both ends can send.
    pub fn is_open(&self) -> bool {
        const ESTABLISHED: u8 = 1;
        self.state == ESTABLISHED
    }

    /// The data that it has sent, if that was requested.
    pub fn sent(&self) -> Option<SentData> {
        self.sent
    }

    /// Inode of the socket, as in the links of `/proc/PID/fd`.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// The remote address and port.
    pub fn remote(&self) -> (IpAddr, u16) {
        (self.id.destination_address.to_canonical(), self.id.destination_port)
    }
}

/// A sock_diag(7) socket.
pub struct SockDiag {
    socket: Socket,
}

/// The largest message that the kernel builds for a dump.
const BUFFER: usize = 64 * 1024;

impl SockDiag {
    /// Opens a netlink socket in the namespace of this thread.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("opening a sock_diag socket")?;
        socket.bind_auto().context("binding a sock_diag socket")?;
        socket.connect(&SocketAddr::new(0, 0)).context("connecting a sock_diag socket")?;
        Ok(Self { socket })
    }

    /// Lists every TCP socket with a peer.
    pub fn connected(&mut self) -> Result<Vec<TcpSocket>> {
        self.all(ExtensionFlags::empty())
    }

    /// Lists the same sockets, with the data that each has sent.
    pub fn connected_with_sent(&mut self) -> Result<Vec<TcpSocket>> {
        self.all(ExtensionFlags::INFO)
    }

    fn all(&mut self, extensions: ExtensionFlags) -> Result<Vec<TcpSocket>> {
        let mut found = self.dump(AF_INET, SocketId::new_v4(), extensions.clone())?;
        found.extend(self.dump(AF_INET6, SocketId::new_v6(), extensions)?);
        Ok(found)
    }

    /// Destroys a socket: RST to the peer, ECONNABORTED for the owner, and its queue is purged. Returns false
    /// if the socket no longer exists.
    pub fn destroy(&mut self, socket: &TcpSocket) -> Result<bool> {
        let request = request(socket.family, socket.id.clone(), StateFlags::all(), ExtensionFlags::empty());
        self.send(request, NLM_F_REQUEST | NLM_F_ACK, Some(SOCK_DESTROY))?;
        let mut buffer = vec![0; BUFFER];
        let size = self.socket.recv(&mut &mut buffer[..], 0).context("waiting for sock_diag")?;
        let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&buffer[..size])
            .context("reading sock_diag's answer")?;
        match answer.payload {
            NetlinkPayload::Error(error) => match error.code {
                None => Ok(true),
                Some(code) if code.get() == -Errno::NOENT.raw_os_error() => Ok(false),
                Some(code) => {
                    bail!("destroying a socket: {}", std::io::Error::from_raw_os_error(-code.get()))
                }
            },
            other => bail!("destroying a socket: sock_diag answered {other:?}"),
        }
    }

    fn dump(&mut self, family: u8, id: SocketId, extensions: ExtensionFlags) -> Result<Vec<TcpSocket>> {
        let mut states = StateFlags::all();
        states.remove(StateFlags::LISTEN | StateFlags::TIME_WAIT | StateFlags::CLOSE);
        self.send(request(family, id, states, extensions), NLM_F_REQUEST | NLM_F_DUMP, None)?;
        let mut found = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let size = self.socket.recv(&mut &mut buffer[..], 0).context("waiting for sock_diag")?;
            let mut rest = &buffer[..size];
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                    .context("reading sock_diag's answer")?;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                        let sent = response.nlas.iter().find_map(|found| match found {
                            Nla::TcpInfo(info) => SentData::parse(info),
                            _ => None,
                        });
                        let header = response.header;
                        found.push(TcpSocket {
                            family: header.family,
                            state: header.state,
                            id: header.socket_id,
                            inode: header.inode,
                            sent,
                        });
                    }
                    NetlinkPayload::Error(error) => bail!("listing sockets: {}", error.to_io()),
                    _ => {}
                }
                // Messages are padded to 4 bytes (RFC 3549, 2.2).
                let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length.max(1)..];
            }
        }
    }

    /// Sends a request. `message_type` replaces the type: netlink-packet-sock-diag has no message of type
    /// SOCK_DESTROY.
    fn send(&mut self, request: InetRequest, flags: u16, message_type: Option<u16>) -> Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        if let Some(message_type) = message_type {
            bytes[4..6].copy_from_slice(&message_type.to_ne_bytes());
        }
        self.socket.send(&bytes, 0).context("asking sock_diag")?;
        Ok(())
    }
}

fn request(family: u8, socket_id: SocketId, states: StateFlags, extensions: ExtensionFlags) -> InetRequest {
    InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id }
}
