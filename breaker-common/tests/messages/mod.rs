//! FIX messages as an engine writes them.

/// Ends each field.
pub const SOH: char = '\x01';

/// A message: BodyLength(9) with this many figures at least, `fields` behind MsgType(35), and its checksum.
pub fn build(begin: &str, figures: usize, msg_type: &str, fields: &[u8]) -> Vec<u8> {
    let body = [format!("35={msg_type}{SOH}").as_bytes(), fields].concat();
    let mut message = [format!("8={begin}{SOH}9={:0figures$}{SOH}", body.len()).as_bytes(), &body].concat();
    let checksum = message.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    message.extend(format!("10={checksum:03}{SOH}").bytes());
    message
}
