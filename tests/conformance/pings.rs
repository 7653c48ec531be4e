//! Pings and pongs (RFC 6455 sections 5.5.2 and 5.5.3). Autobahn's family 2.

use crate::raw::{BINARY, CONTINUATION, FIN, PING, PONG, TEXT, frame, header};
use crate::table::{Case, case, run};

/// A case of a ping more, which is answered.
fn pinged(case: Case, payload: &[u8]) -> Case {
    case.sends(frame(PING, payload)).gets(PONG, payload)
}

#[test]
fn every_ping_is_answered_by_its_equal() {
    let payload = |length: u8| -> Vec<u8> { (0..length).map(|at| at ^ length).collect() };
    let lengths = (0..=8).chain([31, 32, 33, 63, 64, 65, 123, 124, 125]);
    let mut cases: Vec<Case> = lengths
        .map(|length| pinged(case(format!("a ping of {length} bytes")), &payload(length)))
        .collect();
    let every = case("one of every length that there is");
    cases.push((0..=125).fold(every, |case, length| pinged(case, &payload(length))));
    cases.push(pinged(case("a ping that is no text"), b"\xFE\xFF\x00\xFC\xFB\x80\xC0"));
    run(cases);
}

#[test]
fn many_pings_are_answered_in_order() {
    let ten = (0..10).fold(case("ten pings in a row"), |case, number| pinged(case, &[number; 3]));
    let alike = (0..10).fold(case("ten that are alike"), |case, _| pinged(case, b"payload"));
    let among = (0..10).fold(case("ten between messages"), |case, number| {
        pinged(case, &[number]).echoes(TEXT, b"text").echoes(BINARY, &[number; 126])
    });
    let mut within = case("ten within a message").sends(frame(TEXT ^ FIN, b"be"));
    for number in 0..10 {
        within = pinged(within, &[number]).sends(frame(CONTINUATION ^ FIN, &[b'0' + number]));
    }
    let within = within.sends(frame(CONTINUATION, b"end")).gets(TEXT, "be0123456789end");
    run(vec![ten, alike, among, within]);
}

#[test]
fn a_pong_nobody_asked_for_is_no_matter() {
    let unasked = |case: Case, payload: &[u8]| case.sends(frame(PONG, payload));
    let ten = |name: &str| (0..10).fold(case(name), |case, number| unasked(case, &[number]));
    let turns = (0..10).fold(case("pongs and pings in turns"), |case, number| {
        pinged(unasked(case, &[number; 125]), &[number])
    });
    let amid = unasked(case("a pong amid a message").sends(frame(BINARY ^ FIN, b"a")), b"?");
    run(vec![
        unasked(case("an empty pong"), b""),
        unasked(case("a pong with a payload"), b"unasked"),
        unasked(case("a pong that is no text"), b"\xFF\xFE"),
        unasked(case("the longest pong"), &[7; 125]),
        pinged(unasked(case("a pong, then a ping"), b"unasked"), b"asked"),
        pinged(ten("ten pongs, then a ping"), b"asked"),
        ten("ten pongs, then a message").echoes(TEXT, b"still there"),
        turns,
        amid.sends(frame(CONTINUATION, b"b")).gets(BINARY, "ab"),
    ]);
}

#[test]
fn a_ping_or_pong_of_126_bytes_is_refused_on_its_header() {
    let mut cases = Vec::new();
    for (first, kind) in [(PING, "ping"), (PONG, "pong")] {
        for length in [126, 127, 65_535, 65_536, 1 << 40, u64::MAX] {
            let refused = case(format!("a {kind} of {length} bytes")).sends(header(first, length));
            cases.push(refused.fails(1002).unheard([0; 126]));
        }
        let after = case(format!("a {kind} too long after a message")).echoes(TEXT, b"right");
        cases.push(after.sends(header(first, 126)).fails(1002));
        let amid = case(format!("a {kind} too long amid one")).sends(frame(TEXT ^ FIN, b"right"));
        cases.push(amid.sends(header(first, 126)).fails(1002).unheard([b'x'; 200]));
    }
    run(cases);
}
