//! What is kept of one sequence, by node that keeps state: keys and values as they are stored, f32, levels in 8, 16 or 32 bits,
//! or spike words; or sums of fixed size.
//!
//! Memory of rows grows with the sequence, doubling up to the context, so a short sequence in a long context stays small.

use crate::kernels::words;
use crate::layout::plane_bytes;
use snnc_ir::op::{LevelOp, opening};
use snnc_ir::ssa::StateType;
use snnc_ir::types::Elem;
use snnc_ir::{Graph, Op, Type, Value};

/// What one node keeps of a key or a value: rows of one width, one per token.
#[derive(Clone, Debug, PartialEq)]
pub enum CachedRows {
    F32(Vec<f32>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    /// Spikes, 64 features a word: `[heads][timesteps][words]`.
    Words(Vec<u64>),
}

/// What one node keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum CacheEntry {
    KeyValue(KeyValueRows),
    Linear(LinearState),
}

/// Rows of keys and of values.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValueRows {
    pub keys: CachedRows,
    pub values: CachedRows,
    /// Thresholds of keys and of values, `[tokens, heads]`, where tokens have their own.
    pub thresholds: [Vec<f32>; 2],
    /// Of a key's row and of a value's.
    widths: [usize; 2],
    /// Thresholds of a token's key, and of its value.
    heads: usize,
    context: usize,
}

/// Sums over all tokens. They cannot be taken back, so those of the last mark are kept beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearState {
    both: [StateSums; 2],
    live: usize,
    marked: usize,
}

/// Sums in as many bits as they need.
#[derive(Clone, Debug, PartialEq)]
pub enum StateSums {
    I32(Vec<i32>),
    I64(Vec<i64>),
}

impl StateSums {
    fn copy_from(&mut self, other: &Self) {
        match (self, other) {
            (StateSums::I32(to), StateSums::I32(from)) => to.copy_from_slice(from),
            (StateSums::I64(to), StateSums::I64(from)) => to.copy_from_slice(from),
            (StateSums::I32(_) | StateSums::I64(_), _) => unreachable!("both are made alike"),
        }
    }

    fn clear(&mut self) {
        match self {
            StateSums::I32(sums) => sums.fill(0),
            StateSums::I64(sums) => sums.fill(0),
        }
    }
}

/// Bytes of the sums that a sequence keeps, with those to go back to.
pub fn kept_sums(graph: &Graph) -> u128 {
    let bytes = |value| match graph.state(value) {
        Some(StateType::Sums { heads, features, width, bits }) => {
            2 * heads as u128 * features as u128 * (width as u128 + 1) * u128::from(bits / u8::BITS)
        }
        Some(StateType::Rows { .. }) | None => 0,
    };
    graph.iter().map(|(value, _)| bytes(value)).sum()
}

/// Bytes of the keys and values that a sequence keeps of each token.
pub fn kept_per_token(graph: &Graph) -> u128 {
    let row = |ty: Type| {
        let width = ty.shape().width().unwrap_or(0) as u128;
        match ty {
            Type::Tensor { elem, .. } => width * elem.bytes() as u128,
            Type::Train { steps, .. } => (width + 64) * u128::from(steps),
        }
    };
    let bytes = |value| match graph.state(value) {
        Some(StateType::Rows { keys, values, thresholds }) => row(keys) + row(values) + 2 * thresholds.map_or(0, row),
        Some(StateType::Sums { .. }) | None => 0,
    };
    graph.iter().map(|(value, _)| bytes(value)).sum()
}

/// What is kept of one sequence.
#[derive(Clone, Debug)]
pub struct CachedSequence {
    /// By node.
    pub entries: Vec<Option<CacheEntry>>,
    /// Tokens that it has seen. Entries may hold more, of a pass that failed.
    pub past: usize,
    /// The token that it began with.
    first: Option<u32>,
    marked: usize,
}

impl CachedSequence {
    /// An empty one.
    pub fn new(graph: &Graph) -> Self {
        let entries = graph.iter().map(|(value, _)| CacheEntry::new(graph, value)).collect();
        Self { entries, past: 0, first: None, marked: 0 }
    }

    /// What it has begun with, at each of the tokens that follow.
    pub fn opening(&self, tokens: &[u32]) -> impl Iterator<Item = [i32; 2]> {
        opening(self.past, self.first, tokens)
    }

    /// These tokens were seen.
    pub fn advance(&mut self, tokens: &[u32]) {
        if self.past == 0 {
            self.first = tokens.first().copied();
        }
        self.past += tokens.len();
    }

