//! The estimate as data. `docs/energy.md` says what is counted, `docs/schemas/energy.json` has the schema.

use super::analysis::{BreakEven, Sensitivity, break_even, sensitivity};
use super::prices::{ItemPrice, MemoryPrices, PriceList, Priced, PricedItem};
use super::{Block, Compared, Counts, Estimate, NeuronCounts, Phase};
use crate::lints::CoverageJson;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Serialize;
use snnc_passes::cost::{Form, LayerPart, Number, Operation, Tally, Traffic};

/// The forms that figures without another word are of.
const DENSE: Form = Form::Dense(Number::F32);
const SPIKING: Form = Form::Collapsed;

/// By the name of a price list, a form, an item or a block, in the order in which they are shown.
type Named<T> = IndexMap<String, T>;

/// An estimate as data. Energies are in picojoules per token unless their key says otherwise.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EnergyJson {
    /// Tokens of the run, over which counts are.
    pub tokens: u64,
    /// Whether spikes were measured; else they are expected from rates.
    pub measured: bool,
    /// Tokens of a sequence: prefill takes all of them, decoding comes after them.
    pub context: u64,
    /// Sequences that share a pass.
    pub batch: u64,
    /// Tokens of a sequence that share a pass of prefill.
    pub pass_tokens: u64,
    /// Scores, softmax and values with their projections, f32 beside collapsed in prefill, by price list.
    pub attention_block: Named<SavingJson>,
    /// Scores, softmax and values alone.
    pub attention_core: Named<SavingJson>,
    /// The whole network.
    pub total: Named<SavingJson>,
    /// Layers of neurons that never fire.
    pub defects: Vec<Defect>,
    /// How much of the dense network's work spikes drive.
    pub coverage: CoverageJson,
    /// By layer and part, in the order of the network.
    pub rows: Vec<Row>,
    /// By block and form.
    pub prefill: Named<Named<FormJson>>,
    /// Decoding, by the tokens before.
    pub decode: Named<Named<FormJson>>,
    /// By price list and dense form.
    pub break_even: Named<Named<Vec<BreakEvenJson>>>,
    /// By price list, block and item.
    pub sensitivity: Named<Named<Named<SensitivityJson>>>,
    /// The metrics of NeuroBench.
    pub neurobench: NeuroBench,
    /// The price lists.
    pub prices: Named<PriceListJson>,
}

/// A dense form beside a spiking one.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SavingJson {
    /// `null`: something that is counted has no price.
    pub dense_pj: Option<f64>,
    /// The same of the spiking form.
    pub spiking_pj: Option<f64>,
    /// The share of the dense energy that is not spent; `null` without both totals, or where a layer never fires.
    pub saving: Option<f64>,
    /// What has a price, where not all has; and what has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_partial_pj: Option<f64>,
    /// What of the dense form has no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_unpriced: Option<Vec<&'static str>>,
    /// What of the spiking form has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiking_partial_pj: Option<f64>,
    /// What of it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiking_unpriced: Option<Vec<&'static str>>,
    /// A layer of neurons that this block hears never fires.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// The same where a pair of spike trains adds only when both spike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_coincidence: Option<Box<SavingJson>>,
}

/// A layer of neurons that never fires.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Defect {
    /// Its kind.
    pub kind: &'static str,
    /// The layer; `null` outside all layers.
    pub layer: String,
    /// Layers and parts that read it.
    pub places: Vec<String>,
}

/// A layer and part.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The layer; `null` outside all layers.
    pub layer: Option<u32>,
    /// The part of the layer.
    pub part: &'static str,
    /// Neurons times tokens.
    pub neurons: u64,
    /// Spikes in all.
    pub spikes: u64,
    /// Neurons times tokens that fired at all.
    pub active: u64,
    /// Spikes per neuron and token.
    pub spikes_per_neuron: f64,
    /// By form.
    pub counts: Named<CountsJson>,
    /// By price list.
    pub prices: Named<SavingJson>,
}

/// Counts over the run: operations by name, and bytes by what they are of.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CountsJson {
    /// Those that are not 0.
    #[serde(flatten)]
    pub items: Named<u64>,
    /// Bytes that move.
    pub traffic: Vec<TrafficJson>,
}

/// Bytes that move.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TrafficJson {
    /// What the bytes are of.
    pub of: &'static str,
    /// The size of the memory that they lie in.
    pub memory_bytes: u64,
    /// Its length.
    pub bytes: u64,
}

/// One form of a block.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FormJson {
    /// Counts over the run.
    pub counts: CountsJson,
    /// By price list.
    pub prices: Named<PricedJson>,
}

/// What a form costs by one list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PricedJson {
    /// `null`: something that is counted has no price.
    pub pj: Option<f64>,
    /// Over the run.
    pub run_pj: Option<f64>,
    /// What has a price.
    pub partial_pj: f64,
    /// What has no price.
    pub unpriced: Vec<&'static str>,
    /// By item.
    pub items: Named<f64>,
}

