//! Paths in the one form in which they are compared, those of requests and those that are served,
//! and what is wrong with a path that is to be served.
//!
//! Two paths are the same if they differ only in how they are percent-encoded (RFC 3986 section
//! 6.2.2). In the form that is compared, everything is encoded that may not stand in a path as it
//! is, nothing is that need not be, and hex digits are upper case. Reserved characters stay as they
//! were sent: `%2F` is no slash.
//!
//! Knows characters of paths. Must not know endpoints, handlers or requests.

use std::borrow::Cow;

/// The most parameters that the router below can tell apart, a `{*rest}` not counted.
const PARAMETER_COUNT_MAX: usize = 25;

const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// By byte: whether it may stand in a path as it is (`pchar` and the slash, RFC 3986 section 3.3).
/// The percent sign may not: what stands behind it has to be looked at.
const IS_PLAIN: [bool; 256] = {
    let plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/";
    let mut table = [false; 256];
    let mut at = 0;
    while at < plain.len() {
        table[plain[at] as usize] = true;
        at += 1;
    }
    table
};

/// A request's path in the form that is compared. What it decodes to is the same.
pub(super) fn canonical(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| IS_PLAIN[usize::from(byte)]) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len() + 16);
    push_canonical(&mut out, path);
    Cow::Owned(out)
}

/// Appends a literal text in the form that is compared. A percent sign that encodes nothing stands
/// for itself.
fn push_canonical(out: &mut String, text: &str) {
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let encoded = if byte == b'%' { encoded_byte(after) } else { None };
        match encoded {
            Some(byte) => {
                rest = &after[2..];
                let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                if is_unreserved { out.push(char::from(byte)) } else { push_encoded(out, byte) }
            }
            None if IS_PLAIN[usize::from(byte)] => out.push(char::from(byte)),
            None => push_encoded(out, byte),
        }
    }
}

/// The byte that two hex digits behind a percent sign stand for.
fn encoded_byte(after_percent: &[u8]) -> Option<u8> {
    let [high, low, ..] = after_percent else { return None };
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn push_encoded(out: &mut String, byte: u8) {
    let digits = [byte >> 4, byte & 0xF].map(|digit| HEX_DIGITS[usize::from(digit)]);
    out.push('%');
    out.extend(digits.map(char::from));
}

/// A path that is to be served, in the form that is compared; its parameters stay as they are. Of
/// a path that no client can ask for, or that means something else than its author believes, the
/// problem, with what to write in its place.
pub(super) fn canonical_pattern(pattern: &str) -> Result<String, String> {
    if !pattern.starts_with('/') {
        return Err("it does not begin with a slash".to_owned());
    }
    if pattern.contains(['?', '#']) {
        return Err("it holds one of the characters ?, #".to_owned());
    }
    if pattern.contains(char::is_control) {
        return Err("it holds a control character".to_owned());
    }
    check_percent_signs(pattern)?;
    let mut out = String::with_capacity(pattern.len());
    let mut names = Vec::new();
    for segment in pattern[1..].split('/') {
        out.push('/');
        check_foreign_syntax(segment)?;
        let start = out.len();
        push_segment(&mut out, segment, &mut names)?;
        if matches!(&out[start..], "." | "..") {
            return Err("clients resolve a segment of dots before they ask".to_owned());
        }
    }
    let counted = names.iter().filter(|name| !name.starts_with('*')).count();
    if counted > PARAMETER_COUNT_MAX {
        return Err(format!("it has more than {PARAMETER_COUNT_MAX} parameters"));
    }
    Ok(out)
}

fn check_percent_signs(pattern: &str) -> Result<(), String> {
    let mut afters = pattern.split('%').skip(1).map(str::as_bytes);
    if afters.any(|after| encoded_byte(after).is_none()) {
        return Err("a percent sign in it encodes nothing: one that is meant is written %25".into());
    }
    Ok(())
}

/// The parameters of other routers would be literal here, and nobody would ask for them.
fn check_foreign_syntax(segment: &str) -> Result<(), String> {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    if let Some(name) = segment.strip_prefix(':').filter(|rest| rest.starts_with(is_letter)) {
        let name = &name[..name.find(|c| !is_letter(c)).unwrap_or(name.len())];
        return Err(format!("a parameter is written {{{name}}}, not :{name}"));
    }
    if let Some(name) = segment.strip_prefix('*') {
        let name = if is_name(name) { name } else { "path" };
        return Err(format!("the rest of a path is written {{*{name}}}, not {segment}"));
    }
    if let Some(inner) = segment.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
        let name = inner.rsplit(':').next().unwrap_or(inner);
        return Err(match name.strip_suffix("..") {
            Some(name) => format!("the rest of a path is written {{*{name}}}, not {segment}"),
            None => format!("a parameter is written {{{name}}}, not {segment}"),
        });
    }
    Ok(())
}

