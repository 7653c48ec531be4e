//! What callgrind and addr2line tell of instructions.
//!
//! Knows their formats. Must not know what is measured.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// How often each instruction of this program ran, by its address in the file.
pub(crate) type Counts = HashMap<u64, u64>;

/// Reads callgrind's format with `--dump-instr=yes --dump-line=no` and without compression: `ob=`
/// names the object of the functions that follow, `0xADDRESS COUNT` is an instruction. The line
/// after `calls=` is the inclusive cost of a call, and is left out.
pub(crate) fn counts(profile: &Path) -> Counts {
    let program = std::env::current_exe().expect("this program");
    let text = std::fs::read_to_string(profile).expect("a profile");
    let mut counts = Counts::new();
    let mut is_own = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_own = Path::new(object) == program;
        } else if line.starts_with("calls=") {
            lines.next();
        } else if let Some((address, count)) =
            line.strip_prefix("0x").and_then(|line| line.split_once(' '))
            && is_own
        {
            let address = u64::from_str_radix(address, 16).expect("an address");
            // Without lines, the line is given as 0.
            let count: u64 =
                count.split(' ').next_back().and_then(|count| count.parse().ok()).expect("a count");
            *counts.entry(address).or_default() += count;
        }
    }
    assert!(!counts.is_empty(), "{} names no instruction", profile.display());
    counts
}

/// The lines below `root` that these instructions came from, and those that they were inlined into,
/// by file.
pub(crate) fn lines(root: &Path, addresses: &[u64]) -> BTreeMap<String, BTreeSet<usize>> {
    let mut child = Command::new("addr2line")
        .args(["--inlines", "--exe"])
        .arg(std::env::current_exe().expect("this program"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("addr2line starts (apt-get install binutils)");
    let mut input = child.stdin.take().expect("a pipe");
    let words: Vec<String> = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(words.concat().as_bytes()));
    let output = child.wait_with_output().expect("addr2line ends");
    writer.join().expect("no panic").expect("addr2line reads");
    let root = format!("{}/", root.display());
    let mut lines: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for place in String::from_utf8_lossy(&output.stdout).lines() {
        // `FILE:LINE`, and sometimes ` (discriminator N)`.
        let place = place.split_once(" (").map_or(place, |(place, _)| place);
        let Some((file, line)) = place.rsplit_once(':') else { continue };
        if let (Some(file), Ok(line)) = (file.strip_prefix(&root), line.parse()) {
            lines.entry(file.to_owned()).or_default().insert(line);
        }
    }
    lines
}
