//! Linear algebra on constants: factors, shifts, sums and products of projections become projections.
//!
//! A value is followed as a sum of terms, `base W1 W2 * factor` each, and a shift. `((x W + b) * g)` is `x (W g) + b g`;
//! `x V + x W` is `x (V + W)`; `(x A) B` is `x (A B)` where that is smaller or stands beside another projection of `x`. Numbers are
//! f64 until a weight is made of them. Only what has one reader is followed, so nothing is computed twice; what folds nothing is
//! left as it was written, for the rules.

use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp};
use snnc_ir::{Binary, Builder, Diagnostic, Graph, Op, Tensor, Unary, Value};
use std::rc::Rc;
use std::sync::Arc;

/// Terms of a sum that are followed, at most.
const TERMS_MAX: usize = 8;

/// Matrices of a term, at most.
const CHAIN_MAX: usize = 4;

type Numbers = Rc<Vec<f64>>;

/// A weight `[rows, columns]`: the file's, or one that was made.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    columns: usize,
    data: TermSource,
}

#[derive(Clone)]
enum TermSource {
    File(Value),
    Made(Numbers),
}

#[derive(Clone)]
struct AffineTerm {
    base: Value,
    chain: Vec<Matrix>,
    factor: Option<Numbers>,
}

/// A value as a sum.
#[derive(Clone)]
struct Affine {
    terms: Vec<AffineTerm>,
    shift: Option<Numbers>,
    /// Whether it differs from what the file says.
    folded: bool,
}

/// The same graph with constants folded into weights.
///
/// # Errors
/// None, for a graph that was verified.
pub(super) fn folded(graph: &Graph) -> Result<Graph, Diagnostic> {
    let mut constant = vec![false; graph.nodes.len()];
    for (value, node) in graph.iter() {
        let of_constants = !node.args.is_empty() && node.args.iter().all(|arg| constant[arg.index()]);
        constant[value.index()] = of_constants || matches!(node.op, Op::Leaf(LeafOp::Weight(_)));
    }
    let mut users = graph.users();
    for (_, output) in &graph.outputs {
        users[output.index()].push(*output);
    }
    let builder = Builder::new(graph.stage, graph.context);
    let count = graph.nodes.len();
    let mut fold = Fold { graph, constant, users, builder, map: vec![None; count], forms: vec![None; count] };
    for (value, _) in graph.iter() {
        fold.node(value)?;
    }
    let mut outputs = Vec::with_capacity(graph.outputs.len());
    for (name, value) in &graph.outputs {
        outputs.push((name.clone(), fold.made(*value)?));
    }
    Ok(fold.builder.finish(outputs))
}

struct Fold<'a> {
    graph: &'a Graph,
    constant: Vec<bool>,
    /// Outputs are users of themselves.
    users: Vec<Vec<Value>>,
    builder: Builder,
    /// Values of the new graph; none for what was folded and is not asked for yet.
    map: Vec<Option<Value>>,
    forms: Vec<Option<Affine>>,
}

