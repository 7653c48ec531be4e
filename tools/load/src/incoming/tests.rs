use super::{Incoming, Item};
use crate::options::Kind;
use crate::script::{Script, put_frame};

/// The number that the connection's messages begin with.
const FIRST: u64 = 62;

fn script() -> Script {
    Script::new(Kind::Binary, 130, 8, 3)
}

/// What comes of a stream, cut into two pieces there; whole messages are added up.
fn items(stream: &[u8], cut: usize, script: &Script, count: u64) -> Vec<Item> {
    let mut incoming = Incoming::starting_at(FIRST);
    let mut items = Vec::new();
    for mut piece in [&stream[..cut], &stream[cut..]] {
        while !piece.is_empty() {
            match (incoming.take(&mut piece, script, FIRST + count), items.last_mut()) {
                (Some(Item::Messages(more)), Some(Item::Messages(count))) => *count += more,
                (Some(item), _) => items.push(item),
                (None, _) => assert!(piece.is_empty()),
            }
        }
    }
    items
}

/// The first fault of a stream must be the same wherever it is cut.
fn faults(stream: &[u8], count: u64) -> Vec<Item> {
    let script = script();
    let mut faults: Vec<_> = (0..=stream.len())
        .map(|cut| {
            let is_fault = |item: &Item| !matches!(item, Item::Messages(_) | Item::Ping(_));
            items(stream, cut, &script, count).into_iter().find(is_fault).expect("a fault")
        })
        .collect();
    faults.dedup_by(|a, b| match (&a, &b) {
        // How much of it had come is told, and depends on the cut.
        (Item::Wrong(_), Item::Wrong(_)) => true,
        _ => a == b,
    });
    faults
}

#[test]
fn messages_pings_and_fragments_are_read_however_the_stream_is_cut() {
    let script = script();
    let mut stream = Vec::new();
    stream.extend(script.to_return(FIRST, 0, 3));
    put_frame(&mut stream, 0x89, b"ping", None);
    stream.extend(script.to_return(FIRST + 3, 0, 1));
    let payload = script.payload(FIRST + 4);
    put_frame(&mut stream, 0x02, &payload[..1], None);
    put_frame(&mut stream, 0x8A, b"", None);
    put_frame(&mut stream, 0x00, &payload[1..128], None);
    put_frame(&mut stream, 0x00, b"", None);
    put_frame(&mut stream, 0x80, &payload[128..], None);
    stream.extend(script.to_return(FIRST + 5, 0, 2));
    put_frame(&mut stream, 0x88, b"\x03\xE8bye", None);
    for cut in 0..=stream.len() {
        let expected = [
            Item::Messages(3),
            Item::Ping(b"ping".to_vec()),
            Item::Messages(1),
            Item::Pong,
            Item::Messages(3),
            Item::Close(Some(1000)),
        ];
        assert_eq!(items(&stream, cut, &script, 7), expected, "cut at {cut}");
    }
}

#[test]
fn a_wrong_message_is_found_however_the_stream_is_cut() {
    let script = script();
    let right = script.to_return(FIRST, 0, 2).to_vec();
    for at in 0..right.len() {
        let mut stream = right.clone();
        stream[at] ^= 0x01;
        // A shorter frame leaves bytes, a longer one swallows some.
        let has_fault = |cut| {
            let items = items(&stream, cut, &script, 2);
            items.iter().any(|item| !matches!(item, Item::Messages(_)))
                || items == [Item::Messages(1)]
        };
        assert!((0..=stream.len()).all(has_fault), "byte {at}");
    }
    let mut short = Vec::new();
    put_frame(&mut short, 0x82, &script.payload(FIRST)[..129], None);
    let mut long = Vec::new();
    put_frame(&mut long, 0x82, &[script.payload(FIRST), b"x"].concat(), None);
    for stream in [short, long] {
        assert!(matches!(faults(&stream, 1)[..], [Item::Wrong(_)]));
    }
}

#[test]
fn more_than_was_sent_is_too_much() {
    let script = script();
    let stream = script.to_return(FIRST, 0, 3);
    assert!(matches!(&faults(stream, 2)[..], [Item::Surplus(message)]
        if message.to_string().starts_with("binary of 130 bytes came")));
}

#[test]
fn frames_that_a_server_may_not_send_are_malformed() {
    let script = script();
    for (frame, word) in [
        (&b"\xC2\x00"[..], "reserved"),
        (b"\x82\x80", "masked"),
        (b"\x83\x00", "opcode"),
        (b"\x09\x00", "control"),
        (b"\x89\x7E", "control"),
        (b"\x80\x00", "nothing"),
        (b"\x88\x01\x03", "half"),
        (b"\x02\x00\x82\x00", "within"),
    ] {
        let mut stream = script.to_return(FIRST, 0, 1).to_vec();
        stream.extend(frame);
        let [Item::Malformed(what)] = &faults(&stream, 2)[..] else { panic!("{word}") };
        assert!(what.contains(word), "{what}");
    }
}
