//! The table of the instruction budget, `benches/budget/table.txt`, as the page shows it, beside
//! what `steps` has counted.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::markdown::Table;
use crate::results::Results;
use crate::units;

/// What the whole server does: what `steps` calls it, and the budget with `server/` before it; in
/// words; the goal that was set before it was built; what uWebSockets (C++), the fastest peer, took
/// of the same load on such a machine.
const GOALS: [(&str, &str, f64, &str); 9] = [
    ("echo/binary/64/1", "echo of 64 B, 1 in flight", 350.0, "533 to 806"),
    ("echo/binary/64/32", "echo of 64 B, 32 in flight", 170.0, "336 to 450"),
    ("echo/ascii/64/32", "echo of 64 B of text, 32 in flight", 220.0, "439"),
    ("echo/binary/16384/1", "echo of 16 KiB", 2000.0, "2 054 to 2 600"),
    ("echo/binary/1048576/1", "echo of 1 MiB", 192_000.0, "192 000"),
    ("broadcast/1000/1", "a delivery of a broadcast to 1 000", 250.0, "444"),
    ("broadcast/1000/16", "the same, 16 of them in flight", 60.0, "186"),
    ("visit/50", "connect, upgrade, close, 50 at a time", 10_000.0, "10 500"),
    ("visit/1", "the same, one at a time", 10_000.0, "–"),
];

/// The goals beside what is, and all rows.
pub(crate) fn table(root: &Path) -> Result<String> {
    let path = root.join("benches/budget/table.txt");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let steps = Results::load(&root.join("benches/results"), "steps")?;
    Ok(made_of(&text, &steps))
}

fn made_of(text: &str, steps: &Results) -> String {
    let rows = rows(text);
    let mut goals = Table::new(&[
        "instructions of the server, user space",
        "the processor counts",
        "callgrind counts",
        "goal",
        "uWebSockets",
    ]);
    for (case, words, goal, other) in GOALS {
        let counted = steps.median(case, "peregrine", "instructions");
        let is_it = |name: &str| name.strip_prefix("server/") == Some(case);
        let budget = rows.iter().find(|(name, _)| is_it(name)).map(|(_, count)| *count);
        let shown = [counted, budget].map(|count| match count {
            None => "–".to_owned(),
            Some(count) if count <= goal => format!("**{}**", units::digits(count)),
            Some(count) => units::digits(count),
        });
        let [counted, budget] = shown;
        let goal = format!("≤ {}", units::whole(goal));
        goals.row([words.to_owned(), counted, budget, goal, other.to_owned()]);
    }
    let mut all = Table::new(&["row of the budget", "instructions"]);
    for (name, count) in rows {
        all.row([format!("`{name}`"), units::digits(count)]);
    }
    format!(
        "{}\n<details><summary>All rows</summary>\n\n{}\n</details>\n",
        goals.finish(),
        all.finish()
    )
}

/// Each row's name and instructions: `name  instructions  tolerance%  why`.
fn rows(text: &str) -> Vec<(&str, f64)> {
    let row = |line| -> Option<(&str, f64)> {
        let mut words = str::split_whitespace(line);
        let (name, count, tolerance) = (words.next()?, words.next()?, words.next()?);
        Some((name, count.parse().ok().filter(|_| tolerance.ends_with('%'))?))
    };
    text.lines().filter(|line| !line.starts_with(['#', '@'])).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::machine::Machine;
    use crate::results::Sample;

    const TEXT: &str = "# What operations cost\n\n@ rustc = rustc 1.95.0 2%\n\n\
                        lane/binary/64                           127.1  2%  first measured\n\
                        server/echo/binary/64/1                  345.5  2%  first measured\n\
                        server/echo/binary/64/32                 416.1  2%  first measured\n";

    #[test]
    fn goals_that_are_reached_stand_out() {
        assert_eq!(rows(TEXT)[0], ("lane/binary/64", 127.1));
        assert_eq!(rows(TEXT).len(), 3);
        let mut steps = Results::new("steps", false, Machine::default());
        steps.samples.push(Sample {
            case: "echo/binary/64/32".to_owned(),
            server: "peregrine".to_owned(),
            round: 0,
            values: BTreeMap::from([("instructions".to_owned(), 160.2)]),
            error: None,
        });
        let table = made_of(TEXT, &steps);
        let rows = [
            "| echo of 64 B, 1 in flight | – | **346** | ≤ 350 | 533 to 806 |",
            "| echo of 64 B, 32 in flight | **160** | 416 | ≤ 170 | 336 to 450 |",
            "| connect, upgrade, close, 50 at a time | – | – | ≤ 10 000 | 10 500 |",
        ];
        assert!(rows.iter().all(|row| table.contains(row)), "{table}");
        assert!(table.contains("| `lane/binary/64` | 127 |"), "{table}");
    }
}
