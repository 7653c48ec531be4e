//! Any text is a query, and is decoded as a plain reading of the rules says
//! (<https://url.spec.whatwg.org/#urlencoded-parsing>).

#![no_main]

use peregrine::Query;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let expected = decode(text);
    let query = Query::new(text);
    let pairs = query.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(pairs.collect::<Vec<_>>(), expected);

    // A few names: all of many would cost the square of their number.
    for (name, _) in expected.iter().take(8) {
        let values: Vec<_> = query.get_all(name).map(String::from).collect();
        let expected = expected.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        assert!(values.iter().eq(expected), "the values of {name:?} are {values:?}");
        assert_eq!(query.get(name), values.first().map(String::as_str));
    }
    if let Some(missing) = missing_name(&expected) {
        assert_eq!(query.get(&missing), None);
    }
});

fn decode(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (unescape(name), unescape(value)))
        .collect()
}

fn unescape(text: &str) -> String {
    let mut rest = text.as_bytes();
    let mut out = Vec::new();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, after @ ..])
                if [high, low].iter().all(|d| d.is_ascii_hexdigit()) =>
            {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default() as u8;
                out.push(digit(high) << 4 | digit(low));
                rest = after;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A name that does not occur.
fn missing_name(pairs: &[(String, String)]) -> Option<String> {
    let longest = pairs.iter().map(|(name, _)| name).max_by_key(|name| name.len())?;
    Some(format!("{longest}+"))
}