/// Where a layer and part costs as much spiking as dense.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BreakEvenJson {
    /// The layer; `null` outside all layers.
    pub layer: Option<u32>,
    /// The part of the layer.
    pub part: &'static str,
    /// Per neuron and token, as measured.
    pub spikes: f64,
    /// Those at which spiking costs as much as dense.
    pub break_even_spikes: f64,
    /// Timesteps.
    pub timesteps: f64,
    /// Those at which spiking costs as much as dense.
    pub break_even_timesteps: f64,
}

/// What one price does to a saving.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SensitivityJson {
    /// Its share of the dense network's energy.
    pub dense_share: f64,
    /// Its share of the spiking network's energy.
    pub spiking_share: f64,
    /// The saving at half the price, and at twice.
    pub saving_halved: f64,
    /// The saving at twice the price.
    pub saving_doubled: f64,
}

/// NeuroBench's metrics under their names, per token.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NeuroBench {
    /// Bytes of all constants.
    pub footprint: u64,
    /// The share of weights that are 0.
    pub connection_sparsity: f64,
    /// The share of neurons and timesteps without a spike.
    pub activation_sparsity: f64,
    /// Operations that spikes or activations drive.
    pub synaptic_operations: SynapticOperations,
    /// Updates of membrane potentials.
    pub membrane_updates: f64,
}

/// Operations per token, as NeuroBench counts them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[allow(non_snake_case)]
pub struct SynapticOperations {
    /// Multiply-accumulates that are done.
    pub Effective_MACs: f64,
    /// Accumulations that are done.
    pub Effective_ACs: f64,
    /// Multiply-accumulates of the dense network.
    pub Dense: f64,
}

/// A price list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PriceListJson {
    /// What the list is.
    pub about: String,
    /// Prices of operations.
    pub operations: Named<ItemPrice>,
    /// Prices of memory traffic.
    pub memory: Option<MemoryPrices>,
    /// What the list leaves out, and why.
    pub left_out: Named<String>,
}

impl Estimate {
    /// The estimate as data.
    pub fn json(&self) -> EnergyJson {
        let beside = |block: Block| {
            by_list(&self.lists, |list| {
                let compared = self.compare(block, list, Phase::Prefill, DENSE, SPIKING);
                let other = self.by_coincidence(block, list, Phase::Prefill, DENSE, SPIKING);
                SavingJson {
                    by_coincidence: other.map(|other| Box::new(self.beside(&other))),
                    ..self.beside(&compared)
                }
            })
        };
        let phase = |phase: Phase| {
            Block::NAMED.into_iter().map(|block| (block.name(), self.side_by_side(phase, block))).collect()
        };
        EnergyJson {
            tokens: self.tokens,
            measured: self.measured,
            context: self.setting.context,
            batch: self.setting.batch,
            pass_tokens: self.setting.span,
            attention_block: beside(Block::Attention),
            attention_core: beside(Block::Core),
            total: beside(Block::Total),
            defects: self.defects_json(),
            coverage: self.coverage.json(),
            rows: self.places().into_iter().map(|place| self.row(place)).collect(),
            prefill: phase(Phase::Prefill),
            decode: phase(Phase::Decode),
            break_even: by_list(&self.lists, |list| self.break_even_json(list)),
            sensitivity: by_list(&self.lists, |list| self.sensitivity_json(list)),
            neurobench: self.neurobench(),
            prices: by_list(&self.lists, PriceList::json),
        }
    }

    fn per_token(&self, pj: f64) -> f64 {
        pj / self.tokens.max(1) as f64
    }

    /// Dense beside spiking, picojoules per token.
    fn beside(&self, compared: &Compared) -> SavingJson {
        let total = |priced: &Priced| priced.pj().map(|pj| self.per_token(pj));
        let partial = |priced: &Priced| (!priced.unpriced.is_empty()).then(|| self.per_token(priced.partial_pj()));
        let unpriced = |priced: &Priced| (!priced.unpriced.is_empty()).then(|| priced.unpriced_names());
        let Compared { dense, spiking, silent } = compared;
        SavingJson {
            dense_pj: total(dense),
            spiking_pj: total(spiking),
            saving: compared.saving(),
            dense_partial_pj: partial(dense),
            dense_unpriced: unpriced(dense),
            spiking_partial_pj: partial(spiking),
            spiking_unpriced: unpriced(spiking),
            silent: *silent,
            by_coincidence: None,
        }
    }

    fn defects_json(&self) -> Vec<Defect> {
        let mut layers: Named<Vec<String>> = IndexMap::new();
        for (name, place) in &self.defects {
            layers.entry(name.clone()).or_default().push(Block::Row(*place).name());
        }
        layers.into_iter().map(|(layer, places)| Defect { kind: "silent", layer, places }).collect()
    }

