//! Tests of the codec and the session layer, without a socket.

use super::decode::{Decoder, Message};
use super::encode::{Encoder, Header};
use super::order;
use super::session::{Incoming, Reply, Session};
use super::tag;
use crate::testbed::watched::lock;

/// A Logon from the documentation of the cTrader FIX API.
const LOGON: &str = "8=FIX.4.4|9=126|35=A|49=theBroker.12345|56=CSERVER|34=1|52=20170117-08:03:04|57=TRADE|\
                     50=any_string|98=0|108=30|141=Y|553=12345|554=passw0rd!|10=131|";

fn bytes(text: &str) -> Vec<u8> {
    text.replace('|', "\x01").into_bytes()
}

/// Decodes a stream that arrives in these pieces, and returns the result of `read` for each message.
fn read_all<R>(pieces: &[&[u8]], mut read: impl FnMut(&Message<'_>) -> R) -> Result<Vec<R>, &'static str> {
    let mut decoder = Decoder::new();
    let mut all = Vec::new();
    for piece in pieces {
        assert_eq!(decoder.fill(*piece).unwrap(), piece.len());
        while let Some(message) = decoder.message()? {
            all.push(read(&message));
        }
    }
    Ok(all)
}

fn written(msg_type: &str, seq: u64, poss_dup: bool, fields: &[(u32, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new("FIRM", "XNYS").message(&mut out, Header { msg_type, seq, poss_dup }, |f| {
        fields.iter().for_each(|(tag, value)| _ = f.text(*tag, value));
    });
    out
}

fn order_of(id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header { msg_type: "D", seq: 1234, poss_dup: false };
    Encoder::new("FIRM", "XNYS").message(&mut out, header, |f| order::new_order(f, id));
    out
}

#[test]
fn a_message_of_another_engine_is_read() {
    let seen = read_all(&[&bytes(LOGON)], |m| {
        (m.text(tag::SENDER_COMP_ID).to_owned(), m.number(tag::HEART_BT_INT), m.seq())
    });
    assert_eq!(seen, Ok(vec![("theBroker.12345".to_owned(), Some(30), Some(1))]));
}

#[test]
fn length_and_check_sum_are_those_of_the_bytes() {
    let text = String::from_utf8(order_of("R-000001")).unwrap();
    let (head, rest) = text.split_once("\x0135=").unwrap();
    let body = rest.split("10=").next().unwrap().len() + "35=".len();
    assert_eq!(head, format!("8=FIX.4.4\x019={body}"));
    let trailer = text.rfind("10=").unwrap();
    let sum = text.as_bytes()[..trailer].iter().map(|byte| u32::from(*byte)).sum::<u32>() % 256;
    assert_eq!(text[trailer..], format!("10={sum:03}\x01"));
}

#[test]
fn an_order_is_as_long_as_real_ones() {
    for number in [1, 9999, 1_000_000] {
        let length = order_of(&order::cl_ord_id("R", number)).len();
        assert!((150..=200).contains(&length), "{length}");
    }
}

#[test]
fn any_cut_gives_the_same_messages() {
    let stream =
        [bytes(LOGON), order_of("R-000001"), order_of("R-000002"), written("0", 9, false, &[])].concat();
    let read = |m: &Message<'_>| m.bytes().to_vec();
    let whole = read_all(&[&stream], read).unwrap();
    assert_eq!(whole.len(), 4);
    assert_eq!(whole.concat(), stream);
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read_all(&single, read), Ok(whole.clone()));
    for cut in 1..stream.len() {
        let (first, second) = stream.split_at(cut);
        assert_eq!(read_all(&[first, second], read), Ok(whole.clone()), "cut at {cut}");
    }
}

#[test]
fn a_damaged_message_is_refused() {
    let read = |text: &str| read_all(&[&bytes(text)], |_| ()).map(|all| all.len());
    assert_eq!(read("8=FIX.4.4|9=5|35=0|10=163|"), Ok(1));
    assert_eq!(read("8=FIX.4.4|9=5|35=0|10=164|"), Err("CheckSum(10) is wrong"));
    assert_eq!(read("8=FIX.4.4|9=4|35=0|10=163|"), Err("BodyLength(9) does not lead to CheckSum(10)"));
    assert_eq!(read("8=FIX.4.4|9=x|35=0|10=163|"), Err("BodyLength(9) is not a number"));
    assert_eq!(read("8=FIX.4.4|9=99999999"), Err("BodyLength(9) has no end"));
    assert_eq!(read("8=FIX.4.4|9=9999999|"), Err("BodyLength(9) is too large"));
    assert_eq!(read("35=D|"), Err("not the start of a FIX 4.4 message"));
    assert_eq!(read("8=FIX.4.4|9=5|35=0|10=16"), Ok(0));
}

#[test]
fn a_data_field_may_hold_anything() {
    let data = "a\x0111=EVIL\x0110=000\x01";
    let length = data.len().to_string();
    let message =
        written("B", 1, false, &[(354, length.as_str()), (355, data), (tag::CL_ORD_ID, "R-000001")]);
    let seen = read_all(&[&message], |m| (m.text(355).to_owned(), m.text(tag::CL_ORD_ID).to_owned()));
    assert_eq!(seen, Ok(vec![(data.to_owned(), "R-000001".to_owned())]));
    let too_long = written("B", 1, false, &[(354, "999"), (355, data)]);
    assert_eq!(read_all(&[&too_long], |_| ()), Err("a data field is too long"));
}

/// Receives one message in a session that expects `expected`. Returns the result, the replies and the next
/// number.
fn receive(expected: u64, message: &[u8]) -> (Result<Incoming, String>, Vec<Reply>, u64) {
    let session = Session::new(Encoder::new("XNYS", "FIRM"));
    let mut inbound = lock(&session.inbound);
    inbound.expected = expected;
    let mut replies = Vec::new();
    let incoming = read_all(&[message], |m| inbound.receive(m, &mut replies)).unwrap().remove(0);
    (incoming, replies, inbound.expected)
}

#[test]
fn sequence_numbers_have_no_gaps() {
    assert_eq!(receive(7, &written("D", 7, false, &[])), (Ok(Incoming::Application), vec![], 8));
    let missed = vec![Reply::ResendRequest { first: 7, last: 8 }];
    assert_eq!(receive(7, &written("D", 9, false, &[])), (Ok(Incoming::Application), missed, 10));
    let text = "MsgSeqNum too low, expecting 7 but received 6".to_owned();
    assert_eq!(receive(7, &written("D", 6, false, &[])), (Err(text), vec![], 7));
    assert_eq!(receive(7, &written("D", 6, true, &[])), (Ok(Incoming::Application), vec![], 7));
    let fill = [(tag::GAP_FILL_FLAG, "Y"), (tag::NEW_SEQ_NO, "12")];
    assert_eq!(receive(7, &written("4", 7, true, &fill)), (Ok(Incoming::Handled), vec![], 12));
    assert_eq!(receive(20, &written("4", 7, true, &fill)), (Ok(Incoming::Handled), vec![], 20));
    assert_eq!(
        receive(7, &written("4", 1, false, &[(tag::NEW_SEQ_NO, "3")])),
        (Ok(Incoming::Handled), vec![], 3)
    );
    let reset = [(tag::RESET_SEQ_NUM_FLAG, "Y")];
    assert_eq!(receive(7, &written("A", 1, false, &reset)), (Ok(Incoming::Logon), vec![], 2));
}

#[test]
fn admin_messages_are_answered() {
    let asked = written("1", 1, false, &[(tag::TEST_REQ_ID, "are you there")]);
    let heartbeat = vec![Reply::Heartbeat(Some("are you there".to_owned()))];
    assert_eq!(receive(1, &asked), (Ok(Incoming::Handled), heartbeat, 2));
    let resend = written("2", 1, false, &[(tag::BEGIN_SEQ_NO, "3"), (tag::END_SEQ_NO, "0")]);
    assert_eq!(receive(1, &resend), (Ok(Incoming::Handled), vec![Reply::GapFill { first: 3, last: 0 }], 2));
}

#[test]
fn orders_are_never_sent_again() {
    let session = Session::new(Encoder::new("FIRM", "XNYS"));
    let mut outbound = lock(&session.outbound);
    outbound.next = 10;
    let mut answer = |first, last| {
        let mut out = Vec::new();
        outbound.reply(&mut out, Reply::GapFill { first, last });
        let read = |m: &Message<'_>| {
            (m.seq(), m.poss_dup(), m.is_yes(tag::GAP_FILL_FLAG), m.number(tag::NEW_SEQ_NO))
        };
        read_all(&[&out], read).unwrap()
    };
    assert_eq!(answer(3, 0), [(Some(3), true, true, Some(10))]);
    assert_eq!(answer(3, 5), [(Some(3), true, true, Some(6))]);
    assert_eq!(answer(3, 99), [(Some(3), true, true, Some(10))]);
    assert_eq!(answer(10, 0), []);
    assert_eq!(outbound.next, 10);
}
