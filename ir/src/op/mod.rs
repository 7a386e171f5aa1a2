//! Every operation there is, in one closed enum of dialects with attributes inside: its row in the table, its spelling, its
//! types.
//!
//! A dialect is a file: the enum, its `info`, how attributes are printed and parsed, the type of the result. What an operation
//! means is in `eval`. The spelling is the text format, the e-graph's atom and the profile's row name.

pub mod array;
pub mod attribute;
pub mod dense;
pub mod info;
pub mod leaf;
pub mod level;
pub(crate) mod shapes;
pub(crate) mod spelling;
pub mod spike;
pub mod training;

pub use array::ArrayOp;
pub use attribute::{Binary, Heads, Layout, Pairs, Perm, Scalar, Surrogate, Unary};
pub use dense::DenseOp;
pub use info::OpInfo;
pub use leaf::{LeafOp, opening};
pub use level::LevelOp;
pub use spike::SpikeOp;
pub use training::{LEVEL_MAX, TrainingOp};

use crate::stage::Stage;
use crate::types::Type;
use std::fmt;

/// An operation, by dialect. Shapes: `d` a width, `m` another one, `...` any leading sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// What a program starts from.
    Leaf(LeafOp),
    /// What exporters write.
    Array(ArrayOp),
    /// A transformer in its own words.
    Dense(DenseOp),
    /// Levels instead of reals.
    Level(LevelOp),
    /// Levels spread over timesteps.
    Spike(SpikeOp),
    /// Losses and derivatives.
    Training(TrainingOp),
}

impl Op {
    /// Its row in the table of operations.
    ///
    /// ```
    /// use snnc_ir::{Op, Stage};
    ///
    /// let op = Op::parse("fire[binary,7,gelu_tanh]").unwrap();
    /// let info = op.info();
    /// assert_eq!((info.name, info.arity, info.is_neuron), ("fire", 5, true));
    /// assert!(op.legal_in(Stage::Spiking) && !op.legal_in(Stage::Quantised));
    /// ```
    pub fn info(&self) -> OpInfo {
        match self {
            Op::Leaf(op) => op.info(),
            Op::Array(op) => op.info(),
            Op::Dense(op) => op.info(),
            Op::Level(op) => op.info(),
            Op::Spike(op) => op.info(),
            Op::Training(op) => op.info(),
        }
    }

    /// The spelling's first word.
    pub fn name(&self) -> &'static str {
        self.info().name
    }

    /// Whether the operation may stand in this stage.
    pub fn legal_in(&self, stage: Stage) -> bool {
        self.info().stages.contains(&stage)
    }

    /// Whether the operation keeps something of the tokens between calls.
    pub fn has_state(&self) -> bool {
        self.info().has_state
    }

    /// Whether the operation is a layer of neurons.
    pub fn is_neuron(&self) -> bool {
        self.info().is_neuron
    }

    /// The type of the result, from the operands' types.
    ///
    /// # Errors
    /// A sentence that says which operand does not fit: what was expected and what was found.
    ///
    /// ```
    /// use snnc_ir::{Elem, Op, Shape, Type};
    ///
    /// let row = Type::tensor(Elem::F32, Shape::rows(8));
    /// assert_eq!(Op::parse("row_max_abs").unwrap().infer(&[row]).unwrap().to_string(), "f32[tokens,1]");
    /// assert_eq!(Op::parse("add").unwrap().infer(&[row]).unwrap_err(), "it takes 2 operands, here are 1");
    /// ```
    pub fn infer(&self, args: &[Type]) -> Result<Type, String> {
        let want = self.info().arity;
        if args.len() != want {
            return Err(format!("it takes {want} operands, here are {}", args.len()));
        }
        match *self {
            Op::Leaf(op) => op.infer(),
            Op::Array(op) => op.infer(args),
            Op::Dense(op) => op.infer(args),
            Op::Level(op) => op.infer(args),
            Op::Spike(op) => op.infer(args),
            Op::Training(op) => op.infer(args),
        }
    }

    /// The operation that prints as `spelled`: the inverse of `Display`. There is one spelling for everything.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the spelling.
    ///
    /// ```
    /// use snnc_ir::Op;
    ///
    /// assert_eq!(Op::parse("ssa[ttfs,heads=4,phases=8]").unwrap().to_string(), "ssa[ttfs,heads=4,phases=8]");
    /// assert!(Op::parse("rms_norm[eps=0.00001]").unwrap_err().contains("this is spelled `rms_norm[eps=1e-5]`"));
    /// ```
    pub fn parse(spelled: &str) -> Result<Op, String> {
        let (name, attributes) = match spelled.split_once('[') {
            None => (spelled, ""),
            Some((name, rest)) => (name, rest.strip_suffix(']').ok_or("`]` is missing after the attributes")?),
        };
        let attributes: Vec<&str> = attributes.split(',').map(str::trim).filter(|piece| !piece.is_empty()).collect();
        let op = Self::parse_pieces(name, &attributes)?;
        let printed = op.to_string();
        if printed == spelled { Ok(op) } else { Err(format!("this is spelled `{printed}`")) }
    }

    fn parse_pieces(name: &str, attributes: &[&str]) -> Result<Op, String> {
        if let Some(op) = LeafOp::parse(name, attributes)? {
            return Ok(Op::Leaf(op));
        }
        if let Some(op) = ArrayOp::parse(name, attributes)? {
            return Ok(Op::Array(op));
        }
        if let Some(op) = DenseOp::parse(name, attributes)? {
            return Ok(Op::Dense(op));
        }
        if let Some(op) = LevelOp::parse(name, attributes)? {
            return Ok(Op::Level(op));
        }
        if let Some(op) = SpikeOp::parse(name, attributes)? {
            return Ok(Op::Spike(op));
        }
        if let Some(op) = TrainingOp::parse(name, attributes)? {
            return Ok(Op::Training(op));
        }
        Err(match attributes {
            [] => format!("`{name}` is no operation without attributes"),
            _ => format!("`{name}[{}]` is no operation", attributes.join(",")),
        })
    }
}

impl fmt::Display for Op {
    /// `name[attributes]`; the weight's name is the graph's to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Op::Leaf(op) => op.attributes(f),
            Op::Array(op) => op.attributes(f),
            Op::Dense(op) => op.attributes(f),
            Op::Level(op) => op.attributes(f),
            Op::Spike(op) => op.attributes(f),
            Op::Training(op) => op.attributes(f),
        }
    }
}

impl From<LeafOp> for Op {
    fn from(op: LeafOp) -> Self {
        Op::Leaf(op)
    }
}

impl From<ArrayOp> for Op {
    fn from(op: ArrayOp) -> Self {
        Op::Array(op)
    }
}

impl From<DenseOp> for Op {
    fn from(op: DenseOp) -> Self {
        Op::Dense(op)
    }
}

impl From<LevelOp> for Op {
    fn from(op: LevelOp) -> Self {
        Op::Level(op)
    }
}

impl From<SpikeOp> for Op {
    fn from(op: SpikeOp) -> Self {
        Op::Spike(op)
    }
}

impl From<TrainingOp> for Op {
    fn from(op: TrainingOp) -> Self {
        Op::Training(op)
    }
}
