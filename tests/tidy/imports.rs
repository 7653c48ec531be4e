//! What one Rust file declares, imports and mentions, module by module.
//!
//! Reads `use` trees, paths in code and in macros, declarations of modules and items. Code that
//! only tests compile (`#[cfg(test)]`) is left out.
//!
//! Knows the syntax of a single file. Must not know other files: `graph.rs` resolves the paths.

use super::tokens::{Kind, Token, tokens};

/// `use path as name;`, one for each leaf of a `use` tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// The name in this module; `*` of a glob, `_` of a trait without a name.
    pub(crate) name: String,
    /// Whether others can see the name: `pub`, `pub(crate)`, ..
    pub(crate) is_public: bool,
    pub(crate) line: usize,
}

/// A word, or words joined by `::`, in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// A module whose text is in this file: the file's own or an inline one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Module {
    /// The names of the inline modules around it and its own; empty: the file's own module.
    pub(crate) names: Vec<String>,
    /// The modules that have files of their own: name and, if given, `#[path]`.
    pub(crate) children: Vec<(String, Option<String>)>,
    pub(crate) definitions: Vec<String>,
    pub(crate) imports: Vec<Import>,
    pub(crate) mentions: Vec<Mention>,
}

/// Reads a file: its own module first, then the inline ones.
pub(crate) fn read(text: &str) -> Vec<Module> {
    let mut reader = Reader {
        tokens: tokens(text),
        at: 0,
        modules: vec![Module::default()],
        braces: Vec::new(),
    };
    reader.run();
    reader.modules
}

struct Reader<'t> {
    tokens: Vec<Token<'t>>,
    at: usize,
    modules: Vec<Module>,
    /// What each open brace belongs to: a module or, `None`, anything else.
    braces: Vec<Option<usize>>,
}

