//! Orders as a broker's router sends them: about 175 bytes, limit orders, valid for the day, NYSE symbols.
//!
//! The terms of an order follow from the number at the end of its ClOrdID, so that a cancel has the same
//! terms.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::decode::Message;
use super::encode::Fields;
use super::tag;

const SYMBOLS: [&str; 16] =
    ["GE", "BAC", "F", "C", "JPM", "PFE", "T", "HPQ", "XOM", "WFC", "KO", "DIS", "IBM", "CVX", "MRK", "VZ"];

/// The ClOrdID(11) of an order: `R-000001` for prefix `R` and number 1.
pub fn cl_ord_id(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:06}")
}

/// The ClOrdIDs of a range of orders, to compare with those that arrived.
pub fn cl_ord_ids(prefix: &str, numbers: RangeInclusive<u64>) -> BTreeSet<String> {
    numbers.map(|number| cl_ord_id(prefix, number)).collect()
}

/// Adds the fields of a NewOrderSingle(D).
pub fn new_order(fields: &mut Fields<'_>, cl_ord_id: &str) {
    let (symbol, side, quantity, cents) = terms(cl_ord_id);
    fields.text(tag::ACCOUNT, "RETAIL-1").text(tag::CL_ORD_ID, cl_ord_id).text(tag::HANDL_INST, "1");
    fields.number(tag::ORDER_QTY, quantity).text(tag::ORD_TYPE, "2").cents(tag::PRICE, cents);
    fields
        .text(tag::SIDE, side)
        .text(tag::SYMBOL, symbol)
        .text(tag::TIME_IN_FORCE, "0")
        .now(tag::TRANSACT_TIME);
}

/// Adds the fields of an OrderCancelRequest(F) for the order `original`.
pub fn cancel(fields: &mut Fields<'_>, cl_ord_id: &str, original: &str) {
    let (symbol, side, quantity, _) = terms(original);
    fields
        .text(tag::CL_ORD_ID, cl_ord_id)
        .number(tag::ORDER_QTY, quantity)
        .text(tag::ORIG_CL_ORD_ID, original);
    fields.text(tag::SIDE, side).text(tag::SYMBOL, symbol).now(tag::TRANSACT_TIME);
}

/// Symbol, side, quantity in shares, price in cents.
fn terms(cl_ord_id: &str) -> (&'static str, &'static str, u64, u64) {
    let digits = cl_ord_id.rsplit('-').next().unwrap_or_default();
    let number = digits.parse::<u64>().unwrap_or_default();
    let symbol = SYMBOLS[(number % SYMBOLS.len() as u64) as usize];
    let side = if number.is_multiple_of(2) { "1" } else { "2" };
    (symbol, side, 100 * (1 + number % 9), 1000 + number * 37 % 9000)
}

/// An ExecutionReport(8) that acknowledges an order or a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    number: u64,
    canceled: bool,
    cl_ord_id: String,
    symbol: String,
    side: String,
    quantity: u64,
}

impl Report {
    /// The report on a NewOrderSingle or an OrderCancelRequest. `number` becomes ExecID(17) and OrderID(37).
    pub fn on(message: &Message<'_>, number: u64) -> Self {
        Self {
            number,
            canceled: message.msg_type() == b"F",
            cl_ord_id: message.text(tag::CL_ORD_ID).to_owned(),
            symbol: message.text(tag::SYMBOL).to_owned(),
            side: message.text(tag::SIDE).to_owned(),
            quantity: message.number(tag::ORDER_QTY).unwrap_or_default(),
        }
    }

    pub fn fill(&self, fields: &mut Fields<'_>) {
        let status = if self.canceled { "4" } else { "0" };
        let leaves = if self.canceled { 0 } else { self.quantity };
        fields.number(tag::AVG_PX, 0).text(tag::CL_ORD_ID, &self.cl_ord_id).number(tag::CUM_QTY, 0);
        fields
            .number(tag::EXEC_ID, self.number)
            .number(tag::ORDER_ID, self.number)
            .number(tag::ORDER_QTY, self.quantity);
        fields.text(tag::ORD_STATUS, status).text(tag::SIDE, &self.side).text(tag::SYMBOL, &self.symbol);
        fields.now(tag::TRANSACT_TIME).text(tag::EXEC_TYPE, status).number(tag::LEAVES_QTY, leaves);
    }
}
