//! Attention, and the rotation of queries and keys by their position, as ONNX and com.microsoft define them.
//!
//! Sums run in ascending order. A row of scores that is hidden altogether gives zeros.

use super::call::{ElementOffsets, OnnxCall, broadcast, count, index};
use super::network::{floats, product, softmax_rows};
use crate::tensor::OnnxArray;

/// What attention adds to a score that a mask drops.
const DROPPED: f32 = f32::NEG_INFINITY;

/// What attention is given: `[batch, heads, tokens, width]`, row-major.
pub(super) struct HeadArray {
    pub sizes: [usize; 4],
    pub data: Vec<f32>,
}

/// The row of a table that token `t` of text `b` has.
type RowOfToken = Box<dyn Fn(usize, usize) -> Result<usize, String>>;

impl HeadArray {
    /// Of an array that is `[batch, heads, tokens, width]` already.
    pub fn of(x: &OnnxArray) -> Result<Self, String> {
        let &[b, h, n, w] = x.sizes() else { return Err("attention wants [batch,heads,tokens,width]".into()) };
        Ok(Self { sizes: [b, h, n, w], data: floats(x)?.to_vec() })
    }

    /// Of rows `[batch, tokens, heads * width]`.
    pub fn split(sizes: [usize; 3], x: &[f32], heads: usize) -> Result<Self, String> {
        let [b, n, d] = sizes;
        if heads == 0 || !d.is_multiple_of(heads) {
            return Err(format!("{heads} heads do not divide a width of {d}"));
        }
        let w = d / heads;
        let mut data = vec![0f32; x.len()];
        for (i, row) in x.chunks_exact(w.max(1)).enumerate() {
            let (head, token, batch) = (i % heads, i / heads % n, i / heads / n);
            data[((batch * heads + head) * n + token) * w..][..w].copy_from_slice(row);
        }
        Ok(Self { sizes: [b, heads, n, w], data })
    }

    /// As rows `[batch, tokens, heads * width]`.
    pub fn merged(&self) -> OnnxArray {
        let [b, h, n, w] = self.sizes;
        let mut rows = vec![0f32; self.data.len()];
        for (i, row) in self.data.chunks_exact(w.max(1)).enumerate() {
            let (token, head, batch) = (i % n, i / n % h, i / n / h);
            rows[((batch * n + token) * h + head) * w..][..w].copy_from_slice(row);
        }
        OnnxArray::f32(&[b, n, h * w], rows)
    }

    pub fn array(&self) -> OnnxArray {
        OnnxArray::f32(&self.sizes, self.data.clone())
    }

    /// These tokens after those of `past`.
    pub fn after(self, past: Option<HeadArray>) -> Result<Self, String> {
        let Some(past) = past else { return Ok(self) };
        let ([b, h, p, w], [b2, h2, n, w2]) = (past.sizes, self.sizes);
        if [b, h, w] != [b2, h2, w2] {
            return Err(format!("a past of {:?} does not fit {:?}", past.sizes, self.sizes));
        }
        let mut data = Vec::with_capacity(past.data.len() + self.data.len());
        for i in 0..b * h {
            data.extend_from_slice(&past.data[i * p * w..][..p * w]);
            data.extend_from_slice(&self.data[i * n * w..][..n * w]);
        }
        Ok(Self { sizes: [b, h, p + n, w], data })
    }
}

/// Which scores a query has, and how they are scaled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scoring<'a> {
    /// What products of queries and keys are multiplied by.
    pub scale: f32,
    /// Whether a query sees keys up to its own place only, the last query standing at the last key.
    pub causal: bool,
    /// How far back a query sees, where that is less than all: it sees itself and as many keys before it.
    pub back: Option<usize>,
    /// Scores are `softcap * tanh(score / softcap)`, where this is not 0.
    pub softcap: f32,
    /// What is added to scores, or keeps them; it broadcasts to `[batch, heads, tokens, keys]`.
    pub mask: Option<&'a OnnxArray>,
    /// How many keys of each sequence are there, where the last ones are not.
    pub lengths: Option<&'a [i64]>,
}

/// Scores at the places where a file may ask for them, each `[batch, heads, tokens, keys]`.
#[derive(Debug, Default)]
pub(super) struct Scores {
    pub scaled: Vec<f32>,
    pub capped: Vec<f32>,
    pub masked: Vec<f32>,
    pub weights: Vec<f32>,
}

/// A mask's numbers at every score: what is added.
fn added(mask: &OnnxArray, all: [usize; 4]) -> Result<Vec<f32>, String> {
    if broadcast(mask.sizes(), &all)? != all {
        return Err(format!("a mask of {:?} does not fit scores of {all:?}", mask.sizes()));
    }
    let walk = ElementOffsets::stretched(mask.sizes(), &all)?;
    Ok(match mask.as_bool() {
        Some(bits) => walk.map(|i| if bits[i] { 0.0 } else { DROPPED }).collect(),
        None => walk.map(|i| mask.data().get(i).float()).collect(),
    })
}

