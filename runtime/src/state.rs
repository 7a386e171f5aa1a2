//! Keys and values of one sequence, by node that keeps state, as they are stored: f32, or levels in 8, 16 or 32 bits.
//!
//! Memory grows with the sequence, doubling up to the context, so a short sequence in a long context stays small.

use crate::jit::cast;
use snnc_ir::ssa::State;
use snnc_ir::types::Elem;
use snnc_ir::{Graph, Type, Value};

/// What one node keeps of a key or a value: rows of one width, one a token.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    F32(Vec<f32>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
}

/// What one node keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub keys: Kept,
    pub values: Kept,
    width: usize,
    context: usize,
}

impl Slot {
    /// `None` for a node that keeps no state.
    pub fn new(graph: &Graph, value: Value) -> Option<Self> {
        let State::Rows { keys, values } = graph.state(value)? else { return None };
        let width = keys.shape().width()?;
        Some(Self { keys: Kept::new(keys)?, values: Kept::new(values)?, width, context: graph.context as usize })
    }

    /// The same for rows of levels as they lie in memory; `None` also where they are not aligned.
    pub fn append_levels(&mut self, past: usize, keys: &[u8], values: &[u8]) -> Option<()> {
        let (at, most) = (past * self.width, self.context * self.width);
        self.keys.append(at, keys, most)?;
        self.values.append(at, values, most)
    }

    /// Puts rows at position `past`, over whatever was there or after it. `None` if types or lengths disagree.
    pub fn append<K: Level, V: Level>(&mut self, past: usize, keys: &[K], values: &[V]) -> Option<()> {
        K::kept(&mut self.keys).and_then(|kept| extend(kept, past * self.width, keys, self.context * self.width))?;
        V::kept(&mut self.values).and_then(|kept| extend(kept, past * self.width, values, self.context * self.width))
    }
}

impl Kept {
    fn new(ty: Type) -> Option<Self> {
        Some(match ty.elem()? {
            Elem::F32 => Kept::F32(Vec::new()),
            elem @ Elem::Level(..) => match elem.bytes() {
                1 => Kept::I8(Vec::new()),
                2 => Kept::I16(Vec::new()),
                _ => Kept::I32(Vec::new()),
            },
            Elem::I32 | Elem::I8 => return None,
        })
    }
}

impl Kept {
    fn append(&mut self, at: usize, rows: &[u8], most: usize) -> Option<()> {
        match self {
            Kept::F32(_) => None,
            Kept::I8(kept) => extend(kept, at, cast(rows)?, most),
            Kept::I16(kept) => extend(kept, at, cast(rows)?, most),
            Kept::I32(kept) => extend(kept, at, cast(rows)?, most),
        }
    }

    /// Levels in 32 bits, however they are stored; `None` of reals.
    pub fn levels(&self) -> Option<Vec<i32>> {
        match self {
            Kept::F32(_) => None,
            Kept::I8(kept) => Some(kept.iter().map(|&x| i32::from(x)).collect()),
            Kept::I16(kept) => Some(kept.iter().map(|&x| i32::from(x)).collect()),
            Kept::I32(kept) => Some(kept.clone()),
        }
    }
}

/// An element that keys and values are kept in.
pub trait Level: Copy {
    fn kept(kept: &mut Kept) -> Option<&mut Vec<Self>>;
    fn view(kept: &Kept) -> Option<&[Self]>;
}

macro_rules! level {
    ($elem:ty, $kind:path) => {
        impl Level for $elem {
            fn kept(kept: &mut Kept) -> Option<&mut Vec<Self>> {
                if let $kind(rows) = kept { Some(rows) } else { None }
            }
            fn view(kept: &Kept) -> Option<&[Self]> {
                if let $kind(rows) = kept { Some(rows) } else { None }
            }
        }
    };
}
level!(f32, Kept::F32);
level!(i8, Kept::I8);
level!(i16, Kept::I16);
level!(i32, Kept::I32);

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
