//! Requests to rtnetlink(7) and their answers. Each function asks the kernel of the calling thread's network
//! namespace.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

/// Creates an object. Fails if the object exists.
pub(crate) fn create(message: RouteNetlinkMessage) -> io::Result<()> {
    request(message, NLM_F_CREATE | NLM_F_EXCL)
}

/// Changes or removes an object.
pub(crate) fn change(message: RouteNetlinkMessage) -> io::Result<()> {
    request(message, 0)
}

/// Lists objects, in the order of the kernel.
pub(crate) fn list(message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    let socket = send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message = parse(rest)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::InnerMessage(object) => found.push(object),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                other => return Err(unexpected(&other)),
            }
            // Messages are padded to 4 bytes (RFC 3549, 2.2).
            let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
            rest = &rest[length.max(1)..];
        }
    }
}

/// Makes a socket that does not wait and receives the notifications of multicast groups.
pub(crate) fn subscribe(groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Reads all waiting notifications. Returns false with them if the kernel dropped some.
pub(crate) fn notifications(socket: &Socket) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
    let (mut found, mut is_complete) = (Vec::new(), true);
    loop {
        let bytes = match socket.recv_from_full() {
            Ok((bytes, _)) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((found, is_complete)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                is_complete = false;
                continue;
            }
            Err(error) => return Err(error),
        };
        // A notification that the library cannot read may be of an interface.
        match parse(&bytes).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => found.push(message),
            _ => is_complete = false,
        }
    }
}

/// Reads one object.
pub(crate) fn get(message: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
    let (answer, _) = send(message, NLM_F_REQUEST)?.recv_from_full()?;
    match parse(&answer)?.payload {
        NetlinkPayload::InnerMessage(found) => Ok(found),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(unexpected(&other)),
    }
}

fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let (answer, _) = send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?.recv_from_full()?;
    match parse(&answer)?.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(unexpected(&other)),
    }
}

fn send(message: RouteNetlinkMessage, flags: u16) -> io::Result<Socket> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    // An unconnected netlink socket sends to the kernel.
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send(&bytes, 0)?;
    Ok(socket)
}

fn parse(answer: &[u8]) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    NetlinkMessage::deserialize(answer).map_err(io::Error::other)
}

fn unexpected(answer: &NetlinkPayload<RouteNetlinkMessage>) -> io::Error {
    io::Error::other(format!("the kernel answered {answer:?}"))
}