/// softmax(scale q k^T + mask) v, and the scores on the way. Query head `h` reads key and value head `h / (heads / kv)`.
pub(super) fn attend(
    q: &HeadArray,
    k: &HeadArray,
    v: &HeadArray,
    how: Scoring<'_>,
) -> Result<(HeadArray, Scores), String> {
    let ([b, h, n, w], [b2, hk, m, w2], [b3, hv, m2, u]) = (q.sizes, k.sizes, v.sizes);
    if b != b2 || b != b3 || w != w2 || m != m2 || hk != hv || hk == 0 || h % hk != 0 {
        return Err(format!("queries {:?}, keys {:?} and values {:?} do not fit", q.sizes, k.sizes, v.sizes));
    }
    if how.lengths.is_some_and(|lengths| lengths.len() != b) {
        return Err(format!("lengths of {b} sequences are wanted"));
    }
    let all = [b, h, n, m];
    let mut scores = Scores { scaled: Vec::with_capacity(count(&all)?), ..Scores::default() };
    let mask = how.mask.map(|mask| added(mask, all)).transpose()?;
    let shared = |head: usize| head / h * hk + head % h / (h / hk);
    for head in 0..b * h {
        let (q, k) = (&q.data[head * n * w..][..n * w], &k.data[shared(head) * m * w..][..m * w]);
        for query in q.chunks_exact(w.max(1)).take(n) {
            let dot = |key: &[f32]| query.iter().zip(key).map(|(a, b)| a * b).sum::<f32>() * how.scale;
            scores.scaled.extend(k.chunks_exact(w.max(1)).take(m).map(dot));
        }
    }
    let cap = |&x: &f32| if how.softcap == 0.0 { x } else { how.softcap * libm::tanhf(x / how.softcap) };
    scores.capped = scores.scaled.iter().map(cap).collect();
    let seen = |i: usize| {
        let (key, query, batch) = (i % m, i / m % n, i / m / n / h);
        let keys = how.lengths.map_or(m, |lengths| usize::try_from(lengths[batch]).unwrap_or(0));
        // The place of the query among the keys, one later.
        let here = (query + keys + 1).saturating_sub(n);
        key < keys && (!how.causal || key < here) && how.back.is_none_or(|back| key + back + 1 >= here)
    };
    let put = |(i, &x): (usize, &f32)| if seen(i) { x + mask.as_ref().map_or(0.0, |mask| mask[i]) } else { DROPPED };
    scores.masked = scores.capped.iter().enumerate().map(put).collect();
    scores.weights.clone_from(&scores.masked);
    softmax_rows(&mut scores.weights, m);
    // Nothing is seen where all is hidden.
    for (row, masked) in scores.weights.chunks_exact_mut(m.max(1)).zip(scores.masked.chunks_exact(m.max(1))) {
        if masked.iter().all(|x| *x == DROPPED) {
            row.fill(0.0);
        }
    }
    let mut out = vec![0f32; count(&[b, h, n, u])?];
    for head in 0..b * h {
        let weights = &scores.weights[head * n * m..][..n * m];
        product(weights, &v.data[shared(head) * m * u..][..m * u], &mut out[head * n * u..][..n * u], m, u);
    }
    Ok((HeadArray { sizes: [b, h, n, u], data: out }, scores))
}

