//! The tokens of a Rust file: words, literals, punctuation. Comments and white space are left out.
//!
//! Knows the lexical rules of Rust as far as they decide where a comment, a string or a word ends.
//! Must not know what the tokens mean.
//!
//! It is written by hand and not `syn`: `syn` would be one more dependency to compile, and it gives
//! the bodies of macros as bare tokens, so that paths in macros need a reader of tokens anyway.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword; of a raw identifier the part after `r#`.
    Word,
    /// A string, a character, a number or a lifetime.
    Literal,
    /// `::`, or any other single character.
    Punctuation,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'t> {
    pub(crate) kind: Kind,
    pub(crate) text: &'t str,
    /// The number of its line, from 1.
    pub(crate) line: usize,
}

impl Token<'_> {
    pub(crate) fn is(&self, text: &str) -> bool {
        self.kind != Kind::Literal && self.text == text
    }

    pub(crate) fn is_word(&self) -> bool {
        self.kind == Kind::Word
    }
}

/// All tokens of a file.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = measure(rest, first);
        let (part, after) = rest.split_at(length);
        if let Some(kind) = kind {
            let text = part.strip_prefix("r#").filter(|_| kind == Kind::Word).unwrap_or(part);
            found.push(Token { kind, text, line });
        }
        line += part.matches('\n').count();
        rest = after;
    }
    found
}

/// The kind and the length in bytes of what `rest` begins with; no kind: not a token.
fn measure(rest: &str, first: char) -> (Option<Kind>, usize) {
    if first.is_whitespace() {
        return (None, first.len_utf8());
    }
    if rest.starts_with("//") {
        return (None, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (None, block_comment_bytes(rest));
    }
    if let Some(length) = string_bytes(rest) {
        return (Some(Kind::Literal), length);
    }
    if first == '\'' {
        return (Some(Kind::Literal), quote_bytes(rest));
    }
    if first.is_ascii_digit() {
        return (Some(Kind::Literal), number_bytes(rest));
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if is_word(first) {
        let prefix = if rest.starts_with("r#") { 2 } else { 0 };
        let word = rest[prefix..].find(|c| !is_word(c)).unwrap_or(rest.len() - prefix);
        return (Some(Kind::Word), prefix + word);
    }
    (Some(Kind::Punctuation), if rest.starts_with("::") { 2 } else { first.len_utf8() })
}

/// Block comments nest.
fn block_comment_bytes(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest.as_bytes()[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.as_bytes()[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a string of any kind, if `rest` begins with one: `".."`, `b".."`, `r#".."#`, ..
fn string_bytes(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let is_prefix = matches!(&rest[..prefix], "" | "b" | "c" | "r" | "br" | "cr");
    let body = &rest[prefix..];
    let hash_count = body.find(|c| c != '#')?;
    if !is_prefix || !body[hash_count..].starts_with('"') {
        return None;
    }
    let begin = prefix + hash_count + 1;
    if rest[..prefix].ends_with('r') {
        let end = format!("\"{}", "#".repeat(hash_count));
        return Some(rest[begin..].find(&end).map_or(rest.len(), |at| begin + at + end.len()));
    }
    if hash_count > 0 {
        return None;
    }
    let mut is_escaped = false;
    for (at, c) in rest[begin..].char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(begin + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// The length of a character or of a lifetime.
fn quote_bytes(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            rest[from..].find('\'').map_or(rest.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => {
            rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(rest.len(), |n| n + 1)
        }
    }
}

/// A dot belongs to a number only if a digit follows: `0..5` and `0.max(1)` begin with `0`.
fn number_bytes(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let is_part = |at: usize| {
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        bytes[at].is_ascii_alphanumeric()
            || bytes[at] == b'_'
            || bytes[at] == b'.' && is_digit(at + 1)
    };
    (0..bytes.len()).find(|&at| !is_part(at)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_strings_hold_no_words() {
        assert_eq!(texts("a // use b;\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(texts(r####"x("use \" a", r#"use "b"#, b"c", br"\")"####).len(), 10);
    }

    #[test]
    fn a_lifetime_is_not_a_character() {
        assert_eq!(
            texts("&'a T, 'x', '\\'', '\"', b'\\n'").join(" "),
            "& 'a T , 'x' , '\\'' , '\"' , b '\\n'"
        );
    }

    #[test]
    fn a_range_is_not_a_number() {
        assert_eq!(
            texts("0..1.5 1_u8.max(r#type::b)").join(" "),
            "0 . . 1.5 1_u8 . max ( type :: b )"
        );
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let lines: Vec<usize> =
            tokens("a\n/*\n*/ \"\n\" b").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 4]);
    }
}
