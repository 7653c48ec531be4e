//! Messages in fragments (RFC 6455 section 5.4). Autobahn's family 5.

use crate::raw::{BINARY, CONTINUATION, FIN, PING, PONG, TEXT, frame, header};
use crate::table::{Case, case, run, run_quickly};

/// A frame that is not the last of its message.
fn part(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first ^ FIN, payload)
}

/// Every frame of which an order is made.
const FRAMES: [u8; 8] =
    [TEXT, TEXT ^ FIN, BINARY, BINARY ^ FIN, CONTINUATION, CONTINUATION ^ FIN, PING, PONG];

/// A beginning of a stream, and the message that it leaves unfinished.
#[derive(Clone)]
struct Order {
    case: Case,
    name: String,
    unfinished: Option<(u8, Vec<u8>)>,
}

impl Order {
    /// The order with one more frame; `None` is a failure, of which the case tells.
    fn followed_by(&self, first: u8, payload: &[u8]) -> (Case, Option<Self>) {
        let mut next = self.clone();
        next.name += match first {
            TEXT => " text",
            BINARY => " binary",
            CONTINUATION => " end",
            PING => " ping",
            PONG => " pong",
            _ if first == TEXT ^ FIN => " text..",
            _ if first == BINARY ^ FIN => " binary..",
            _ => " more..",
        };
        let case = next.case.named(&next.name);
        let is_control = first & 8 != 0;
        let continues = first & !FIN == 0;
        if !is_control && continues != self.unfinished.is_some() {
            let head = header(first, payload.len() as u64);
            return (case.sends(head).fails(1002).unheard(payload), None);
        }
        let case = case.sends(frame(first, payload));
        next.case = match first {
            PING => case.gets(PONG, payload),
            PONG => case,
            _ => {
                let begun = (first | FIN, Vec::new());
                let (kind, mut message) = next.unfinished.take().unwrap_or(begun);
                message.extend(payload);
                if first & FIN != 0 {
                    case.gets(kind, message)
                } else {
                    next.unfinished = Some((kind, message));
                    case
                }
            }
        };
        (next.case.clone(), Some(next))
    }
}

/// All orders of so many frames, without those of which a beginning is wrong.
fn orders(count: usize) -> Vec<Case> {
    let mut orders = vec![Order { case: case(""), name: String::new(), unfinished: None }];
    for at in 1..count {
        orders = extend(&orders, at).into_iter().filter_map(|(_, order)| order).collect();
    }
    extend(&orders, count).into_iter().map(|(case, _)| case).collect()
}

fn extend(orders: &[Order], at: usize) -> Vec<(Case, Option<Order>)> {
    let payload = [b'0' + at.to_le_bytes()[0]];
    orders.iter().flat_map(|order| FRAMES.map(|first| order.followed_by(first, &payload))).collect()
}

#[test]
fn frames_mean_what_their_order_says() {
    run([orders(1), orders(2)].concat());
    run_quickly(&[orders(3), orders(4)].concat());
}

#[test]
fn a_message_may_be_cut_in_fragments_anywhere() {
    let payload = b"a message of thirty-four octets..";
    let mut cases = Vec::new();
    for first in [TEXT, BINARY] {
        for size in [1, 2, 3, 5, 8, 16, 32] {
            let mut opcode = first;
            let mut case = case(format!("{first:#x} in fragments of {size} bytes"));
            for fragment in payload.chunks(size) {
                case = case.sends(part(opcode, fragment));
                opcode = CONTINUATION;
            }
            cases.push(
                case.sends(frame(CONTINUATION, b"!")).gets(first, [payload, &b"!"[..]].concat()),
            );
        }
        for cut in 0..=payload.len() {
            let (head, tail) = payload.split_at(cut);
            let case = case(format!("{first:#x} cut at {cut}"));
            let case = case.sends(part(first, head)).sends(frame(CONTINUATION, tail));
            cases.push(case.gets(first, payload));
        }
    }
    run_quickly(&cases);
}

#[test]
fn fragments_may_be_empty() {
    let mut cases = Vec::new();
    for first in [TEXT, BINARY] {
        // Which of three fragments carry something.
        for bits in 0..8usize {
            let payloads = [&b"one"[..], b"two", b"three"];
            let payload = |at: usize| if bits >> at & 1 == 1 { payloads[at] } else { b"" };
            let case = case(format!("{first:#x} in three fragments, with payload {bits:03b}"))
                .sends(part(first, payload(0)))
                .sends(part(CONTINUATION, payload(1)))
                .sends(frame(CONTINUATION, payload(2)));
            cases.push(case.gets(first, [0, 1, 2].map(payload).concat()));
        }
    }
    run(cases);
}

#[test]
fn control_frames_may_come_between_fragments() {
    let begun = case("two pings").sends(part(TEXT, b"fragment 1"));
    let begun = begun.sends(frame(PING, b"1")).gets(PONG, "1");
    let two = begun.sends(part(CONTINUATION, b"fragment 2")).sends(frame(PING, b"2"));
    let two = two.gets(PONG, "2").sends(frame(CONTINUATION, b"fragment 3"));
    let longest = case("the longest ping and pong").sends(part(BINARY, b"a"));
    let longest = longest.sends(frame(PING, &[9; 125])).gets(PONG, [9; 125]);
    let longest = longest.sends(frame(PONG, &[8; 125])).sends(frame(CONTINUATION, b"b"));
    let text = "Grüße aus Köln, 你好, 👋";
    let mut within_characters = case("a ping at every byte of a text").sends(part(TEXT, b""));
    for byte in text.bytes() {
        within_characters = within_characters.sends(part(CONTINUATION, &[byte]));
        within_characters = within_characters.sends(frame(PING, &[byte])).gets(PONG, [byte]);
    }
    run(vec![
        two.gets(TEXT, "fragment 1fragment 2fragment 3").echoes(TEXT, b"whole"),
        longest.gets(BINARY, "ab"),
        within_characters.sends(frame(CONTINUATION, b"")).gets(TEXT, text),
    ]);
}

#[test]
fn a_control_frame_in_fragments_is_refused() {
    let mut cases = Vec::new();
    for (first, kind) in [(PING, "ping"), (PONG, "pong")] {
        for payload in [&b""[..], b"fragment"] {
            let head = header(first ^ FIN, payload.len() as u64);
            let rest = [payload, &frame(CONTINUATION, b"fragment")].concat();
            let alone = case(format!("a {kind} in fragments")).sends(&head);
            cases.push(alone.fails(1002).unheard(rest.clone()));
            let amid = case(format!("a {kind} in fragments amid a message"));
            let amid = amid.sends(part(TEXT, b"begun")).sends(&head);
            cases.push(amid.fails(1002).unheard(rest));
        }
    }
    run(cases);
}

/// Autobahn's cases 5.9 to 5.18: the same, whether it comes in one packet or byte by byte.
#[test]
fn a_continuation_of_nothing_is_refused_whatever_came_before() {
    let ended = [part(TEXT, b"fr"), frame(CONTINUATION, b"ag")].concat();
    let mut cases = Vec::new();
    for first in [CONTINUATION, CONTINUATION ^ FIN] {
        let head = header(first, 4);
        let befores = [
            case("first of all"),
            case("after messages").echoes(TEXT, b"whole").echoes(BINARY, b""),
            case("after a message in fragments").sends(&ended).gets(TEXT, "frag"),
            case("after a ping").sends(frame(PING, b"")).gets(PONG, ""),
        ];
        cases.extend(
            befores.map(|before| before.sends(&head).fails(1002).unheard(frame(TEXT, b"x"))),
        );
    }
    run(cases);
}
