//! The files of `src/` and which of them imports which.
//!
//! A path is followed through re-exports to the file that defines the item: `use super::Slot` is an
//! import of the file with `struct Slot`, even if a `mod.rs` hands it on. What a file re-exports
//! from the modules below it and does not use itself is not an import of that file. `mod name;`
//! is not an import either.
//!
//! Knows how Rust finds the file of a module and the item of a path. Must not know layers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::imports::{self, Import, Mention};

/// How many re-exports a path may pass.
const HOP_COUNT_MAX: usize = 16;

/// One file imports another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) line: usize,
    /// The path, as it is written.
    pub(crate) path: String,
}

/// All modules of a crate that are compiled without tests, by their paths.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    modules: Vec<Module>,
    /// Relative to the root, in the order of the declarations.
    pub(crate) files: Vec<String>,
}

#[derive(Debug)]
struct Module {
    file: usize,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    definitions: HashSet<String>,
    imports: Vec<Import>,
    mentions: Vec<Mention>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Module(usize),
    /// An item that this file defines.
    Item(usize),
}

impl Tree {
    /// Reads the crate whose `src/lib.rs` is below this folder.
    pub(crate) fn read(root: &Path) -> Self {
        Self::with(|path| fs::read_to_string(root.join(path)).ok())
    }

    /// Reads a crate; `read` returns the text of a file, if there is such a file.
    pub(crate) fn with(read: impl Fn(&str) -> Option<String>) -> Self {
        let mut tree = Self::default();
        tree.add_file("src/lib.rs".into(), None, &read);
        tree
    }

    /// Adds a file and those of the modules that it declares; returns its own module.
    fn add_file(
        &mut self,
        path: PathBuf,
        parent: Option<usize>,
        read: &impl Fn(&str) -> Option<String>,
    ) -> Option<usize> {
        let name = path.to_string_lossy().replace('\\', "/");
        let text = read(&name)?;
        let file = self.files.len();
        self.files.push(name);
        let is_folders = path.ends_with("mod.rs") || path.ends_with("lib.rs");
        let folder = if is_folders { path.with_file_name("") } else { path.with_extension("") };
        let own = self.modules.len();
        let mut inline: HashMap<Vec<String>, usize> = HashMap::new();
        for module in imports::read(&text) {
            let index = self.modules.len();
            let around = module.names.split_last().map(|(name, around)| (name, inline[around]));
            let parent = around.map_or(parent, |(_, parent)| Some(parent));
            self.modules.push(Module {
                file,
                parent,
                children: HashMap::new(),
                definitions: module.definitions.into_iter().collect(),
                imports: module.imports,
                mentions: module.mentions,
            });
            if let Some((name, parent)) = around {
                self.modules[parent].children.insert(name.clone(), index);
            }
            let folder = module.names.iter().fold(folder.clone(), |path, name| path.join(name));
            for (name, given) in module.children {
                // Files with a given path are shared with tests; they are read where they belong.
                if given.is_some() {
                    continue;
                }
                let places = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
                let mut found =
                    places.into_iter().map(|path| self.add_file(path, Some(index), read));
                if let Some(child) = found.find_map(|child| child) {
                    drop(found);
                    self.modules[index].children.insert(name, child);
                }
            }
            inline.insert(module.names, index);
        }
        Some(own)
    }

