//! One rtnetlink request and its answer: `rtnetlink(7)`.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

/// Asks the kernel of the calling thread's namespace to make what `message` says, which must not exist yet.
pub(super) fn create(message: RouteNetlinkMessage) -> io::Result<()> {
    request(message, NLM_F_CREATE | NLM_F_EXCL)
}

/// Asks the kernel of the calling thread's namespace to change or remove what `message` names.
pub(super) fn change(message: RouteNetlinkMessage) -> io::Result<()> {
    request(message, 0)
}

fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    // A socket that was not bound sends to the kernel.
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(io::Error::other(format!("the kernel answered {other:?}"))),
    }
}
