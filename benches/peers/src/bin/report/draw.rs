//! Three kinds of chart: bars, ranges along a logarithmic axis, lines.

use crate::results::Spread;
use crate::svg::{Anchor, Axis, Canvas, DARK, FAINT, Font, GREY, Scale};
use crate::units::{short, whole};

const WIDTH: f64 = 860.0;
/// Where what is drawn begins and ends; names stand before.
const LEFT: f64 = 170.0;
const RIGHT: f64 = 760.0;
/// Below the titles.
const TOP: f64 = 70.0;
const ROW: f64 = 24.0;

/// What a chart says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Titles<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    /// What the axis shows, with its unit.
    pub(crate) axis: &'a str,
    /// How its values are written.
    pub(crate) format: fn(f64) -> String,
}

/// A server's colour, the same everywhere.
pub(crate) fn color(server: &str) -> &'static str {
    match server {
        "peregrine" => "#0969da",
        "tokio-tungstenite" => "#d4700a",
        "fastwebsockets" => "#2c974b",
        "axum" => "#8250df",
        "actix-ws" => "#bf3989",
        _ => "#6e7781",
    }
}

fn begin(titles: &Titles<'_>) -> Canvas {
    let mut canvas = Canvas::new(WIDTH);
    canvas.text((24.0, 32.0), Anchor::Start, Font::TITLE, titles.title);
    canvas.text((24.0, 53.0), Anchor::Start, Font::NOTE, titles.subtitle);
    canvas
}

/// Lines across, from top to bottom, with their values below.
fn grid(canvas: &mut Canvas, axis: &Axis, (top, bottom): (f64, f64), titles: &Titles<'_>) {
    for tick in axis.ticks() {
        let x = axis.at(tick);
        canvas.line((x, top), (x, bottom), (FAINT, 1.0));
        let text = short(&(titles.format)(tick));
        canvas.text((x, bottom + 16.0), Anchor::Middle, Font::NOTE, &text);
    }
}

/// One bar.
#[derive(Debug)]
pub(crate) struct Bar<'a> {
    pub(crate) server: &'a str,
    pub(crate) value: Spread,
    /// Up to here it is drawn in a paler colour.
    pub(crate) beyond: Option<f64>,
}

/// Bars in panels, each with an axis of its own; a dark line from the least to the greatest.
pub(crate) fn bars(titles: &Titles<'_>, panels: &[(&str, Vec<Bar<'_>>)]) -> String {
    let mut canvas = begin(titles);
    let mut y = TOP + 8.0;
    for (name, bars) in panels {
        canvas.text((24.0, y + 8.0), Anchor::Start, Font::PANEL, name);
        y += 20.0;
        let ends = |bar: &Bar<'_>| bar.value.greatest.max(bar.beyond.unwrap_or(0.0));
        let values: Vec<_> = bars.iter().map(ends).collect();
        let axis = Axis::over(Scale::Linear, &values, (LEFT, RIGHT));
        let bottom = y + bars.len() as f64 * ROW;
        grid(&mut canvas, &axis, (y, bottom), titles);
        for bar in bars {
            one_bar(&mut canvas, &axis, y, bar, titles);
            y += ROW;
        }
        y += 42.0;
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    canvas.text((middle, y - 4.0), Anchor::Middle, Font::NOTE, titles.axis);
    canvas.finish(y + 16.0)
}

fn one_bar(canvas: &mut Canvas, axis: &Axis, y: f64, bar: &Bar<'_>, titles: &Titles<'_>) {
    let (middle, color) = (y + ROW / 2.0, color(bar.server));
    let Spread { least, median, greatest } = bar.value;
    canvas.text((LEFT - 10.0, middle + 4.0), Anchor::End, Font::LABEL, bar.server);
    let mut end = axis.at(greatest);
    if let Some(beyond) = bar.beyond.filter(|beyond| *beyond > median) {
        end = end.max(axis.at(beyond));
        let width = axis.at(beyond) - LEFT;
        canvas.rect((LEFT, y + 4.0), (width, ROW - 8.0), &format!("{color}40"));
    }
    canvas.rect((LEFT, y + 4.0), (axis.at(median) - LEFT, ROW - 8.0), color);
    canvas.line((axis.at(least), middle), (axis.at(greatest), middle), (DARK, 1.5));
    let place = (end + 8.0, middle + 4.0);
    canvas.text(place, Anchor::Start, Font::LABEL, &(titles.format)(median));
}

/// A server's p50, p99 and p99.9.
#[derive(Debug)]
pub(crate) struct Range<'a> {
    pub(crate) server: &'a str,
    /// Nothing: not measured.
    pub(crate) values: Option<[f64; 3]>,
}