impl Fold<'_> {
    fn node(&mut self, value: Value) -> Result<(), Diagnostic> {
        let form = self.form(value);
        if form.as_ref().is_some_and(|form| form.folded) {
            self.forms[value.index()] = form;
            return Ok(());
        }
        let node = self.graph.node(value);
        let new = match self.graph.constant(value) {
            Some(weight) => self.builder.weight(&weight.name, weight.tensor.clone()),
            None => {
                let mut args = Vec::with_capacity(node.args.len());
                for arg in &node.args {
                    args.push(self.made(*arg)?);
                }
                self.builder.add(node.op, &args, self.graph.origin(value))?
            }
        };
        self.map[value.index()] = Some(new);
        self.forms[value.index()] = form.filter(|_| self.users[value.index()].len() == 1);
        Ok(())
    }

    /// What a value is a sum of, where it is rows.
    fn form(&self, value: Value) -> Option<Affine> {
        let node = self.graph.node(value);
        let width = node.ty.shape().row_width().filter(|_| !self.constant[value.index()])?;
        let lives = |i: usize| !self.constant[node.args[i].index()];
        let rows = |i: usize| self.graph.ty(node.args[i]) == node.ty && lives(i);
        match node.op {
            Op::Array(ArrayOp::MatMul) if lives(0) && !lives(1) => self.projected(value),
            Op::Array(ArrayOp::Unary(Unary::Neg)) => self.times(value, node.args[0], &Rc::new(vec![-1.0; width]), true),
            Op::Array(ArrayOp::Binary(kind)) => {
                let (live, other) = match (rows(0), rows(1)) {
                    (true, true) => return self.added(value, kind),
                    (true, false) => (0, 1),
                    (false, true) if matches!(kind, Binary::Add | Binary::Mul) => (1, 0),
                    _ => return None,
                };
                let (c, number) = self.by_channel(node.args[other], width)?;
                let negative = |c: &Numbers| Rc::new(c.iter().map(|c| -c).collect::<Vec<f64>>());
                let inverse = |c: &Numbers| Rc::new(c.iter().map(|c| 1.0 / c).collect::<Vec<f64>>());
                match kind {
                    Binary::Add => self.shifted(value, node.args[live], &c),
                    Binary::Sub => self.shifted(value, node.args[live], &negative(&c)),
                    Binary::Mul => self.times(value, node.args[live], &c, number),
                    Binary::Div if c.iter().all(|c| *c != 0.0) => {
                        self.times(value, node.args[live], &inverse(&c), number)
                    }
                    Binary::Div | Binary::Pow | Binary::Min | Binary::Max => None,
                }
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
        }
    }

    /// What is known of an operand: its sum, or itself.
    fn operand(&self, value: Value) -> Affine {
        let itself = || Affine {
            terms: vec![AffineTerm { base: value, chain: Vec::new(), factor: None }],
            shift: None,
            folded: false,
        };
        self.forms[value.index()].clone().filter(|_| self.users[value.index()].len() == 1).unwrap_or_else(itself)
    }

    fn projected(&self, value: Value) -> Option<Affine> {
        let &[x, w] = self.graph.node(value).args.as_slice() else { return None };
        let &[rows, columns] = self.graph.ty(w).shape().sizes()?.as_slice() else { return None };
        let weight = Matrix { rows, columns, data: TermSource::File(w) };
        let alone = |base| Affine {
            terms: vec![AffineTerm { base, chain: vec![weight.clone()], factor: None }],
            shift: None,
            folded: false,
        };
        let of = self.operand(x);
        // A normalisation's gain and bias are folded later; a number behind an activation function may be a part of it.
        let [term] = of.terms.as_slice() else { return Some(alone(x)) };
        let plain = term.chain.is_empty() && of.shift.is_none() && term.factor.is_none();
        let own = self.graph.node(term.base).op;
        let is_norm = matches!(own, Op::Dense(DenseOp::RmsNorm { .. }));
        let is_curve = matches!(own, Op::Array(ArrayOp::Unary(_) | ArrayOp::Binary(_)));
        let one =
            term.factor.as_ref().is_none_or(|factor| factor.iter().all(|f| *f == factor[0])) && of.shift.is_none();
        if plain || is_norm || term.chain.is_empty() && is_curve && one || term.chain.len() >= CHAIN_MAX {
            return Some(alone(x));
        }
        let mut folded = of.folded || term.chain.is_empty() || term.factor.is_some();
        let last = match &term.factor {
            Some(factor) => self.by_row(&weight, factor)?,
            None => weight.clone(),
        };
        let shift = match &of.shift {
            Some(shift) => Some(Rc::new(product(shift, &self.numbers(&weight)?, rows, columns))),
            None => None,
        };
        let mut chain = term.chain.clone();
        chain.push(last);
        let smaller = |a: &Matrix, b: &Matrix| a.rows * b.columns <= a.columns * (a.rows + b.columns);
        if let [.., a, b] = chain.as_slice()
            && smaller(a, b)
        {
            let both = self.multiplied(a, b)?;
            chain.truncate(chain.len() - 2);
            chain.push(both);
            folded = true;
        }
        Some(Affine { terms: vec![AffineTerm { base: term.base, chain, factor: None }], shift, folded })
    }

    /// A factor for each channel. `number`: it is the same for all, and may belong to what is computed next.
    fn times(&self, value: Value, x: Value, factor: &Numbers, number: bool) -> Option<Affine> {
        let of = self.operand(x);
        let absorbs = |term: &AffineTerm| !term.chain.is_empty() || self.takes(term.base);
        if number && !self.users[value.index()].iter().all(|user| self.is_linear(value, *user)) {
            return None;
        }
        let times = |own: &Option<Numbers>| match own {
            Some(own) => Rc::new(own.iter().zip(factor.iter()).map(|(a, b)| a * b).collect()),
            None => factor.clone(),
        };
        let terms: Vec<AffineTerm> =
            of.terms.iter().map(|term| AffineTerm { factor: Some(times(&term.factor)), ..term.clone() }).collect();
        let shift = of.shift.as_ref().map(|shift| times(&Some(shift.clone())));
        let first_gain = |term: &AffineTerm| {
            matches!(self.graph.node(term.base).op, Op::Dense(DenseOp::RmsNorm { .. })) && term.factor.is_none()
        };
        let natural = matches!(of.terms.as_slice(), [term] if first_gain(term) && of.shift.is_none() && !number);
        if of.terms.iter().all(absorbs) && !natural {
            return Some(Affine { terms, shift, folded: true });
        }
        // What cannot take a factor waits for a projection that reads it.
        (of.terms.len() == 1 && !of.folded).then_some(Affine { terms, shift, folded: false })
    }

    fn shifted(&self, value: Value, x: Value, by: &Numbers) -> Option<Affine> {
        let of = self.operand(x);
        let shift = match &of.shift {
            Some(own) => Rc::new(own.iter().zip(by.iter()).map(|(a, b)| a + b).collect()),
            None => by.clone(),
        };
        let is_bias = matches!(of.terms.as_slice(), [term] if of.shift.is_none() && (!term.chain.is_empty() || self.is_norm(term.base)));
        let added = self.users[value.index()].iter().all(|user| *user != value && self.is_sum(*user));
        let projects = of.terms.iter().any(|term| !term.chain.is_empty());
        let takes = projects || of.terms.iter().any(|term| self.takes(term.base));
        let folded = of.folded || takes && !is_bias && (of.shift.is_some() || !added);
        Some(Affine { shift: Some(shift), folded, ..of })
    }

    fn added(&self, value: Value, kind: Binary) -> Option<Affine> {
        let args = &self.graph.node(value).args;
        let (a, mut b) = (self.operand(args[0]), self.operand(args[1]));
        match kind {
            Binary::Add => {}
            Binary::Sub => {
                let width = self.graph.ty(value).shape().row_width()?;
                let minus: Numbers = Rc::new(vec![-1.0; width]);
                if args[0] == args[1] || !b.terms.iter().all(|term| !term.chain.is_empty() || self.takes(term.base)) {
                    return None;
                }
                let times = |own: &Numbers| Rc::new(own.iter().map(|x| -x).collect::<Vec<f64>>());
                b.terms
                    .iter_mut()
                    .for_each(|term| term.factor = Some(term.factor.as_ref().map_or(minus.clone(), times)));
                b = Affine { shift: b.shift.as_ref().map(times), folded: true, ..b };
            }
            Binary::Mul | Binary::Div | Binary::Pow | Binary::Min | Binary::Max => return None,
        }
        let own_bias = |form: &Affine| form.shift.is_some() && form.terms.len() == 1 && !form.terms[0].chain.is_empty();
        let both = a.shift.is_some() && b.shift.is_some() && !(own_bias(&a) && own_bias(&b));
        let mut sum = Affine { folded: a.folded || b.folded || both, terms: a.terms, shift: a.shift };
        for term in b.terms {
            let same = sum.terms.iter().position(|own| own.base == term.base && !own.chain.is_empty());
            match same.filter(|_| !term.chain.is_empty()) {
                Some(at) => {
                    let together = self.together(&sum.terms[at], &term)?;
                    sum = Affine { folded: true, ..sum };
                    sum.terms[at] = together;
                }
                None => sum.terms.push(term),
            }
        }
        sum.shift = match (sum.shift, b.shift) {
            (Some(a), Some(b)) => Some(Rc::new(a.iter().zip(b.iter()).map(|(a, b)| a + b).collect())),
            (a, b) => a.or(b),
        };
        (sum.terms.len() <= TERMS_MAX).then_some(sum)
    }

    /// Two projections of one value as one.
    fn together(&self, a: &AffineTerm, b: &AffineTerm) -> Option<AffineTerm> {
        let (x, y) = (self.whole(a)?, self.whole(b)?);
        let (x, y, rows, columns) = match (&x, &y) {
            (a, b) if a.columns == b.columns => (self.numbers(a)?, self.numbers(b)?, a.rows, a.columns),
            _ => return None,
        };
        let data = TermSource::Made(Rc::new(x.iter().zip(y.iter()).map(|(x, y)| x + y).collect()));
        Some(AffineTerm { base: a.base, chain: vec![Matrix { rows, columns, data }], factor: None })
    }

    /// A term's matrices and factor as one matrix.
    fn whole(&self, term: &AffineTerm) -> Option<Matrix> {
        let (first, rest) = term.chain.split_first()?;
        let all = rest.iter().try_fold(first.clone(), |all, next| self.multiplied(&all, next))?;
        match &term.factor {
            Some(factor) => self.by_column(&all, factor),
            None => Some(all),
        }
    }

    fn multiplied(&self, a: &Matrix, b: &Matrix) -> Option<Matrix> {
        let data = product(&self.numbers(a)?, &self.numbers(b)?, a.columns, b.columns);
        Some(Matrix { rows: a.rows, columns: b.columns, data: TermSource::Made(Rc::new(data)) })
    }

    fn by_row(&self, matrix: &Matrix, factor: &Numbers) -> Option<Matrix> {
        let all = self.numbers(matrix)?;
        let rows = all.chunks_exact(matrix.columns).zip(factor.iter());
        let data = rows.flat_map(|(row, f)| row.iter().map(move |x| x * f)).collect();
        Some(Matrix { data: TermSource::Made(Rc::new(data)), ..matrix.clone() })
    }

    fn by_column(&self, matrix: &Matrix, factor: &Numbers) -> Option<Matrix> {
        let all = self.numbers(matrix)?;
        let data = all.iter().zip(factor.iter().cycle()).map(|(x, f)| x * f).collect();
        Some(Matrix { data: TermSource::Made(Rc::new(data)), ..matrix.clone() })
    }

    /// Whether a value can take a factor and a shift into its own constants.
    fn takes(&self, value: Value) -> bool {
        let of_table = |table: Value| self.graph.constant(table).is_some_and(|w| w.tensor.as_f32().is_some());
        match self.graph.node(value).op {
            Op::Dense(DenseOp::Embed) => of_table(self.graph.node(value).args[1]),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                self.is_norm(value)
            }
        }
    }

    fn is_norm(&self, value: Value) -> bool {
        matches!(self.graph.node(value).op, Op::Dense(DenseOp::RmsNorm { .. }) | Op::Level(LevelOp::ScaleShift))
    }

    fn is_sum(&self, user: Value) -> bool {
        let node = self.graph.node(user);
        node.op == Op::Array(ArrayOp::Binary(Binary::Add)) && node.args.iter().all(|arg| !self.constant[arg.index()])
    }

    /// Whether a user of a value takes it as a part of a sum or of a projection, or as it is.
    fn is_linear(&self, value: Value, user: Value) -> bool {
        let node = self.graph.node(user);
        let by_constant = || node.args.iter().any(|arg| self.constant[arg.index()]);
        match node.op {
            _ if user == value => true,
            Op::Array(ArrayOp::Binary(Binary::Add | Binary::Sub)) => {
                node.args.iter().all(|arg| self.graph.ty(*arg) == node.ty || self.constant[arg.index()])
            }
            Op::Array(ArrayOp::MatMul | ArrayOp::Binary(Binary::Mul | Binary::Div)) => by_constant(),
            Op::Dense(DenseOp::Centre | DenseOp::RmsNorm { .. }) | Op::Level(LevelOp::ScaleShift) => true,
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
        }
    }

    /// A constant as a number for each channel, and whether it is one number.
    fn by_channel(&self, value: Value, width: usize) -> Option<(Numbers, bool)> {
        let tensor = &self.graph.constant(value)?.tensor;
        let data = tensor.as_f32()?;
        match tensor.sizes() {
            [] | [1] => Some((Rc::new(vec![f64::from(data[0]); width]), true)),
            [n] if *n == width => Some((Rc::new(data.iter().map(|x| f64::from(*x)).collect()), false)),
            _ => None,
        }
    }

    fn numbers(&self, matrix: &Matrix) -> Option<Numbers> {
        let value = match &matrix.data {
            TermSource::Made(numbers) => return Some(numbers.clone()),
            TermSource::File(value) => *value,
        };
        let node = self.graph.node(value);
        let reals = |value: Value| {
            let data = self.graph.constant(value)?.tensor.as_f32()?;
            Some(data.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>())
        };
        let data = match node.op {
            Op::Array(ArrayOp::Transpose(_)) => {
                let own = reals(node.args[0])?;
                (0..own.len()).map(|i| own[i % matrix.columns * matrix.rows + i / matrix.columns]).collect()
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => reals(value)?,
        };
        Some(Rc::new(data))
    }

    /// The value in the new graph; made of its sum where that was folded.
    fn made(&mut self, value: Value) -> Result<Value, Diagnostic> {
        if let Some(new) = self.map[value.index()] {
            return Ok(new);
        }
        let Some(Affine { terms, mut shift, .. }) = self.forms[value.index()].clone() else {
            return Err(Diagnostic::new(self.graph.origin(value), "a value was lost; this is a defect of snnc"));
        };
        let origin = self.graph.origin(value).clone();
        // The shift goes to a projection, else to whatever can take it.
        let home = terms.iter().position(|term| !term.chain.is_empty());
        let home = home.or_else(|| terms.iter().position(|term| self.takes(term.base)));
        let mut sum: Option<Value> = None;
        for (i, term) in terms.iter().enumerate() {
            let own = if home == Some(i) { shift.take() } else { None };
            let part = self.part(value, term, own)?;
            sum = Some(match sum {
                Some(sum) => self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[sum, part], &origin)?,
                None => part,
            });
        }
        let Some(mut sum) = sum else { return Err(Diagnostic::new(origin, "a sum of nothing")) };
        if let Some(shift) = shift {
            let shift = self.vector(&format!("{origin}.shift"), &shift);
            sum = self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[sum, shift], &origin)?;
        }
        self.map[value.index()] = Some(sum);
        Ok(sum)
    }

    fn vector(&mut self, name: &str, data: &[f64]) -> Value {
        let data: Vec<f32> = data.iter().map(|x| *x as f32).collect();
        self.builder.weight(name, Arc::new(Tensor::f32(&[data.len()], data)))
    }

    /// One term, and the shift that is added to it.
    fn part(&mut self, value: Value, term: &AffineTerm, shift: Option<Numbers>) -> Result<Value, Diagnostic> {
        let origin = self.graph.origin(value).clone();
        let base = self.made(term.base)?;
        if term.chain.is_empty() {
            return self.scaled(term, base, shift);
        }
        let mut chain = term.chain.clone();
        if let (Some(factor), Some(last)) = (&term.factor, chain.last_mut()) {
            let scaled = self.by_column(last, factor);
            *last = scaled.ok_or_else(|| Diagnostic::new(&origin, "a weight is no matrix of floats"))?;
        }
        let mut x = base;
        for matrix in &chain {
            let w = match &matrix.data {
                TermSource::File(w) => self.made(*w)?,
                TermSource::Made(data) => {
                    let data: Vec<f32> = data.iter().map(|x| *x as f32).collect();
                    let tensor = Tensor::f32(&[matrix.rows, matrix.columns], data);
                    self.builder.weight(&format!("{origin}.weight"), Arc::new(tensor))
                }
            };
            x = self.builder.add(Op::Array(ArrayOp::MatMul), &[x, w], &origin)?;
        }
        let Some(shift) = shift else { return Ok(x) };
        let shift = self.vector(&format!("{origin}.bias"), &shift);
        self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, shift], &origin)
    }

    /// A value with a factor and a shift, which its own constants take if they can.
    fn scaled(&mut self, term: &AffineTerm, base: Value, shift: Option<Numbers>) -> Result<Value, Diagnostic> {
        let node = self.graph.node(term.base);
        let origin = self.graph.origin(term.base).clone();
        let Some(width) = node.ty.shape().row_width() else { return Ok(base) };
        if term.factor.is_none() && shift.is_none() {
            return Ok(base);
        }
        let factor = term.factor.clone().unwrap_or_else(|| Rc::new(vec![1.0; width]));
        let by = shift.unwrap_or_else(|| Rc::new(vec![0.0; width]));
        let reals = |i: usize| self.graph.constant(node.args[i]).and_then(|weight| weight.tensor.as_f32());
        let change = |own: &[f32], by: &[f64]| -> Vec<f64> {
            let one = |(i, x): (usize, &f32)| f64::from(*x) * factor[i % width] + by[i % width];
            own.iter().enumerate().map(one).collect()
        };
        let none = vec![0.0; width];
        match (node.op, reals(node.args.len() - 1)) {
            (Op::Dense(DenseOp::Embed), Some(table)) => {
                let data: Vec<f32> = change(table, &by).into_iter().map(|x| x as f32).collect();
                let tensor = Tensor::f32(&[data.len() / width, width], data);
                let name = self.graph.constant(node.args[1]).map_or(String::new(), |weight| weight.name.clone());
                let table = self.builder.weight(&name, Arc::new(tensor));
                let ids = self.made(node.args[0])?;
                self.builder.add(node.op, &[ids, table], &origin)
            }
            (Op::Level(LevelOp::ScaleShift), Some(bias)) => {
                let (gain, bias) = (change(reals(1).unwrap_or(&[]), &none), change(bias, &by));
                let x = self.made(node.args[0])?;
                self.affine_norm(x, &gain, &bias, term.base)
            }
            (Op::Dense(DenseOp::RmsNorm { .. }), _) => self.affine_norm(base, &factor, &by, term.base),
            _ => {
                let gain = self.vector(&format!("{origin}.gain"), &factor);
                let x = self.builder.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[base, gain], &origin)?;
                let by = self.vector(&format!("{origin}.shift"), &by);
                self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, by], &origin)
            }
        }
    }

    /// A norm's gain and bias.
    fn affine_norm(&mut self, x: Value, gain: &[f64], bias: &[f64], at: Value) -> Result<Value, Diagnostic> {
        let origin = self.graph.origin(at).clone();
        let gain = self.vector(&format!("{origin}.gain"), gain);
        let bias = self.vector(&format!("{origin}.bias"), bias);
        self.builder.add(Op::Level(LevelOp::ScaleShift), &[x, gain, bias], &origin)
    }
}

/// `[n, k]` by `[k, m]`.
fn product(a: &[f64], b: &[f64], k: usize, m: usize) -> Vec<f64> {
    let row = |a: &[f64]| {
        let mut sums = vec![0f64; m];
        for (a, b) in a.iter().zip(b.chunks_exact(m)) {
            sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
        sums
    };
    a.chunks_exact(k).flat_map(row).collect()
}
