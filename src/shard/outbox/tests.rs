//! Single outboxes, step by step. `shard/tests/outbox.rs` holds them to a model.

use std::borrow::Cow;

use super::*;
use crate::protocol::frame::PING;

fn text(text: &str) -> Bytes {
    frame::encode_whole(Message::Text(text))
}

fn texts(outbox: &Queue) -> Vec<String> {
    let mut bytes = outbox
        .segments
        .iter()
        .flat_map(|segment| &segment.frames)
        .copied()
        .skip(outbox.begun.bytes);
    let mut texts = Vec::new();
    while let (Some(_first), Some(length)) = (bytes.next(), bytes.next()) {
        let payload = bytes.by_ref().take(usize::from(length)).collect();
        texts.push(String::from_utf8(payload).expect("text"));
    }
    texts
}

#[test]
fn the_oldest_frame_that_has_not_begun_to_leave_is_dropped() {
    let mut outbox = Queue::default();
    outbox.push([text("a"), text("b")].concat().into());
    outbox.push(text("c"));
    outbox.end_tail();
    outbox.advance(1);
    assert_eq!(outbox.begun.bytes, 2);
    assert!(outbox.drop_oldest().is_some());
    assert_eq!(texts(&outbox), ["c"]);
    assert!(outbox.drop_oldest().is_some());
    assert!(outbox.drop_oldest().is_none(), "the frame that is leaving stays");
    assert_eq!(outbox.bytes, 2);
}

#[test]
fn small_messages_that_drop_older_ones_are_still_gathered() {
    let mut outbox = Queue::default();
    for number in 0..1000 {
        outbox.push(text(&number.to_string()));
        if number >= 100 {
            assert!(outbox.drop_oldest().is_some());
        }
    }
    assert!(outbox.segments.len() <= 1, "{} segments", outbox.segments.len());
    outbox.end_tail();
    assert_eq!(texts(&outbox), (900..1000).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_control_frame_goes_first_and_never_into_another_frame() {
    let mut outbox = Queue::default();
    outbox.push([text("aa"), text("b")].concat().into());
    outbox.end_tail();
    outbox.advance(2);
    let pong = Bytes::from_static(&[0x8A, 0]);
    outbox.push_control(PING);
    outbox.push_control(pong.clone());
    let bytes: Vec<u8> =
        outbox.segments.iter().flat_map(|segment| &segment.frames).copied().collect();
    assert_eq!(bytes, [b"aa".as_slice(), &PING, &pong, &text("b")].concat());
    let mut gathered = Queue::default();
    gathered.push([PING, pong.clone(), text("a")].concat().into());
    gathered.push_control(PING);
    let frames: Vec<&Bytes> = gathered.segments.iter().map(|segment| &segment.frames).collect();
    assert_eq!(frames, [&[PING, pong].concat()[..], &PING, &text("a")]);
    assert_eq!(outbox.bytes, bytes.len());
    let dropped = [outbox.drop_oldest(), outbox.drop_oldest()].map(|dropped| dropped.is_some());
    assert_eq!(dropped, [true, false], "the ping is not dropped");
}

#[test]
fn a_control_frame_does_not_wait_for_data_that_follows_another_one() {
    let mut outbox = Queue::default();
    outbox.push([&PING, &text("a")].map(Bytes::clone).concat().into());
    let pong = Bytes::from_static(&[0x8A, 0]);
    outbox.push_control(pong.clone());
    let bytes: Vec<u8> =
        outbox.segments.iter().flat_map(|segment| &segment.frames).copied().collect();
    assert_eq!(bytes, [PING, pong, text("a")].concat());
}

#[test]
fn only_messages_are_counted_whatever_has_begun_to_leave() {
    let fragment = Bytes::from_static(&[0x01, 1, b'a']);
    for (first, count) in [(text("a"), 2), (PING, 1), (fragment, 1)] {
        let mut outbox = Queue::default();
        outbox.push([first, text("b")].concat().into());
        outbox.end_tail();
        assert_eq!(outbox.message_count(), count);
        outbox.advance(1);
        assert_eq!(outbox.message_count(), count);
    }
}

#[test]
fn pongs_go_before_the_data_that_waits_with_them_and_a_close_frame_does_not() {
    let [pong, other] = [Bytes::from_static(&[0x8A, 0]), Bytes::from_static(&[0x8A, 1, 7])];
    let close = Bytes::from_static(&[0x88, 0]);
    let frames = [&text("a"), &pong, &text("b"), &other, &close].map(Bytes::clone).concat();
    let expected = [pong, other, text("a"), text("b"), close].concat();
    assert_eq!(pongs_first(&frames), expected);
    let frames = [text("a"), PING, text("b")].concat();
    assert!(matches!(pongs_first(&frames), Cow::Borrowed(same) if *same == frames));
}

#[test]
fn a_frame_is_begun_exactly_when_it_has_left_in_part() {
    let frames: Bytes = [text("aa"), text("b"), text("")].concat().into();
    let left: Vec<usize> =
        (0..=frames.len()).map(|written| Begun::default().after(&frames, written).bytes).collect();
    assert_eq!(left, [0, 3, 2, 1, 0, 2, 1, 0, 1, 0]);
}

#[test]
fn what_a_transport_holds_of_a_short_rest_stays() {
    let frames: Bytes = [text(&"a".repeat(100)), text(&"b".repeat(100))].concat().into();
    let mut outbox = Outbox::default();
    outbox.push_rest(frames.clone(), Begun::default(), frames.len(), None);
    assert_eq!(outbox.kept_bytes(), frames.len());
}