/// How heads are turned: pairs of the first `width` channels, by cosines and sines `[rows, width / 2]`.
struct Turns<'a> {
    width: usize,
    interleaved: bool,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl<'a> Turns<'a> {
    fn new(call: &OnnxCall<'_>, cos: &'a OnnxArray, sin: &'a OnnxArray, head: usize) -> Result<Self, String> {
        let own = call.node.int("rotary_embedding_dim").unwrap_or(0);
        let half = cos.sizes().last().copied().unwrap_or(0);
        let width = if own > 0 { own as usize } else { (2 * half).min(head) };
        if cos.sizes() != sin.sizes() || half * 2 != width || width > head || half == 0 {
            let sizes = (cos.sizes(), sin.sizes());
            return Err(format!("cosines and sines of {sizes:?} do not turn {width} channels of {head}"));
        }
        let interleaved = call.node.int("interleaved").or(call.node.int("rotary_interleaved")).unwrap_or(0) != 0;
        Ok(Self { width, interleaved, cos: floats(cos)?, sin: floats(sin)? })
    }

    /// Turns every head; `row` says which cosines a token of a batch has.
    fn apply(&self, x: &mut HeadArray, row: impl Fn(usize, usize) -> Result<usize, String>) -> Result<(), String> {
        let ([_, h, n, w], half) = (x.sizes, self.width / 2);
        for (i, head) in x.data.chunks_exact_mut(w.max(1)).enumerate() {
            let at = row(i / n / h, i % n)? * half;
            let (Some(cos), Some(sin)) = (self.cos.get(at..at + half), self.sin.get(at..at + half)) else {
                return Err("a position is outside the cosines and sines".into());
            };
            for (pair, (cos, sin)) in cos.iter().zip(sin).enumerate() {
                let (i, j) = if self.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
                let (a, b) = (head[i], head[j]);
                (head[i], head[j]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
        Ok(())
    }
}

impl OnnxCall<'_> {
    /// Heads of an input, which may hold them side by side.
    pub(super) fn heads_of(
        &self,
        i: usize,
        heads: impl Fn(usize) -> Result<usize, String>,
    ) -> Result<HeadArray, String> {
        let x = self.arg(i)?;
        match x.sizes() {
            &[b, n, d] => HeadArray::split([b, n, d], floats(x)?, heads(d)?),
            _ => HeadArray::of(x),
        }
    }

    /// Which row of the cosines a token has: by the positions that are given, or its own.
    fn rows_of_turns(&self, positions: usize, tables: &OnnxArray) -> Result<RowOfToken, String> {
        let rows = tables.sizes().len().checked_sub(2).map_or(0, |axis| tables.sizes()[axis]);
        let batches = if tables.rank() == 3 { tables.sizes()[0] } else { 1 };
        let Some(given) = self.optional(positions).filter(|ids| !ids.is_empty()) else {
            return Ok(Box::new(move |b, t| Ok(if batches > 1 { b * rows } else { 0 } + t)));
        };
        let ids = given.ints().ok_or("positions should be integers")?;
        let width = given.sizes().last().copied().unwrap_or(1).max(1);
        Ok(Box::new(move |b, t| match ids.len() {
            1 => index(ids[0] + t as i64, rows),
            n => index(ids[(b * width + t) % n], rows),
        }))
    }

    /// RotaryEmbedding of ONNX: heads, cosines, sines, positions.
    pub(super) fn rotary(&self) -> Result<OnnxArray, String> {
        self.turned_heads([1, 2, 3])
    }

    /// com.microsoft.RotaryEmbedding: heads, positions, cosines, sines.
    pub(super) fn contrib_rotary(&self) -> Result<OnnxArray, String> {
        self.turned_heads([2, 3, 1])
    }

    fn turned_heads(&self, [cos, sin, positions]: [usize; 3]) -> Result<OnnxArray, String> {
        let (cos, sin) = (self.arg(cos)?, self.arg(sin)?);
        let half = cos.sizes().last().copied().unwrap_or(0).max(1);
        // com.microsoft takes the heads' width from the tables where it is not said.
        let mut heads = self.heads_of(0, |d| match self.node.int("num_heads") {
            Some(heads) if heads > 0 => self.size("num_heads"),
            _ => Ok(d / (2 * half)),
        })?;
        let turns = Turns::new(self, cos, sin, heads.sizes[3])?;
        turns.apply(&mut heads, self.rows_of_turns(positions, cos)?)?;
        Ok(if self.arg(0)?.rank() == 3 { heads.merged() } else { heads.array() })
    }

    /// ONNX's own Attention: q, k, v, mask, past keys, past values, lengths of the sequences.
    pub(super) fn attention(&self) -> Result<Vec<OnnxArray>, String> {
        let rows = self.arg(0)?.rank() == 3;
        let past = |i: usize| self.optional(i).filter(|x| !x.is_empty()).map(HeadArray::of).transpose();
        let q = self.heads_of(0, |_| self.size("q_num_heads"))?;
        let k = self.heads_of(1, |_| self.size("kv_num_heads"))?.after(past(4)?)?;
        let v = self.heads_of(2, |_| self.size("kv_num_heads"))?.after(past(5)?)?;
        let lengths = self.optional(6).map(|x| x.ints().ok_or("lengths should be integers")).transpose()?;
        let mask = self.optional(3).map(|mask| self.padded_mask(mask, k.sizes[2])).transpose()?;
        let how = Scoring {
            scale: self.node.float("scale").unwrap_or(1.0 / (q.sizes[3] as f32).sqrt()),
            causal: self.node.int("is_causal").unwrap_or(0) != 0,
            softcap: self.node.float("softcap").unwrap_or(0.0),
            mask: mask.as_ref(),
            lengths: lengths.as_deref(),
            back: None,
        };
        let (y, scores) = attend(&q, &k, &v, how)?;
        let scores = match self.node.int("qk_matmul_output_mode").unwrap_or(0) {
            0 => scores.scaled,
            1 => scores.capped,
            2 => scores.masked,
            _ => scores.weights,
        };
        let sizes = [q.sizes[0], q.sizes[1], q.sizes[2], k.sizes[2]];
        let y = if rows { y.merged() } else { y.array() };
        Ok(vec![y, k.array(), v.array(), OnnxArray::f32(&sizes, scores)])
    }

    /// A mask that is shorter than the keys hides those it does not reach.
    fn padded_mask(&self, mask: &OnnxArray, keys: usize) -> Result<OnnxArray, String> {
        let width = mask.sizes().last().copied().unwrap_or(1);
        if width == 1 || width >= keys {
            return Ok(mask.clone());
        }
        let mut sizes = mask.sizes().to_vec();
        if let Some(last) = sizes.last_mut() {
            *last = keys;
        }
        let at = |i: usize| match (mask.as_bool(), i % keys < width) {
            (_, false) => DROPPED,
            (Some(bits), true) => {
                if bits[i / keys * width + i % keys] {
                    0.0
                } else {
                    DROPPED
                }
            }
            (None, true) => mask.data().get(i / keys * width + i % keys).float(),
        };
        Ok(OnnxArray::f32(&sizes, (0..count(&sizes)?).map(at).collect()))
    }

    /// com.microsoft.GroupQueryAttention: query, key, value, past keys, past values, last places, total length, cosines, sines,
    /// positions, what is added to scores.
    pub(super) fn group_query_attention(&self) -> Result<Vec<OnnxArray>, String> {
        let (heads, kv) = (self.size("num_heads")?, self.size("kv_num_heads")?);
        let [mut q, mut k, v] = self.queries_keys_values(heads, kv)?;
        let past = |i: usize| self.optional(i).filter(|x| !x.is_empty()).map(HeadArray::of).transpose();
        let last = self.arg(5)?.ints().ok_or("the last places should be integers")?;
        let tokens = q.sizes[2];
        let before = |b: usize| last.get(b % last.len().max(1)).map_or(0, |last| last + 1 - tokens as i64);
        if self.node.int("do_rotary").unwrap_or(0) != 0 {
            let (cos, sin) = (self.arg(7)?, self.arg(8)?);
            let turns = Turns::new(self, cos, sin, q.sizes[3])?;
            let rows = cos.sizes().first().copied().unwrap_or(0);
            let given = self.optional(9).filter(|ids| !ids.is_empty());
            let own = |b: usize, t: usize| index(before(b) + t as i64, rows);
            match given {
                Some(_) => {
                    turns.apply(&mut q, self.rows_of_turns(9, cos)?)?;
                    turns.apply(&mut k, self.rows_of_turns(9, cos)?)?;
                }
                None => {
                    turns.apply(&mut q, own)?;
                    turns.apply(&mut k, own)?;
                }
            }
        }
        let (k, v) = (k.after(past(3)?)?, v.after(past(4)?)?);
        let back = self.node.int("local_window_size").and_then(|n| usize::try_from(n).ok());
        let scale = self.node.float("scale").filter(|&s| s != 0.0).unwrap_or(1.0 / (q.sizes[3] as f32).sqrt());
        let softcap = self.node.float("softcap").unwrap_or(0.0);
        let how = Scoring { scale, causal: true, back, softcap, mask: self.optional(10), lengths: None };
        let (y, _) = attend(&q, &k, &v, how)?;
        Ok(vec![y.merged(), k.array(), v.array()])
    }

    /// Queries, keys and values, which may be one input.
    fn queries_keys_values(&self, heads: usize, kv: usize) -> Result<[HeadArray; 3], String> {
        if self.optional(1).is_some() {
            let of = |i: usize, n: usize| self.heads_of(i, |_| Ok(n));
            return Ok([of(0, heads)?, of(1, kv)?, of(2, kv)?]);
        }
        let x = self.arg(0)?;
        let &[batch, tokens, width] = x.sizes() else { return Err("its input should be [batch,tokens,width]".into()) };
        let own = width / (heads + 2 * kv).max(1);
        let sizes = [heads * own, kv * own, kv * own];
        if own == 0 || sizes.iter().sum::<usize>() != width {
            return Err(format!("{width} numbers are no queries, keys and values of {heads} and {kv} heads"));
        }
        let data = floats(x)?;
        let part = |i: usize, n: usize| {
            let start: usize = sizes[..i].iter().sum();
            let rows = data.chunks_exact(width).flat_map(|row| row[start..start + sizes[i]].iter().copied());
            HeadArray::split([batch, tokens, sizes[i]], &rows.collect::<Vec<f32>>(), n)
        };
        Ok([part(0, heads)?, part(1, kv)?, part(2, kv)?])
    }
}
