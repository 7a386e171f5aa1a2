//! What a network costs: counts of the cost pass in every form, by layer and part, priced by several lists side by side.
//!
//! `estimate` takes a graph, what it did on text (or is expected to do), and price lists. Its counts are integers and its sums
//! have one order, so the same activity gives the same joules to the last digit. `docs/energy.md` says what is counted.

pub mod analysis;
pub mod json;
pub mod measure;
pub mod prices;
pub mod run;

pub use measure::measure;
pub use prices::{PriceList, Priced, PricedItem};
use snnc_ir::op::{DenseOp, LevelOp, SpikeOp};

use crate::lints::{self, Coverage};
use snnc_ir::tensor::stored_bytes;
use snnc_ir::{Graph, Op, Value};
use snnc_passes::cost::{self, Activity, Form, LayerPart, Number, Operation, Part, Sharing, Tally};
use std::collections::{BTreeMap, BTreeSet};

/// What is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Tokens of a sequence: prefill takes all of them, decoding comes after them.
    pub context: u64,
    /// Sequences that share a pass.
    pub batch: u64,
    /// Tokens of a sequence that share a pass of prefill.
    pub span: u64,
}

/// What a network is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Reads sequences of the context's length.
    Prefill,
    /// Produces tokens at the end of such a sequence, one at a time.
    Decode,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 2] = [Phase::Prefill, Phase::Decode];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }
}

/// Counts of a network in one form, over all tokens.
#[derive(Clone, Debug)]
pub struct Counts {
    /// The form that was counted.
    pub form: Form,
    /// By layer and part.
    pub rows: BTreeMap<LayerPart, Tally>,
    /// Bytes of all weights.
    pub weight_bytes: u64,
}

/// A part of a network of which figures are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Scores, softmax and values, with their projections.
    Attention,
    /// Scores, softmax and values alone.
    Core,
    /// The whole network.
    Total,
    /// One part of all layers.
    Part(Part),
    /// One part of one layer.
    Row(LayerPart),
}

impl Block {
    /// Those that have a name of their own.
    pub const NAMED: [Block; 3] = [Block::Attention, Block::Core, Block::Total];

    /// What it is called.
    pub fn name(self) -> String {
        match self {
            Block::Attention => "attention_block".into(),
            Block::Core => "attention_core".into(),
            Block::Total => "total".into(),
            Block::Part(part) => part.name().into(),
            Block::Row(LayerPart { layer: Some(layer), part }) => format!("layer {layer}  {}", part.name()),
            Block::Row(LayerPart { layer: None, part }) => part.name().into(),
        }
    }

    /// Whether a layer and part belong to it.
    pub fn has(self, place: LayerPart) -> bool {
        match self {
            Block::Attention => place.part.is_attention(),
            Block::Core => place.part.is_core(),
            Block::Total => true,
            Block::Part(part) => place.part == part,
            Block::Row(row) => row == place,
        }
    }
}

impl Counts {
    /// The sum of a block.
    pub fn sum(&self, block: Block) -> Tally {
        let mut sum = Tally::default();
        self.rows.iter().filter(|(place, _)| block.has(**place)).for_each(|(_, tally)| sum += tally);
        sum
    }

    /// What a block costs by a list.
    pub fn price(&self, block: Block, list: &PriceList) -> Priced {
        list.price(&self.sum(block), self.weight_bytes)
    }
}

/// Neurons of one layer and part, and their spikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeuronCounts {
    /// Neurons times tokens.
    pub neurons: u64,
    /// Spikes in all.
    pub spikes: u64,
    /// Those that fired at least once.
    pub active: u64,
    /// Neurons times tokens times timesteps.
    pub slots: u64,
}

/// An estimate. All counts are over `tokens` tokens.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Tokens of the run.
    pub tokens: u64,
    /// Whether events were measured; else they are expected from rates.
    pub measured: bool,
    /// What was estimated.
    pub setting: Setting,
    /// In the order of `Form::ALL`, by phase.
    pub phases: BTreeMap<Phase, Vec<Counts>>,
    /// The same network with neurons that never fire, by phase stepped and collapsed: what spiking costs without spikes.
    pub silent: BTreeMap<Phase, Vec<Counts>>,
    /// Neurons.
    pub neurons: BTreeMap<LayerPart, NeuronCounts>,
    /// Layers of neurons that never fire: defects, by name and place.
    pub defects: Vec<(String, LayerPart)>,
    /// How much of the dense network's work spikes drive.
    pub coverage: Coverage,
    /// NeuroBench's static metrics.
    pub footprint: Footprint,
    /// Price lists, in the order in which they are shown.
    pub lists: Vec<PriceList>,
}

