//! Tables that token ids and positions index, and what they say about the longest sequence.

use super::constants::Constant;
use super::importer::{COUNTS, Importer};
use super::shapes::fixed;
use super::value::{Coded, ImportError, ImportValue, LiveValue};
use crate::model::OnnxNode;
use crate::tensor::{ArrayData, OnnxArray, OnnxElem};
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp};
use snnc_ir::types::Dim;
use snnc_ir::{Op, Value};
use std::sync::Arc;

/// A table without its first rows.
fn rows_from(table: &Constant, start: usize) -> Constant {
    let whole = table.at(0);
    let (rows, width) = (whole.sizes()[0], whole.sizes()[1]);
    let numbers = whole.as_f32().map_or(Vec::new(), |x| x[start * width..].to_vec());
    Constant::one(table.name(), Arc::new(OnnxArray::f32(&[rows - start, width], numbers)))
}

impl Importer<'_> {
    /// Gather along the first axis of a constant table, by token id or by position.
    pub(super) fn embed(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Option<ImportValue>, ImportError> {
        let [Some(ImportValue::Constant(table)), Some(indices)] = inputs else { return Ok(None) };
        let is_matrix = table.single().is_some_and(|table| table.rank() == 2);
        if !is_matrix || *node.operator() != *"Gather" || !matches!(node.int("axis").unwrap_or(0), 0 | -2) {
            return Ok(None);
        }
        match indices {
            ImportValue::Live(ids) if table.at(0).elem().is_int() => {
                Ok(Some(ImportValue::Coded(Box::new(Coded::Rows { table: table.clone(), ids: ids.clone() }))))
            }
            indices => Ok(self.embed_rows(node, table, indices)?.map(ImportValue::Live)),
        }
    }

    /// Rows of a constant table of floats; `None` where the indices are neither token ids nor positions.
    pub(super) fn embed_rows(
        &mut self,
        node: &OnnxNode,
        table: &Constant,
        indices: &ImportValue,
    ) -> Result<Option<LiveValue>, ImportError> {
        let Some(&[rows, width]) = table.single().map(|table| table.sizes()) else { return Ok(None) };
        if table.at(0).elem() != OnnxElem::F32 {
            return Ok(None);
        }
        let mut table = table.clone();
        let ids = match indices {
            ImportValue::Live(live) => LiveValue { value: self.ids_in_a_row(live.value), dims: live.dims.clone() },
            ImportValue::Constant(constant) => {
                let Some(start) = constant.positions_from(&self.counts) else { return Ok(None) };
                // Rows before the first position are never read.
                let reached = rows.checked_sub(start).ok_or("its positions are outside its table")?;
                self.bound(reached)?;
                if start > 0 {
                    table = rows_from(&table, start);
                }
                let value = self.builder.add(Op::Leaf(LeafOp::Positions), &[], node.label())?;
                let one_or_all = |&size: &usize| if size == 1 { Dim::Fixed(1) } else { Dim::Tokens };
                LiveValue { value, dims: constant.at(0).sizes().iter().map(one_or_all).collect() }
            }
            _ => return Ok(None),
        };
        let table = self.operand(&ImportValue::Constant(table), node)?;
        let table = self.whole(node, &table)?;
        if matches!(indices, ImportValue::Live(_)) {
            self.token_table.get_or_insert(table.value);
        }
        let value = self.builder.add(Op::Dense(DenseOp::Embed), &[ids.value, table.value], node.label())?;
        let dims = [ids.dims, vec![fixed(width)?]].concat();
        Ok(Some(self.live(value, dims)?))
    }

    /// Token ids without the batch axis that an exporter puts behind the tokens.
    fn ids_in_a_row(&self, ids: Value) -> Value {
        let graph = self.builder.graph();
        let mut ids = ids;
        while let Op::Array(ArrayOp::Reshape(_) | ArrayOp::Transpose(_)) = graph.node(ids).op {
            match graph.node(ids).args.first() {
                Some(&row) if graph.ty(row).shape().rank() <= 1 => ids = row,
                _ => break,
            }
        }
        ids
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
        constant: &[Option<&Constant>],
        outputs: &[ImportValue],
    ) -> Result<(), String> {
        let (Some(Some(table)), Some(ImportValue::Constant(part))) = (constant.first(), outputs.first()) else {
            return Ok(());
        };
        let operator = node.operator();
        let indices = constant.get(1).copied().flatten();
        // Rows by a list of indices: the largest that is asked for at every number of tokens grows with it.
        if let (Some(table), "GatherND" | "GatherElements", Some(indices)) = (table.single(), &*operator, indices) {
            let axis = if *operator == *"GatherND" { 0 } else { node.int("axis").unwrap_or(0).max(0) as usize };
            let grows = |(k, &n): (usize, &usize)| {
                indices.at(k).ints().is_some_and(|ints| ints.iter().max().is_some_and(|&most| most + 1 == n as i64))
            };
            return match table.sizes().get(axis) {
                Some(&rows) if self.counts.iter().enumerate().all(grows) => self.bound(rows),
                _ => Ok(()),
            };
        }
        let Some(table) = table.single().filter(|_| matches!(&*operator, "Slice" | "Gather")) else {
            return Ok(());
        };
        if part.single().is_some() || part.at(0).rank() != table.rank() && node.op_type == "Slice" {
            return Ok(());
        }
        for (axis, &rows) in table.sizes().iter().enumerate() {
            let taken = |(k, &n): (usize, &usize)| part.at(k).sizes().get(axis) == Some(&n);
            let start = constant.get(1).and_then(|x| x.and_then(|x| x.positions_from(&self.counts)));
            let by_position = start.is_some();
            let along = node.int("axis").unwrap_or(0) == axis as i64;
            let fits =
                if node.op_type == "Slice" { self.counts.iter().enumerate().all(taken) } else { by_position && along };
            if fits {
                self.bound(rows.saturating_sub(start.filter(|_| node.op_type == "Gather").unwrap_or(0)))?;
            }
        }
        Ok(())
    }

    /// Positions and sequence lengths, where an operator makes them itself.
    pub(super) fn counted(&self, node: &OnnxNode) -> Constant {
        let row = |&n: &usize| Arc::new(OnnxArray::i64(&[1, n], (0..n as i64).collect()));
        Constant::of(node.label(), self.counts.iter().map(row).collect())
    }

    pub(super) fn lengths(&self, node: &OnnxNode) -> Constant {
        let length = |&n: &usize| Arc::new(OnnxArray::new(vec![1], ArrayData::I32(vec![n as i32])));
        Constant::of(node.label(), self.counts.iter().map(length).collect())
    }
}
