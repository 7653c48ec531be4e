//! Relative links in Markdown files: the file must exist, and an `#anchor` must be a heading of it.
//! Links to the web are not followed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All Markdown files of the repository, relative to its root.
pub(crate) fn pages(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_ours = name != "target" && !name.starts_with('.');
            if path.is_dir() && is_ours {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(root).expect("below the root").into());
            }
        }
    }
    found.sort();
    found
}

/// The links of a page that lead nowhere, each with page and line.
pub(crate) fn faults(root: &Path, page: &Path) -> Vec<String> {
    let text = fs::read_to_string(root.join(page)).expect("text");
    let mut faults = Vec::new();
    for (line, target) in links(&text) {
        if let Some(problem) = problem(root, page, &text, &target) {
            faults.push(format!("{}:{line}: {target}: {problem}", page.display()));
        }
    }
    faults
}

/// How many relative links a page has.
pub(crate) fn count(root: &Path, page: &Path) -> usize {
    links(&fs::read_to_string(root.join(page)).expect("text")).len()
}

fn problem(root: &Path, page: &Path, text: &str, target: &str) -> Option<&'static str> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = root.join(page).parent().expect("a folder").join(file);
    if !file.is_empty() && !path.exists() {
        return Some("there is no such file");
    }
    if anchor.is_empty() {
        return None;
    }
    let headings = match file {
        "" => anchors(text),
        _ => anchors(&fs::read_to_string(&path).ok()?),
    };
    (!headings.contains(anchor)).then_some("there is no such heading")
}

/// The lines outside of code blocks, numbered from one.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push((at + 1, line.to_owned()));
        }
    }
    lines
}

/// The targets of all relative links: `[text](target)`, `![text](target)`, `[name]: target`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        found.extend(inline.map(|(target, _)| (number, target.to_owned())));
        let named = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        found.extend(named.map(|(_, target)| (number, target.trim().to_owned())));
    }
    found.retain(|(_, target)| !target.contains("://") && !target.starts_with("mailto:"));
    found
}

/// The anchors that a forge gives to the headings of a page: lower case, without punctuation, a
/// hyphen for each space. A heading that stands twice gets `-1` the second time.
fn anchors(text: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let anchor: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|&sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'))
            .map(|sign| if sign == ' ' { '-' } else { sign })
            .collect();
        let mut name = anchor.clone();
        let mut repeat = 0;
        while !found.insert(name) {
            repeat += 1;
            name = format!("{anchor}-{repeat}");
        }
    }
    found
}

#[test]
fn links_and_headings_are_found_as_a_forge_finds_them() {
    let page = "# A `b`, c_d!\n[x](../a.md#b) ![y](z.svg)\n```sh\n# no heading [n](o)\n```\n\
                ## Twice\n## Twice\n[web](https://example.com)\n[named]: src/x.rs\n";
    let found: Vec<String> = links(page).into_iter().map(|(_, target)| target).collect();
    assert_eq!(found, ["../a.md#b", "z.svg", "src/x.rs"]);
    let expected = ["a-b-c_d", "twice", "twice-1"].map(str::to_owned);
    assert_eq!(anchors(page), HashSet::from(expected));
}
