//! ONNX's LinearAttention: a state of keys by values, which every token changes and every query reads.

use super::attention::HeadArray;
use super::call::{OnnxCall, count};
use super::network::floats;
use crate::tensor::OnnxArray;

/// How a token changes the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UpdateRule {
    /// What was there fades first.
    gated: bool,
    /// What the state already answers for the key is taken off the value.
    delta: bool,
}

impl UpdateRule {
    fn named(name: &str) -> Result<Self, String> {
        let (gated, delta) = match name {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            other => return Err(format!("the update rule {other} is none of linear, gated, delta, gated_delta")),
        };
        Ok(Self { gated, delta })
    }
}

impl OnnxCall<'_> {
    /// Results `[batch, tokens, heads * width of values]` and the state `[batch, key heads, width of keys, width of values]`.
    pub(super) fn linear_attention(&self) -> Result<Vec<OnnxArray>, String> {
        let rule = UpdateRule::named(self.node.text("update_rule").unwrap_or("gated_delta"))?;
        let q = self.heads_of(0, |_| self.size("q_num_heads"))?;
        let k = self.heads_of(1, |_| self.size("kv_num_heads"))?;
        let v = self.heads_of(2, |_| self.size("kv_num_heads"))?;
        let ([batch, heads, tokens, width], [b2, kv, t2, w2], [b3, kv2, t3, values]) = (q.sizes, k.sizes, v.sizes);
        let fits = [b2, b3] == [batch; 2] && [t2, t3] == [tokens; 2] && w2 == width && kv2 == kv;
        count(&[batch, kv, width, values])?;
        count(&[batch, heads, tokens, values])?;
        if !fits || [kv, width, values].contains(&0) || !heads.is_multiple_of(kv) {
            return Err(format!("queries {:?}, keys {:?} and values {:?} do not fit", q.sizes, k.sizes, v.sizes));
        }
        let scale = match self.node.float("scale").unwrap_or(0.0) {
            0.0 => 1.0 / (width as f32).sqrt(),
            scale => scale,
        };
        // Numbers per token and key head: one, or one per feature of a key.
        let per_head = |i: usize, what: &str, wanted: bool| -> Result<Option<HeadArray>, String> {
            let given = self.optional(i).filter(|x| !x.is_empty() && wanted);
            let Some(given) = given else {
                return if wanted { Err(format!("this update rule wants {what}")) } else { Ok(None) };
            };
            let &[b, t, all] = given.sizes() else { return Err(format!("{what} is [batch, tokens, heads]")) };
            let heads = if all == 1 { 1 } else { kv };
            if [b, t] != [batch, tokens] || all == 0 || all % heads != 0 {
                return Err(format!("{what} {:?} does not fit keys {:?}", given.sizes(), k.sizes));
            }
            Ok(Some(HeadArray::split([b, t, all], floats(given)?, heads)?))
        };
        let decay = per_head(4, "a decay", rule.gated)?;
        let beta = per_head(5, "a beta", rule.delta)?;
        let mut state = match self.optional(3).filter(|x| !x.is_empty()) {
            Some(past) if past.sizes() == [batch, kv, width, values] => floats(past)?.to_vec(),
            Some(past) => return Err(format!("a state of {:?} does not fit keys {:?}", past.sizes(), k.sizes)),
            None => vec![0f32; batch * kv * width * values],
        };
        let at = |x: &HeadArray, b: usize, head: usize, t: usize, i: usize| {
            let [_, heads, tokens, width] = x.sizes;
            x.data[((b * heads + head % heads) * tokens + t) * width + i % width]
        };
        let mut out = vec![0f32; batch * heads * tokens * values];
        for (b, head) in (0..batch).flat_map(|b| (0..kv).map(move |head| (b, head))) {
            let state = &mut state[(b * kv + head) * width * values..][..width * values];
            for t in 0..tokens {
                if let Some(decay) = &decay {
                    for (i, row) in state.chunks_exact_mut(values).enumerate() {
                        let left = libm::expf(at(decay, b, head, t, i));
                        row.iter_mut().for_each(|x| *x *= left);
                    }
                }
                let key: Vec<f32> = (0..width).map(|i| at(&k, b, head, t, i)).collect();
                let mut value: Vec<f32> = (0..values).map(|j| at(&v, b, head, t, j)).collect();
                if let Some(beta) = &beta {
                    let rate = at(beta, b, head, t, 0);
                    for (j, x) in value.iter_mut().enumerate() {
                        let known: f32 = key.iter().enumerate().map(|(i, key)| key * state[i * values + j]).sum();
                        *x = rate * (*x - known);
                    }
                }
                for (row, key) in state.chunks_exact_mut(values).zip(&key) {
                    row.iter_mut().zip(&value).for_each(|(x, value)| *x += key * value);
                }
                for query in head * (heads / kv)..(head + 1) * (heads / kv) {
                    let row = &mut out[((b * heads + query) * tokens + t) * values..][..values];
                    for (i, state) in state.chunks_exact(values).enumerate() {
                        let q = at(&q, b, query, t, i);
                        row.iter_mut().zip(state).for_each(|(x, state)| *x += q * state);
                    }
                    row.iter_mut().for_each(|x| *x *= scale);
                }
            }
        }
        let merged = HeadArray { sizes: [batch, heads, tokens, values], data: out }.merged();
        Ok(vec![merged, OnnxArray::f32(&[batch, kv, width, values], state)])
    }
}
