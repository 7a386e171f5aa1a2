//! The estimate as data. `docs/energy.md` has the schema.

use super::analysis::{break_even, sensitivity};
use super::{Block, Compared, Counts, Estimate, Item, Phase, PriceList, Priced};
use serde_json::{Map, Value as Json, json};
use snnc_passes::cost::{Form, LayerPart, Number, Operation, Tally};

/// The forms that figures without another word are of.
const DENSE: Form = Form::Dense(Number::F32);
const SPIKING: Form = Form::Collapsed;

impl Estimate {
    pub fn json(&self) -> Json {
        let mut json = json!({
            "schema": 1,
            "tokens": self.tokens,
            "measured": self.measured,
            "context": self.setting.context,
            "batch": self.setting.batch,
            "pass_tokens": self.setting.span,
        });
        for block in Block::NAMED {
            let lists = self.lists.iter().map(|list| {
                let compared = self.compare(block, list, Phase::Prefill, DENSE, SPIKING);
                let mut figures = self.saving(&compared);
                if let Some(other) = self.by_coincidence(block, list, Phase::Prefill, DENSE, SPIKING) {
                    figures["by_coincidence"] = self.saving(&other);
                }
                (list.name.clone(), figures)
            });
            json[block.name()] = lists.collect::<Map<String, Json>>().into();
        }
        json["defects"] = self.defects_json();
        json["coverage"] = self.coverage.json();
        let rows = self.places().into_iter().map(|place| self.row(place));
        json["rows"] = rows.collect::<Vec<Json>>().into();
        for phase in Phase::ALL {
            let blocks = Block::NAMED.map(|block| (block.name(), self.side_by_side(phase, block)));
            json[phase.name()] = blocks.into_iter().collect::<Map<String, Json>>().into();
        }
        json["break_even"] = by_list(&self.lists, |list| self.break_even_json(list));
        json["sensitivity"] = by_list(&self.lists, |list| self.sensitivity_json(list));
        json["neurobench"] = self.neurobench();
        json["prices"] = by_list(&self.lists, PriceList::json);
        json
    }

    fn per_token(&self, pj: f64) -> f64 {
        pj / self.tokens.max(1) as f64
    }

    /// Dense beside spiking, picojoules a token.
    fn saving(&self, compared: &Compared) -> Json {
        let total = |priced: &Priced| priced.pj().map(|pj| self.per_token(pj));
        let mut json = json!({
            "dense_pj": total(&compared.dense), "spiking_pj": total(&compared.spiking), "saving": compared.saving(),
        });
        for (key, priced) in [("dense", &compared.dense), ("spiking", &compared.spiking)] {
            if !priced.unpriced.is_empty() {
                json[format!("{key}_partial_pj")] = self.per_token(priced.partial_pj()).into();
                json[format!("{key}_unpriced")] = priced.unpriced_names().into();
            }
        }
        if compared.silent {
            json["silent"] = true.into();
        }
        json
    }

    fn defects_json(&self) -> Json {
        let mut layers: Map<String, Json> = Map::new();
        for (name, place) in &self.defects {
            let places = layers.entry(name.clone()).or_insert_with(|| json!([]));
            if let Some(places) = places.as_array_mut() {
                places.push(Block::Row(*place).name().into());
            }
        }
        let one = |(layer, places): (String, Json)| json!({ "kind": "silent", "layer": layer, "places": places });
        layers.into_iter().map(one).collect::<Vec<Json>>().into()
    }

    /// A layer and part: its counts over the run in every form, and what dense and spiking cost a token.
    fn row(&self, place: LayerPart) -> Json {
        let block = Block::Row(place);
        let neurons = self.neurons.get(&place).copied().unwrap_or_default();
        let forms =
            self.phases[&Phase::Prefill].iter().map(|counts| (counts.form.name().into(), tally(&counts.sum(block))));
        let lists = self
            .lists
            .iter()
            .map(|list| (list.name.clone(), self.saving(&self.compare(block, list, Phase::Prefill, DENSE, SPIKING))));
        json!({
            "layer": place.layer, "part": place.part.name(),
            "neurons": neurons.neurons, "spikes": neurons.spikes, "active": neurons.active,
            "spikes_per_neuron": neurons.spikes as f64 / neurons.neurons.max(1) as f64,
            "counts": forms.collect::<Map<String, Json>>(),
            "prices": lists.collect::<Map<String, Json>>(),
        })
    }

