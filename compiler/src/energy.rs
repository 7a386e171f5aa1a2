//! The energy estimate in its first form: operations of the dense and of the spiking network, by layer and part, priced.

use serde_json::{Value as Json, json};
use snnc_ir::Graph;
use snnc_ir::price::{self, Events, HOROWITZ_45NM_F32, Part, PriceList, Work};

/// Operations by layer and part, over `tokens` tokens.
#[derive(Clone, Debug)]
pub struct Estimate {
    pub tokens: u64,
    pub prices: PriceList,
    /// In the order of the network. No layer: the head.
    pub rows: Vec<(Option<u32>, Part, Work)>,
}

/// Sums the work of every node under its layer and part.
pub fn estimate(graph: &Graph, tokens: u64, events: &[Events]) -> Estimate {
    let work = price::work(graph, tokens, events);
    let mut rows: Vec<(Option<u32>, Part, Work)> = Vec::new();
    for (part, work) in price::parts(graph).into_iter().zip(work) {
        let Some((layer, part)) = part else { continue };
        match rows.iter_mut().find(|(l, p, _)| (*l, *p) == (layer, part)) {
            Some((_, _, sum)) => *sum += work,
            None => rows.push((layer, part, work)),
        }
    }
    rows.sort_by_key(|(layer, part, _)| (layer.is_none(), *layer, *part));
    Estimate { tokens, prices: HOROWITZ_45NM_F32, rows }
}

impl Estimate {
    /// Work of the rows that `wanted` picks.
    pub fn sum(&self, wanted: impl Fn(Option<u32>, Part) -> bool) -> Work {
        let mut sum = Work::default();
        self.rows.iter().filter(|(layer, part, _)| wanted(*layer, *part)).for_each(|(_, _, work)| sum += *work);
        sum
    }

    /// Rows, then blocks, then the total, each with a name.
    fn lines(&self) -> Vec<(String, Work)> {
        let name = |layer: &Option<u32>, part: &Part| match layer {
            Some(layer) => format!("layer {layer}  {}", part.name()),
            None => part.name().to_string(),
        };
        let mut lines: Vec<_> = self.rows.iter().map(|(layer, part, work)| (name(layer, part), *work)).collect();
        let attention = |part| matches!(part, Part::Projections | Part::Core);
        lines.push(("attention block, projections included".into(), self.sum(|_, part| attention(part))));
        lines.push(("attention core alone".into(), self.sum(|_, part| part == Part::Core)));
        lines.push(("whole network".into(), self.sum(|_, _| true)));
        lines
    }

    /// The table a person reads: per token, dense beside spiking.
    pub fn table(&self) -> String {
        let tokens = self.tokens as f64;
        let mut text = format!(
            "{:<38} {:>10} {:>10} {:>7} {:>11} {:>11} {:>8}\n",
            "per token", "dense MAC", "additions", "spikes/", "dense", "spiking", "saved"
        );
        text += &format!("{:<38} {:>10} {:>10} {:>7} {:>11} {:>11} {:>8}\n", "", "", "", "neuron", "nJ", "nJ", "%");
        let lines = self.lines();
        for (i, (name, work)) in lines.iter().enumerate() {
            if i == self.rows.len() {
                text += &format!("{}\n", "-".repeat(101));
            }
            let (dense, spiking) = (self.prices.dense_pj(work), self.prices.spiking_pj(work));
            text += &format!(
                "{name:<38} {:>10} {:>10} {:>7.2} {:>11.1} {:>11.1} {:>8.1}\n",
                quantity(work.dense_macs as f64 / tokens),
                quantity(work.additions as f64 / tokens),
                work.spikes as f64 / work.neurons.max(1) as f64,
                dense / tokens / 1e3,
                spiking / tokens / 1e3,
                100.0 * saving(dense, spiking),
            );
        }
        text += &format!(
            "\nMeasured on {} tokens. Prices: {} pJ a dense multiply-accumulate, {} pJ a spike's addition.\n({})\n",
            self.tokens, self.prices.mac_pj, self.prices.addition_pj, self.prices.source
        );
        text +=
            "Not counted: normalisation, division of attention, residual additions, neuron updates, memory traffic.\n";
        text
    }

    /// The same as data: counts and picojoules over the run, by row.
    pub fn json(&self) -> Json {
        let work = |work: &Work| {
            let (dense, spiking) = (self.prices.dense_pj(work), self.prices.spiking_pj(work));
            json!({
                "dense_macs": work.dense_macs, "additions": work.additions,
                "spikes": work.spikes, "neurons": work.neurons,
                "dense_pj": dense, "spiking_pj": spiking, "saving": saving(dense, spiking),
            })
        };
        let row = |(layer, part, w): &(Option<u32>, Part, Work)| {
            let mut row = json!({ "layer": layer, "part": part.name() });
            if let (Some(row), Json::Object(more)) = (row.as_object_mut(), work(w)) {
                row.extend(more);
            }
            row
        };
        let attention = |part| matches!(part, Part::Projections | Part::Core);
        json!({
            "tokens": self.tokens,
            "prices": {
                "name": self.prices.name, "source": self.prices.source,
                "mac_pj": self.prices.mac_pj, "addition_pj": self.prices.addition_pj,
            },
            "rows": self.rows.iter().map(row).collect::<Vec<Json>>(),
            "attention_block": work(&self.sum(|_, part| attention(part))),
            "attention_core": work(&self.sum(|_, part| part == Part::Core)),
            "total": work(&self.sum(|_, _| true)),
        })
    }
}

/// Share of the dense energy that is not spent; 0 where there is none.
fn saving(dense: f64, spiking: f64) -> f64 {
    if dense > 0.0 { 1.0 - spiking / dense } else { 0.0 }
}

/// A count in three or four digits with a metric suffix.
pub fn quantity(x: f64) -> String {
    match x {
        _ if x >= 1e9 => format!("{:.2} G", x / 1e9),
        _ if x >= 1e6 => format!("{:.2} M", x / 1e6),
        _ if x >= 1e3 => format!("{:.1} k", x / 1e3),
        _ => format!("{x:.0}"),
    }
}