impl<'t> Reader<'t> {
    fn peek(&self, ahead: usize) -> Option<Token<'t>> {
        self.tokens.get(self.at + ahead).copied()
    }

    fn is(&self, ahead: usize, text: &str) -> bool {
        self.peek(ahead).is_some_and(|token| token.is(text))
    }

    fn is_word(&self, ahead: usize) -> bool {
        self.peek(ahead).is_some_and(|token| token.is_word())
    }

    fn module(&mut self) -> &mut Module {
        let index = self.braces.iter().rev().find_map(|brace| *brace).unwrap_or(0);
        &mut self.modules[index]
    }

    /// Whether items that begin here are the module's, and not a function's or a type's.
    fn is_at_module_level(&self) -> bool {
        self.braces.iter().all(Option::is_some)
    }

    fn run(&mut self) {
        let mut is_public = false;
        let mut path_attribute = None;
        while let Some(token) = self.peek(0) {
            match token.text {
                "#" if self.is(1, "[") || self.is(1, "!") && self.is(2, "[") => {
                    let attribute = self.attribute();
                    if is_for_tests_only(&attribute) {
                        self.skip_item();
                        path_attribute = None;
                    } else if let [name, _, value] = attribute[..]
                        && name.is("path")
                    {
                        path_attribute = Some(value.text.trim_matches('"').to_owned());
                    }
                    continue;
                }
                "pub" if token.is_word() => {
                    is_public = true;
                    self.skip_visibility();
                    continue;
                }
                "use" if token.is_word() && !self.is(1, "<") => {
                    self.at += 1;
                    self.use_tree(&mut Vec::new(), is_public);
                }
                "mod" if token.is_word() && self.is_word(1) => {
                    self.module_declaration(path_attribute.take());
                }
                "{" if token.kind == Kind::Punctuation => {
                    self.braces.push(None);
                    self.at += 1;
                }
                "}" if token.kind == Kind::Punctuation => {
                    self.braces.pop();
                    self.at += 1;
                }
                _ if token.is_word() => self.words(token),
                _ => self.at += 1,
            }
            is_public = false;
        }
    }

    /// The tokens between the brackets of an attribute, which ends behind them.
    fn attribute(&mut self) -> Vec<Token<'t>> {
        while !self.is(0, "[") {
            self.at += 1;
        }
        let begin = self.at + 1;
        self.skip_group();
        self.tokens[begin..(self.at - 1).max(begin)].to_vec()
    }

    /// Goes behind the bracket that closes the one here.
    fn skip_group(&mut self) {
        let mut depth = 0;
        while let Some(token) = self.peek(0) {
            self.at += 1;
            match token.text {
                "(" | "[" | "{" if token.kind == Kind::Punctuation => depth += 1,
                ")" | "]" | "}" if token.kind == Kind::Punctuation => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Goes behind an item, a statement, a field or an arm that only tests compile.
    fn skip_item(&mut self) {
        while self.is(0, "#") {
            self.attribute();
        }
        while self.is(0, "pub") {
            self.skip_visibility();
        }
        let first = self.peek(0).map_or("", |token| token.text);
        let has_block = matches!(
            first,
            "fn" | "mod" | "impl" | "struct" | "enum" | "union" | "trait" | "macro_rules"
        ) || matches!(first, "unsafe" | "async" | "extern")
            || first == "const" && ["fn", "unsafe", "async"].iter().any(|word| self.is(1, word));
        let has_semicolon =
            !has_block && matches!(first, "use" | "let" | "const" | "static" | "type");
        while let Some(token) = self.peek(0) {
            match token.text {
                "{" if token.kind == Kind::Punctuation => {
                    self.skip_group();
                    if !has_semicolon {
                        return;
                    }
                    continue;
                }
                "(" | "[" if token.kind == Kind::Punctuation => {
                    self.skip_group();
                    continue;
                }
                ";" => return self.at += 1,
                "," if !has_block && !has_semicolon => return self.at += 1,
                // The end of what holds a field or an arm.
                ")" | "]" | "}" if token.kind == Kind::Punctuation => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Goes behind `pub`, `pub(crate)`, `pub(in some::path)`.
    fn skip_visibility(&mut self) {
        self.at += 1;
        let is_restricted = ["crate", "super", "self", "in"].iter().any(|word| self.is(1, word));
        if self.is(0, "(") && is_restricted && (self.is(1, "in") || self.is(2, ")")) {
            self.skip_group();
        }
    }

    /// Reads a `use` tree from here on; `path` is what stands before it.
    fn use_tree(&mut self, path: &mut Vec<String>, is_public: bool) {
        let depth = path.len();
        while let Some(token) = self.peek(0) {
            self.at += 1;
            match token.text {
                "::" => {}
                "{" => {
                    while !self.is(0, "}") && self.peek(0).is_some() {
                        self.use_tree(path, is_public);
                        if self.is(0, ",") {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    path.truncate(depth);
                    return;
                }
                "*" => {
                    self.leaf(path.clone(), "*".to_owned(), is_public, token.line);
                    path.truncate(depth);
                    return;
                }
                _ if token.is_word() => {
                    path.push(token.text.to_owned());
                    if self.is(0, "::") {
                        continue;
                    }
                    let mut full = path.clone();
                    if token.is("self") && full.len() > 1 {
                        full.pop();
                    }
                    let mut name = full.last().cloned().unwrap_or_default();
                    if self.is(0, "as") {
                        name = self.peek(1).map_or(name, |token| token.text.to_owned());
                        self.at += 2;
                    }
                    self.leaf(full, name, is_public, token.line);
                    path.truncate(depth);
                    return;
                }
                _ => return,
            }
        }
    }

    fn leaf(&mut self, path: Vec<String>, name: String, is_public: bool, line: usize) {
        self.module().imports.push(Import { path, name, is_public, line });
    }

    /// `mod name;` or `mod name {`.
    fn module_declaration(&mut self, path: Option<String>) {
        let name = self.peek(1).map_or("", |token| token.text).to_owned();
        self.at += 2;
        if self.is(0, ";") {
            self.module().children.push((name, path));
        } else if self.is(0, "{") {
            let mut names = self.module().names.clone();
            names.push(name);
            self.modules.push(Module { names, ..Module::default() });
            self.braces.push(Some(self.modules.len() - 1));
        }
        self.at += 1;
    }

    /// A word that begins a definition or a path.
    fn words(&mut self, first: Token<'t>) {
        let defines = matches!(
            first.text,
            "fn" | "struct" | "enum" | "union" | "trait" | "type" | "static" | "const"
        );
        let name_at = if first.is("static") && self.is(1, "mut") { 2 } else { 1 };
        let is_macro = first.is("macro_rules") && self.is(1, "!");
        let name = self.peek(if is_macro { 2 } else { name_at }).filter(Token::is_word);
        if let Some(name) = name
            && (defines || is_macro)
            && !matches!(name.text, "fn" | "unsafe" | "async" | "extern")
            && self.is_at_module_level()
        {
            self.module().definitions.push(name.text.to_owned());
        }
        let is_part = self.is_part();
        let mut path = vec![first.text.to_owned()];
        self.at += 1;
        while self.is(0, "::") && self.is_word(1) {
            path.push(self.peek(1).map_or("", |token| token.text).to_owned());
            self.at += 2;
        }
        if !is_part {
            self.module().mentions.push(Mention { path, line: first.line });
        }
    }

    /// Whether the word here is a field, a method, or the end of a path with generics.
    fn is_part(&self) -> bool {
        let back = |count| self.at.checked_sub(count).map(|at: usize| self.tokens[at]);
        let is = |count, text: &str| back(count).is_some_and(|token: Token<'_>| token.is(text));
        let is_word = |count| back(count).is_some_and(|token: Token<'_>| token.is_word());
        // `..` is a range.
        is(1, ".") && !is(2, ".") || is(1, "::") && (is(2, ">") || is_word(2))
    }
}

/// Whether code with this attribute is compiled in tests only.
fn is_for_tests_only(attribute: &[Token<'_>]) -> bool {
    match attribute {
        [cfg, condition @ ..] if cfg.is("cfg") => holds_without_tests(condition) == Some(false),
        [test] => test.is("test"),
        _ => false,
    }
}

/// Whether a condition of `cfg` holds when no tests are compiled; `None`: that depends.
fn holds_without_tests(condition: &[Token<'_>]) -> Option<bool> {
    let (first, rest) = condition.split_first()?;
    let parts = || arguments(rest).into_iter().map(holds_without_tests).collect::<Vec<_>>();
    match first.text {
        "(" => parts_of(condition).and_then(holds_without_tests),
        "test" | "doctest" => Some(false),
        "not" => parts().first().copied().flatten().map(|holds| !holds),
        "all" if parts().contains(&Some(false)) => Some(false),
        "all" if parts().iter().all(|part| *part == Some(true)) => Some(true),
        "any" if parts().contains(&Some(true)) => Some(true),
        "any" if parts().iter().all(|part| *part == Some(false)) => Some(false),
        _ => None,
    }
}

/// What stands between the brackets that enclose all of these tokens.
fn parts_of<'s, 't>(tokens: &'s [Token<'t>]) -> Option<&'s [Token<'t>]> {
    match tokens {
        [open, inner @ .., close] if open.is("(") && close.is(")") => Some(inner),
        _ => None,
    }
}

/// The arguments of a bracketed list.
fn arguments<'s, 't>(list: &'s [Token<'t>]) -> Vec<&'s [Token<'t>]> {
    let Some(inner) = parts_of(list) else { return Vec::new() };
    let mut depth = 0;
    let parts = inner.split(|token| {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        depth == 0 && token.is(",")
    });
    parts.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests;
