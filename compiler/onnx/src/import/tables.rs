//! Tables that token ids and positions index, and what they say about the longest sequence.

use super::known::Known;
use super::quantised::Coded;
use super::shapes::fixed;
use super::{COUNTS, Held, Importer, Live, Trouble};
use crate::read::OnnxNode;
use crate::tensor::{Array, Data, Elem};
use snnc_ir::Op;
use snnc_ir::op::{DenseOp, LeafOp};
use snnc_ir::types::Dim;
use std::sync::Arc;

impl Importer<'_> {
    /// Gather along the first axis of a constant table, by token id or by position.
    pub(super) fn embed(&mut self, node: &OnnxNode, inputs: &[Option<Held>]) -> Result<Option<Held>, Trouble> {
        let [Some(Held::Known(table)), Some(indices)] = inputs else { return Ok(None) };
        let is_matrix = table.single().is_some_and(|table| table.rank() == 2);
        if !is_matrix || *node.operator() != *"Gather" || !matches!(node.int("axis").unwrap_or(0), 0 | -2) {
            return Ok(None);
        }
        match indices {
            Held::Live(ids) if table.at(0).elem().is_int() => {
                Ok(Some(Held::Coded(Box::new(Coded::Rows { table: table.clone(), ids: ids.clone() }))))
            }
            indices => Ok(self.embed_rows(node, table, indices)?.map(Held::Live)),
        }
    }

    /// Rows of a constant table of floats; `None` where the indices are neither token ids nor positions.
    pub(super) fn embed_rows(
        &mut self,
        node: &OnnxNode,
        table: &Known,
        indices: &Held,
    ) -> Result<Option<Live>, Trouble> {
        let Some(&[rows, width]) = table.single().map(|table| table.sizes()) else { return Ok(None) };
        if table.at(0).elem() != Elem::F32 {
            return Ok(None);
        }
        let ids = match indices {
            Held::Live(live) => live.clone(),
            Held::Known(known) if known.is_positions(&self.counts) => {
                self.bound(rows)?;
                let value = self.builder.add(Op::Leaf(LeafOp::Positions), &[], node.label())?;
                let one_or_all = |&size: &usize| if size == 1 { Dim::Fixed(1) } else { Dim::Tokens };
                Live { value, dims: known.at(0).sizes().iter().map(one_or_all).collect() }
            }
            _ => return Ok(None),
        };
        let table = self.operand(&Held::Known(table.clone()), node)?;
        if matches!(indices, Held::Live(_)) {
            self.token_table.get_or_insert(table.value);
        }
        let value = self.builder.add(Op::Dense(DenseOp::Embed), &[ids.value, table.value], node.label())?;
        let dims = [ids.dims, vec![fixed(width)?]].concat();
        Ok(Some(self.live(value, dims)?))
    }

    /// No sequence is longer than this table of positions or of masks.
    fn bound(&mut self, rows: usize) -> Result<(), String> {
        if rows < COUNTS[1] {
            return Err(format!("a position table of {rows} rows is shorter than snnc can examine"));
        }
        self.context = Some(self.context.map_or(rows, |context| context.min(rows)));
        Ok(())
    }

    /// A table of which the first rows are taken, one for each token, bounds the sequence.
    pub(super) fn bound_by(
        &mut self,
        node: &OnnxNode,
        known: &[Option<&Known>],
        outputs: &[Held],
    ) -> Result<(), String> {
        let (Some(Some(table)), Some(Held::Known(part))) = (known.first(), outputs.first()) else { return Ok(()) };
        let Some(table) = table.single().filter(|_| matches!(&*node.operator(), "Slice" | "Gather")) else {
            return Ok(());
        };
        if part.single().is_some() || part.at(0).rank() != table.rank() && node.op_type == "Slice" {
            return Ok(());
        }
        for (axis, &rows) in table.sizes().iter().enumerate() {
            let taken = |(k, &n): (usize, &usize)| part.at(k).sizes().get(axis) == Some(&n);
            let by_position = known.get(1).is_some_and(|x| x.is_some_and(|x| x.is_positions(&self.counts)));
            let along = node.int("axis").unwrap_or(0) == axis as i64;
            let fits =
                if node.op_type == "Slice" { self.counts.iter().enumerate().all(taken) } else { by_position && along };
            if fits {
                self.bound(rows)?;
            }
        }
        Ok(())
    }

    /// Positions and sequence lengths, where an operator makes them itself.
    pub(super) fn counted(&self, node: &OnnxNode) -> Known {
        let row = |&n: &usize| Arc::new(Array::i64(&[1, n], (0..n as i64).collect()));
        Known::of(node.label(), self.counts.iter().map(row).collect())
    }

    pub(super) fn lengths(&self, node: &OnnxNode) -> Known {
        let length = |&n: &usize| Arc::new(Array::new(vec![1], Data::I32(vec![n as i32])));
        Known::of(node.label(), self.counts.iter().map(length).collect())
    }
}
