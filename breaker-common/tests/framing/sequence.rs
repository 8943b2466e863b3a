//! Outbound sequencing: gaps, repeated segments, and segments of other connections.

use breaker_common::abi::Stream;

use super::feed::Feed;

/// Sends segments on a connection with the first byte 1000.
///
/// Each segment has a sequence number, a length, and true if it must pass.
fn send_segments(opened: bool, segments: &[(u32, usize, bool)]) -> Feed {
    let mut feed = Feed { opened, ..Feed::new(if opened { Stream::at(1000) } else { Stream::joined(1000) }) };
    for (seq, length, expected) in segments {
        assert_eq!(feed.segment(*seq, &vec![b'x'; *length]), *expected, "{length} bytes at {seq}");
    }
    feed
}

#[test]
fn a_segment_ahead_of_a_gap_is_withheld_until_the_gap_is_filled() {
    let feed = send_segments(
        true,
        &[
            (1000, 50, true),
            (1100, 50, false),
            (1150, 50, false),
            (1050, 50, true),
            (1100, 100, true),
            (1000, 50, true),
        ],
    );
    assert_eq!((feed.stream.next_seq, feed.counts.blind_bytes), (1200, 200));
}

#[test]
fn a_gap_that_stays_is_skipped_and_its_late_bytes_count_as_unread() {
    let ahead = (1100, 50, false);
    let feed = send_segments(
        true,
        &[(1000, 50, true), ahead, ahead, ahead, (1100, 50, true), (1060, 30, true), (1000, 50, true)],
    );
    assert_eq!((feed.stream.next_seq, feed.counts.blind_bytes), (1150, 50 + 50 + 30));
}

#[test]
fn the_first_byte_of_a_connection_follows_its_syn() {
    let first = (1050, 50, false);
    // The first byte is awaited, no matter how often a segment ahead is repeated.
    send_segments(true, &[first; 9]);
    // Earlier bytes belong to another connection, except for the byte of a keepalive probe.
    send_segments(
        true,
        &[
            (999, 1, true),
            (999, 2, false),
            (900, 50, false),
            (1000, 50, true),
            (999, 51, false),
            (999, 1, true),
        ],
    );
}

#[test]
fn bytes_before_a_join_never_count_as_repeated() {
    let feed = send_segments(false, &[(1000, 50, true), (900, 50, true), (980, 50, true), (1000, 50, true)]);
    assert_eq!(feed.counts.blind_bytes, 50 + 50 + 20);
}
