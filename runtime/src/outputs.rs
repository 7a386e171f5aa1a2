//! Outputs of a call, and what is checked before and after it.

use crate::executor::OutputRows;
use snnc_ir::ErrorCode;
use snnc_ir::op::{DenseOp, LeafOp, Op};
use snnc_ir::types::Elem;
use snnc_ir::{Diagnostic, Graph, Type, Value};

/// Outputs of one call.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    pub(crate) graph: &'a Graph,
    /// By output of the graph.
    pub(crate) rows: &'a [OutputRows],
}

impl<'a> Outputs<'a> {
    /// The wanted rows of the f32 output of that name, row-major.
    pub fn f32(&self, name: &str) -> Option<&'a [f32]> {
        let i = self.graph.outputs.iter().position(|(known, _)| known == name)?;
        is_rows_of_f32(self.graph, self.graph.outputs[i].1).then(|| self.rows[i].f32.as_slice())
    }

    /// The wanted rows of the output of levels of that name, row-major, `[tokens,width]`; of a train of spikes -1, 0 and +1,
    /// `[tokens,timesteps,width]`. A program that is compiled has none: to look at neurons, name them as
    /// outputs.
    pub fn levels(&self, name: &str) -> Option<&'a [i32]> {
        let i = self.graph.outputs.iter().position(|(known, _)| known == name)?;
        let ty = self.graph.ty(self.graph.outputs[i].1);
        (ty.levels().is_some() && ty.shape().row_width().is_some()).then(|| self.rows[i].levels.as_slice())
    }
}

pub(crate) fn is_rows_of_f32(graph: &Graph, value: Value) -> bool {
    matches!(graph.ty(value), Type::Tensor { elem: Elem::F32, shape } if shape.row_width().is_some())
}

/// Whether rows of an output are finite: the last of the checks in `snnc_ir::finite`, for all engines.
pub(crate) fn check_finite(graph: &Graph, value: Value, rows: &[f32]) -> Result<(), Diagnostic> {
    match rows.iter().find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(Diagnostic::new(graph.origin(value), format!("`{}` gave {bad:?}", graph.node(value).op))
            .code(ErrorCode::RUN)),
    }
}

/// Whether the tokens fit the context and every table that they, or their positions, are looked up in.
pub(crate) fn check_tokens(graph: &Graph, tokens: &[u32], past: usize) -> Result<(), Diagnostic> {
    let end = past + tokens.len();
    if end > graph.context as usize {
        return Err(
            Diagnostic::new("", format!("{end} tokens do not fit a context of {}", graph.context)).code(ErrorCode::RUN)
        );
    }
    let outside = |id: usize, rows: usize| {
        Diagnostic::new("", format!("id {id} is outside the table of {rows} rows")).code(ErrorCode::RUN)
    };
    for (_, node) in graph.iter().filter(|(_, node)| node.op == Op::Dense(DenseOp::Embed)) {
        let rows = graph.table_rows(node.args[1]).unwrap_or(0);
        let by_position = graph.node(node.args[0]).op == Op::Leaf(LeafOp::Positions);
        if by_position && end > rows {
            return Err(outside(past.max(rows), rows));
        }
        if let Some(&id) = tokens.iter().find(|&&id| !by_position && id as usize >= rows) {
            return Err(outside(id as usize, rows));
        }
    }
    Ok(())
}