/// Appends a segment in the form that is compared: literal text, of which doubled braces are part,
/// and parameters.
fn push_segment<'p>(
    out: &mut String,
    segment: &'p str,
    names: &mut Vec<&'p str>,
) -> Result<(), String> {
    let mut rest = segment;
    while let Some(at) = rest.find(['{', '}']) {
        push_canonical(out, &rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            push_canonical(out, brace);
            rest = after;
            continue;
        }
        let parameter = rest.split_once('}').filter(|_| brace == "{");
        let Some((name, after)) = parameter else {
            return Err("a brace in it has no other: those that are meant are doubled".to_owned());
        };
        check_name(name)?;
        if names.iter().any(|known| bare(known) == bare(name)) {
            return Err(format!("the parameter {:?} stands in it twice", bare(name)));
        }
        names.push(name);
        out.extend(["{", name, "}"]);
        rest = after;
    }
    push_canonical(out, rest);
    Ok(())
}

/// The name of a parameter without the star that makes it the rest of the path.
fn bare(name: &str) -> &str {
    name.strip_prefix('*').unwrap_or(name)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}

/// Of what stands between braces, the problem, with what other routers would mean by it.
fn check_name(given: &str) -> Result<(), String> {
    if is_name(bare(given)) {
        return Ok(());
    }
    if let Some((name, pattern)) = given.split_once(':').filter(|(name, _)| is_name(name)) {
        let star = if pattern == ".*" || pattern == "path" { "*" } else { "" };
        return Err(format!(
            "a parameter has no pattern: write {{{star}{name}}}; required_param checks its type"
        ));
    }
    let is_mark = |c: char| c == '*' || c == '.';
    let name = given.trim_matches(is_mark);
    if is_name(name) {
        return Err(format!("the rest of a path is written {{*{name}}}, not {{{given}}}"));
    }
    Err(format!("the name {given:?} of a parameter is not made of letters, digits, - and _"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain_is_borrowed_and_the_rest_has_one_form() {
        for path in ["/", "/chat", "/a-b._~!$&'()*+,;=:@/c//", "*"] {
            assert!(matches!(canonical(path), Cow::Borrowed(same) if same == path), "{path}");
        }
        for (path, expected) in [
            ("/%61%7e%2D", "/a~-"),
            ("/%2f%2B%40", "/%2F%2B%40"),
            ("/\u{e9} |", "/%C3%A9%20%7C"),
            ("/%c3%A9", "/%C3%A9"),
            ("/%2%35%", "/%2525%25"),
            ("/%+1%\u{e9}", "/%25+1%25%C3%A9"),
        ] {
            assert_eq!(canonical(path), expected, "{path}");
            assert_eq!(canonical(expected), expected, "the form of the form");
        }
    }

    #[test]
    fn parameters_stay_as_they_are_and_braces_that_are_meant_are_encoded() {
        for (pattern, expected) in [
            ("/r\u{e4}ume/{r\u{e4}um}", "/r%C3%A4ume/{r\u{e4}um}"),
            ("/{{not}}/{{{a}}}/{b}.json", "/%7Bnot%7D/%7B{a}%7D/{b}.json"),
            ("/img-{name}/{*rest}", "/img-{name}/{*rest}"),
        ] {
            assert_eq!(canonical_pattern(pattern).as_deref(), Ok(expected));
        }
    }
}
