//! The house rules that a compiler does not check: the walls between the rooms, and sizes.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const LINE_COLUMNS_MAX: usize = 100;

/// All Rust files below a folder of the repository, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                let root = Path::new(env!("CARGO_MANIFEST_DIR"));
                found.push((path.strip_prefix(root).expect("below the root").into(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no sources");
    found
}

/// What a file's production code says: no comments, nothing from its tests on.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let is_test = |line: &&str| *line == "#[cfg(test)]";
    text.lines()
        .take_while(move |line| !is_test(line))
        .filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn every_room_keeps_to_itself() {
    // The words that only some rooms may say.
    let walls: [(&str, &[&str]); 8] = [
        ("mio::", &["src/shard/", "src/sync/", "src/server/"]),
        ("TcpStream", &["src/shard/"]),
        ("TcpListener", &["src/shard/", "src/server/"]),
        ("tungstenite::", &["src/protocol/", "src/testing/"]),
        ("httparse::", &["src/protocol/handshake.rs", "src/http/", "src/testing/request.rs"]),
        ("crossbeam_channel", &["src/sync/", "src/shard/pool.rs"]),
        ("std::sync::atomic", &["src/sync/"]),
        ("Instant::now", &["src/shard/clock.rs"]),
    ];
    for (path, text) in sources("src") {
        let name = path.to_string_lossy().replace('\\', "/");
        if name.contains("/tests") {
            continue;
        }
        for (word, rooms) in walls {
            if !rooms.iter().any(|room| name.starts_with(room)) {
                let said = code(&text).find(|line| line.contains(word));
                assert_eq!(said, None, "{name} must not know {word}");
            }
        }
    }
}

#[test]
fn dependence_runs_one_way() {
    // A room may use those before it in its row of docs/DESIGN.md, never those after it.
    let walls: [(&str, &[&str]); 5] = [
        ("src/protocol/", &["crate::handler", "crate::shard", "crate::server", "crate::hub"]),
        ("src/routing/", &["crate::handler", "crate::shard", "crate::server", "crate::protocol"]),
        ("src/hub/", &["crate::handler", "crate::shard", "crate::server", "crate::routing"]),
        ("src/handler/", &["crate::shard", "crate::server", "crate::protocol"]),
        ("src/shard/", &["crate::server", "crate::testing"]),
    ];
    for (room, forbidden) in walls {
        for (path, text) in sources(room) {
            if path.to_string_lossy().contains("/tests") {
                continue;
            }
            for word in forbidden {
                let said = code(&text).find(|line| line.contains(word));
                assert_eq!(said, None, "{} must not know {word}", path.display());
            }
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for folder in ["src", "tests", "examples", "benches", "fuzz", "tools"] {
        for (path, text) in sources(folder) {
            let count = text.lines().count();
            assert!(count <= FILE_LINES_MAX, "{} has {count} lines", path.display());
            for (at, line) in text.lines().enumerate() {
                let columns = line.chars().count();
                // A drawing in a doc comment may need the room.
                let is_drawing = line.starts_with("//!") && line.contains('─');
                assert!(
                    columns <= LINE_COLUMNS_MAX || is_drawing,
                    "{}:{} has {columns} columns",
                    path.display(),
                    at + 1
                );
            }
        }
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn security_md_names_every_limit_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let tests = sources("tests");
    let mut count = 0;
    for (program, name) in quoted(&page).filter_map(|word| word.split_once("::")) {
        if program == "Hub" {
            continue;
        }
        let places = [format!("tests/{program}.rs"), format!("tests/{program}/")];
        let is_there = tests.iter().any(|(path, text)| {
            places.iter().any(|place| path.to_string_lossy().starts_with(place))
                && text.contains(&format!("#[test]\nfn {name}()"))
        });
        assert!(is_there, "{program}::{name} is no test");
        count += 1;
    }
    assert!(count > 30, "{count} tests are named");

    let config = fs::read_to_string(root.join("src/config.rs")).expect("config.rs");
    let (_, limits) = config.split_once("pub struct Limits {").expect("Limits");
    let (limits, _) = limits.split_once("\n}").expect("its end");
    for field in limits.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
        let (name, _) = field.split_once(':').expect("a field");
        assert!(quoted(&page).any(|word| word == name), "SECURITY.md does not know {name}");
    }
}
