//! Figures as people read them: three digits, and a unit.

/// Grouped by thousands: `12 500`.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 && digits != "0" { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Three digits, as many of them after the point as it takes.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => whole(value),
        size if size >= 9.995 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

/// `212 k`, `1.25 M`.
pub(crate) fn rate(value: f64) -> String {
    scaled(value, &["", " k", " M"])
}

/// `85 µs`, `1.25 ms`.
pub(crate) fn micros(value: f64) -> String {
    scaled(value, &[" µs", " ms", " s"])
}

/// `312 B`, `131 kB`.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, &[" B", " kB", " MB"])
}

/// Without zeros behind the point: `50 k`, not `50.0 k`.
pub(crate) fn short(text: &str) -> String {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned() + unit,
        false => text.to_owned(),
    }
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut at = 0;
    // What would round up to the next unit is written in it.
    while value.abs() >= 999.5 && at + 1 < units.len() {
        value /= 1000.0;
        at += 1;
    }
    digits(value) + units[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!([rate(940.0), rate(212_345.0), rate(1_254_000.0)], ["940", "212 k", "1.25 M"]);
        assert_eq!([micros(8.04), micros(85.2), micros(1250.0)], ["8.04 µs", "85.2 µs", "1.25 ms"]);
        assert_eq!([bytes(312.4), bytes(131_072.0)], ["312 B", "131 kB"]);
        assert_eq!(
            [short("50.0 k"), short("1.50 ms"), short("500 B")],
            ["50 k", "1.5 ms", "500 B"]
        );
        assert_eq!([short("1 000"), short("0 µs"), short("10")], ["1 000", "0 µs", "10"]);
        assert_eq!(rate(999.7), "1.00 k", "not 1000");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([whole(0.0), whole(999.0), whole(12_500.0)], ["0", "999", "12 500"]);
        assert_eq!([whole(-1_234_567.0), digits(0.0), digits(0.05)], ["-1 234 567", "0", "0.05"]);
    }
}
