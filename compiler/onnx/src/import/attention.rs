//! Attention and rotary positions where one operator stands for them: they become the plain operations that they mean.

use super::importer::Importer;
use super::shapes::fixed;
use super::value::{ImportError, ImportValue, LiveValue};
use crate::model::OnnxNode;
use snnc_ir::op::{ArrayOp, Scalar};
use snnc_ir::types::Dim;
use snnc_ir::{Binary, Op, Unary};

/// Which keys a query sees, beside what a mask says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyView {
    All,
    /// Itself and those before it, where there is a window only the last ones of them.
    Past(Option<u32>),
}

/// How scores are made and which are kept.
#[derive(Clone, Copy)]
struct AttentionForm<'a> {
    /// What products are multiplied by; none is one over the root of a head's width.
    scale: Option<f32>,
    /// Scores are `softcap * tanh(score / softcap)`, where this is not 0.
    softcap: f32,
    view: KeyView,
    mask: Option<&'a ImportValue>,
}

impl Importer<'_> {
    /// `[1, tokens, d]` as `[1, heads, tokens, w]`.
    fn heads(&mut self, node: &OnnxNode, x: LiveValue, heads: u32) -> Result<LiveValue, ImportError> {
        let [lead @ .., tokens, Dim::Fixed(width)] = x.dims.as_slice() else {
            return Err("attention wants [batch,tokens,width]".into());
        };
        if heads == 0 || !width.is_multiple_of(heads) || lead.iter().any(|&dim| dim != Dim::Fixed(1)) {
            return Err(format!("{heads} heads do not divide a width of {width}").into());
        }
        let dims = vec![Dim::Fixed(1), *tokens, Dim::Fixed(heads), Dim::Fixed(width / heads)];
        let split = self.reshaped(node, x, dims)?;
        self.transposed(node, split, &[0, 2, 1, 3])
    }

    /// And back.
    fn merged(&mut self, node: &OnnxNode, x: LiveValue) -> Result<LiveValue, ImportError> {
        let x = self.transposed(node, x, &[0, 2, 1, 3])?;
        let &[one, tokens, Dim::Fixed(heads), Dim::Fixed(width)] = x.dims.as_slice() else {
            return Err("attention wants heads of a fixed size".into());
        };
        self.reshaped(node, x, vec![one, tokens, fixed(heads as usize * width as usize)?])
    }

    /// softmax(scale q k^T + mask) v, `[1, heads, tokens, w]`; keys and values may have fewer heads, each for as many queries.
    fn attend(
        &mut self,
        node: &OnnxNode,
        [q, k, v]: [&LiveValue; 3],
        how: AttentionForm<'_>,
    ) -> Result<LiveValue, ImportError> {
        let (&[_, heads, _, Dim::Fixed(width)], 4, 4) = (q.dims.as_slice(), k.dims.len(), v.dims.len()) else {
            return Err("attention wants heads of a fixed size".into());
        };
        let (k, v) = (self.repeated(node, k, heads)?, self.repeated(node, v, heads)?);
        let turned = self.transposed(node, k, &[0, 1, 3, 2])?;
        let scores = self.product(node, q, &turned)?;
        let scale = how.scale.filter(|&scale| scale != 0.0).unwrap_or_else(|| 1.0 / (width as f32).sqrt());
        let mut scores = self.times(node, &scores, scale)?;
        if how.softcap != 0.0 {
            let inner = self.times(node, &scores, 1.0 / how.softcap)?;
            let curve = self.add(node, Op::Array(ArrayOp::Unary(Unary::Tanh)), &[inner.value], inner.dims)?;
            scores = self.times(node, &curve, how.softcap)?;
        }
        if let KeyView::Past(window) = how.view {
            let select = ArrayOp::CausalMask { keep: Scalar::new(1.0), drop: Scalar::new(0.0), window };
            let dims = vec![Dim::Tokens; 2];
            let selected = self.add(node, Op::Array(select), &[], dims)?;
            let (lowest, dims) = (self.number(f32::MIN), scores.dims.clone());
            scores = self.selected(node, [selected, scores, lowest], dims)?;
        }
        if let Some(mask) = how.mask {
            scores = self.masked(node, scores, mask)?;
        }
        let weights = self.add(node, Op::Array(ArrayOp::Softmax), &[scores.value], scores.dims)?;
        self.product(node, &weights, &v)
    }

    /// `[1, kv, tokens, w]` as `[1, heads, tokens, w]`: each of them as often as there are queries for it.
    fn repeated(&mut self, node: &OnnxNode, x: &LiveValue, heads: Dim) -> Result<LiveValue, ImportError> {
        let (&[one, Dim::Fixed(kv), tokens, width], Dim::Fixed(all)) = (x.dims.as_slice(), heads) else {
            return Err("attention wants heads of a fixed size".into());
        };
        if kv == all {
            return Ok(x.clone());
        }
        if !all.is_multiple_of(kv) {
            return Err(format!("{kv} heads of keys and values do not divide {all} of queries").into());
        }
        let (kv, group) = (Dim::Fixed(kv), Dim::Fixed(all / kv));
        let apart = self.reshaped(node, x.clone(), vec![one, kv, Dim::Fixed(1), tokens, width])?;
        let copied = self.stretched(node, &apart, vec![one, kv, group, tokens, width])?;
        self.reshaped(node, copied, vec![one, heads, tokens, width])
    }

    /// Scores behind a mask: booleans keep or drop, numbers are added.
    fn masked(&mut self, node: &OnnxNode, scores: LiveValue, mask: &ImportValue) -> Result<LiveValue, ImportError> {
        let ImportValue::Constant(constant) = mask else {
            return Err("its mask depends on the token ids".into());
        };
        let is_bool = constant.at(0).as_bool().is_some();
        if constant.uniform() == Some(if is_bool { 1.0 } else { 0.0 }) {
            return Ok(scores);
        }
        let mask = self.operand(mask, node)?;
        if !is_bool {
            return self.combined(node, Binary::Add, &scores, &mask);
        }
        let lowest = self.number(f32::MIN);
        let dims = self.broadcast(&scores.dims, &mask.dims)?;
        self.selected(node, [mask, scores, lowest], dims)
    }

    /// ONNX's own Attention: q, k, v, mask, a past, which is empty here, and the number of tokens that are there.
    pub(super) fn attention(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let mut qkv = Vec::new();
        let mut rows = false;
        for (i, count) in ["q_num_heads", "kv_num_heads", "kv_num_heads"].into_iter().enumerate() {
            let x = self.input(node, inputs, i)?;
            rows = x.dims.len() == 3;
            qkv.push(if rows { self.heads(node, x, self.count_of(node, count)?)? } else { x });
        }
        for past in inputs.iter().skip(4).take(2).flatten() {
            self.is_no_past(past)?;
        }
        self.unmasked(inputs.get(6).and_then(Option::as_ref))?;
        let view = if node.int("is_causal").unwrap_or(0) != 0 { KeyView::Past(None) } else { KeyView::All };
        let mask = inputs.get(3).and_then(Option::as_ref);
        let softcap = node.float("softcap").unwrap_or(0.0);
        let how = AttentionForm { scale: node.float("scale"), softcap, view, mask };
        let y = self.attend(node, [&qkv[0], &qkv[1], &qkv[2]], how)?;
        let y = if rows { self.merged(node, y)? } else { y };
        Ok(with_state(y, &qkv))
    }

    fn count_of(&self, node: &OnnxNode, name: &str) -> Result<u32, ImportError> {
        let count = node.int(name).and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
        count.ok_or_else(|| format!("attribute {name} should be a number of heads").into())
    }

    fn is_no_past(&self, past: &ImportValue) -> Result<(), ImportError> {
        match past {
            ImportValue::Constant(constant) if (0..self.counts.len()).all(|k| constant.at(k).is_empty()) => Ok(()),
            _ => Err("its past is not one that the file takes as an input".into()),
        }
    }

    /// com.microsoft.Attention: one projection to queries, keys and values, and attention on them.
    pub(super) fn packed_attention(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<LiveValue, ImportError> {
        let at = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let (x, w) = (self.input(node, inputs, 0)?, self.input(node, inputs, 1)?);
        let all = self.product_plus(node, &x, &w, at(2))?;
        self.attend_packed(node, &all, [at(3), at(4), at(5)])
    }

    /// Attention on queries, keys and values side by side, with a mask, a past and what is added to scores.
    pub(super) fn attend_packed(
        &mut self,
        node: &OnnxNode,
        all: &LiveValue,
        [mask, past, added]: [Option<&ImportValue>; 3],
    ) -> Result<LiveValue, ImportError> {
        if let Some(past) = past {
            self.is_no_past(past)?;
        }
        let axis = all.dims.len() - 1;
        let Dim::Fixed(width) = all.dims[axis] else { return Err("its weights should have a fixed size".into()) };
        let width = width as usize;
        let sizes = match node.ints("qkv_hidden_sizes") {
            Some(sizes) => sizes.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect(),
            None => vec![width / 3; 3],
        };
        if sizes.len() != 3 || sizes.iter().sum::<usize>() != width || sizes.contains(&0) {
            return Err(format!("its weights give {width} numbers, which are no queries, keys and values").into());
        }
        let heads = self.count_of(node, "num_heads")?;
        let mut qkv = Vec::new();
        for part in self.parts(node, all, axis, &sizes)? {
            qkv.push(self.heads(node, part, heads)?);
        }
        self.unmasked(mask)?;
        let view = if node.int("unidirectional").unwrap_or(0) != 0 { KeyView::Past(None) } else { KeyView::All };
        let how = AttentionForm { scale: node.float("scale"), softcap: 0.0, view, mask: added };
        let y = self.attend(node, [&qkv[0], &qkv[1], &qkv[2]], how)?;
        self.merged(node, y)
    }

    /// com.microsoft.MultiHeadAttention: queries, keys and values that are projected already.
    pub(super) fn multi_head_attention(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let at = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let heads = self.count_of(node, "num_heads")?;
        let mut qkv = Vec::new();
        for i in 0..3 {
            let mut x = self.input(node, inputs, i)?;
            if x.dims.len() == 4 {
                qkv.push(x);
                continue;
            }
            if let Some(bias) = at(3) {
                let bias = self.operand(bias, node)?;
                let [.., Dim::Fixed(width)] = x.dims[..] else { return Err("its width should be fixed".into()) };
                let width = width as usize;
                let bias = self.part(node, &bias, 0, i * width, width)?;
                x = self.combined(node, Binary::Add, &x, &bias)?;
            }
            qkv.push(self.heads(node, x, heads)?);
        }
        self.unmasked(at(4))?;
        for past in inputs.iter().skip(6).take(2).flatten() {
            self.is_no_past(past)?;
        }
        let view = if node.int("unidirectional").unwrap_or(0) != 0 { KeyView::Past(None) } else { KeyView::All };
        let how = AttentionForm { scale: node.float("scale"), softcap: 0.0, view, mask: at(5) };
        let y = self.attend(node, [&qkv[0], &qkv[1], &qkv[2]], how)?;
        Ok(with_state(self.merged(node, y)?, &qkv))
    }

    /// A padding mask of a whole sequence: ones, or its length.
    fn unmasked(&self, mask: Option<&ImportValue>) -> Result<(), ImportError> {
        let constant = match mask {
            None => return Ok(()),
            Some(ImportValue::Constant(constant)) => constant,
            Some(_) => return Err("its mask depends on the token ids".into()),
        };
        let is_whole = |k: usize| {
            let array = constant.at(k);
            let length = self.counts[k] as f32;
            let lengths = array.rank() == 1 && array.len() == 1;
            array.uniform().is_some_and(|x| if lengths { x.float() == length } else { x.float() == 1.0 })
        };
        if (0..self.counts.len()).all(is_whole) { Ok(()) } else { Err("its mask hides a part of the sequence".into()) }
    }

    /// com.microsoft.GroupQueryAttention: query, key, value, a past, which is empty here, last places, total length, cosines,
    /// sines, positions, what is added to scores.
    pub(super) fn group_query_attention(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let at = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let (heads, kv) = (self.count_of(node, "num_heads")?, self.count_of(node, "kv_num_heads")?);
        let x = self.input(node, inputs, 0)?;
        let rows = match at(1) {
            Some(_) => vec![x, self.input(node, inputs, 1)?, self.input(node, inputs, 2)?],
            None => {
                let &[.., Dim::Fixed(width)] = x.dims.as_slice() else {
                    return Err("its width should be fixed".into());
                };
                let own = (width / (heads + 2 * kv)) as usize;
                let sizes = [heads as usize * own, kv as usize * own, kv as usize * own];
                if own == 0 || sizes.iter().sum::<usize>() != width as usize {
                    return Err(
                        format!("{width} numbers are no queries, keys and values of {heads} and {kv} heads").into()
                    );
                }
                self.parts(node, &x, x.dims.len() - 1, &sizes)?
            }
        };
        for past in [at(3), at(4)].into_iter().flatten() {
            self.is_no_past(past)?;
        }
        let mut qkv = Vec::new();
        for (i, x) in rows.into_iter().enumerate() {
            let x = self.heads(node, x, if i == 0 { heads } else { kv })?;
            let turns = i < 2 && node.int("do_rotary").unwrap_or(0) != 0;
            qkv.push(if turns { self.turned(node, x, [at(7), at(8), at(9)])? } else { x });
        }
        if ["smooth_softmax", "qk_output"].iter().any(|name| node.int(name).unwrap_or(0) > 0) || at(11).is_some() {
            return Err("a softmax with a sink is not supported".into());
        }
        // onnxruntime takes the size of the window for the number of keys before the token itself.
        let window = node.int("local_window_size").and_then(|n| u32::try_from(n).ok()).map(|n| n.saturating_add(1));
        let softcap = node.float("softcap").unwrap_or(0.0);
        let how = AttentionForm { scale: node.float("scale"), softcap, view: KeyView::Past(window), mask: at(10) };
        let y = self.attend(node, [&qkv[0], &qkv[1], &qkv[2]], how)?;
        Ok(with_state(self.merged(node, y)?, &qkv))
    }

    /// RotaryEmbedding: heads, or rows of them; where cosines, sines and positions are among the inputs.
    pub(super) fn rotary(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        from: [usize; 3],
    ) -> Result<LiveValue, ImportError> {
        if node.int("is_packed_batching").unwrap_or(0) != 0 || !matches!(node.float("scale"), None | Some(1.0)) {
            return Err("packed batches and scales are not supported".into());
        }
        let x = self.input(node, inputs, 0)?;
        let given = from.map(|i| inputs.get(i).and_then(Option::as_ref));
        if x.dims.len() != 3 {
            return self.turned(node, x, given);
        }
        let &[.., Dim::Fixed(width)] = x.dims.as_slice() else { return Err("its width should be fixed".into()) };
        let heads = match node.int("num_heads") {
            Some(heads) if heads > 0 => self.count_of(node, "num_heads")?,
            // Heads are as wide as what turns them.
            _ => width / (2 * self.half_of(given[0])?).max(1) as u32,
        };
        let x = self.heads(node, x, heads)?;
        let x = self.turned(node, x, given)?;
        self.merged(node, x)
    }

    /// How many pairs a table of cosines turns.
    fn half_of(&self, cos: Option<&ImportValue>) -> Result<usize, ImportError> {
        match cos {
            Some(ImportValue::Constant(cos)) => Ok(cos.at(0).sizes().last().copied().unwrap_or(0)),
            _ => Err("its cosines should be constants".into()),
        }
    }

    /// Heads `[1, heads, tokens, w]` with the pairs of their first channels turned by cosines and sines of each position.
    fn turned(
        &mut self,
        node: &OnnxNode,
        x: LiveValue,
        [cos, sin, positions]: [Option<&ImportValue>; 3],
    ) -> Result<LiveValue, ImportError> {
        let half = self.half_of(cos)?;
        let &[one, heads, tokens, Dim::Fixed(width)] = x.dims.as_slice() else {
            return Err("heads of a fixed size should be turned".into());
        };
        let (width, own) = (width as usize, node.int("rotary_embedding_dim").unwrap_or(0));
        let r = if own > 0 { own as usize } else { (2 * half).min(width) };
        if half == 0 || r != 2 * half || r > width {
            return Err(format!("{half} cosines do not turn {r} channels of {width}").into());
        }
        let (cos, sin) = (self.turns(node, cos, positions)?, self.turns(node, sin, positions)?);
        let sizes = if r < width { vec![r, width - r] } else { vec![r] };
        let parts = self.parts(node, &x, 3, &sizes)?;
        let interleaved = node.int("interleaved").or(node.int("rotary_interleaved")).unwrap_or(0) != 0;
        let pair = match interleaved {
            false => self.parts(node, &parts[0], 3, &[half, half])?,
            true => {
                let apart = vec![one, heads, tokens, fixed(half)?, Dim::Fixed(2)];
                let apart = self.reshaped(node, parts[0].clone(), apart)?;
                let ends = self.parts(node, &apart, 4, &[1, 1])?;
                let flat = |s: &mut Self, end| s.reshaped(node, end, vec![one, heads, tokens, fixed(half)?]);
                ends.into_iter().map(|end| flat(self, end)).collect::<Result<Vec<LiveValue>, ImportError>>()?
            }
        };
        let mut product = |x: &LiveValue, by: &LiveValue| self.combined(node, Binary::Mul, x, by);
        let (a_cos, b_sin) = (product(&pair[0], &cos)?, product(&pair[1], &sin)?);
        let (b_cos, a_sin) = (product(&pair[1], &cos)?, product(&pair[0], &sin)?);
        let mut ends =
            vec![self.combined(node, Binary::Sub, &a_cos, &b_sin)?, self.combined(node, Binary::Add, &b_cos, &a_sin)?];
        let turned = match interleaved {
            false => {
                ends.extend(parts.into_iter().skip(1));
                return self.joined(node, &ends, 3);
            }
            true => {
                let apart =
                    |s: &mut Self, end| s.reshaped(node, end, vec![one, heads, tokens, fixed(half)?, Dim::Fixed(1)]);
                let ends = ends.into_iter().map(|end| apart(self, end)).collect::<Result<Vec<LiveValue>, _>>()?;
                let both = self.joined(node, &ends, 4)?;
                self.reshaped(node, both, vec![one, heads, tokens, fixed(r)?])?
            }
        };
        match parts.get(1) {
            Some(rest) => self.joined(node, &[turned, rest.clone()], 3),
            None => Ok(turned),
        }
    }

    /// Cosines or sines of every token: those of its position, where the file gives a table of all positions.
    fn turns(
        &mut self,
        node: &OnnxNode,
        table: Option<&ImportValue>,
        positions: Option<&ImportValue>,
    ) -> Result<LiveValue, ImportError> {
        let Some(ImportValue::Constant(table)) = table else { return Err("its cosines should be constants".into()) };
        if table.at(0).rank() != 2 {
            return self.operand(&ImportValue::Constant(table.clone()), node);
        }
        let counted = ImportValue::Constant(self.counted(node));
        let positions = match positions {
            // One number is where the first token stands.
            Some(ImportValue::Constant(first)) if first.single().is_some_and(|first| first.len() == 1) => {
                if first.uniform() != Some(0.0) {
                    return Err("positions that do not begin at 0 are not supported".into());
                }
                counted
            }
            Some(positions) => positions.clone(),
            None => counted,
        };
        let rows = self.embed_rows(node, table, &positions)?;
        rows.ok_or_else(|| "its positions should count the tokens".into())
    }
}

/// An attention's outputs: its result, keys and values; scores are not given.
fn with_state(y: LiveValue, qkv: &[LiveValue]) -> Vec<ImportValue> {
    let live = |x: &LiveValue| ImportValue::Live(x.clone());
    [ImportValue::Live(y)].into_iter().chain(qkv.iter().skip(1).map(live)).chain([ImportValue::Failed]).collect()
}