    /// All imports, each path once for each file.
    pub(crate) fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (index, module) in self.modules.iter().enumerate() {
            let imports = module.imports.iter().filter(|import| !self.is_handed_on(index, import));
            let imports = imports.map(|import| (&import.path, import.line));
            let mentions = module.mentions.iter().filter(|mention| self.is_path(index, mention));
            let mentions = mentions.map(|mention| (&mention.path, mention.line));
            for (path, line) in imports.chain(mentions) {
                let to = match self.resolve(index, path, HOP_COUNT_MAX) {
                    Some(Target::Module(to)) => self.modules[to].file,
                    Some(Target::Item(to)) => to,
                    None => continue,
                };
                if to != module.file {
                    edges.push(Edge {
                        from: self.files[module.file].clone(),
                        to: self.files[to].clone(),
                        line,
                        path: path.join("::"),
                    });
                }
            }
        }
        edges.sort();
        edges.dedup_by(|b, a| (&a.from, &a.to, &a.path) == (&b.from, &b.to, &b.path));
        edges
    }

    /// Whether an import gives a name to others only: a re-export of what stands below, or a
    /// module whose items are imported by the paths that begin with its name.
    fn is_handed_on(&self, index: usize, import: &Import) -> bool {
        let module = &self.modules[index];
        let target = self.resolve(index, &import.path, HOP_COUNT_MAX);
        let first_words = || {
            let modules = self.modules.iter().filter(|other| other.file == module.file);
            modules.flat_map(|module| &module.mentions).filter(|m| m.path[0] == import.name)
        };
        let is_module = matches!(target, Some(Target::Module(_))) && import.name != "*";
        if is_module && first_words().any(|mention| mention.path.len() > 1) {
            return true;
        }
        let to = match target {
            Some(Target::Module(to)) => self.modules[to].file,
            Some(Target::Item(to)) => to,
            None => return false,
        };
        import.is_public && self.is_below(to, module.file) && first_words().next().is_none()
    }

    /// Whether a file's module stands below another file's.
    fn is_below(&self, file: usize, above: usize) -> bool {
        let module = self.modules.iter().position(|module| module.file == file);
        let mut parent = module;
        while let Some(index) = parent {
            if self.modules[index].file == above {
                return file != above;
            }
            parent = self.modules[index].parent;
        }
        false
    }

    /// Whether a mention is a path through modules: others begin with a name that is declared here
    /// or imported, which counts where that is done.
    fn is_path(&self, index: usize, mention: &Mention) -> bool {
        let [first, _, ..] = &mention.path[..] else { return false };
        matches!(&first[..], "crate" | "self" | "super")
            || matches!(self.look_up(index, first, false, HOP_COUNT_MAX), Some(Target::Module(_)))
    }

    /// What a path of a module leads to; `None`: out of this crate.
    fn resolve(&self, index: usize, path: &[String], hop_count: usize) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let mut target = match &first[..] {
            "crate" => Target::Module(0),
            "self" => Target::Module(index),
            "super" => Target::Module(self.modules[index].parent?),
            name => self.look_up(index, name, rest.is_empty(), hop_count)?,
        };
        for (at, name) in rest.iter().enumerate() {
            let Target::Module(index) = target else { break };
            if name == "super" {
                target = Target::Module(self.modules[index].parent?);
                continue;
            }
            let is_last = at + 1 == rest.len();
            // What a macro defines is not found: it is this file's.
            let here = Target::Item(self.modules[index].file);
            target = self.look_up(index, name, is_last, hop_count).unwrap_or(here);
        }
        Some(target)
    }

    /// What a name means in a module. The last word of a path rather is an item, the others rather
    /// are modules.
    fn look_up(&self, index: usize, name: &str, is_last: bool, hop_count: usize) -> Option<Target> {
        let hop_count = hop_count.checked_sub(1)?;
        let module = &self.modules[index];
        let child = module.children.get(name).map(|&child| Target::Module(child));
        if let Some(child) = child.filter(|_| !is_last) {
            return Some(child);
        }
        if module.definitions.contains(name) {
            return Some(Target::Item(module.file));
        }
        let named = module.imports.iter().filter(|import| import.name == name);
        // An import cannot define the name that its own path begins with.
        let mut named = named.filter(|import| import.path[0] != name);
        if let Some(found) = named.find_map(|i| self.resolve(index, &i.path, hop_count)) {
            return Some(found);
        }
        let globs = module.imports.iter().filter(|import| import.name == "*");
        let mut modules = globs.filter_map(|i| match self.resolve(index, &i.path, hop_count) {
            Some(Target::Module(module)) if module != index => Some(module),
            _ => None,
        });
        let in_globs = modules.find_map(|module| self.look_up(module, name, is_last, hop_count));
        child.or(in_globs)
    }

    /// All that a file imports or mentions, of other crates too: path and line.
    pub(crate) fn paths(&self, file: &str) -> impl Iterator<Item = (&[String], usize)> {
        let modules = self.modules.iter().filter(move |module| self.files[module.file] == file);
        modules.flat_map(|module| {
            let imports = module.imports.iter().map(|import| (&import.path[..], import.line));
            imports.chain(module.mentions.iter().map(|m| (&m.path[..], m.line)))
        })
    }
}

