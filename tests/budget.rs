//! The budget's table (`benches/budget`): it can be read, and it says what is wrong.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "the benchmark uses the rest")]

#[path = "../benches/budget/table.rs"]
mod table;

use self::table::{Row, Table, Verdict};

const TEXT: &str = "\
# What operations cost.
@ rustc = rustc 1.95.0

lane/binary/64                           120.5  2%  first measured
server/visit/1                         18000.0  5%  the key is hashed twice
";

fn table(text: &str) -> Table {
    Table::parse(text).expect("a right table")
}

#[test]
fn the_committed_table_can_be_read_and_is_written_as_it_stands() {
    let text = include_str!("../benches/budget/table.txt");
    let table = table(text);
    assert_eq!(table.to_string(), text);
    assert!(table.rows().count() > 20, "every operation has its row");
}

#[test]
fn a_table_is_written_as_it_was_read() {
    let table = table(TEXT);
    assert_eq!(table.to_string(), TEXT);
    let row = table.row("server/visit/1").expect("its row");
    assert_eq!(
        (row.cost, row.tolerance, row.why.as_str()),
        (18000., 5., "the key is hashed twice")
    );
    assert_eq!(table.row("lane"), None, "names are whole");
}

#[test]
fn what_costs_more_than_its_tolerance_is_too_dear_and_what_costs_a_tenth_less_is_stale() {
    let judge = |tolerance, measured| {
        let row = Row { name: "a".into(), cost: 1000., tolerance, why: "so".into() };
        row.judge(measured)
    };
    assert_eq!([1000., 1019.9, 900.1].map(|cost| judge(2., cost)), [Verdict::Fine; 3]);
    assert_eq!([1020.1, 2000.].map(|cost| judge(2., cost)), [Verdict::TooDear; 2]);
    assert_eq!([899.9, 1.].map(|cost| judge(2., cost)), [Verdict::Stale; 2]);
    // What wavers more than that is not stale within its own tolerance.
    assert_eq!((judge(15., 860.), judge(15., 849.)), (Verdict::Fine, Verdict::Stale));
}

#[test]
fn a_new_figure_leaves_everything_else_as_it_was() {
    let mut table = table(TEXT);
    table.set("lane/binary/64", 90.04, 50.);
    table.set_fact("rustc", "rustc 1.96.0");
    let expected = TEXT.replace("120.5", " 90.0").replace("1.95", "1.96");
    assert_eq!(table.to_string(), expected);
    table.set("outbox", 7., 2.);
    let row = "outbox                                     7.0  2%  first measured\n";
    assert_eq!(table.to_string(), expected.clone() + row);
    table.retain(|name| name != "outbox");
    assert_eq!(table.to_string(), expected);
}

#[test]
fn a_figure_from_elsewhere_says_so() {
    let differences = |now: &str| table(TEXT).differences(&[("rustc", now.to_owned())]);
    assert!(differences("rustc 1.95.0").is_empty());
    let told = "rustc: the table is of rustc 1.95.0, this is rustc 1.96.0";
    assert_eq!(differences("rustc 1.96.0"), [told]);
    let unknown = table("").differences(&[("valgrind", "3.19".to_owned())]);
    assert_eq!(unknown, ["valgrind: the table is of unknown, this is 3.19"]);
}

#[test]
fn a_row_that_says_too_little_is_refused_with_its_line() {
    for (row, fault) in [
        ("a 1.0", "line 2: a row is an operation, a cost, a tolerance and why"),
        ("a many 2% so", "line 2: \"many\" is no positive number"),
        ("a 0 2% so", "line 2: \"0\" is no positive number"),
        ("a NaN 2% so", "line 2: \"NaN\" is no positive number"),
        ("a 1.0 -2% so", "line 2: \"-2\" is no positive number"),
        ("a 1.0 2 so", "line 2: a tolerance is a percentage"),
        ("a 1.0 2%", "line 2: a does not say why it costs that"),
        ("a 1.0 2% WHY", "line 2: a does not say why it costs that"),
        ("@ rustc", "line 2: what = which"),
    ] {
        assert_eq!(Table::parse(&format!("# text\n{row}\n")), Err(fault.to_owned()), "{row}");
    }
    let twice = "a 1.0 2% so\na 2.0 2% so\n";
    assert_eq!(Table::parse(twice), Err("line 2: a stands there twice".to_owned()));
}
