//! A sequence whose spikes are counted. Tallies of a batch are of all its sequences together, so it runs alone, on a program that
//! counts. Its tokens are the same.

use crate::job::{JobCounts, SpikesBySite};
use crate::served::ServedModel;
use snnc::energy::run_pj;
use snnc::lints::name_of;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::events::Events;
use snnc_passes::cost::Activity;
use snnc_runtime::{Rows, Session};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A sequence and what it did.
#[derive(Debug)]
pub struct CountedSequence {
    session: Session,
    prompt: Activity,
    answer: Activity,
}

fn since(session: &Session, before: &[Events]) -> Vec<Events> {
    session.events().iter().zip(before).map(|(now, before)| *now - *before).collect()
}

fn add(sum: &mut Activity, tokens: usize, events: &[Events]) {
    sum.tokens += tokens as u64;
    sum.events.resize(events.len(), Events::default());
    sum.events.iter_mut().zip(events).for_each(|(sum, events)| *sum += *events);
}

impl CountedSequence {
    /// An empty one; none of a dense network.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(model: &ServedModel) -> Result<Option<Self>, Diagnostics> {
        let Some(program) = &model.counting else { return Ok(None) };
        let session = Session::new(Arc::clone(program))?;
        Ok(Some(Self { session, prompt: Activity::default(), answer: Activity::default() }))
    }

    /// Runs ids, and gives the logits and what the neurons did, by site. `prompt`: they are the prompt's.
    ///
    /// # Errors
    /// They cannot be run.
    pub fn run(
        &mut self,
        model: &ServedModel,
        ids: &[u32],
        rows: Rows,
        prompt: bool,
    ) -> Result<(Vec<f32>, SpikesBySite), Diagnostics> {
        let before = self.session.events().to_vec();
        self.session.forward(ids, rows)?;
        let logits = self.session.take_f32(&model.output).unwrap_or_default();
        let events = since(&self.session, &before);
        let by_site = by_site(model, &events);
        add(if prompt { &mut self.prompt } else { &mut self.answer }, ids.len(), &events);
        Ok((logits, by_site))
    }

    /// Tokens that it has seen.
    pub fn past(&self) -> usize {
        self.session.past()
    }

    /// What it did so far.
    pub fn counts(&self, model: &ServedModel) -> JobCounts {
        let mut all = self.prompt.clone();
        add(&mut all, self.answer.tokens as usize, &self.answer.events);
        let by_site = by_site(model, &all.events);
        let graph = model.program.graph();
        let span = (model.program.options().chunk as u64).min(self.prompt.tokens).max(1);
        let joules = |list| {
            let pj = |activity: &Activity, span| match activity.tokens {
                0 => Some(0.0),
                _ => run_pj(graph, activity, model.form, span, list),
            };
            Some((pj(&self.prompt, span)? + pj(&self.answer, 1)?) * 1e-12)
        };
        JobCounts {
            spikes: by_site.iter().map(|(_, spikes)| spikes).sum(),
            by_site,
            joules: model.lists.iter().map(|list| (list.name.clone(), joules(list))).collect(),
        }
    }
}

/// Spikes of neurons, by site, in the order of the network.
fn by_site(model: &ServedModel, events: &[Events]) -> SpikesBySite {
    let graph = model.program.graph();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut sums: SpikesBySite = Vec::new();
    for ((value, node), events) in graph.iter().zip(events) {
        if node.op.is_neuron() {
            let name = name_of(graph, value);
            let place = *places.entry(name.clone()).or_insert(sums.len());
            if place == sums.len() {
                sums.push((name, 0));
            }
            sums[place].1 += events.spikes;
        }
    }
    sums
}