    /// All forms of a block: counts, then by list picojoules a token and over the run, by item.
    fn side_by_side(&self, phase: Phase, block: Block) -> Json {
        let form = |counts: &Counts| {
            let lists = self.lists.iter().map(|list| {
                let priced = counts.price(block, list);
                let items = priced.items.iter().map(|(item, pj)| (item.name().into(), self.per_token(*pj).into()));
                let json = json!({
                    "pj": priced.pj().map(|pj| self.per_token(pj)),
                    "run_pj": priced.pj(),
                    "partial_pj": self.per_token(priced.partial_pj()),
                    "unpriced": priced.unpriced_names(),
                    "items": items.collect::<Map<String, Json>>(),
                });
                (list.name.clone(), json)
            });
            let json = json!({
                "counts": tally(&counts.sum(block)), "prices": lists.collect::<Map<String, Json>>(),
            });
            (counts.form.name().into(), json)
        };
        self.phases[&phase].iter().map(form).collect::<Map<String, Json>>().into()
    }

    fn break_even_json(&self, list: &PriceList) -> Json {
        let dense = Form::ALL.into_iter().filter(|form| !form.is_spiking());
        let against = |form: Form| {
            let rows = break_even(self, list, Phase::Prefill, form, SPIKING);
            let row = |row: &super::analysis::BreakEven| {
                json!({
                    "layer": row.place.layer, "part": row.place.part.name(),
                    "spikes": row.spikes, "break_even_spikes": row.break_even_spikes,
                    "timesteps": row.timesteps, "break_even_timesteps": row.break_even_timesteps,
                })
            };
            (form.name().into(), rows.iter().map(row).collect::<Vec<Json>>().into())
        };
        dense.map(against).collect::<Map<String, Json>>().into()
    }

    fn sensitivity_json(&self, list: &PriceList) -> Json {
        let one = |block: Block| {
            let rows = sensitivity(self, block, list, Phase::Prefill, DENSE, SPIKING);
            let row = |row: &super::analysis::Sensitivity| {
                let json = json!({
                    "dense_share": row.dense_share, "spiking_share": row.spiking_share,
                    "saving_halved": row.halved, "saving_doubled": row.doubled,
                });
                (row.item.name().into(), json)
            };
            (block.name(), rows.iter().map(row).collect::<Map<String, Json>>().into())
        };
        Block::NAMED.into_iter().map(one).collect::<Map<String, Json>>().into()
    }

    /// NeuroBench's metrics under their names, a token.
    pub(super) fn neurobench(&self) -> Json {
        let all = self.neurons.values();
        let sum = |of: fn(&super::Neurons) -> u64| all.clone().map(of).sum::<u64>();
        let (slots, spikes) = (sum(|row| row.slots), sum(|row| row.spikes));
        let stepped = self.counts(Phase::Prefill, Form::Stepped).sum(Block::Total);
        let dense = self.counts(Phase::Prefill, DENSE).sum(Block::Total);
        let each = |count: u64| count as f64 / self.tokens.max(1) as f64;
        json!({
            "footprint": self.footprint.bytes,
            "connection_sparsity": self.footprint.zeros as f64 / self.footprint.connections.max(1) as f64,
            "activation_sparsity": 1.0 - spikes as f64 / slots.max(1) as f64,
            "synaptic_operations": {
                "Effective_MACs": each(stepped.macs()),
                "Effective_ACs": each(stepped.of(Operation::Accumulate)),
                "Dense": each(dense.macs()),
            },
            "membrane_updates": each(stepped.of(Operation::NeuronActive) + stepped.of(Operation::NeuronIdle)),
        })
    }
}

fn by_list(lists: &[PriceList], json: impl Fn(&PriceList) -> Json) -> Json {
    lists.iter().map(|list| (list.name.clone(), json(list))).collect::<Map<String, Json>>().into()
}

/// Counts over the run: operations, bytes by what they are of and by memory.
fn tally(tally: &Tally) -> Json {
    let counted = Item::all().filter(|item| item.count(tally) > 0);
    let counts = counted.map(|item| (item.name().to_string(), json!(item.count(tally))));
    let mut counts: Map<String, Json> = counts.collect();
    let memory = |(&(traffic, memory), &bytes): (&(snnc_passes::cost::Traffic, u64), &u64)| json!({ "of": traffic.name(), "memory_bytes": memory, "bytes": bytes });
    counts.insert("traffic".into(), tally.traffic.iter().map(memory).collect::<Vec<Json>>().into());
    counts.into()
}