/// The circles: sets of files of which each reaches each other one by imports.
pub(crate) fn circles(edges: &[Edge]) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        next.entry(&edge.from).or_default().insert(&edge.to);
    }
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            for &to in next.get(file).into_iter().flatten() {
                if reached.insert(to.to_owned()) {
                    open.push(to);
                }
            }
        }
        reached
    };
    let all: BTreeMap<&str, BTreeSet<String>> =
        next.keys().map(|&file| (file, reached(file))).collect();
    let mut circles = BTreeSet::new();
    for (&file, reached) in &all {
        if reached.contains(file) {
            let is_back = |other: &&String| all.get(&other[..]).is_some_and(|b| b.contains(file));
            circles.insert(reached.iter().filter(is_back).cloned().collect::<Vec<_>>());
        }
    }
    circles.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of a few files, and its imports as `from > to`.
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let text = |path: &str| {
            let found = files.iter().find(|(name, _)| format!("src/{name}") == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        let short = |name: &str| name.trim_start_matches("src/").to_owned();
        let mut all: Vec<_> = Tree::with(text)
            .edges()
            .iter()
            .map(|edge| format!("{} > {}", short(&edge.from), short(&edge.to)))
            .collect();
        all.dedup();
        all
    }

    #[test]
    fn a_re_export_leads_to_the_file_that_defines() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod c; pub(crate) use self::c::D; use self::c::E; fn f(_: E) {}"),
            ("a/c.rs", "pub(crate) struct D; pub(crate) struct E;"),
            ("b.rs", "use crate::a::{D as X, E}; use std::fmt;"),
        ];
        // `a` uses E itself, and hands on D only.
        assert_eq!(edges(&files), ["a/mod.rs > a/c.rs", "b.rs > a/c.rs"]);
    }

    #[test]
    fn a_child_that_its_parent_only_declares_is_in_no_circle() {
        let state = "mod send; pub(crate) use self::send::Sent; pub(crate) struct Shard;";
        let send = "use super::Shard; pub(crate) struct Sent; impl Shard { fn send(&self) {} }";
        let files = [("lib.rs", "mod state;"), ("state/mod.rs", state), ("state/send.rs", send)];
        assert_eq!(edges(&files), ["state/send.rs > state/mod.rs"]);
    }

    #[test]
    fn paths_in_code_are_imports() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d; fn f() { a::f() }"),
            ("a.rs", "use crate::b; fn f() { b::inner::g(); super::c::h(); crate::d::i!() }"),
            ("b.rs", "pub(crate) mod inner { pub(crate) fn g() {} }"),
            ("c.rs", "#[cfg(test)] mod tests { use crate::a::f; } pub(crate) fn h() {}"),
            ("d.rs", ""),
        ];
        assert_eq!(edges(&files), ["a.rs > b.rs", "a.rs > c.rs", "a.rs > d.rs", "lib.rs > a.rs"]);
    }

    #[test]
    fn globs_and_inline_modules_are_followed() {
        let files = [
            ("lib.rs", "mod a; mod sync;"),
            ("a.rs", "use crate::sync::{Lock, Own};"),
            (
                "sync/mod.rs",
                "mod own; mod real { pub(crate) use std::sync::Mutex as Lock; }
                pub(crate) use self::own::*; pub(crate) use self::real::*;",
            ),
            ("sync/own.rs", "pub(crate) struct Own;"),
        ];
        assert_eq!(edges(&files), ["a.rs > sync/mod.rs", "a.rs > sync/own.rs"]);
    }

    #[test]
    fn circles_of_any_length_are_found() {
        let edge = |(from, to): (&str, &str)| Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            line: 1,
            path: String::new(),
        };
        let edges =
            [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "f"), ("f", "e"), ("d", "e")];
        assert_eq!(circles(&edges.map(edge)), [vec!["a", "b", "c"], vec!["e", "f"]]);
    }
}
