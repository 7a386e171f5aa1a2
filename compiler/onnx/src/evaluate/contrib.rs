//! com.microsoft's fused operators, as onnxruntime documents them.

use super::attention::{HeadArray, Scoring, attend};
use super::call::{OnnxCall, count};
use super::network::{fits, floats, gelu, matmul, normalised, scaled, sigmoid, turned, zip};
use crate::tensor::{ArrayData, OnnxArray, OnnxElem};

/// The epsilon of com.microsoft's norms where none is given.
const EPS: f32 = 1e-12;

/// What com.microsoft's attention adds to a score that a mask drops, where the node says nothing else.
const MASK_FILTER: f32 = -10000.0;

impl OnnxCall<'_> {
    /// An input plus a bias, where there is one.
    fn biased(&self, x: &OnnxArray, bias: usize) -> Result<OnnxArray, String> {
        self.optional(bias).map_or(Ok(x.clone()), |bias| zip(x, bias, |x, b| x + b))
    }

    pub(super) fn biased_gelu(&self, by_tanh: bool) -> Result<OnnxArray, String> {
        let x = self.biased(self.arg(0)?, 1)?;
        Ok(OnnxArray::f32(x.sizes(), floats(&x)?.iter().map(|&x| gelu(x, by_tanh)).collect()))
    }

    pub(super) fn quick_gelu(&self, alpha: f32) -> Result<OnnxArray, String> {
        let alpha = self.node.float("alpha").unwrap_or(alpha);
        self.map(|x| x * sigmoid(alpha * x))
    }

    fn norm(&self, x: &OnnxArray, gain: usize, bias: Option<usize>) -> Result<[OnnxArray; 3], String> {
        let width = x.sizes().last().copied().unwrap_or(0);
        let row = |i: usize| self.optional(i).map(floats).transpose();
        let (gain, centred) = (row(gain)?, bias.is_some());
        let bias = bias.map_or(Ok(None), row)?;
        fits(gain, width)?;
        fits(bias, width)?;
        let eps = self.node.float("epsilon").unwrap_or(EPS);
        let (out, means, scales) = normalised(floats(x)?, width, eps, gain, bias, centred);
        let mut sizes = x.sizes().to_vec();
        if let Some(last) = sizes.last_mut() {
            *last = 1;
        }
        Ok([OnnxArray::f32(x.sizes(), out), OnnxArray::f32(&sizes, means), OnnxArray::f32(&sizes, scales)])
    }

    /// Norm, mean, scale, sum of input + skip + bias.
    pub(super) fn skip_layer_norm(&self, centred: bool) -> Result<Vec<OnnxArray>, String> {
        let (bias_at, norm_bias) = if centred { (4, Some(3)) } else { (3, None) };
        let sum = zip(self.arg(0)?, self.arg(1)?, |x, y| x + y)?;
        let sum = self.biased(&sum, bias_at)?;
        let [norm, mean, scale] = self.norm(&sum, 2, norm_bias)?;
        Ok(vec![norm, mean, scale, sum])
    }

    /// Ids, segment ids, tables of tokens, positions and segments, gain, bias, mask, position ids.
    pub(super) fn embed_layer_norm(&self) -> Result<Vec<OnnxArray>, String> {
        let ids = self.arg(0)?;
        let &[batch, tokens] = ids.sizes() else { return Err("ids should be [batch,tokens]".into()) };
        let width = self.arg(2)?.sizes().last().copied().unwrap_or(0);
        let mut sum = vec![0f32; count(&[batch, tokens, width])?];
        let counted = OnnxArray::i64(&[1, tokens], (0..tokens as i64).collect());
        let segments = self.optional(1).filter(|_| self.optional(4).is_some());
        let rows = [(Some(ids), 2), (Some(self.optional(8).unwrap_or(&counted)), 3), (segments, 4)];
        for (indices, table) in rows {
            let Some(indices) = indices else { continue };
            let table = self.arg(table)?;
            let &[height, own] = table.sizes() else { return Err("its tables should be matrices".into()) };
            let (data, ints) = (floats(table)?, indices.ints().ok_or("indices should be integers")?);
            if own != width || ints.is_empty() || !(batch * tokens).is_multiple_of(ints.len()) {
                return Err("its tables and indices do not fit".into());
            }
            for (row, sum) in sum.chunks_exact_mut(width.max(1)).enumerate() {
                let at = super::call::index(ints[row % ints.len()], height)?;
                sum.iter_mut().zip(&data[at * width..][..width]).for_each(|(sum, x)| *sum += x);
            }
        }
        let sum = OnnxArray::f32(&[batch, tokens, width], sum);
        let [norm, ..] = self.norm(&sum, 5, Some(6))?;
        let lengths = (0..batch).map(|row| match self.optional(7) {
            Some(mask) => (0..tokens).filter(|i| !mask.data().get(row * tokens + i).is_zero()).count() as i32,
            None => 0,
        });
        if self.optional(7).is_some_and(|mask| mask.len() != batch * tokens) {
            return Err("its mask should be [batch,tokens]".into());
        }
        let lengths = OnnxArray::new(vec![batch], ArrayData::I32(lengths.collect()));
        Ok(vec![norm, lengths, sum])
    }

    /// alpha * A B, either of them turned.
    pub(super) fn fused_matmul(&self) -> Result<OnnxArray, String> {
        if ["transBatchA", "transBatchB"].iter().any(|name| self.node.int(name).unwrap_or(0) != 0) {
            return Err("batches that are turned are not supported".into());
        }
        let turn = |i: usize, name: &str| -> Result<OnnxArray, String> {
            let x = self.arg(i)?;
            if self.node.int(name).unwrap_or(0) == 0 || x.rank() < 2 {
                return Ok(x.clone());
            }
            if x.rank() == 2 {
                return turned(x);
            }
            let (rows, columns) = (x.sizes()[x.rank() - 2], x.sizes()[x.rank() - 1]);
            let parts = floats(x)?.chunks_exact((rows * columns).max(1));
            let parts = parts.map(|part| turned(&OnnxArray::f32(&[rows, columns], part.to_vec())));
            let mut data = Vec::with_capacity(x.len());
            for part in parts {
                data.extend_from_slice(floats(&part?)?);
            }
            let mut sizes = x.sizes().to_vec();
            sizes.swap(x.rank() - 2, x.rank() - 1);
            Ok(OnnxArray::f32(&sizes, data))
        };
        scaled(matmul(&turn(0, "transA")?, &turn(1, "transB")?)?, self.node.float("alpha").unwrap_or(1.0))
    }

    /// Whether keys are seen, as numbers that are added: lengths, or `[batch, keys]`, or what broadcasts to scores.
    fn key_mask(&self, mask: Option<&OnnxArray>, batch: usize, keys: usize) -> Result<Option<OnnxArray>, String> {
        let Some(mask) = mask else { return Ok(None) };
        let dropped = self.node.float("mask_filter_value").unwrap_or(MASK_FILTER);
        let seen = |i: usize| !mask.data().get(i).is_zero();
        let add = |seen: bool| if seen { 0.0 } else { dropped };
        let data: Vec<f32> = match mask.sizes() {
            &[n] if n == batch || n == 2 * batch => {
                let limit = |k: usize| mask.data().get(k).int();
                let start = |b: usize| if n == batch { 0 } else { limit(b + batch) };
                let inside = |b: usize, key: usize| (key as i64) < limit(b) && key as i64 >= start(b);
                count(&[batch, keys])?;
                (0..batch * keys).map(|i| add(inside(i / keys, i % keys))).collect()
            }
            &[b, k] if (b, k) == (batch, keys) => (0..mask.len()).map(|i| add(seen(i))).collect(),
            &[b, n, k] if (b, k) == (batch, keys) => {
                return Ok(Some(OnnxArray::f32(&[b, 1, n, k], (0..mask.len()).map(|i| add(seen(i))).collect())));
            }
            other => return Err(format!("a mask of {other:?} is not supported")),
        };
        Ok(Some(OnnxArray::f32(&[batch, 1, 1, keys], data)))
    }

    fn both_masks(a: Option<OnnxArray>, b: Option<&OnnxArray>) -> Result<Option<OnnxArray>, String> {
        match (a, b) {
            (Some(a), Some(b)) => zip(&a, b, |a, b| a + b).map(Some),
            (a, b) => Ok(a.or(b.cloned())),
        }
    }

    /// com.microsoft.Attention: input, weights, bias, mask, past, what is added to scores.
    pub(super) fn packed_attention(&self) -> Result<Vec<OnnxArray>, String> {
        let all = self.biased(&matmul(self.arg(0)?, self.arg(1)?)?, 2)?;
        self.attend_packed(&all, 3, 4, self.optional(5))
    }

    /// Attention on queries, keys and values side by side; where the mask and the past are among the inputs, and what is
    /// added to scores.
    pub(super) fn attend_packed(
        &self,
        all: &OnnxArray,
        mask: usize,
        past: usize,
        added: Option<&OnnxArray>,
    ) -> Result<Vec<OnnxArray>, String> {
        let &[batch, tokens, width] = all.sizes() else {
            return Err("its input should be [batch,tokens,width]".into());
        };
        let heads = self.size("num_heads")?;
        let sizes: Vec<usize> = match self.node.ints("qkv_hidden_sizes") {
            Some(sizes) => super::call::sizes_of(sizes)?,
            None => vec![width / 3; 3],
        };
        if sizes.len() != 3 || sizes.iter().sum::<usize>() != width || width == 0 {
            return Err(format!("its weights give {width} numbers, which are no queries, keys and values"));
        }
        let data = floats(all)?;
        let part = |i: usize| -> Result<HeadArray, String> {
            let start: usize = sizes[..i].iter().sum();
            let rows = data.chunks_exact(width).flat_map(|row| row[start..start + sizes[i]].iter().copied());
            HeadArray::split([batch, tokens, sizes[i]], &rows.collect::<Vec<f32>>(), heads)
        };
        let (mut past_k, mut past_v) = (None, None);
        if let Some(past) = self.optional(past).filter(|past| !past.is_empty()) {
            let &[2, b, h, p, w] = past.sizes() else {
                return Err("its past should be [2,batch,heads,past,width]".into());
            };
            let half = |i: usize| {
                Ok(HeadArray {
                    sizes: [b, h, p, w],
                    data: floats(past)?[i * b * h * p * w..][..b * h * p * w].to_vec(),
                })
            };
            let both: [Result<HeadArray, String>; 2] = [half(0), half(1)];
            let [k, v] = both;
            (past_k, past_v) = (Some(k?), Some(v?));
        }
        let (q, k, v) = (part(0)?, part(1)?.after(past_k)?, part(2)?.after(past_v)?);
        let keys = k.sizes[2];
        let mask = Self::both_masks(self.key_mask(self.optional(mask), batch, keys)?, added)?;
        let scale = self.node.float("scale").filter(|&s| s != 0.0).unwrap_or(1.0 / (q.sizes[3] as f32).sqrt());
        let causal = self.node.int("unidirectional").unwrap_or(0) != 0;
        let how = Scoring { scale, causal, mask: mask.as_ref(), ..Scoring::default() };
        let (y, _) = attend(&q, &k, &v, how)?;
        let mut outputs = vec![y.merged()];
        if k.sizes == v.sizes {
            let [b, h, n, w] = k.sizes;
            outputs.push(OnnxArray::f32(&[2, b, h, n, w], [k.data, v.data].concat()));
        }
        Ok(outputs)
    }

    /// com.microsoft.MultiHeadAttention: query, key, value, bias, padding of keys, what is added to scores, past.
    pub(super) fn multi_head_attention(&self) -> Result<Vec<OnnxArray>, String> {
        let heads = self.size("num_heads")?;
        let bias = self.optional(3).map(floats).transpose()?;
        let mut start = 0;
        let mut part = |i: usize| -> Result<HeadArray, String> {
            let x = self.arg(i)?;
            let &[b, n, d] = x.sizes() else { return HeadArray::of(x) };
            let mut rows = floats(x)?.to_vec();
            if let Some(bias) = bias {
                let own = bias.get(start..start + d).ok_or("its bias is too short")?;
                rows.chunks_exact_mut(d.max(1)).for_each(|row| row.iter_mut().zip(own).for_each(|(x, b)| *x += b));
            }
            start += d;
            HeadArray::split([b, n, d], &rows, heads)
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let past = |i: usize| self.optional(i).filter(|x| !x.is_empty()).map(HeadArray::of).transpose();
        let (k, v) = (k.after(past(6)?)?, v.after(past(7)?)?);
        let mask = self.key_mask(self.optional(4), k.sizes[0], k.sizes[2])?;
        let mask = Self::both_masks(mask, self.optional(5))?;
        let scale = self.node.float("scale").filter(|&s| s != 0.0).unwrap_or(1.0 / (q.sizes[3] as f32).sqrt());
        let causal = self.node.int("unidirectional").unwrap_or(0) != 0;
        let how = Scoring { scale, causal, mask: mask.as_ref(), ..Scoring::default() };
        let (y, _) = attend(&q, &k, &v, how)?;
        Ok(vec![y.merged(), k.array(), v.array()])
    }

    /// com.microsoft.GatherBlockQuantized: rows of a table of codes, with a scale for each block of a row.
    pub(super) fn gather_blocks(&self) -> Result<OnnxArray, String> {
        let (table, indices, scales) = (self.arg(0)?, self.arg(1)?, self.arg(2)?);
        let bits = self.node.int("bits").unwrap_or(4);
        let block = self.node.int("block_size").and_then(|n| usize::try_from(n).ok()).unwrap_or(128).max(1);
        let (&[rows, stored], 4 | 8) = (table.sizes(), bits) else {
            return Err("a table of two axes and codes of 4 or 8 bits are supported".into());
        };
        // Codes of four bits may stand two in a byte: then a row has as many blocks as twice its bytes.
        let blocks_of = |codes: usize| scales.sizes().last() == Some(&codes.div_ceil(block));
        let in_pairs = bits == 4 && table.elem() == OnnxElem::U8 && blocks_of(2 * stored);
        let packed = if in_pairs || bits == 4 && !blocks_of(stored) { 2 } else { 1 };
        let width = stored * packed;
        let blocks = width.div_ceil(block);
        let (numbers, zeros) = (floats(scales)?, self.optional(3));
        if numbers.len() != rows * blocks {
            return Err(format!("{} scales do not fit {rows} rows of {blocks} blocks", numbers.len()));
        }
        let code = |array: &OnnxArray, row: usize, i: usize, width: usize, packed: usize| -> i64 {
            let at = array.data().get((row * width + i) / packed).int();
            if packed == 2 { at >> (4 * ((row * width + i) % 2)) & 15 } else { at }
        };
        let signed = table.elem() == OnnxElem::I8;
        let default_zero = if signed { 0 } else { 1i64 << (bits - 1) };
        let zero_packed = zeros.map_or(1, |zeros| if zeros.len() < rows * blocks { 2 } else { 1 });
        let mut sizes = indices.sizes().to_vec();
        sizes.push(width);
        let mut out = Vec::with_capacity(count(&sizes)?);
        for at in indices.ints().ok_or("indices should be integers")? {
            let row = super::call::index(at, rows)?;
            for i in 0..width {
                let zero = match zeros {
                    Some(zeros) if zeros.len() * zero_packed >= rows * blocks => {
                        code(zeros, row, i / block, blocks, zero_packed)
                    }
                    Some(_) => return Err("its zero points do not fit its blocks".into()),
                    None => default_zero,
                };
                out.push((code(table, row, i, width, packed) - zero) as f32 * numbers[row * blocks + i / block]);
            }
        }
        Ok(OnnxArray::f32(&sizes, out))
    }
}
