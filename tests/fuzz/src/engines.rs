//! One program on all engines and instruction sets: the same numbers, or the same refusal.

use crate::chance::Verdict;
use snnc_ir::events::Events;
use snnc_ir::op::{DenseOp, LeafOp, Op};
use snnc_ir::{Graph, Stage, Type};
use snnc_passes::collapse;
use snnc_runtime::{Engine, ISAS, Isa, Options, Program, Rows, Session};
use std::sync::Arc;

/// Numbers per token, timesteps included, beyond which the oracle takes too long to be asked.
const ORACLE_MAX: u64 = 1 << 20;

/// Beyond so many, one way to run a program is enough.
const ALL_MAX: u64 = 1 << 24;

/// Tokens of a run.
const TOKENS: usize = 5;

/// Bits of all outputs, and what neurons did; or why there is none.
type EngineResult = Result<(Vec<u32>, Vec<i32>, Vec<Events>), String>;

/// Runs `graph`, at stage Tensor, Quantised or Spiking and verified, in all ways there are.
///
/// # Errors
/// Two ways that say different things.
pub fn agree(graph: &Graph) -> Result<Verdict, String> {
    let work: u64 = graph.nodes.iter().map(|node| row_numbers(node.ty)).fold(0, u64::saturating_add);
    let small = work <= ORACLE_MAX;
    let tokens = tokens(graph);
    if work > ALL_MAX {
        let ran = run(&Arc::new(graph.clone()), &Options::default(), &tokens[..1]);
        return Ok(if ran.is_ok() { Verdict::Accepted } else { Verdict::Refused });
    }
    let mut forms = vec![("as it is", graph.clone())];
    if graph.stage == Stage::Spiking && !collapse::depends_on_order(graph) {
        match collapse::collapse(graph) {
            Ok(collapsed) => forms.push(("collapsed", collapsed)),
            Err(errors) if errors.iter().any(|error| error.message.contains("defect")) => {
                return Err(errors.to_string());
            }
            Err(_) => return Ok(Verdict::Refused),
        }
    }
    let mut all: Option<(String, EngineResult)> = None;
    for (form, graph) in &forms {
        let graph = Arc::new(graph.clone());
        for chunk in [128, 2] {
            let mut here: Option<(String, EngineResult)> = None;
            for (engine, isa) in ways(small) {
                let way = format!("{form}, chunks of {chunk}, {engine:?} {isa:?}");
                let ran = run(&graph, &Options { engine, isa, chunk, ..Options::default() }, &tokens);
                if let Some((other, known)) = &here
                    && *known != ran
                {
                    return Err(format!("{other}: {}\n{way}: {}", told(known), told(&ran)));
                }
                here.get_or_insert((way, ran));
            }
            let Some((way, ran)) = here else { continue };
            if let Some((other, known)) = &all {
                let same = match (known, &ran) {
                    (Ok(a), Ok(b)) => (&a.0, &a.1) == (&b.0, &b.1),
                    (Err(_), Err(_)) => true,
                    (Ok(_) | Err(_), _) => false,
                };
                if !same {
                    return Err(format!("{other}: {}\n{way}: {}", told(known), told(&ran)));
                }
            }
            all.get_or_insert((way, ran));
        }
    }
    Ok(if matches!(all, Some((_, Ok(_)))) { Verdict::Accepted } else { Verdict::Refused })
}

/// Engines and instruction sets of this machine.
fn ways(with_oracle: bool) -> Vec<(Engine, Option<Isa>)> {
    let sets = ISAS.into_iter().filter(|isa| snnc_runtime::kernels::Kernels::new(*isa).is_ok());
    let mut ways: Vec<_> = sets.map(|isa| (Engine::Jit, Some(isa))).collect();
    if with_oracle {
        ways.push((Engine::Interpreter, None));
    }
    ways
}

fn told(ran: &EngineResult) -> String {
    match ran {
        Ok((bits, levels, events)) => {
            let numbers: Vec<f32> = bits.iter().take(8).map(|&bits| f32::from_bits(bits)).collect();
            let spikes: u64 = events.iter().map(|events| events.spikes + events.additions + events.keys).sum();
            format!("{numbers:?} {:?}, {spikes} events", &levels[..levels.len().min(8)])
        }
        Err(why) => why.clone(),
    }
}

fn run(graph: &Arc<Graph>, options: &Options, tokens: &[u32]) -> EngineResult {
    let program = Program::new(Arc::clone(graph), options).map_err(|error| error.to_string())?;
    let mut session = Session::new(Arc::new(program)).map_err(|error| error.to_string())?;
    let outputs = session.forward(tokens, Rows::All).map_err(|error| error.to_string())?;
    let (mut bits, mut levels) = (Vec::new(), Vec::new());
    for (name, _) in &graph.outputs {
        bits.extend(outputs.f32(name).unwrap_or_default().iter().map(|x| x.to_bits()));
        levels.extend(outputs.levels(name).unwrap_or_default());
    }
    Ok((bits, levels, session.events().to_vec()))
}

/// Ids that every table has.
fn tokens(graph: &Graph) -> Vec<u32> {
    let by_token = |node: &&snnc_ir::Node| {
        node.op == Op::Dense(DenseOp::Embed) && graph.node(node.args[0]).op == Op::Leaf(LeafOp::Tokens)
    };
    let rows = graph.nodes.iter().filter(by_token).filter_map(|node| graph.table_rows(node.args[1])).min();
    let ids = (0..TOKENS.min(graph.context as usize)).map(|i| (i * 7 + 1) % rows.unwrap_or(4).max(1));
    ids.map(|id| id as u32).collect()
}

/// Numbers of one token's row, or elements where it has none.
fn row_numbers(ty: Type) -> u64 {
    let steps = match ty {
        Type::Train { steps, .. } => u64::from(steps),
        Type::Tensor { .. } => 1,
    };
    let elements = ty.shape().concrete(1, 0).into_iter().map(|n| n as u64);
    elements.fold(steps, u64::saturating_mul)
}
