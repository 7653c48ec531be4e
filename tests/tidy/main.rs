//! The rules of the project that a compiler does not check: the layers of `src/`, the words that
//! belong to some modules only, module headers, sizes, what SECURITY.md promises, and links.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod graph;
mod imports;
mod layers;
mod links;
mod report;
mod tokens;
mod walls;

use std::fs;
use std::path::{Path, PathBuf};

use self::graph::{Edge, Tree};

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const FILE_LINES_MAX: usize = 600;
const LINE_COLUMNS_MAX: usize = 100;

/// All Rust files below a folder of the repository, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                let root = Path::new(ROOT);
                found.push((path.strip_prefix(root).expect("below the root").into(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no sources");
    found
}

fn tree() -> Tree {
    Tree::read(Path::new(ROOT))
}

/// Fails with all faults, one a line.
fn assert_none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{} {what}:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn each_file_has_a_layer() {
    let tree = tree();
    assert!(tree.files.len() > 90, "only {} files of src/ were found", tree.files.len());
    let faults: Vec<String> =
        tree.files.into_iter().filter(|file| layers::layer_of(file).is_none()).collect();
    assert_none("files have no place in the table of tests/tidy/layers.rs", &faults);
}

#[test]
fn imports_run_down_the_layers() {
    let edges = tree().edges();
    let faults: Vec<String> =
        edges.iter().filter_map(|edge| layers::fault(edge, &edge.from, &edge.to)).collect();
    assert_none("imports run upward", &faults);
    assert!(layers::EXCEPTIONS.len() <= 1, "one exception at most");
    for (from, to, reason) in layers::EXCEPTIONS {
        let is_used = edges.iter().any(|edge| edge.from == *from && edge.to == *to);
        assert!(is_used && !reason.is_empty(), "the exception {from} -> {to} is not needed");
    }
}

#[test]
fn no_file_imports_itself_through_others() {
    let edges = tree().edges();
    let mut faults = Vec::new();
    for circle in graph::circles(&edges) {
        faults.push(format!("a circle of {} files:", circle.len()));
        let is_inside =
            |edge: &&Edge| [&edge.from, &edge.to].iter().all(|file| circle.contains(file));
        faults.extend(edges.iter().filter(is_inside).map(|edge| {
            format!("  {}:{} imports {} ({})", edge.from, edge.line, edge.path, edge.to)
        }));
    }
    assert_none("lines about circles of imports", &faults);
}

#[test]
fn certain_words_are_said_only_where_they_belong() {
    assert_none("words are out of place", &walls::faults(&tree()));
}

#[test]
fn fields_of_shards_and_connections_are_private() {
    let root = Path::new(ROOT);
    let read = |file: &str| fs::read_to_string(root.join(file)).expect("text");
    assert_none("fields are not as visible as they are to be", &walls::visible_fields(read));
}

/// How long a file is that explains itself.
const HEADER_FROM_LINES: usize = 80;

#[test]
fn headers_say_what_a_module_knows() {
    let root = Path::new(ROOT);
    let mut faults = Vec::new();
    for file in tree().files {
        let text = fs::read_to_string(root.join(&file)).expect("text");
        let header: String = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        // The crate's root documents the API, for its users.
        let is_meant = file != "src/lib.rs"
            && (file.ends_with("/mod.rs") || text.lines().count() > HEADER_FROM_LINES);
        if is_meant && !(header.contains("Knows") && header.contains("ust not know")) {
            faults.push(file);
        }
    }
    assert_none("headers do not say what the module knows and must not know", &faults);
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for folder in ["src", "tests", "examples", "benches", "fuzz", "ci", "tools"] {
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
    let root = Path::new(ROOT);
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

#[test]
fn every_relative_link_leads_somewhere() {
    let root = Path::new(ROOT);
    let pages = links::pages(root);
    let faults: Vec<String> = pages.iter().flat_map(|page| links::faults(root, page)).collect();
    assert_none("links lead nowhere", &faults);
    let count: usize = pages.iter().map(|page| links::count(root, page)).sum();
    assert!(pages.len() >= 10 && count > 100, "{} pages, {count} links", pages.len());
}

/// `PEREGRINE_TREE`: the folder of another revision. `PEREGRINE_LONG`: with all imports.
#[test]
#[ignore = "a report, for ci/structure.sh"]
fn report() {
    let tree = std::env::var_os("PEREGRINE_TREE");
    let root = tree.map_or(PathBuf::from(ROOT), PathBuf::from);
    report::print(&root, std::env::var_os("PEREGRINE_LONG").is_some_and(|word| !word.is_empty()));
}