    /// A layer and part: its counts over the run in every form, and what dense and spiking cost per token.
    fn row(&self, place: LayerPart) -> Row {
        let block = Block::Row(place);
        let NeuronCounts { neurons, spikes, active, .. } = self.neurons.get(&place).copied().unwrap_or_default();
        let counts = |counts: &Counts| (counts.form.name().into(), tally(&counts.sum(block)));
        Row {
            layer: place.layer,
            part: place.part.name(),
            neurons,
            spikes,
            active,
            spikes_per_neuron: spikes as f64 / neurons.max(1) as f64,
            counts: self.phases[&Phase::Prefill].iter().map(counts).collect(),
            prices: by_list(&self.lists, |list| {
                self.beside(&self.compare(block, list, Phase::Prefill, DENSE, SPIKING))
            }),
        }
    }

    /// All forms of a block: counts, then by list picojoules per token and over the run, by item.
    fn side_by_side(&self, phase: Phase, block: Block) -> Named<FormJson> {
        let priced = |counts: &Counts, list: &PriceList| {
            let priced = counts.price(block, list);
            PricedJson {
                pj: priced.pj().map(|pj| self.per_token(pj)),
                run_pj: priced.pj(),
                partial_pj: self.per_token(priced.partial_pj()),
                unpriced: priced.unpriced_names(),
                items: priced.items.iter().map(|(item, pj)| (item.name().into(), self.per_token(*pj))).collect(),
            }
        };
        let form = |counts: &Counts| {
            let prices = by_list(&self.lists, |list| priced(counts, list));
            (counts.form.name().into(), FormJson { counts: tally(&counts.sum(block)), prices })
        };
        self.phases[&phase].iter().map(form).collect()
    }

    fn break_even_json(&self, list: &PriceList) -> Named<Vec<BreakEvenJson>> {
        let row = |row: BreakEven| BreakEvenJson {
            layer: row.place.layer,
            part: row.place.part.name(),
            spikes: row.spikes,
            break_even_spikes: row.break_even_spikes,
            timesteps: row.timesteps,
            break_even_timesteps: row.break_even_timesteps,
        };
        let dense = Form::ALL.into_iter().filter(|form| !form.is_spiking());
        let beside = |form: Form| {
            let rows = break_even(self, list, Phase::Prefill, form, SPIKING);
            (form.name().into(), rows.into_iter().map(row).collect())
        };
        dense.map(beside).collect()
    }

    fn sensitivity_json(&self, list: &PriceList) -> Named<Named<SensitivityJson>> {
        let row = |row: Sensitivity| {
            let json = SensitivityJson {
                dense_share: row.dense_share,
                spiking_share: row.spiking_share,
                saving_halved: row.halved,
                saving_doubled: row.doubled,
            };
            (row.item.name().into(), json)
        };
        let block = |block: Block| {
            let rows = sensitivity(self, block, list, Phase::Prefill, DENSE, SPIKING);
            (block.name(), rows.into_iter().map(row).collect())
        };
        Block::NAMED.into_iter().map(block).collect()
    }

    /// NeuroBench's metrics under their names, per token.
    pub fn neurobench(&self) -> NeuroBench {
        let all = self.neurons.values();
        let sum = |of: fn(&NeuronCounts) -> u64| all.clone().map(of).sum::<u64>();
        let (slots, spikes) = (sum(|row| row.slots), sum(|row| row.spikes));
        let stepped = self.counts(Phase::Prefill, Form::Stepped).sum(Block::Total);
        let dense = self.counts(Phase::Prefill, DENSE).sum(Block::Total);
        let each = |count: u64| count as f64 / self.tokens.max(1) as f64;
        NeuroBench {
            footprint: self.footprint.bytes,
            connection_sparsity: self.footprint.zeros as f64 / self.footprint.connections.max(1) as f64,
            activation_sparsity: 1.0 - spikes as f64 / slots.max(1) as f64,
            synaptic_operations: SynapticOperations {
                Effective_MACs: each(stepped.macs()),
                Effective_ACs: each(stepped.of(Operation::Accumulate)),
                Dense: each(dense.macs()),
            },
            membrane_updates: each(stepped.of(Operation::NeuronActive) + stepped.of(Operation::NeuronIdle)),
        }
    }
}

impl PriceList {
    /// The list as data.
    pub fn json(&self) -> PriceListJson {
        let operations = self.operations.iter();
        PriceListJson {
            about: self.about.clone(),
            operations: operations.map(|(operation, price)| (operation.name().into(), price.clone())).collect(),
            memory: self.memory.clone(),
            left_out: self.left_out.iter().map(|(item, why)| (item.name().into(), why.clone())).collect(),
        }
    }
}

fn by_list<T>(lists: &[PriceList], json: impl Fn(&PriceList) -> T) -> Named<T> {
    lists.iter().map(|list| (list.name.clone(), json(list))).collect()
}

/// Counts over the run: operations, bytes by what they are of and by memory.
fn tally(tally: &Tally) -> CountsJson {
    let counted = PricedItem::all().filter(|item| item.count(tally) > 0);
    let traffic = |(&(traffic, memory_bytes), &bytes): (&(Traffic, u64), &u64)| TrafficJson {
        of: traffic.name(),
        memory_bytes,
        bytes,
    };
    CountsJson {
        items: counted.map(|item| (item.name().to_string(), item.count(tally))).collect(),
        traffic: tally.traffic.iter().map(traffic).collect(),
    }
}
