use std::time::Duration;

use super::{Kind, Mode, Options, Output};

fn parse(line: &str) -> Result<Option<Options>, String> {
    Options::parse(lexopt::Parser::from_args(line.split_whitespace()))
}

fn parsed(line: &str) -> Options {
    parse(line).expect(line).expect("no help is asked for")
}

#[test]
fn all_that_can_be_said_is_understood() {
    let options = parsed(
        "--mode broadcast --connections=7 ws://a/b --in-flight 3 --size 0 --kind text \
         --rate 0.5 --duration 2.5 --messages 9 --warm-up 0 --threads 8 --pid 4 --seed 2 \
         --from 127.0.0.2,127.0.0.3 --json - --quiet",
    );
    assert_eq!((options.mode, options.kind), (Mode::Broadcast, Kind::Text));
    assert_eq!((options.connection_count, options.in_flight_count), (7, Some(3)));
    assert_eq!((options.payload_bytes, options.rate_per_second), (0, Some(0.5)));
    assert_eq!(options.duration, Some(Duration::from_millis(2500)));
    // Not more threads than connections.
    assert_eq!((options.message_count, options.thread_count), (Some(9), 7));
    assert_eq!((options.pid, options.seed, options.from.len()), (Some(4), 2, 2));
    assert_eq!((options.json, options.is_quiet), (Some(Output::Stdout), true));
    assert!(parse("--connections 1 --help").expect("help").is_none());
}

#[test]
fn what_is_not_said_follows_from_the_rest() {
    let duration = Some(Duration::from_secs(10));
    let options = parsed("ws://a");
    assert_eq!((options.in_flight_count, options.duration), (Some(1), duration));
    let options = parsed("ws://a --rate 100");
    assert_eq!((options.in_flight_count, options.duration), (None, duration));
    let options = parsed("ws://a --messages 5 --mode visit");
    assert_eq!((options.in_flight_count, options.duration), (None, None));
    assert_eq!(parsed("ws://a --json x").json, Some(Output::File("x".into())));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_name() {
    for (line, word) in [
        ("", "A URL is needed"),
        ("ws://a ws://b", "ws://b"),
        ("ws://a --size", "--size"),
        ("ws://a --size -1", "--size -1"),
        ("ws://a --size 100000000", "--size: at most"),
        ("ws://a --connections 0", "at least 1"),
        ("ws://a --connections x", "--connections x"),
        ("ws://a --rate 0", "--rate 0"),
        ("ws://a --rate inf", "--rate inf"),
        ("ws://a --duration NaN", "--duration NaN"),
        ("ws://a --duration -1", "--duration -1"),
        ("ws://a --kind json", "text, binary are known"),
        ("ws://a --from 127.0.0.1,x", "--from x"),
        ("ws://a --from ::1,127.0.0.1", "one family"),
        ("ws://a --mode idle --in-flight 2", "sends no messages"),
        ("ws://a --mode stall --rate 2", "only holds"),
        ("ws://a --mode idle --messages 2", "only holds"),
        ("ws://a --quiet=1", "quiet"),
        ("ws://a -x", "-x"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(word), "{line}: {error}");
    }
}
