//! A report as one page: the template's parts and the data, in one file that needs nothing else.

use crate::report::contents::Report;
use crate::report::figures::{self, Figure, FigureView, Size, Words, inline};
use serde_json::{Value as Json, json};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// One scope; later files use what earlier ones define.
const SCRIPT: &str = concat!(
    "'use strict';{",
    include_str!("base.js"),
    include_str!("figures.js"),
    include_str!("summary.js"),
    include_str!("network.js"),
    include_str!("raster.js"),
    include_str!("levels.js"),
    include_str!("energy.js"),
    include_str!("errors.js"),
    include_str!("predictions.js"),
    include_str!("ir.js"),
    include_str!("more.js"),
    include_str!("start.js"),
    "}"
);

/// The page of `report`.
pub fn page(report: &Report) -> String {
    let data = in_script(&serde_json::to_string(report).unwrap_or_else(|_| "{}".into()));
    let on = report.provenance.text.as_ref().map_or(String::new(), |text| format!(" on {}", text.name));
    let title = format!("{}{on}", report.title);
    let figures: Vec<Json> = figures::all(report).iter().map(drawing).collect();
    let figures = in_script(&json!({ "style": figures::style(), "figures": figures }).to_string());
    let parts = [
        ("{{title}}", escaped(&title)),
        ("/*{{style}}*/", STYLE.into()),
        ("{{figures}}", figures),
        ("{{data}}", data),
        ("/*{{script}}*/", SCRIPT.into()),
    ];
    filled(HTML, &parts)
}

/// A template with its marks replaced, in the order in which they stand. What was put in is not searched again: it may hold anything.
pub fn filled(template: &str, parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    for (mark, part) in parts {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        page += before;
        page += part;
        rest = after;
    }
    page + rest
}

/// A figure as the page's script takes it.
fn drawing(figure: &Figure) -> Json {
    let narrow = (figure.size == Size::Full).then(|| inline(figure, FigureView::Narrow, Words::Text));
    json!({
        "id": figure.id,
        "part": figure.part.id(),
        "of": figure.of,
        "title": figure.title,
        "caption": figure.caption,
        "half": figure.size == Size::Half,
        "svg": inline(figure, FigureView::Wide, Words::Text),
        "narrow": narrow,
        "csv": figure.table.csv(),
    })
}

/// JSON that can stand in a script element, whatever its strings hold: `</script>` and `<!--` would end or bend it.
pub fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// Text that can stand in an element or an attribute.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Missing, ReportSources};

    fn report(text: &str) -> Report {
        let missing = vec![Missing { part: "text", how: text.into() }];
        Report { missing, ..Report::new(text, ReportSources::default()) }
    }

    /// The data comes back as it was, and nothing in it ends the element that it is in.
    #[test]
    fn no_text_leaves_its_place() {
        let text = "</script><!-- <script> {{data}} /*{{script}}*/ & \" \u{2028} \\ é";
        let page = page(&report(text));
        let (_, rest) = page.split_once("id=\"data\">").expect("there is data");
        let (data, rest) = rest.split_once("</script>").expect("it ends");
        let back: serde_json::Value = serde_json::from_str(data).expect("it is JSON");
        assert_eq!(back["missing"][0]["how"], text);
        assert_eq!(rest.matches("</script>").count(), 1, "the page's own script");
        assert!(page.contains("<title>&lt;/script&gt;"));
        for part in [HTML, STYLE, SCRIPT] {
            for fetched in [" src=", "@import", "url(", "fetch(", "https:", "import("] {
                assert!(!part.contains(fetched), "{fetched} would fetch something");
            }
        }
    }
}
