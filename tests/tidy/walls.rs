//! The words that only some files of `src/` may say, those that some files never say, and the
//! structs whose fields are private.
//!
//! Knows the three lists. Must not know layers: an import against their direction is found without
//! its words.

use super::graph::Tree;
use super::tokens::{Token, tokens};

/// Words that are said only in files below these folders, or in these files.
const ONLY: [(&str, &[&str]); 11] = [
    ("mio", &["src/shard/", "src/transport/", "src/sync/", "src/server/"]),
    ("TcpStream", &["src/transport/"]),
    ("TcpListener", &["src/transport/", "src/server/"]),
    ("socket2", &["src/transport/"]),
    ("rustix::net", &["src/transport/"]),
    ("nix", &["src/shard/tcp_info.rs", "src/transport/"]),
    ("tungstenite", &["src/protocol/", "src/testing/"]),
    ("httparse", &["src/protocol/handshake.rs", "src/http/", "src/testing/request.rs"]),
    ("crossbeam_channel", &["src/sync/", "src/shard/dispatch/pool.rs"]),
    ("std::sync::atomic", &["src/sync/"]),
    ("Instant::now", &["src/clock.rs"]),
];

/// Files or folders, and the words that they never say.
const NEVER: [(&[&str], &[&str]); 3] = [
    // No handler is called inside a handler: what handlers reach cannot reach what calls them.
    (
        &["src/shard/state/"],
        &[
            "crate::shard::dispatch",
            "crate::shard::phases",
            // But `ClosedBy::Application` is another thing.
            "crate::shard::Application",
            "super::Application",
            "EventLoop",
        ],
    ),
    (
        &[
            "src/shard/connection/",
            "src/shard/fanout/",
            "src/shard/limits.rs",
            "src/shard/outbound.rs",
            "src/shard/outbox/",
            "src/shard/quota/",
            "src/shard/reports.rs",
            "src/shard/stage.rs",
            "src/shard/stopwatch.rs",
            "src/shard/timers.rs",
        ],
        &["crate::shard::dispatch", "EventLoop", "Shard"],
    ),
    // What a handler and a router see of a message is not how it was framed.
    (&["src/handler/", "src/routing/"], &["crate::protocol"]),
];

/// A file, and a struct in it whose fields are private to the file's module and those below it.
const PRIVATE: [(&str, &str); 6] = [
    ("src/shard/state/mod.rs", "Shard"),
    ("src/shard/connection/mod.rs", "Connection"),
    ("src/shard/connection/mod.rs", "Details"),
    ("src/shard/connection/flags.rs", "Flags"),
    ("src/shard/connection/membership.rs", "Membership"),
    ("src/shard/connection/phase.rs", "PendingClose"),
];

/// The fields of a struct of [`PRIVATE`] that are visible outside of its module. `read` returns the
/// text of a file.
pub(crate) fn visible_fields(read: impl Fn(&str) -> String) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, name) in PRIVATE {
        let text = read(file);
        let Some(visible) = fields_with_pub(&tokens(&text), name) else {
            faults.push(format!("{file} has no struct {name}"));
            continue;
        };
        for field in visible {
            faults.push(format!("{file}: the field {field} of {name} is visible; give a method"));
        }
    }
    faults
}

/// The fields of a struct that are visible in more modules than its own and its parent; `None` if
/// there is no such struct.
fn fields_with_pub<'t>(tokens: &[Token<'t>], name: &str) -> Option<Vec<&'t str>> {
    let at = tokens.windows(2).position(|pair| pair[0].is("struct") && pair[1].is(name))?;
    let body = tokens[at..].iter().skip_while(|token| !token.is("{")).skip(1);
    let body: Vec<&Token<'_>> = body.take_while(|token| !token.is("}")).collect();
    let mut visible = Vec::new();
    for (at, _) in body.iter().enumerate().filter(|(_, token)| token.is("pub")) {
        let is_scoped = body.get(at + 1).is_some_and(|token| token.is("("));
        if is_scoped && body.get(at + 2).is_some_and(|token| token.is("super")) {
            continue;
        }
        let mut after = body[at + 1..].iter();
        if is_scoped {
            after.by_ref().find(|token| token.is(")"));
        }
        visible.extend(after.next().map(|token| token.text));
    }
    Some(visible)
}

/// A file that says a word that it must not.
pub(crate) fn faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for file in &tree.files {
        let is_in = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
        let only = ONLY.iter().filter(|(_, places)| !is_in(places)).map(|(word, _)| *word);
        let never = NEVER.iter().filter(|(places, _)| is_in(places)).flat_map(|(_, words)| *words);
        for word in only.chain(never.copied()) {
            let parts: Vec<&str> = word.split("::").collect();
            let mut paths = tree.paths(file);
            let said = paths.find(|(path, _)| path.windows(parts.len()).any(|part| part == parts));
            if let Some((path, line)) = said {
                let path = path.join("::");
                faults.push(format!("{file}:{line} says {path}: it must not know {word}"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(path: &str, text: &str) -> Vec<String> {
        let name = path.trim_end_matches(".rs");
        faults(&Tree::with(|file| match file {
            "src/lib.rs" => Some(format!("mod {name};")),
            file if file == format!("src/{path}") => Some(text.to_owned()),
            _ => None,
        }))
    }

    #[test]
    fn a_word_is_found_in_trees_and_in_code() {
        let expected = ["src/hub.rs:1 says rustix::net::send: it must not know rustix::net"];
        assert_eq!(faults_of("hub.rs", "use rustix::{io::Errno, net::{self, send}};").len(), 1);
        assert_eq!(faults_of("hub.rs", "fn f() { rustix::net::send() }"), expected);
        assert_eq!(faults_of("hub.rs", "fn f(s: TcpStream) { Instant::now(); }").len(), 2);
    }

    #[test]
    fn a_visible_field_is_found() {
        let text = "struct A { pub x: u8 } // pub\nstruct Shard { a: u8, pub(in c::d) b: u8, \
                    /* pub */ pub(super) c: u8, pub(crate) d: Vec<u8> } fn f() { pub }";
        assert_eq!(fields_with_pub(&tokens(text), "Shard"), Some(vec!["b", "d"]));
        assert_eq!(fields_with_pub(&tokens(text), "Connection"), None);
    }

    #[test]
    fn a_shard_cannot_say_the_application_but_who_closed() {
        let faults = |text: &str| {
            faults(&Tree::with(|file| match file {
                "src/lib.rs" => Some("mod shard;".to_owned()),
                "src/shard/mod.rs" => Some("mod state;".to_owned()),
                "src/shard/state/mod.rs" => Some(text.to_owned()),
                _ => None,
            }))
        };
        assert_eq!(faults("use crate::shard::{Application, EventLoop};").len(), 2);
        assert_eq!(faults("fn f(a: &super::Application) {}").len(), 1);
        assert!(faults("fn f() { ClosedBy::Application; }").is_empty());
    }

    #[test]
    fn a_word_in_a_comment_a_string_or_a_test_is_not_said() {
        let text =
            "// TcpStream\nconst S: &str = \"TcpStream\";\n#[cfg(test)] use std::net::TcpStream;";
        assert!(faults_of("hub.rs", text).is_empty());
        assert!(faults_of("clock.rs", "fn f() { std::time::Instant::now(); }").is_empty());
    }
}
