//! Tables, and the places in a page where they belong: between `<!-- table: NAME -->` and
//! `<!-- /table -->`.

/// A table; the first column is left-aligned, the others are figures.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn finish(self) -> String {
        let mut text = String::new();
        for (at, row) in self.rows.iter().enumerate() {
            text += &format!("| {} |\n", row.join(" | "));
            if at == 0 {
                text += &format!("| --- |{}\n", " ---: |".repeat(row.len() - 1));
            }
        }
        text
    }
}

/// What is between a page's marks, made anew by a function of the name; none: left as it is.
pub(crate) fn replace(
    page: &str,
    table: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    const BEGIN: &str = "<!-- table: ";
    const END: &str = "<!-- /table -->";
    let mut parts = page.split(BEGIN);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" -->").ok_or("a mark without an end")?;
        let (old, after) = rest.split_once(END).ok_or(format!("table {name} has no end"))?;
        let new = table(name).map(|table| format!("\n\n{}\n\n", table.trim_end()));
        let new = new.as_deref().unwrap_or(old);
        text += &format!("{BEGIN}{name} -->{new}{END}{after}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_figures_to_the_right() {
        let mut table = Table::new(&["server", "rate"]);
        table.row(["ours".to_owned(), "5".to_owned()]);
        assert_eq!(table.finish(), "| server | rate |\n| --- | ---: |\n| ours | 5 |\n");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = "# A\n<!-- table: x -->\nold\n<!-- /table -->\ntext\n\
                    <!-- table: y -->\nkept\n<!-- /table -->\nend\n";
        let new = replace(page, |name| (name == "x").then(|| "new\n".to_owned()));
        let new = new.expect("a page");
        assert_eq!(new, page.replace("old", "\nnew\n"));
        let again = replace(&new, |name| (name == "x").then(|| "new\n".to_owned()));
        assert_eq!(again, Ok(new), "a second time changes nothing");
    }

    #[test]
    fn a_mark_without_an_end_is_an_error() {
        assert!(replace("<!-- table: x -->\nold", |_| None).is_err());
        assert!(replace("<!-- table: x", |_| None).is_err());
    }
}