/// NeuroBench's static metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of all constants.
    pub bytes: u64,
    /// Weights of products.
    pub connections: u64,
    /// Those that are 0.
    pub zeros: u64,
}

/// Counts and prices `graph`, which did `activity` over windows of `setting.context` tokens.
pub fn estimate(graph: &Graph, activity: &Activity, setting: Setting, lists: Vec<PriceList>) -> Estimate {
    let decoding = activity.decoding(graph, setting.context);
    let prefill_sharing = Sharing { span: setting.span.min(setting.context), batch: setting.batch };
    let phases = [
        (Phase::Prefill, activity, prefill_sharing),
        (Phase::Decode, &decoding, Sharing { span: 1, batch: setting.batch }),
    ];
    let all = |forms: &[Form], activity: &Activity, sharing| {
        forms.iter().map(|&form| counts(graph, activity, form, sharing)).collect::<Vec<Counts>>()
    };
    let spiking: Vec<Form> = Form::ALL.into_iter().filter(|form| form.is_spiking()).collect();
    Estimate {
        tokens: activity.tokens,
        measured: true,
        setting,
        phases: phases.iter().map(|&(phase, activity, sharing)| (phase, all(&Form::ALL, activity, sharing))).collect(),
        silent: phases
            .iter()
            .map(|&(phase, activity, sharing)| (phase, all(&spiking, &activity.silent(), sharing)))
            .collect(),
        neurons: neurons(graph, activity),
        defects: defects(graph, activity),
        coverage: lints::coverage(graph, activity),
        footprint: footprint(graph),
        lists,
    }
}

/// What a run costs by a list, in picojoules: `activity` is what a spiking program did, `span` tokens shared a pass. `None` where
/// something has no price.
pub fn run_pj(graph: &Graph, activity: &Activity, form: Form, span: u64, list: &PriceList) -> Option<f64> {
    counts(graph, activity, form, Sharing { span, batch: 1 }).price(Block::Total, list).pj()
}

fn counts(graph: &Graph, activity: &Activity, form: Form, sharing: Sharing) -> Counts {
    let mut rows: BTreeMap<LayerPart, Tally> = BTreeMap::new();
    for cost in cost::costs(graph, activity, form, sharing) {
        if cost.tally != Tally::default() {
            *rows.entry(cost.place).or_default() += &cost.tally;
        }
    }
    Counts { form, rows, weight_bytes: weight_bytes(graph, form) }
}

/// Bytes of all weights of products and of the embedding's table, each once.
fn weight_bytes(graph: &Graph, form: Form) -> u64 {
    let reads = |op: Op| {
        matches!(
            op,
            Op::Level(LevelOp::MatMulInt)
                | Op::Spike(SpikeOp::Synapse)
                | Op::Dense(DenseOp::Linear(_))
                | Op::Dense(DenseOp::Embed)
        )
    };
    let read: BTreeSet<Value> =
        graph.iter().filter(|(_, node)| reads(node.op)).filter_map(|(_, node)| node.args.get(1).copied()).collect();
    let bytes = |weight: &Value| {
        let sizes = graph.ty(*weight).shape().sizes().unwrap_or_default();
        let elements = sizes.iter().product::<usize>() as u64;
        match form {
            Form::Dense(number) => elements * number.bytes(),
            Form::Skipping => elements * Number::Int8.bytes(),
            Form::Stepped | Form::Collapsed => {
                graph.ty(*weight).elem().and_then(|elem| stored_bytes(elem, &sizes)).unwrap_or(0) as u64
            }
        }
    };
    read.iter().map(bytes).sum()
}

fn neurons(graph: &Graph, activity: &Activity) -> BTreeMap<LayerPart, NeuronCounts> {
    let mut rows: BTreeMap<LayerPart, NeuronCounts> = BTreeMap::new();
    for ((value, node), place) in graph.iter().zip(cost::parts(graph)) {
        let Some((_, steps)) = node.ty.levels().filter(|_| node.op.is_neuron()) else { continue };
        let row = rows.entry(place).or_default();
        let count = activity.tokens * node.ty.shape().width().unwrap_or(0) as u64;
        let events = activity.events[value.index()];
        row.neurons += count;
        row.spikes += events.spikes;
        row.active += events.active;
        row.slots += count * u64::from(steps);
    }
    rows
}

