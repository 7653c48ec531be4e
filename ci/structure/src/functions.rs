//! The functions of a source file.

use super::tokens::{Kind, Token, tokens};

/// A function with a body: its name, its first line and its last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Function {
    pub(crate) first_line: usize,
    last_line: usize,
    pub(crate) name: String,
}

/// All functions of a file; of nested ones the outer first.
pub(crate) fn functions(text: &str) -> Vec<Function> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        if pair[0].is("fn")
            && pair[1].is_word()
            && let Some(last_line) = last_line(&tokens[at + 2..])
        {
            let (first_line, name) = (pair[0].line, pair[1].text.to_owned());
            found.push(Function { first_line, last_line, name });
        }
    }
    found
}

/// The line on which the body ends; `None`: there is none.
fn last_line(tokens: &[Token<'_>]) -> Option<usize> {
    let mut bracket_count = 0;
    let mut brace_count = 0;
    for token in tokens.iter().filter(|token| token.kind == Kind::Punctuation) {
        match token.text {
            "(" | "[" => bracket_count += 1,
            ")" | "]" => bracket_count -= 1,
            "{" => brace_count += 1,
            "}" => {
                brace_count -= 1;
                if brace_count == 0 {
                    return Some(token.line);
                }
            }
            ";" if bracket_count == 0 && brace_count == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The innermost function that a line belongs to.
pub(crate) fn around(functions: &[Function], line: usize) -> Option<&Function> {
    functions.iter().rev().find(|f| (f.first_line..=f.last_line).contains(&line))
}
