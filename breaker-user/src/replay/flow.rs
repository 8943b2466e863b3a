//! Undeclared FIX flows, by their endpoint and the CompIDs of their first message.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use breaker_common::abi::ConnectionKey;
use breaker_common::fix::{SIGNATURE, SOH};
use breaker_replay::model::connections::Connections;

use crate::kernel::address::ip_address;

/// The identity of an undeclared flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Remote address and port.
    pub remote: SocketAddr,
    /// SenderCompID(49) of the first message that was read; empty if none was.
    pub sender: String,
    /// TargetCompID(56) of that message.
    pub target: String,
}

/// The flows of a replay, by number.
#[derive(Default)]
pub struct Flows {
    by_connection: Connections<usize>,
    by_flow: HashMap<Flow, usize>,
    flows: Vec<Flow>,
}

/// Most flows that are told apart. The last one stands for all others.
const MAX_FLOWS: usize = 4_096;
/// Most connections whose flow is remembered.
const MAX_CONNECTIONS: usize = 65_536;

impl Flows {
    /// Returns the number of a connection's flow. `payload` is that of its first segment.
    pub fn number(&mut self, key: &ConnectionKey, payload: &[u8]) -> usize {
        let is_start = payload.starts_with(&SIGNATURE);
        if let Some(number) = self.by_connection.get(key)
            && !(is_start && self.flows[*number].sender.is_empty())
        {
            return *number;
        }
        self.by_connection.evict(MAX_CONNECTIONS);
        let number = self.add(flow(key, payload));
        self.by_connection.insert(key, number);
        number
    }

    fn add(&mut self, flow: Flow) -> usize {
        if let Some(number) = self.by_flow.get(&flow) {
            return *number;
        }
        if self.flows.len() == MAX_FLOWS {
            return MAX_FLOWS - 1;
        }
        self.flows.push(flow.clone());
        self.by_flow.insert(flow, self.flows.len() - 1);
        self.flows.len() - 1
    }

    /// Returns the flows, by number.
    pub fn all(&self) -> &[Flow] {
        &self.flows
    }
}

fn flow(key: &ConnectionKey, payload: &[u8]) -> Flow {
    let address: IpAddr = ip_address(key.remote);
    let [sender, target] = comp_ids(payload);
    Flow { remote: SocketAddr::new(address, u16::from_be(key.remote_port)), sender, target }
}

/// Returns SenderCompID(49) and TargetCompID(56) of the message at the start of a payload.
pub fn comp_ids(payload: &[u8]) -> [String; 2] {
    /// Most fields before the CompIDs: they are in the header.
    const MAX_FIELDS: usize = 16;
    let mut found = [String::new(), String::new()];
    if !payload.starts_with(&SIGNATURE) {
        return found;
    }
    for field in payload.split(|byte| *byte == SOH).take(MAX_FIELDS) {
        let (slot, value) = match field {
            [b'4', b'9', b'=', value @ ..] => (0, value),
            [b'5', b'6', b'=', value @ ..] => (1, value),
            _ => continue,
        };
        let is_text = value.iter().all(|byte| (b' '..=b'~').contains(byte));
        if is_text && value.len() <= crate::config::CompId::MAX && found[slot].is_empty() {
            found[slot] = String::from_utf8_lossy(value).into_owned();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comp_ids_are_those_of_the_first_message() {
        let logon = b"8=FIX.4.4\x019=60\x0135=A\x0134=1\x0149=FIRM\x0156=VENUE\x0198=0\x0110=000\x01";
        assert_eq!(comp_ids(logon), ["FIRM", "VENUE"]);
        assert_eq!(comp_ids(&logon[1..]), ["", ""]);
        assert_eq!(comp_ids(b"8=FIX.4.4\x019=60\x0135=A\x0149=FI\xffM\x0156=V"), ["", "V"]);
    }
}
