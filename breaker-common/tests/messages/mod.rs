//! FIX messages, as an engine writes them.

/// End of each field.
pub const SOH: char = '\x01';

/// Builds a message with a BodyLength(9) of at least `digits` digits, `fields` behind MsgType(35), and a
/// checksum.
pub fn build(begin: &str, digits: usize, msg_type: &str, fields: &[u8]) -> Vec<u8> {
    let body = [format!("35={msg_type}{SOH}").as_bytes(), fields].concat();
    let mut message = [format!("8={begin}{SOH}9={:0digits$}{SOH}", body.len()).as_bytes(), &body].concat();
    let checksum = message.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    message.extend(format!("10={checksum:03}{SOH}").bytes());
    message
}
