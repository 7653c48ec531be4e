//! SVG by hand: a white page with shapes and text on it, and axes that know where a value lies.

use std::fmt::Write;

/// Ink of titles, of what explains, of lines that guide the eye.
pub(crate) const DARK: &str = "#1f2328";
pub(crate) const GREY: &str = "#59636e";
pub(crate) const FAINT: &str = "#d8dee4";

/// Where a text's position is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Font {
    pub(crate) size: f64,
    pub(crate) color: &'static str,
    pub(crate) is_bold: bool,
}

impl Font {
    pub(crate) const TITLE: Self = Self { size: 17.0, color: DARK, is_bold: true };
    pub(crate) const PANEL: Self = Self { size: 13.0, color: DARK, is_bold: true };
    pub(crate) const LABEL: Self = Self { size: 12.5, color: DARK, is_bold: false };
    pub(crate) const NOTE: Self = Self { size: 12.0, color: GREY, is_bold: false };

    pub(crate) fn color(self, color: &'static str) -> Self {
        Self { color, ..self }
    }
}

/// What has been drawn.
#[derive(Debug)]
pub(crate) struct Canvas {
    width: f64,
    body: String,
}

impl Canvas {
    pub(crate) fn new(width: f64) -> Self {
        Self { width, body: String::new() }
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, font: Font, text: &str) {
        let Font { size, color, is_bold } = font;
        let weight = if is_bold { " font-weight=\"600\"" } else { "" };
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{color}\" \
             text-anchor=\"{}\"{weight}>{}</text>",
            anchor.name(),
            escaped(text)
        ));
    }

    /// A text that is read from below.
    pub(crate) fn upright_text(&mut self, (x, y): (f64, f64), font: Font, text: &str) {
        let (size, color) = (font.size, font.color);
        self.put(format_args!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" font-size=\"{size}\" \
             fill=\"{color}\" text-anchor=\"middle\">{}</text>",
            escaped(text)
        ));
    }

    pub(crate) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), color: &str) {
        self.put(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" \
             fill=\"{color}\"/>"
        ));
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), (color, width): (&str, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" \
             stroke-width=\"{width}\"/>"
        ));
    }

    pub(crate) fn path(&mut self, points: &[(f64, f64)], color: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.2\" \
             stroke-linejoin=\"round\"/>",
            points.join(" ")
        ));
    }

    /// Filled with its colour, or with white.
    pub(crate) fn dot(&mut self, (x, y): (f64, f64), color: &str, fill: &str) {
        self.put(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.2\" fill=\"{fill}\" stroke=\"{color}\" \
             stroke-width=\"2\"/>"
        ));
    }

    fn put(&mut self, shape: std::fmt::Arguments<'_>) {
        // A `String` takes everything.
        let _ = writeln!(self.body, "{shape}");
    }

    /// The file. White, so that it can be read on a dark page too.
    pub(crate) fn finish(self, height: f64) -> String {
        let Self { width, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"system-ui, -apple-system, 'Segoe UI', \
             Helvetica, Arial, sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#fff\"/>\n{body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// Each step ten times the one before; no zero.
    Log,
}

/// From values to places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    scale: Scale,
    values: (f64, f64),
    places: (f64, f64),
}

impl Axis {
    /// Wide enough for all values, with round ends.
    pub(crate) fn over(scale: Scale, values: &[f64], places: (f64, f64)) -> Self {
        let greatest = values.iter().copied().fold(0.0, f64::max);
        // Nothing to show is shown along some axis.
        let greatest = if greatest > 0.0 { greatest } else { 1.0 };
        let values = match scale {
            Scale::Linear => {
                let step = step(greatest);
                (0.0, (greatest / step).ceil() * step)
            }
            Scale::Log => {
                let least = values.iter().copied().filter(|value| *value > 0.0);
                let least = least.fold(greatest, f64::min);
                let (from, to) = (decade(least) * below(least), decade(greatest));
                let to = to * above(greatest);
                (from, if to > from { to } else { from * 10.0 })
            }
        };
        Self { scale, values, places }
    }

    pub(crate) fn at(&self, value: f64) -> f64 {
        let ((from, to), (start, end)) = (self.values, self.places);
        let share = match self.scale {
            Scale::Linear => (value - from) / (to - from),
            Scale::Log => (value.max(from) / from).ln() / (to / from).ln(),
        };
        start + (end - start) * share
    }

    /// Values to be written along it.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        let (from, to) = self.values;
        let is_inside = |value: &f64| (from * 0.999..=to * 1.001).contains(value);
        match self.scale {
            Scale::Linear => {
                let step = step(to);
                (0..=10).map(|at| f64::from(at) * step).filter(is_inside).collect()
            }
            Scale::Log => {
                let powers = (-3..12).map(|power| 10_f64.powi(power));
                powers
                    .flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * power))
                    .filter(is_inside)
                    .collect()
            }
        }
    }
}

/// A round step of which at most six reach a value.
fn step(greatest: f64) -> f64 {
    let power = decade(greatest / 5.0);
    let fits = |factor: &f64| factor * power * 5.0 >= greatest * 0.999;
    [1.0, 2.0, 5.0, 10.0].into_iter().find(fits).unwrap_or(10.0) * power
}

fn decade(value: f64) -> f64 {
    10_f64.powf(value.log10().floor())
}

/// The greatest of 1, 2 and 5 that is not above a value's first digits.
fn below(value: f64) -> f64 {
    let first = value / decade(value);
    [5.0, 2.0].into_iter().find(|step| *step <= first).unwrap_or(1.0)
}

/// The least of 2, 5 and 10 that is not below them.
fn above(value: f64) -> f64 {
    let first = value / decade(value);
    [2.0, 5.0].into_iter().find(|step| *step >= first).unwrap_or(10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_ends_round() {
        let axis = Axis::over(Scale::Linear, &[180.0, 412.0], (100.0, 200.0));
        assert_eq!(axis.ticks(), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!((axis.at(0.0), axis.at(250.0), axis.at(500.0)), (100.0, 150.0, 200.0));
    }

    #[test]
    fn a_log_axis_steps_by_one_two_five() {
        let axis = Axis::over(Scale::Log, &[30.0, 900.0], (0.0, 1.0));
        assert_eq!(axis.ticks(), [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert!((axis.at(1000.0) - 1.0).abs() < 1e-9);
        assert_eq!(axis.at(1.0), 0.0, "what lies below is drawn at the edge");
    }

    #[test]
    fn an_axis_without_values_is_no_panic() {
        for scale in [Scale::Linear, Scale::Log] {
            assert!(Axis::over(scale, &[], (0.0, 1.0)).ticks().len() < 20);
        }
    }

    #[test]
    fn text_cannot_break_the_file() {
        let mut canvas = Canvas::new(10.0);
        canvas.text((0.0, 0.0), Anchor::End, Font::NOTE, "a < b & c > d");
        let svg = canvas.finish(10.0);
        assert!(svg.contains(">a &lt; b &amp; c &gt; d</text>"), "{svg}");
    }
}
