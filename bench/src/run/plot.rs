//! Horizontal bars as SVG, enough to see a ratio.

use std::fmt::Write as _;

/// One kind of value.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    /// A label and a value each.
    pub(crate) bars: Vec<(String, f64)>,
    /// How a value is written.
    pub(crate) write: fn(f64) -> String,
}

const WIDTH: u32 = 720;
const LABELS: u32 = 230;
const NUMBERS: u32 = 90;
const BAR: u32 = 22;

/// One panel beneath the other, in plain SVG that every browser draws alike: no script, no style sheet.
pub(crate) fn bars(title: &str, panels: &[Panel]) -> String {
    let rows: u32 = panels.iter().map(|panel| panel.bars.len() as u32).sum();
    let height = 40 + panels.len() as u32 * 34 + rows * BAR;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    let mut y = 40;
    for Panel { title, bars, write } in panels {
        writeln!(svg, "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{}</text>", y + 16, escaped(title))
            .expect("a String takes it");
        y += 24;
        let most = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (label, value) in bars {
            let width = value.max(0.0) / most * f64::from(WIDTH - LABELS - NUMBERS);
            let fill = if label.starts_with("penstock") { "#2f6f9f" } else { "#a9b4bd" };
            writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LABELS}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{fill}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{}</text>",
                LABELS - 8,
                y + 14,
                escaped(label),
                y + 2,
                BAR - 5,
                f64::from(LABELS) + width + 6.0,
                y + 14,
                escaped(&write(*value)),
            )
            .expect("a String takes it");
            y += BAR;
        }
        y += 10;
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_the_longest_bar_fills_the_width() {
        let values = vec![("one & two".to_owned(), 1.0), ("ten".to_owned(), 10.0)];
        let svg = bars("a < b", &[Panel { title: "panel", bars: values, write: |value| format!("{value}") }]);
        assert!(svg.contains("a &lt; b") && svg.contains("one &amp; two"));
        assert!(svg.contains("width=\"400.0\"") && svg.contains("width=\"40.0\""), "{svg}");
    }
}
