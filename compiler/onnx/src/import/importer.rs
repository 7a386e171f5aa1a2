//! The state of one translation, and what every operator does with values: constants are evaluated, and become operands.

use super::constants::{self, CausalTable, Constant, PositionBias, PositionTable, Unusual};
use super::inputs::InputBindings;
use super::shapes::{fixed, ir_shape};
use super::value::{ImportError, ImportValue, LiveValue};
use crate::evaluate::call::{ELEMENTS_MAX, EvaluateError, OnnxCall, count};
use crate::evaluate::{evaluate, work};
use crate::finite;
use crate::model::{OnnxModel, OnnxNode};
use crate::tensor::OnnxArray;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{DenseOp, LeafOp};
use snnc_ir::types::Dim;
use snnc_ir::{Binary, Builder, Op, Stage, Tensor, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Numbers of tokens at which a file is evaluated. Two tell a linear function of the number; neither is a size that a
/// network is likely to have.
pub const COUNTS: [usize; 2] = [5, 7];

/// The most elements of all arrays that are held at once, where the weights are not half as many.
pub(super) const HELD_MAX: usize = 2 * ELEMENTS_MAX;

/// The most elements that are evaluated in all: half a minute's work.
pub(super) const EVALUATED_MAX: usize = 32 * ELEMENTS_MAX;

/// One evaluation and translation of a file.
pub(super) struct Importer<'m> {
    pub model: &'m OnnxModel,
    pub counts: Vec<usize>,
    /// What a user says that inputs hold.
    pub bindings: InputBindings,
    pub builder: Builder,
    pub values: HashMap<&'m str, ImportValue>,
    /// How many nodes still want a value.
    pub wanted: HashMap<&'m str, usize>,
    /// Elements of the arrays that were made and are still held, by value.
    pub made: HashMap<&'m str, usize>,
    pub made_now: usize,
    pub made_ever: usize,
    /// Rows of the smallest table that positions index.
    pub context: Option<usize>,
    /// The table that token ids index.
    pub token_table: Option<Value>,
    pub rounds_activations: bool,
    /// Numbers that have been given out to tell things apart.
    pub given_out: u32,
    /// Constants that have become weights, by address; the arrays are kept so that addresses stay theirs.
    pub weights: HashMap<usize, (Arc<OnnxArray>, Value)>,
    /// Constants that have become tables of positions, by address.
    pub tables: HashMap<usize, (Arc<OnnxArray>, Value)>,
    /// Constants that are masks, by the address of their largest array.
    pub masks: HashMap<usize, (Constant, CausalTable)>,
    pub scalars: HashMap<u32, Value>,
    /// Constants of equal elements that had to become weights, by number and sizes.
    pub uniform: HashMap<(u32, Vec<usize>), Value>,
    pub errors: Diagnostics,
    /// What the file has that snnc does not take, in words.
    pub traits: Vec<String>,
    /// Operators that are not supported, in order of appearance, with the nodes that use them.
    pub unsupported: Vec<(String, Vec<&'m str>)>,
}

impl<'m> Importer<'m> {
    pub(super) fn new(model: &'m OnnxModel, counts: &[usize], context: usize, bindings: &InputBindings) -> Self {
        Self {
            model,
            counts: counts.to_vec(),
            bindings: bindings.clone(),
            builder: Builder::new(Stage::Imported, u32::try_from(context).unwrap_or(u32::MAX)),
            values: HashMap::new(),
            wanted: HashMap::new(),
            made: HashMap::new(),
            made_now: 0,
            made_ever: 0,
            context: None,
            token_table: None,
            rounds_activations: false,
            given_out: 0,
            weights: HashMap::new(),
            tables: HashMap::new(),
            masks: HashMap::new(),
            scalars: HashMap::new(),
            uniform: HashMap::new(),
            errors: Diagnostics::new(),
            traits: Vec::new(),
            unsupported: Vec::new(),
        }
    }

    /// A number that nothing else has.
    pub(super) fn unique(&mut self) -> u32 {
        self.given_out += 1;
        self.given_out
    }

    /// Evaluates a node that does not depend on the token ids.
    pub(super) fn fold(
        &mut self,
        node: &OnnxNode,
        constant: &[Option<&Constant>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let runs = if constant.iter().flatten().all(|x| x.single().is_some()) { 1 } else { self.counts.len() };
        let mut outputs: Vec<Vec<Arc<OnnxArray>>> = vec![Vec::new(); node.outputs.len()];
        for k in 0..runs {
            let inputs: Vec<Option<&OnnxArray>> = constant.iter().map(|x| x.map(|x| x.at(k))).collect();
            // Masks of a long context are large.
            if let (true, Some(Some(whole))) = (self.is_unchanged(node, &inputs), constant.first()) {
                outputs.iter_mut().take(1).for_each(|output| output.push(whole.shared_at(k).clone()));
                continue;
            }
            self.made_ever = self.made_ever.saturating_add(work(node, &inputs));
            if self.made_ever > EVALUATED_MAX {
                return Err("the file asks for too much to be evaluated".into());
            }
            let arrays = evaluate(node, self.model.opset(), &inputs).map_err(|failure| match failure {
                EvaluateError::Unknown => ImportError::Unsupported,
                EvaluateError::Invalid(message) => ImportError::Invalid(message),
            })?;
            outputs.iter_mut().zip(arrays).for_each(|(output, array)| output.push(Arc::new(array)));
        }
        let value = |(name, arrays): (&String, Vec<Arc<OnnxArray>>)| match arrays.is_empty() {
            true => ImportValue::Failed,
            false => ImportValue::Constant(Constant::of(name, arrays)),
        };
        Ok(node.outputs.iter().zip(outputs).map(value).collect())
    }

    /// The first output of a node that is not in the file, on constants.
    pub(super) fn evaluated(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<&ImportValue>],
    ) -> Result<Constant, ImportError> {
        let constant = all_constants(inputs.iter().copied()).ok_or(ImportError::Unsupported)?;
        match self.fold(node, &constant)?.into_iter().next() {
            Some(ImportValue::Constant(constant)) => Ok(constant),
            _ => Err(ImportError::Unsupported),
        }
    }

    /// Rows of a constant table by constant indices.
    pub(super) fn gathered(
        &mut self,
        node: &OnnxNode,
        table: &Constant,
        indices: &ImportValue,
    ) -> Result<ImportValue, ImportError> {
        let gather = OnnxNode { op_type: "Gather".into(), outputs: node.outputs.clone(), ..OnnxNode::default() };
        self.evaluated(&gather, &[Some(&ImportValue::Constant(table.clone())), Some(indices)])
            .map(ImportValue::Constant)
    }

    /// A value with its ONNX shape, which must be its own but for leading ones.
    pub(super) fn live(&self, value: Value, dims: Vec<Dim>) -> Result<LiveValue, String> {
        let (found, expected) = (self.builder.ty(value).shape(), ir_shape(&dims)?);
        if found == expected {
            Ok(LiveValue { value, dims })
        } else {
            Err(format!("{found} came out where {expected} should"))
        }
    }

    /// A value as an operand of the graph: what is known becomes a weight, a number, a mask or an embedding.
    pub(super) fn operand(&mut self, given: &ImportValue, node: &OnnxNode) -> Result<LiveValue, ImportError> {
        let constant = match given {
            ImportValue::Live(live) => return Ok(live.clone()),
            ImportValue::Constant(constant) => constant,
            _ => return Err(ImportError::Unsupported),
        };
        let dims = constant.dims(&self.counts)?;
        if let Some(number) = constant.uniform() {
            return Ok(LiveValue { value: self.scalar(number), dims });
        }
        if let Some(table) = self.causal(constant) {
            let value = self.builder.add(constants::causal_op(table), &[], node.label())?;
            // Heads that have the same mask share it.
            let mut own = vec![Dim::Fixed(1); dims.len()];
            let columns = dims.len() - 1;
            let rows = dims[..columns].iter().rposition(|dim| *dim != Dim::Fixed(1)).unwrap_or(0);
            [own[rows], own[columns]] = [Dim::Tokens; 2];
            return Ok(self.live(value, own)?);
        }
        if let Some(array) = constant.single() {
            return Ok(LiveValue { value: self.weight(constant.name(), array)?, dims });
        }
        if let Some(table) = constant.table_of_positions(&self.counts) {
            return self.by_position(constant, table, dims, node);
        }
        if let Some(bias) = constant.position_bias(&self.counts) {
            return self.biased_by_position(constant, bias, dims, node);
        }
        Err(self.no_operand(constant, node))
    }

    /// What keys' positions add to scores, and what queries' do; and a mask. Sizes of 1 stand before the heads.
    fn biased_by_position(
        &mut self,
        constant: &Constant,
        bias: PositionBias,
        dims: Vec<Dim>,
        node: &OnnxNode,
    ) -> Result<LiveValue, ImportError> {
        let (heads, one) = (fixed(bias.heads)?, Dim::Fixed(1));
        let positions = self.builder.add(Op::Leaf(LeafOp::Positions), &[], node.label())?;
        let mut sides = Vec::new();
        for (side, table, own) in [("keys", bias.keys, [1, 2, 0]), ("queries", bias.queries, [1, 0, 2])] {
            let rows = self.weight(&format!("{}.{side}", constant.name()), &Arc::new(table))?;
            let value = self.builder.add(Op::Dense(DenseOp::Embed), &[positions, rows], node.label())?;
            let apart = self.reshaped(
                node,
                LiveValue { value, dims: vec![Dim::Tokens, heads] },
                vec![Dim::Tokens, heads, one],
            )?;
            sides.push(self.transposed(node, apart, &own)?);
        }
        let mut sum = self.combined(node, Binary::Add, &sides[0], &sides[1])?;
        if let Some(mask) = bias.mask {
            let value = self.builder.add(constants::causal_op(mask), &[], node.label())?;
            sum = self.combined(node, Binary::Add, &sum, &LiveValue { value, dims: vec![Dim::Tokens; 2] })?;
        }
        if sum.dims == dims { Ok(sum) } else { self.reshaped(node, sum, dims) }
    }

    /// The mask that a constant is. Layers share a mask, which is large for a long context: it is looked at once.
    fn causal(&mut self, constant: &Constant) -> Option<CausalTable> {
        let address = Arc::as_ptr(constant.last()?) as usize;
        if let Some((_, table)) = self.masks.get(&address).filter(|(known, _)| known.is_same(constant)) {
            return Some(*table);
        }
        let table = constant.causal(&self.counts)?;
        self.masks.insert(address, (constant.clone(), table));
        Some(table)
    }

    fn is_unchanged(&self, node: &OnnxNode, inputs: &[Option<&OnnxArray>]) -> bool {
        OnnxCall { node, opset: self.model.opset(), inputs }.changes_nothing()
    }

    /// Rows of a table by position, the tokens standing where the file has them.
    fn by_position(
        &mut self,
        constant: &Constant,
        table: PositionTable,
        dims: Vec<Dim>,
        node: &OnnxNode,
    ) -> Result<LiveValue, ImportError> {
        let positions = self.builder.add(Op::Leaf(LeafOp::Positions), &[], node.label())?;
        // Layers share a table.
        let Some(array) = constant.last() else { return Err(ImportError::Unsupported) };
        let key = Arc::as_ptr(array) as usize;
        let rows = match self.tables.get(&key) {
            Some((_, rows)) => *rows,
            None => self.weight(constant.name(), &Arc::new(table.rows))?,
        };
        self.tables.insert(key, (array.clone(), rows));
        let value = self.builder.add(Op::Dense(DenseOp::Embed), &[positions, rows], node.label())?;
        let shape = self.builder.ty(value).shape();
        if shape == ir_shape(&dims)? {
            return Ok(LiveValue { value, dims });
        }
        let (before, after) = (&dims[..table.axis], &dims[table.axis + 1..]);
        let own = [&[Dim::Tokens], before, after].concat();
        let flat = [&vec![Dim::Fixed(1); own.len().saturating_sub(2)][..], shape.dims()].concat();
        let apart = self.reshaped(node, LiveValue { value, dims: flat }, own)?;
        let perm: Vec<usize> = (1..=table.axis).chain([0]).chain(table.axis + 1..dims.len()).collect();
        self.transposed(node, apart, &perm)
    }

    /// Notes what the file has that snnc does not take, once for each kind.
    pub(super) fn has(&mut self, what: &str, node: &OnnxNode) {
        let kind = what.split(':').next().unwrap_or(what);
        if !self.traits.iter().any(|known| known.starts_with(kind)) {
            self.traits.push(format!("{what} (first at {})", node.label()));
        }
    }

    /// Why a constant that depends on the number of tokens is no operand: what it is instead of a mask or positions.
    fn no_operand(&mut self, constant: &Constant, node: &OnnxNode) -> ImportError {
        let name = constant.name();
        let wrong = constant.unusual(&self.counts);
        match wrong {
            Some(Unusual::NotANumber) => {
                let bad = finite::culprits(self.model, name, name);
                let why = match bad.first() {
                    Some((tensor, _)) => format!("tensor {tensor} is infinite, as a number is that overflows f16, and 0 times infinity is NaN"),
                    None => "the file computes it so".to_string(),
                };
                format!("the mask {name} holds NaN: {why}").into()
            }
            Some(Unusual::ByDistance) => {
                self.has("relative positions: a bias of attention by distance", node);
                format!("its operand {name} is a bias by distance, which is not supported").into()
            }
            None => format!(
                "its operand {name} depends on the number of tokens, but is neither a causal mask nor a table of positions"
            )
            .into(),
        }
    }

    /// A value with all its elements: a constant whose elements are all equal is held as one number, whatever its shape.
    pub(super) fn whole(&mut self, node: &OnnxNode, x: &LiveValue) -> Result<LiveValue, ImportError> {
        let shape = ir_shape(&x.dims)?;
        let number = self.builder.graph().constant(x.value).and_then(|weight| weight.tensor.as_f32());
        let (Some(&[number]), Some(sizes)) = (number, shape.sizes()) else { return Ok(x.clone()) };
        if self.builder.ty(x.value).shape() == shape {
            return Ok(x.clone());
        }
        let key = (number.to_bits(), sizes.clone());
        let value = match self.uniform.get(&key) {
            Some(value) => *value,
            None => {
                let array = OnnxArray::f32(&sizes, vec![number; count(&sizes)?]);
                self.weight(&format!("{} of {number:?}", node.label()), &Arc::new(array))?
            }
        };
        self.uniform.insert(key, value);
        Ok(LiveValue { value, dims: x.dims.clone() })
    }

    /// One number, shared by all that use it.
    pub(super) fn scalar(&mut self, number: f32) -> Value {
        // A mask's minus infinity: a softmax gives exactly 0 for the lowest finite number as well, and that one can be
        // computed with.
        let number = if number == f32::NEG_INFINITY { f32::MIN } else { number };
        let builder = &mut self.builder;
        let make = || builder.weight(&format!("number {number:?}"), Arc::new(Tensor::f32(&[], vec![number])));
        *self.scalars.entry(number.to_bits()).or_insert_with(make)
    }

    pub(super) fn weight(&mut self, name: &str, array: &Arc<OnnxArray>) -> Result<Value, String> {
        let address = Arc::as_ptr(array) as usize;
        if let Some((_, value)) = self.weights.get(&address) {
            return Ok(*value);
        }
        let lead = array.sizes().iter().take_while(|&&n| n == 1).count();
        let sizes = array.sizes()[lead..].to_vec();
        let dims = sizes.iter().map(|&n| fixed(n)).collect::<Result<Vec<Dim>, String>>()?;
        ir_shape(&dims)?;
        let value = self.builder.weight(name, Arc::new(Tensor::new(sizes, constants::f32_data(array)?)));
        self.weights.insert(address, (array.clone(), value));
        Ok(value)
    }

    /// What `f` says of a node at every number of tokens; inputs that are not known are missing there.
    pub(super) fn at_each<T>(
        &self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        f: impl Fn(&OnnxCall, usize) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let at = |k: usize| {
            let mut arrays = Vec::with_capacity(inputs.len());
            for value in inputs {
                arrays.push(match value {
                    Some(ImportValue::Constant(constant)) => Some(constant.at(k)),
                    Some(_) | None => None,
                });
            }
            f(&OnnxCall { node, opset: self.model.opset(), inputs: &arrays }, k)
        };
        (0..self.counts.len()).map(at).collect()
    }

    /// `dims` at the `k`-th number of tokens.
    pub(super) fn sizes(&self, dims: &[Dim], k: usize) -> Vec<usize> {
        dims.iter().map(|dim| dim.size(self.counts[k], 0)).collect()
    }
}

/// Operands that are all constants, or left out.
pub(super) fn all_constants<'h>(
    inputs: impl Iterator<Item = Option<&'h ImportValue>>,
) -> Option<Vec<Option<&'h Constant>>> {
    let constant = |value: Option<&'h ImportValue>| match value {
        None => Some(None),
        Some(ImportValue::Constant(constant)) => Some(Some(constant)),
        Some(_) => None,
    };
    inputs.map(constant).collect()
}
