//! The page: the template's parts and the data, in one file that needs nothing else.

use crate::explore::contents::Exploration;
use crate::report::{escaped, in_script};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str =
    concat!("'use strict';{", include_str!("links.js"), include_str!("columns.js"), include_str!("start.js"), "}");

/// The page of an exploration.
pub fn page(exploration: &Exploration) -> String {
    let data = in_script(&serde_json::to_string(exploration).unwrap_or_else(|_| "{}".into()));
    let mut page = String::with_capacity(HTML.len() + STYLE.len() + SCRIPT.len() + data.len());
    // What was put in is not searched again: it may hold anything.
    let mut rest = HTML;
    for (mark, part) in [
        ("{{title}}", escaped(&exploration.title).as_str()),
        ("/*{{style}}*/", STYLE),
        ("{{data}}", &data),
        ("/*{{script}}*/", SCRIPT),
    ] {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        page += before;
        page += part;
        rest = after;
    }
    page + rest
}
