//! What every operation does, in integers: arithmetic by kind, and bytes by what they are and how large a memory they lie in.
//!
//! One function counts an operation from its type and from its activity, which was measured on text or is assumed. It counts
//! the same network in several *forms*: dense in three number formats, dense in int8 with the zeros skipped that the spiking
//! one skips, spiking with every timestep run on its own, spiking with time collapsed. The e-graph prices terms with it
//! (`effort`), reports price networks with it (`costs`). What a count is worth is a price list's to say: nothing here knows a
//! joule.
//!
//! Conventions, and what is left out, are in `docs/energy.md`; the arms that implement them are in `count`.

pub mod activity;
mod count;
pub mod parts;
pub mod tally;

pub use activity::{Activity, Rate};
pub use parts::{LayerPart, Part, fan_out, is_part, parts};
pub use tally::{Form, Number, Operation, Seen, Sharing, Tally, Traffic};

use snnc_ir::events::Events;
use snnc_ir::{Graph, Op, Type, Value};

/// The count of one node, or of its part of a network.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The node.
    pub node: Value,
    /// Layer and part of the network.
    pub place: LayerPart,
    /// What it does.
    pub tally: Tally,
}

/// What every node of `graph` does in `form`; attention by its parts.
pub fn costs(graph: &Graph, activity: &Activity, form: Form, sharing: Sharing) -> Vec<Cost> {
    let (places, splits) = (parts(graph), parts::splits(graph));
    let mut costs = Vec::new();
    for (value, node) in graph.iter() {
        let args: Vec<Type> = node.args.iter().map(|&arg| graph.ty(arg)).collect();
        let inputs: Vec<Events> = node.args.iter().map(|&arg| activity.of_neurons(graph, arg)).collect();
        let seen = Seen {
            op: node.op,
            args: &args,
            ty: node.ty,
            tokens: activity.tokens,
            inputs: &inputs,
            own: activity.events[value.index()],
            context: u64::from(graph.context),
            split: splits[value.index()],
        };
        let place = places[value.index()];
        let one = |(part, tally)| Cost { node: value, place: LayerPart { part, ..place }, tally };
        costs.extend(count::count(&seen, place.part, form, sharing).into_iter().map(one));
    }
    costs
}

/// Operations of one token in the form that time is collapsed to, all kinds alike: what extraction from an e-graph makes
/// small. Every neuron is taken to fire, and one key to be met.
///
/// ```
/// use snnc_ir::op::ArrayOp;
/// use snnc_ir::{Binary, Elem, Op, Shape, Type};
/// use snnc_passes::cost::effort;
///
/// let row = Type::tensor(Elem::F32, Shape::rows(8));
/// assert_eq!(effort(Op::Array(ArrayOp::Binary(Binary::Mul)), &[row, row], row), 8);
/// ```
pub fn effort(op: Op, args: &[Type], ty: Type) -> u64 {
    let inputs: Vec<Events> = args.iter().map(|&arg| activity::busy(arg)).collect();
    let own = Events { keys: 1, value_keys: count::heads(op), ..activity::busy(ty) };
    let seen = Seen { op, args, ty, tokens: 1, inputs: &inputs, own, context: 1, split: false };
    let costs = count::count(&seen, Part::Rest, Form::Collapsed, Sharing { span: 1, batch: 1 });
    costs.iter().flat_map(|(_, tally)| tally.operations).sum()
}
