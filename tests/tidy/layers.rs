//! The layers of `src/`, and the imports that run upward.
//!
//! A file may import its own layer and those below. A new file of `src/` needs a place in the
//! table: folders end in `/`, and the longest entry that fits a file decides.
//!
//! Knows the table. Must not know how imports are found.

use super::graph::Edge;

pub(crate) struct Layer {
    pub(crate) name: &'static str,
    files: &'static [&'static str],
}

/// From top to bottom. A layer is not a folder: a few files stand beside those that use them.
pub(crate) const LAYERS: [Layer; 15] = [
    Layer {
        name: "the crate's root and the kits for tests",
        files: &["src/lib.rs", "src/internals.rs", "src/fuzzing.rs", "src/testing/"],
    },
    Layer { name: "server", files: &["src/server/"] },
    Layer { name: "shard/harness", files: &["src/shard/harness/", "src/shard/footprint.rs"] },
    Layer {
        name: "the event loop and its phases",
        files: &["src/shard/mod.rs", "src/shard/phases/"],
    },
    Layer { name: "shard/dispatch", files: &["src/shard/dispatch/"] },
    Layer { name: "shard/state", files: &["src/shard/state/"] },
    Layer { name: "shard/connection", files: &["src/shard/connection/"] },
    Layer {
        name: "the shard's ground types",
        files: &[
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
    },
    Layer { name: "handler", files: &["src/handler/"] },
    Layer { name: "routing", files: &["src/routing/"] },
    Layer { name: "hub", files: &["src/hub/"] },
    Layer { name: "protocol", files: &["src/protocol/"] },
    Layer { name: "http", files: &["src/http/"] },
    Layer {
        name: "transport",
        files: &["src/transport/", "src/shard/claim.rs", "src/shard/tcp_info.rs"],
    },
    Layer {
        name: "config, error, message and the services of the system",
        files: &[
            "src/clock.rs",
            "src/config.rs",
            "src/error.rs",
            "src/message.rs",
            "src/panics.rs",
            "src/sync/",
        ],
    },
];

/// Imports that may run upward: from, to, and the reason. At most one.
pub(crate) const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// The number of a file's layer, from the top.
pub(crate) fn layer_of(file: &str) -> Option<usize> {
    let entries = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(index, layer)| layer.files.iter().map(move |entry| (index, *entry)));
    let fits = |entry: &str| match entry.ends_with('/') {
        true => file.starts_with(entry),
        false => file == entry,
    };
    let fitting = entries.filter(|(_, entry)| fits(entry));
    fitting.max_by_key(|(_, entry)| entry.len()).map(|(index, _)| index)
}

/// Why an import may not be, if it may not; the two names are those by which the files are looked
/// up in the table.
pub(crate) fn fault(edge: &Edge, from: &str, to: &str) -> Option<String> {
    let (below, above) = (layer_of(from)?, layer_of(to)?);
    let is_excepted = EXCEPTIONS.iter().any(|&(a, b, _)| a == from && b == to);
    if above >= below || is_excepted {
        return None;
    }
    let Edge { line, path, .. } = edge;
    let (below, above) = (LAYERS[below].name, LAYERS[above].name);
    Some(format!(
        "{}:{line} imports {path} ({}): \"{below}\" stands below \"{above}\" and must not know \
         it; a layer may import itself and those below (tests/tidy/layers.rs)",
        edge.from, edge.to
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned(), line: 7, path: "crate::x::Y".to_owned() }
    }

    fn fault_of(from: &str, to: &str) -> Option<String> {
        fault(&edge(from, to), from, to)
    }

    #[test]
    fn an_import_may_run_down_and_sideways_only() {
        assert_eq!(fault_of("src/server/mod.rs", "src/hub/mod.rs"), None);
        assert_eq!(fault_of("src/hub/id.rs", "src/hub/mod.rs"), None);
        let fault = fault_of("src/hub/id.rs", "src/server/mod.rs").unwrap();
        assert!(
            fault.starts_with(
                "src/hub/id.rs:7 imports crate::x::Y (src/server/mod.rs): \"hub\" \
            stands below \"server\" and must not know it"
            ),
            "{fault}"
        );
    }

    #[test]
    fn a_file_needs_a_place_and_the_longest_entry_decides() {
        assert_eq!(layer_of("src/shard/news.rs"), None);
        assert_eq!(
            LAYERS[layer_of("src/shard/mod.rs").unwrap()].name,
            "the event loop and its phases"
        );
        assert_eq!(LAYERS[layer_of("src/shard/state/mod.rs").unwrap()].name, "shard/state");
    }
}