/// Layers of neurons of which none fired, with the places of all that reads them.
fn defects(graph: &Graph, activity: &Activity) -> Vec<(String, LayerPart)> {
    let (places, users) = (cost::parts(graph), graph.users());
    let silent = |(value, node): &(Value, &snnc_ir::Node)| {
        node.op.is_neuron() && activity.tokens > 0 && activity.events[value.index()].spikes == 0
    };
    let mut defects = Vec::new();
    for (value, _) in graph.iter().filter(silent) {
        let name = lints::name_of(graph, value);
        let mut reached: BTreeSet<LayerPart> = BTreeSet::from([places[value.index()]]);
        let mut decoded = vec![value];
        while let Some(value) = decoded.pop() {
            for &user in &users[value.index()] {
                let (op, place) = (graph.node(user).op, places[user.index()]);
                if op == Op::Spike(SpikeOp::Decode) {
                    decoded.push(user);
                } else if op.has_state() {
                    let parts = [Part::Scores, Part::Softmax, Part::Values];
                    reached.extend(parts.map(|part| LayerPart { part, ..place }));
                } else {
                    reached.insert(place);
                }
            }
        }
        defects.extend(reached.into_iter().map(|place| (name.clone(), place)));
    }
    defects
}

fn footprint(graph: &Graph) -> Footprint {
    let mut footprint = Footprint::default();
    let bytes =
        |weight: &snnc_ir::Weight| stored_bytes(weight.tensor.elem(), weight.tensor.sizes()).unwrap_or(0) as u64;
    footprint.bytes = graph.weights.iter().map(bytes).sum();
    let weights: BTreeSet<Value> = graph
        .iter()
        .filter(|(_, node)| matches!(node.op, Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse)))
        .filter_map(|(_, node)| node.args.get(1).copied())
        .collect();
    for weight in weights.iter().filter_map(|weight| graph.constant(*weight)) {
        let Some(rows) = weight.tensor.to_integers() else { continue };
        footprint.connections += rows.len() as u64;
        footprint.zeros += rows.iter().filter(|&&w| w == 0).count() as u64;
    }
    footprint
}

/// Dense beside spiking, over all tokens, in picojoules.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The dense network.
    pub dense: Priced,
    /// The spiking network.
    pub spiking: Priced,
    /// A layer of neurons that this block hears never fires: what it does not spend is no saving.
    pub silent: bool,
}

impl Compared {
    /// The share of the dense energy that is not spent; `None` where either side has no total, or a silent layer has part in
    /// it.
    pub fn saving(&self) -> Option<f64> {
        let (dense, spiking) = (self.dense.pj()?, self.spiking.pj()?);
        (!self.silent && dense > 0.0).then(|| 1.0 - spiking / dense)
    }
}

impl Estimate {
    /// The counts of one form.
    pub fn counts(&self, phase: Phase, form: Form) -> &Counts {
        let all = &self.phases[&phase];
        all.iter().find(|counts| counts.form == form).unwrap_or_else(|| panic!("every form is counted"))
    }

    /// A spiking form beside a dense one.
    pub fn compare(&self, block: Block, list: &PriceList, phase: Phase, dense: Form, spiking: Form) -> Compared {
        Compared {
            dense: self.counts(phase, dense).price(block, list),
            spiking: self.counts(phase, spiking).price(block, list),
            silent: self.is_silent(block),
        }
    }

    /// The same, where a pair of trains adds only when both spike; `None` where no pair of trains meets.
    pub fn by_coincidence(
        &self,
        block: Block,
        list: &PriceList,
        phase: Phase,
        dense: Form,
        spiking: Form,
    ) -> Option<Compared> {
        let counts = self.counts(phase, spiking);
        let sum = counts.sum(block);
        let spiking_priced = list.price(&sum.by_coincidence(), counts.weight_bytes);
        (sum.unmet > 0)
            .then(|| Compared { spiking: spiking_priced, ..self.compare(block, list, phase, dense, spiking) })
    }

    /// Whether a layer of neurons that a block hears never fires.
    pub fn is_silent(&self, block: Block) -> bool {
        self.defects.iter().any(|(_, place)| block.has(*place))
    }

    /// Layers and parts, in the order of the network.
    pub fn places(&self) -> Vec<LayerPart> {
        let mut places: Vec<LayerPart> =
            self.phases[&Phase::Prefill].iter().flat_map(|c| c.rows.keys().copied()).collect();
        places.sort_by_key(|place| (place.layer.is_none(), *place));
        places.dedup();
        places
    }

    /// Additions per token that spikes drive in a block.
    pub fn additions(&self, block: Block) -> f64 {
        let all = self.counts(Phase::Prefill, Form::Collapsed).sum(block);
        all.of(Operation::Accumulate) as f64 / self.tokens.max(1) as f64
    }
}
