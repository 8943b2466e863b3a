//! The messages of the benchmarks.

use crate::frame::message;

/// Length of an order, bytes.
pub const LENGTH: usize = 200;
/// Offset of `35=D` in an order. Alternatives that match bytes look there.
pub const TYPE_AT: usize = 16;

/// An order of [`LENGTH`] bytes.
pub fn order(id: usize) -> Vec<u8> {
    sized("D", id, LENGTH)
}

/// A message of this type. Its length is exact from about 100 bytes on.
pub fn sized(msg_type: &str, id: usize, length: usize) -> Vec<u8> {
    let fields = |pad: usize| format!("11=R-{id:06}\x0155=IBM\x0158={}\x01", "x".repeat(pad));
    let bare = message("FIX.4.4", msg_type, fields(100).as_bytes()).len() - 100;
    message("FIX.4.4", msg_type, fields(length.saturating_sub(bare)).as_bytes())
}

/// Several orders in a row, with consecutive numbers.
pub fn orders(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).flat_map(order).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_its_length_and_its_type_where_it_is_looked_for() {
        for id in [0, 7, 999_999] {
            let order = order(id);
            assert_eq!(order.len(), LENGTH);
            assert_eq!(&order[TYPE_AT..TYPE_AT + 4], b"35=D");
        }
        assert_eq!(orders(3, 5).len(), 5 * LENGTH);
    }
}