/// Ranges in panels along one logarithmic axis.
pub(crate) fn ranges(titles: &Titles<'_>, panels: &[(&str, Vec<Range<'_>>)]) -> String {
    let mut canvas = begin(titles);
    let all = panels.iter().flat_map(|(_, ranges)| ranges);
    let values: Vec<_> = all.filter_map(|range| range.values).flatten().collect();
    let axis = Axis::over(Scale::Log, &values, (LEFT, RIGHT));
    legend(&mut canvas, TOP + 8.0);
    let top = TOP + 24.0;
    let panel = |rows: usize| rows as f64 * ROW + 26.0;
    let height: f64 = panels.iter().map(|(_, ranges)| panel(ranges.len())).sum();
    grid(&mut canvas, &axis, (top, top + height), titles);
    let mut y = top;
    for (name, ranges) in panels {
        canvas.line((24.0, y), (RIGHT, y), (FAINT, 1.0));
        canvas.text((24.0, y + 17.0), Anchor::Start, Font::PANEL, name);
        y += 24.0;
        for range in ranges {
            one_range(&mut canvas, &axis, y + ROW / 2.0 - 2.0, range, titles);
            y += ROW;
        }
        y += 2.0;
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    canvas.text((middle, y + 38.0), Anchor::Middle, Font::NOTE, titles.axis);
    canvas.finish(y + 54.0)
}

fn legend(canvas: &mut Canvas, y: f64) {
    canvas.line((LEFT, y), (LEFT + 230.0, y), (GREY, 2.0));
    canvas.dot((LEFT, y), GREY, "#ffffff");
    canvas.dot((LEFT + 115.0, y), GREY, GREY);
    canvas.line((LEFT + 230.0, y - 6.0), (LEFT + 230.0, y + 6.0), (GREY, 2.5));
    for (x, name) in [(0.0, "p50"), (115.0, "p99"), (230.0, "p99.9")] {
        canvas.text((LEFT + x + 9.0, y - 5.0), Anchor::Start, Font::NOTE, name);
    }
}

fn one_range(canvas: &mut Canvas, axis: &Axis, y: f64, range: &Range<'_>, titles: &Titles<'_>) {
    canvas.text((LEFT - 10.0, y + 4.0), Anchor::End, Font::LABEL, range.server);
    let color = color(range.server);
    let Some([p50, p99, p999]) = range.values else {
        canvas.text((LEFT + 8.0, y + 4.0), Anchor::Start, Font::NOTE, "not measured");
        return;
    };
    let end = axis.at(p999);
    canvas.line((axis.at(p50), y), (end, y), (color, 2.0));
    canvas.line((end, y - 6.0), (end, y + 6.0), (color, 2.5));
    canvas.dot((axis.at(p50), y), color, "#ffffff");
    canvas.dot((axis.at(p99), y), color, color);
    let text = format!("p99 {}", (titles.format)(p99));
    canvas.text((end + 9.0, y + 4.0), Anchor::Start, Font::NOTE, &text);
}

/// A server's values along the axis at the bottom.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    pub(crate) server: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

const LINES_HEIGHT: f64 = 300.0;
/// Names of lines are so far apart at least.
const NAME_HEIGHT: f64 = 16.0;

/// Lines over a logarithmic axis, whose values are those that were measured.
pub(crate) fn lines(titles: &Titles<'_>, below: &str, scale: Scale, all: &[Series<'_>]) -> String {
    let mut canvas = begin(titles);
    let (left, right) = (108.0, 694.0);
    let (top, bottom) = (TOP + 8.0, TOP + 8.0 + LINES_HEIGHT);
    let points = || all.iter().flat_map(|series| &series.points);
    let values: Vec<_> = points().map(|(_, y)| *y).collect();
    let rows = Axis::over(scale, &values, (bottom, top));
    for tick in rows.ticks() {
        canvas.line((left - 10.0, rows.at(tick)), (right, rows.at(tick)), (FAINT, 1.0));
        let place = (left - 16.0, rows.at(tick) + 4.0);
        canvas.text(place, Anchor::End, Font::NOTE, &short(&(titles.format)(tick)));
    }
    let mut places: Vec<_> = points().map(|(x, _)| *x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let (first, last) = (places.first().copied(), places.last().copied());
    let (first, last) = (first.unwrap_or(1.0), last.unwrap_or(10.0));
    let column = |x: f64| left + (right - left) * (x / first).ln() / (last / first).ln().max(1e-9);
    for place in places {
        canvas.line((column(place), bottom), (column(place), bottom + 5.0), (GREY, 1.0));
        let text = whole(place);
        canvas.text((column(place), bottom + 20.0), Anchor::Middle, Font::NOTE, &text);
    }
    for series in all {
        let points = series.points.iter().map(|(x, y)| (column(*x), rows.at(*y)));
        let points: Vec<_> = points.collect();
        let color = color(series.server);
        canvas.path(&points, color);
        points.iter().for_each(|point| canvas.dot(*point, color, "#ffffff"));
    }
    names(&mut canvas, &rows, right + 14.0, all, titles);
    let middle = f64::midpoint(left, right);
    canvas.text((middle, bottom + 42.0), Anchor::Middle, Font::NOTE, below);
    canvas.upright_text((30.0, f64::midpoint(top, bottom)), Font::NOTE, titles.axis);
    canvas.finish(bottom + 58.0)
}

/// Each line's name at its end, from above, none over another.
fn names(canvas: &mut Canvas, rows: &Axis, x: f64, all: &[Series<'_>], titles: &Titles<'_>) {
    let end =
        |series: &Series<'_>| series.points.last().map(|(_, value)| (rows.at(*value), *value));
    let mut ends: Vec<_> =
        all.iter().filter_map(|series| end(series).map(|end| (end, series.server))).collect();
    ends.sort_by(|((a, _), _), ((b, _), _)| a.total_cmp(b));
    let mut free = f64::NEG_INFINITY;
    for ((y, value), server) in ends {
        let y = y.max(free);
        free = y + 2.0 * NAME_HEIGHT;
        let bold = Font::PANEL.color(color(server));
        canvas.text((x, y), Anchor::Start, bold, server);
        canvas.text((x, y + 14.0), Anchor::Start, Font::NOTE, &(titles.format)(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: Titles<'_> =
        Titles { title: "A & B", subtitle: "<C>", axis: "µs", format: crate::units::micros };

    /// Every element is closed: by itself, or by an end that fits.
    fn check(svg: &str) {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("an end");
            let name = tag.split([' ', '/']).find(|name| !name.is_empty()).expect("a name");
            match tag {
                _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name)),
                _ if tag.ends_with('/') => {}
                _ => open.push(name),
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
        }
        assert_eq!(open, Vec::<&str>::new());
        assert!(svg.starts_with("<svg ") && svg.contains("A &amp; B"));
    }

    #[test]
    fn charts_are_well_formed_and_all_their_numbers_are_numbers() {
        let value = Spread { least: 1.0, median: 2.0, greatest: 3.0 };
        let bar = |beyond| Bar { server: "peregrine", value, beyond };
        check(&bars(&TITLES, &[("one", vec![bar(None), bar(Some(7.0))]), ("none", vec![])]));
        let range = |values| Range { server: "axum", values };
        let found = vec![range(Some([10.0, 50.0, 4000.0])), range(None)];
        check(&ranges(&TITLES, &[("one", found)]));
        check(&ranges(&TITLES, &[]));
        let series = |points| Series { server: "x", points };
        for scale in [Scale::Linear, Scale::Log] {
            let all = [series(vec![(100.0, 5.0), (1000.0, 5.5)]), series(vec![(100.0, 5.1)])];
            check(&lines(&TITLES, "connections", scale, &all));
            check(&lines(&TITLES, "connections", scale, &[series(vec![(100.0, 5.0)])]));
            check(&lines(&TITLES, "connections", scale, &[]));
        }
    }
}