    /// Forgets all but the first `tokens`; whether it could, which it cannot where sums are kept.
    pub fn shorten(&mut self, tokens: usize) -> bool {
        let sums = self.entries.iter().flatten().any(|entry| matches!(entry, CacheEntry::Linear(_)));
        if tokens < self.past && sums {
            return false;
        }
        // Rows beyond are overwritten by those that follow.
        self.past = self.past.min(tokens);
        true
    }

    /// Remembers where it stands, for `rewind`.
    pub fn mark(&mut self) {
        self.entries.iter_mut().flatten().for_each(CacheEntry::mark);
        self.marked = self.past;
    }

    /// Goes back to the last mark.
    pub fn rewind(&mut self) {
        self.entries.iter_mut().flatten().for_each(CacheEntry::rewind);
        self.past = self.marked;
    }
}

impl CacheEntry {
    /// `None` for a node that keeps no state.
    pub fn new(graph: &Graph, value: Value) -> Option<Self> {
        Some(match graph.state(value)? {
            StateType::Rows { keys, values, thresholds } => {
                let heads = if let Op::Level(LevelOp::Ssa { heads, .. }) = graph.node(value).op {
                    heads.kv as usize
                } else {
                    1
                };
                let ((keys, k), (values, v)) = (CachedRows::keys(keys, heads)?, CachedRows::values(values)?);
                let (widths, context) = ([k, v], graph.context as usize);
                let heads = thresholds.and_then(|ty| ty.shape().width()).unwrap_or(0);
                let thresholds = [Vec::new(), Vec::new()];
                CacheEntry::KeyValue(KeyValueRows { keys, values, thresholds, widths, heads, context })
            }
            StateType::Sums { heads, features, width, bits } => {
                let count = heads * features * (width + 1);
                let zeros =
                    if bits == i32::BITS { StateSums::I32(vec![0; count]) } else { StateSums::I64(vec![0; count]) };
                CacheEntry::Linear(LinearState { both: [zeros.clone(), zeros], live: 0, marked: 0 })
            }
        })
    }

    /// Remembers what there is, for `rewind`. Rows need not be told: those after a position are written over.
    pub fn mark(&mut self) {
        if let CacheEntry::Linear(sums) = self {
            sums.marked = sums.live;
        }
    }

    /// Goes back to the last mark.
    pub fn rewind(&mut self) {
        if let CacheEntry::Linear(sums) = self {
            sums.live = sums.marked;
        }
    }

    pub fn rows(&mut self) -> Option<&mut KeyValueRows> {
        if let CacheEntry::KeyValue(rows) = self { Some(rows) } else { None }
    }

    /// The sums after `past` tokens, to go on with.
    pub fn sums(&mut self, past: usize) -> Option<&mut StateSums> {
        let CacheEntry::Linear(sums) = self else { return None };
        if sums.live == sums.marked {
            sums.live = 1 - sums.marked;
            let [a, b] = &mut sums.both;
            let (from, to) = if sums.marked == 0 { (a, b) } else { (b, a) };
            to.copy_from(from);
        }
        let live = &mut sums.both[sums.live];
        if past == 0 {
            live.clear();
        }
        Some(live)
    }
}

impl KeyValueRows {
    /// Puts thresholds of keys and of values at position `past`.
    pub fn append_thresholds(&mut self, past: usize, rows: [&[f32]; 2]) -> Option<()> {
        let (at, most) = (past * self.heads, self.context * self.heads);
        let mut both = self.thresholds.iter_mut().zip(rows);
        both.try_for_each(|(kept, rows)| extend(kept, at, rows, most))
    }

    /// All keys and values of the sequence.
    pub fn view<K: CacheElement, V: CacheElement>(&self) -> Option<(&[K], &[V])> {
        K::view(&self.keys).zip(V::view(&self.values))
    }

    /// Puts rows of levels as they lie in memory; `None` also where they are not aligned.
    pub fn append_levels(&mut self, past: usize, keys: &[u8], values: &[u8]) -> Option<()> {
        self.keys.append(past, keys, self.widths[0], self.context)?;
        self.values.append(past, values, self.widths[1], self.context)
    }

    /// Puts keys in words and values in levels at position `past`.
    pub fn append_words(&mut self, past: usize, keys: &[u64], values: &[u8]) -> Option<()> {
        let [k, _] = self.widths;
        u64::kept(&mut self.keys).and_then(|kept| extend(kept, past * k, keys, self.context * k))?;
        self.values.append(past, values, self.widths[1], self.context)
    }

    /// Puts rows at position `past`, over whatever was there or after it; all keys and values of the sequence. `None` if types
    /// or lengths disagree.
    pub fn extend<K: CacheElement, V: CacheElement>(
        &mut self,
        past: usize,
        keys: &[K],
        values: &[V],
    ) -> Option<(&[K], &[V])> {
        let [k, v] = self.widths;
        K::kept(&mut self.keys).and_then(|kept| extend(kept, past * k, keys, self.context * k))?;
        V::kept(&mut self.values).and_then(|kept| extend(kept, past * v, values, self.context * v))?;
        K::view(&self.keys).zip(V::view(&self.values))
    }
}

