//! The page: the template's parts and the data, in one file that needs nothing else.

use crate::explore::contents::Exploration;
use crate::report::{escaped, filled, in_script};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str =
    concat!("'use strict';{", include_str!("links.js"), include_str!("columns.js"), include_str!("start.js"), "}");

/// The page of an exploration.
pub fn page(exploration: &Exploration) -> String {
    let data = in_script(&serde_json::to_string(exploration).unwrap_or_else(|_| "{}".into()));
    let parts = [
        ("{{title}}", escaped(&exploration.title)),
        ("/*{{style}}*/", STYLE.into()),
        ("{{data}}", data),
        ("/*{{script}}*/", SCRIPT.into()),
    ];
    filled(HTML, &parts)
}
