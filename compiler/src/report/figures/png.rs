//! A figure as PNG, twice as large as its SVG, without fonts of the machine.

use super::figure::Figure;
use super::svg::{Words, whole};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use snnc_ir::Diagnostic;

/// Pixels per unit of the SVG.
const SCALE: f32 = 2.0;

/// The bytes of a PNG file.
///
/// # Errors
/// The picture is too large to be held.
pub fn png(figure: &Figure) -> Result<Vec<u8>, Diagnostic> {
    let failed = |why: String| Diagnostic::new(&figure.id, format!("cannot be drawn as PNG: {why}"));
    let tree =
        Tree::from_str(&whole(figure, Words::Outlines), &Options::default()).map_err(|e| failed(e.to_string()))?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let pixels = size.and_then(|size| Pixmap::new(size.width(), size.height()));
    let mut pixels = pixels.ok_or_else(|| failed(format!("{:?} is too large", tree.size())))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| failed(e.to_string()))
}