impl CachedRows {
    /// No keys yet, and the width of their rows.
    fn keys(ty: Type, heads: usize) -> Option<(Self, usize)> {
        match ty {
            Type::Tensor { .. } => Self::values(ty),
            Type::Train { steps, shape, .. } => {
                let features = shape.width()? / heads;
                Some((CachedRows::Words(Vec::new()), heads * usize::from(steps) * words(features)))
            }
        }
    }

    /// No values yet, and the width of their rows. Trains lie as planes.
    fn values(ty: Type) -> Option<(Self, usize)> {
        let width = ty.shape().width()?;
        match ty {
            Type::Tensor { .. } => Some((CachedRows::new(ty)?, width)),
            Type::Train { steps, .. } => Some((CachedRows::I8(Vec::new()), usize::from(steps) * plane_bytes(width))),
        }
    }
}

impl CachedRows {
    fn new(ty: Type) -> Option<Self> {
        Some(match ty.elem()? {
            Elem::F32 => CachedRows::F32(Vec::new()),
            elem @ Elem::Level(..) => match elem.bytes() {
                1 => CachedRows::I8(Vec::new()),
                2 => CachedRows::I16(Vec::new()),
                _ => CachedRows::I32(Vec::new()),
            },
            Elem::I32 | Elem::I8 | Elem::I4(_) => return None,
        })
    }
}

impl CachedRows {
    fn append(&mut self, past: usize, rows: &[u8], width: usize, context: usize) -> Option<()> {
        let (at, most) = (past * width, context * width);
        match self {
            CachedRows::F32(_) | CachedRows::Words(_) => None,
            CachedRows::I8(kept) => extend(kept, at, bytemuck::try_cast_slice(rows).ok()?, most),
            CachedRows::I16(kept) => extend(kept, at, bytemuck::try_cast_slice(rows).ok()?, most),
            CachedRows::I32(kept) => extend(kept, at, bytemuck::try_cast_slice(rows).ok()?, most),
        }
    }

    /// Levels in 32 bits, however they are stored; `None` of reals and words.
    pub fn levels(&self) -> Option<Vec<i32>> {
        match self {
            CachedRows::F32(_) | CachedRows::Words(_) => None,
            CachedRows::I8(kept) => Some(kept.iter().map(|&x| i32::from(x)).collect()),
            CachedRows::I16(kept) => Some(kept.iter().map(|&x| i32::from(x)).collect()),
            CachedRows::I32(kept) => Some(kept.clone()),
        }
    }
}

/// An element that keys and values are kept in.
pub trait CacheElement: Copy {
    fn kept(kept: &mut CachedRows) -> Option<&mut Vec<Self>>;
    fn view(kept: &CachedRows) -> Option<&[Self]>;
}

macro_rules! level {
    ($elem:ty, $kind:path) => {
        impl CacheElement for $elem {
            fn kept(kept: &mut CachedRows) -> Option<&mut Vec<Self>> {
                if let $kind(rows) = kept { Some(rows) } else { None }
            }
            fn view(kept: &CachedRows) -> Option<&[Self]> {
                if let $kind(rows) = kept { Some(rows) } else { None }
            }
        }
    };
}
level!(f32, CachedRows::F32);
level!(i8, CachedRows::I8);
level!(i16, CachedRows::I16);
level!(i32, CachedRows::I32);
level!(u64, CachedRows::Words);

fn extend<T: Copy>(kept: &mut Vec<T>, at: usize, rows: &[T], most: usize) -> Option<()> {
    let end = at + rows.len();
    if at > kept.len() || end > most {
        return None;
    }
    kept.truncate(at);
    if end > kept.capacity() {
        kept.reserve_exact((2 * kept.capacity()).clamp(end, most) - at);
    }
    kept.extend_from_slice(rows);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_overwritten_from_a_position_on_and_memory_stays_within_the_context() {
        let mut kept = Vec::new();
        assert_eq!(extend(&mut kept, 0, &[1i8, 2, 3], 7), Some(()));
        assert_eq!(extend(&mut kept, 2, &[9, 9], 7), Some(()));
        assert_eq!(kept, [1, 2, 9, 9]);
        assert_eq!(extend(&mut kept, 4, &[5, 5, 5], 7), Some(()));
        assert!(kept.capacity() <= 7);
        assert_eq!(extend(&mut kept, 7, &[1], 7), None);
        assert_eq!(extend(&mut kept, 9, &[], 7), None);
    }
}
