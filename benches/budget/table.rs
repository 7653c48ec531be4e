//! The committed table: what each operation may cost, and why it costs that; and what to say to a
//! figure that was measured.
//!
//! Knows lines of text. Must not know how costs are measured.

use std::fmt;

/// From how much less, in percent, a row is of no use as a bound.
const STALE_PERCENT: f64 = 10.;

/// Stands in a row that is proposed, for somebody to replace.
pub(crate) const TO_SAY: &str = "WHY";

/// How wide the first columns are.
const NAME_COLUMNS: usize = 34;
const COST_COLUMNS: usize = 12;

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Instructions for one item.
    pub(crate) cost: f64,
    /// How much more it may be, in percent.
    pub(crate) tolerance: f64,
    /// Why the cost last changed.
    pub(crate) why: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, cost, tolerance, why } = self;
        write!(f, "{name:NAME_COLUMNS$}{cost:>COST_COLUMNS$.1}  {tolerance}%  {why}")
    }
}

impl Row {
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (name, cost, tolerance) = (words.next(), words.next(), words.next());
        let why = words.collect::<Vec<_>>().join(" ");
        let (Some(name), Some(cost), Some(tolerance)) = (name, cost, tolerance) else {
            return Err("a row is an operation, a cost, a tolerance and why".to_owned());
        };
        let number = |word: &str| {
            let number =
                word.parse().ok().filter(|&number: &f64| number.is_finite() && number > 0.);
            number.ok_or_else(|| format!("{word:?} is no positive number"))
        };
        let tolerance = tolerance.strip_suffix('%').ok_or("a tolerance is a percentage")?;
        if why.is_empty() || why == TO_SAY {
            return Err(format!("{name} does not say why it costs that"));
        }
        let (cost, tolerance) = (number(cost)?, number(tolerance)?);
        Ok(Self { name: name.to_owned(), cost, tolerance, why })
    }

    /// How much more was measured, in percent.
    pub(crate) fn change(&self, measured: f64) -> f64 {
        (measured / self.cost - 1.) * 100.
    }

    /// What to say to a measured cost.
    pub(crate) fn judge(&self, measured: f64) -> Verdict {
        let change = self.change(measured);
        if change > self.tolerance {
            Verdict::TooDear
        } else if change < -STALE_PERCENT.max(self.tolerance) {
            Verdict::Stale
        } else {
            Verdict::Fine
        }
    }
}

/// What is to be said to a measured cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// It costs more than the table allows.
    TooDear,
    /// It costs so much less that the table would not notice most of it being lost again.
    Stale,
}

#[derive(Clone, Debug, PartialEq)]
enum Line {
    /// A comment, or nothing.
    Other(String),
    /// Of what the figures depend on: `@ what = which`.
    Fact {
        what: String,
        which: String,
    },
    Row(Row),
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    lines: Vec<Line>,
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// Names the line that cannot be read.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        for (at, line) in text.lines().enumerate() {
            let place = |error| format!("line {}: {error}", at + 1);
            let trimmed = line.trim();
            let line = if trimmed.is_empty() || trimmed.starts_with('#') {
                Line::Other(line.to_owned())
            } else if let Some(fact) = trimmed.strip_prefix('@') {
                let (what, which) =
                    fact.split_once('=').ok_or_else(|| place("what = which".to_owned()))?;
                Line::Fact { what: what.trim().to_owned(), which: which.trim().to_owned() }
            } else {
                let row = Row::parse(trimmed).map_err(place)?;
                if table.row(&row.name).is_some() {
                    return Err(place(format!("{} stands there twice", row.name)));
                }
                Line::Row(row)
            };
            table.lines.push(line);
        }
        Ok(table)
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows().find(|row| row.name == name)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.lines.iter().filter_map(|line| match line {
            Line::Row(row) => Some(row),
            Line::Other(_) | Line::Fact { .. } => None,
        })
    }

    /// Notes a measured cost: in its row, whose other columns stay, or in a new one at the end.
    pub(crate) fn set(&mut self, name: &str, cost: f64, tolerance: f64) {
        for line in &mut self.lines {
            if let Line::Row(row) = line
                && row.name == name
            {
                row.cost = cost;
                return;
            }
        }
        let why = "first measured".to_owned();
        self.lines.push(Line::Row(Row { name: name.to_owned(), cost, tolerance, why }));
    }

    /// Drops the rows that `is_kept` does not know.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.lines.retain(|line| !matches!(line, Line::Row(row) if !is_kept(&row.name)));
    }

    /// Notes what the figures depend on.
    pub(crate) fn set_fact(&mut self, what: &str, which: &str) {
        let fact = Line::Fact { what: what.to_owned(), which: which.to_owned() };
        let is_same = |line: &&mut Line| matches!(line, Line::Fact { what: w, .. } if w == what);
        match self.lines.iter_mut().find(is_same) {
            Some(line) => *line = fact,
            None => self.lines.push(fact),
        }
    }

    /// What is otherwise now than when the table was written, for whoever wonders at a figure.
    pub(crate) fn differences(&self, facts: &[(&str, String)]) -> Vec<String> {
        let then = |what: &str| {
            self.lines.iter().find_map(|line| match line {
                Line::Fact { what: w, which } if w == what => Some(which.as_str()),
                _ => None,
            })
        };
        facts
            .iter()
            .filter(|(what, now)| then(what) != Some(now))
            .map(|(what, now)| {
                let then = then(what).unwrap_or("unknown");
                format!("{what}: the table is of {then}, this is {now}")
            })
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Other(text) => writeln!(f, "{text}")?,
                Line::Fact { what, which } => writeln!(f, "@ {what} = {which}")?,
                Line::Row(row) => writeln!(f, "{row}")?,
            }
        }
        Ok(())
    }
}
