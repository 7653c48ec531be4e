//! The words that only some files of `src/` may say, and those that some files never say.
//!
//! Knows the two lists. Must not know layers: an import against their direction is found without
//! its words.

use super::graph::Tree;

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
    (&["src/shard/state/"], &["crate::shard::dispatch", "EventLoop"]),
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
    fn a_word_in_a_comment_a_string_or_a_test_is_not_said() {
        let text =
            "// TcpStream\nconst S: &str = \"TcpStream\";\n#[cfg(test)] use std::net::TcpStream;";
        assert!(faults_of("hub.rs", text).is_empty());
        assert!(faults_of("clock.rs", "fn f() { std::time::Instant::now(); }").is_empty());
    }
}
