//! Writes GPT-2 as an ONNX file with random weights, node for node as PyTorch's TorchScript exporter writes it.
//!
//! Law: the same configuration gives the same bytes on every platform. Weights are drawn while they are written, each
//! tensor from a generator of its own, so memory does not grow with the model (a head that is a transposed copy aside).
//! Their scales are those GPT-2 is initialised with, so activations look like a network's and not like noise.

use prost::Message;
use snnc_ir::random::SplitMix64;
use snnc_onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use std::collections::HashMap;
use std::io::{self, Write};

/// The activation function of the MLPs, as an exporter writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GPT-2's own `gelu_new`: eight nodes around a tanh.
    GeluTanh,
    /// `gelu`: five nodes around an erf.
    GeluErf,
    /// `max(x, 0)`
    Relu,
    /// `x sigmoid(x)`
    Silu,
    /// `x sigmoid(1.702 x)`
    GeluQuick,
}

/// Where logits come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadExport {
    /// The embedding, transposed at run time.
    Tied,
    /// A transposed copy of the embedding.
    Copied,
    /// Weights of its own.
    Untied,
    /// Nowhere: the file ends at the last LayerNorm.
    Missing,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpt2Config {
    /// Transformer blocks.
    pub layers: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Heads of each attention; they divide the width.
    pub heads: usize,
    /// Token ids.
    pub vocabulary: usize,
    /// The longest sequence.
    pub context: usize,
    /// Of the MLPs.
    pub activation: Activation,
    /// 13: LayerNorm in nine nodes. 17: LayerNormalization.
    pub opset: i64,
    /// Where logits come from.
    pub head: HeadExport,
    /// `scale_attn_by_inverse_layer_idx`: scores of layer `i` are divided by `i + 1` as well.
    pub inverse_layer_scale: bool,
    /// Channels of the residual stream that are thirty times as large as the others.
    pub outliers: usize,
    /// Of the weights.
    pub seed: u64,
}

impl Gpt2Config {
    /// GPT-2 small: 124 M parameters.
    pub const SMALL: Self = Self {
        layers: 12,
        width: 768,
        heads: 12,
        vocabulary: 50257,
        context: 1024,
        activation: Activation::GeluTanh,
        opset: 17,
        head: HeadExport::Tied,
        inverse_layer_scale: false,
        outliers: 0,
        seed: 1,
    };
    /// 355 M parameters.
    pub const MEDIUM: Self = Self { layers: 24, width: 1024, heads: 16, ..Self::SMALL };
    /// 774 M parameters.
    pub const LARGE: Self = Self { layers: 36, width: 1280, heads: 20, ..Self::SMALL };
    /// For tests: written and run in milliseconds.
    pub const TINY: Self = Self { layers: 2, width: 64, heads: 4, vocabulary: 1000, context: 64, ..Self::SMALL };

    /// The configuration of a size: tiny, small, medium or large.
    pub fn named(size: &str) -> Result<Self, String> {
        match size {
            "tiny" => Ok(Self::TINY),
            "small" => Ok(Self::SMALL),
            "medium" => Ok(Self::MEDIUM),
            "large" => Ok(Self::LARGE),
            other => Err(format!("there is no size `{other}`; there are tiny, small, medium, large")),
        }
    }

    /// Elements of all weights, a tied head counted once.
    pub fn parameters(&self) -> usize {
        tensors(self).iter().filter(|tensor| tensor.values != Values::TransposedEmbedding).map(Gpt2Weight::len).sum()
    }

    fn check(&self) -> io::Result<()> {
        let wrong = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        if [self.layers, self.width, self.heads, self.vocabulary, self.context].contains(&0) {
            return wrong("every size must be at least 1".into());
        }
        if !self.width.is_multiple_of(self.heads) {
            return wrong(format!("{} heads do not divide a width of {}", self.heads, self.width));
        }
        if ![13, 17].contains(&self.opset) {
            return wrong(format!("opset 13 or 17 can be written, not {}", self.opset));
        }
        Ok(())
    }
}

/// Writes the file.
pub fn write(config: &Gpt2Config, out: &mut dyn Write) -> io::Result<()> {
    write_beside(config, out, &mut [])
}

/// Writes the file and its weights to others beside it, in turn: each by the name that the file knows it by.
pub fn write_beside(
    config: &Gpt2Config,
    out: &mut dyn Write,
    beside: &mut [(String, Box<dyn Write>)],
) -> io::Result<()> {
    config.check()?;
    let mut nodes = Nodes::default();
    let graph_end = network(config, &mut nodes);
    let tensors = tensors(config);
    let headers: Vec<Vec<u8>> = match beside {
        [] => tensors.iter().map(Gpt2Weight::header).collect(),
        _ => {
            let mut ends = vec![0; beside.len()];
            let place = |(i, tensor): (usize, &Gpt2Weight)| {
                let file = i % ends.len();
                let header = tensor.header_beside(&beside[file].0, ends[file]);
                ends[file] += (tensor.len() * 4).next_multiple_of(ALIGNMENT);
                header
            };
            tensors.iter().enumerate().map(place).collect()
        }
    };
    let inside = if beside.is_empty() { 4 } else { 0 };
    let weights: usize =
        headers.iter().zip(&tensors).map(|(header, tensor)| header.len() + tensor.len() * inside).sum();
    // A message is its fields one after the other: nodes and the graph's name, weights, inputs and outputs.
    let nodes = GraphProto { node: nodes.written, name: "main_graph".into(), ..GraphProto::default() }.encode_to_vec();
    let len = nodes.len() + weights + graph_end.encoded_len();

    let model = ModelProto {
        ir_version: if config.opset == 13 { 7 } else { 8 },
        producer_name: "snnc-examples".into(),
        producer_version: "1".into(),
        ..ModelProto::default()
    };
    out.write_all(&model.encode_to_vec())?;
    out.write_all(&header(7, len))?;
    out.write_all(&nodes)?;
    for (i, (tensor, header)) in tensors.iter().zip(&headers).enumerate() {
        out.write_all(header)?;
        if beside.is_empty() {
            tensor.write(config, out)?;
            continue;
        }
        let file = i % beside.len();
        let (_, beside) = &mut beside[file];
        tensor.write(config, beside)?;
        let rest = (tensor.len() * 4).next_multiple_of(ALIGNMENT) - tensor.len() * 4;
        beside.write_all(&vec![0; rest])?;
    }
    beside.iter_mut().try_for_each(|(_, beside)| beside.flush())?;
    out.write_all(&graph_end.encode_to_vec())?;
    let opset = OperatorSetIdProto { version: config.opset, ..OperatorSetIdProto::default() };
    out.write_all(&ModelProto { opset_import: vec![opset], ..ModelProto::default() }.encode_to_vec())
}

/// What stands before `len` bytes of a field, whose number is below 16.
fn header(number: u8, len: usize) -> Vec<u8> {
    let mut header = vec![number << 3 | 2];
    prost::encode_length_delimiter(len, &mut header).unwrap_or_else(|_| unreachable!("a vector grows"));
    header
}

/// The file's bytes.
pub fn bytes(config: &Gpt2Config) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(config, &mut bytes)?;
    Ok(bytes)
}

// --- weights ---

#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    /// Normal, with this mean and standard deviation.
    Normal(f32, f32),
    /// The embedding once more, transposed.
    TransposedEmbedding,
}

#[derive(Clone, Debug)]
struct Gpt2Weight {
    name: String,
    sizes: Vec<usize>,
    values: Values,
    /// Which of the model's random sequences it takes.
    stream: u64,
}

/// What the head is called where it is a copy.
const HEAD: &str = "onnx::MatMul_head";

/// All initializers, in the order in which PyTorch writes them.
fn tensors(config: &Gpt2Config) -> Vec<Gpt2Weight> {
    /// `initializer_range` of GPT-2.
    const SCALE: f32 = 0.02;
    let d = config.width;
    let residual = SCALE / (2.0 * config.layers as f32).sqrt();
    let weight = Values::Normal(0.0, SCALE);
    let (gain, bias) = (Values::Normal(1.0, 0.05), Values::Normal(0.0, 0.02));
    let mut all: Vec<(String, Vec<usize>, Values)> = vec![
        ("wte.weight".into(), vec![config.vocabulary, d], weight),
        ("wpe.weight".into(), vec![config.context, d], weight),
    ];
    let norm = |all: &mut Vec<(String, Vec<usize>, Values)>, name: String| {
        all.push((format!("{name}.weight"), vec![d], gain));
        all.push((format!("{name}.bias"), vec![d], bias));
    };
    let conv = |all: &mut Vec<(String, Vec<usize>, Values)>, name: String, inputs: usize, outputs: usize, std: f32| {
        all.push((format!("{name}.weight"), vec![inputs, outputs], Values::Normal(0.0, std)));
        all.push((format!("{name}.bias"), vec![outputs], bias));
    };
    for layer in 0..config.layers {
        let h = format!("h.{layer}");
        norm(&mut all, format!("{h}.ln_1"));
        conv(&mut all, format!("{h}.attn.c_attn"), d, 3 * d, SCALE);
        conv(&mut all, format!("{h}.attn.c_proj"), d, d, residual);
        norm(&mut all, format!("{h}.ln_2"));
        conv(&mut all, format!("{h}.mlp.c_fc"), d, 4 * d, SCALE);
        conv(&mut all, format!("{h}.mlp.c_proj"), 4 * d, d, residual);
    }
    norm(&mut all, "ln_f".into());
    let mut all: Vec<_> = all.into_iter().map(|(name, sizes, v)| (format!("transformer.{name}"), sizes, v)).collect();
    let copy = match config.head {
        HeadExport::Copied => Some(Values::TransposedEmbedding),
        HeadExport::Untied => Some(weight),
        HeadExport::Tied | HeadExport::Missing => None,
    };
    all.extend(copy.map(|values| (HEAD.into(), vec![d, config.vocabulary], values)));
    let weight = |(i, (name, sizes, values))| Gpt2Weight { name, sizes, values, stream: i as u64 };
    all.into_iter().enumerate().map(weight).collect()
}

impl Gpt2Weight {
    fn len(&self) -> usize {
        self.sizes.iter().product()
    }

    fn proto(&self) -> TensorProto {
        let dims = self.sizes.iter().map(|&size| size as i64).collect();
        TensorProto { dims, data_type: FLOAT, name: self.name.clone(), ..TensorProto::default() }
    }

    /// What stands in the graph before the tensor's raw bytes.
    fn header(&self) -> Vec<u8> {
        let tensor = self.proto().encode_to_vec();
        let raw = header(9, self.len() * 4);
        [header(5, tensor.len() + raw.len() + self.len() * 4), tensor, raw].concat()
    }

    /// What stands in the graph of a tensor whose bytes lie `at` that byte of another file.
    fn header_beside(&self, file: &str, at: usize) -> Vec<u8> {
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        let external_data = vec![
            entry("location", file.into()),
            entry("offset", at.to_string()),
            entry("length", (self.len() * 4).to_string()),
        ];
        let tensor = TensorProto { external_data, data_location: 1, ..self.proto() };
        GraphProto { initializer: vec![tensor], ..GraphProto::default() }.encode_to_vec()
    }

    /// Whether a number goes to an outlier of the residual stream: it is in the column of one, in an embedding or in a
    /// projection back to the stream.
    fn is_outlier(&self, config: &Gpt2Config, i: usize) -> bool {
        let writes = ["wte.weight", "wpe.weight", "c_proj.weight"].iter().any(|end| self.name.ends_with(end));
        config.outliers > 0 && writes && (i % config.width).is_multiple_of(config.width.div_ceil(config.outliers))
    }

    fn write(&self, config: &Gpt2Config, out: &mut dyn Write) -> io::Result<()> {
        let (mean, std) = match self.values {
            Values::Normal(mean, std) => (mean, std),
            Values::TransposedEmbedding => return write_transposed(&tensors(config)[0], config, out),
        };
        let mut normals = Normals::new(config.seed, self.stream);
        let mut buffer = Vec::with_capacity(CHUNK * 4);
        let mut left = self.len();
        while left > 0 {
            let n = left.min(CHUNK);
            buffer.clear();
            let first = self.len() - left;
            let factor = |i: usize| if self.is_outlier(config, first + i) { OUTLIER } else { 1.0 };
            (0..n).for_each(|i| buffer.extend((factor(i) * (mean + std * normals.next())).to_le_bytes()));
            out.write_all(&buffer)?;
            left -= n;
        }
        Ok(())
    }
}

/// How much larger outlier channels are.
const OUTLIER: f32 = 30.0;

/// Tensors in files beside the model begin at multiples of this.
const ALIGNMENT: usize = 64;

/// Numbers that are drawn between two writes.
const CHUNK: usize = 1 << 16;

fn write_transposed(embedding: &Gpt2Weight, config: &Gpt2Config, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(embedding.len() * 4);
    embedding.write(config, &mut bytes)?;
    let (rows, columns) = (embedding.sizes[0], embedding.sizes[1]);
    let mut line = Vec::with_capacity(rows * 4);
    for column in 0..columns {
        line.clear();
        (0..rows).for_each(|row| line.extend(&bytes[(row * columns + column) * 4..][..4]));
        out.write_all(&line)?;
    }
    Ok(())
}

/// Normally distributed numbers: SplitMix64 and Box-Muller.
pub(crate) struct Normals {
    random: SplitMix64,
    spare: Option<f32>,
}

impl Normals {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut seeding = SplitMix64(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        Self { random: SplitMix64(seeding.bits()), spare: None }
    }

    pub(crate) fn next(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        const STEP: f32 = 1.0 / (1 << 24) as f32;
        let bits = self.random.bits();
        // (0, 1] for the radius, [0, 1) for the angle: 24 bits each.
        let (u, v) = (((bits >> 40) + 1) as f32 * STEP, ((bits & 0xff_ffff) as f32) * STEP);
        let radius = (-2.0 * libm::logf(u)).sqrt();
        let (sin, cos) = libm::sincosf(std::f32::consts::TAU * v);
        self.spare = Some(radius * sin);
        radius * cos
    }
}

// --- nodes ---

/// Nodes written so far, and how many of an operator a scope has: names count up, as PyTorch's do.
#[derive(Default)]
struct Nodes {
    written: Vec<NodeProto>,
    counts: HashMap<(String, String), usize>,
    /// The causal table; all layers share the one that the first has made.
    causal: Option<String>,
}

enum Attr<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Float(&'a str, f32),
    Tensor(&'a str, Box<TensorProto>),
}

impl Attr<'_> {
    fn proto(&self) -> AttributeProto {
        let of =
            |name: &str, kind: i32| AttributeProto { name: name.into(), r#type: kind, ..AttributeProto::default() };
        match self {
            Attr::Float(name, x) => AttributeProto { f: Some(*x), ..of(name, 1) },
            Attr::Int(name, x) => AttributeProto { i: Some(*x), ..of(name, 2) },
            Attr::Tensor(name, tensor) => AttributeProto { t: Some(TensorProto::clone(tensor)), ..of(name, 4) },
            Attr::Ints(name, all) => AttributeProto { ints: all.to_vec(), ..of(name, 7) },
        }
    }
}

fn tensor(sizes: &[usize], elem: i32, raw: &[u8]) -> TensorProto {
    let dims = sizes.iter().map(|&size| size as i64).collect();
    TensorProto { dims, data_type: elem, raw_data: Some(raw.to_vec().into()), ..TensorProto::default() }
}

const FLOAT: i32 = 1;
const INT64: i32 = 7;
const BOOL: i32 = 9;

impl Nodes {
    fn nodes(&mut self, scope: &str, op: &str, inputs: &[&str], attributes: &[Attr], outputs: usize) -> Vec<String> {
        let count = self.counts.entry((scope.to_string(), op.to_string())).or_default();
        let name = if *count == 0 { format!("{scope}/{op}") } else { format!("{scope}/{op}_{count}") };
        *count += 1;
        let outputs: Vec<String> = (0..outputs).map(|i| format!("{name}_output_{i}")).collect();
        self.push(&name, op, inputs, attributes, &outputs);
        outputs
    }

    fn push(&mut self, name: &str, op: &str, inputs: &[&str], attributes: &[Attr], outputs: &[String]) {
        self.written.push(NodeProto {
            input: inputs.iter().map(|input| (*input).to_string()).collect(),
            output: outputs.to_vec(),
            name: name.into(),
            op_type: op.into(),
            attribute: attributes.iter().map(Attr::proto).collect(),
            ..NodeProto::default()
        });
    }

    fn node(&mut self, scope: &str, op: &str, inputs: &[&str], attributes: &[Attr]) -> String {
        self.nodes(scope, op, inputs, attributes, 1).remove(0)
    }

    fn constant(&mut self, scope: &str, value: TensorProto) -> String {
        self.node(scope, "Constant", &[], &[Attr::Tensor("value", value.into())])
    }

    fn int(&mut self, scope: &str, x: i64) -> String {
        self.constant(scope, tensor(&[], INT64, &x.to_le_bytes()))
    }

    fn ints(&mut self, scope: &str, all: &[i64]) -> String {
        let raw: Vec<u8> = all.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(scope, tensor(&[all.len()], INT64, &raw))
    }

    fn float(&mut self, scope: &str, x: f32) -> String {
        self.constant(scope, tensor(&[], FLOAT, &x.to_le_bytes()))
    }

    fn causal_table(&mut self, scope: &str, n: usize) -> String {
        if let Some(table) = &self.causal {
            return table.clone();
        }
        let lower: Vec<u8> = (0..n * n).map(|i| u8::from(i % n <= i / n)).collect();
        let table = self.constant(scope, tensor(&[1, 1, n, n], BOOL, &lower));
        self.causal.insert(table).clone()
    }

    /// `x op constant`.
    fn with_float(&mut self, scope: &str, op: &str, x: &str, number: f32) -> String {
        let number = self.float(scope, number);
        self.node(scope, op, &[x, &number], &[])
    }

    /// One size of `x`.
    fn size(&mut self, scope: &str, x: &str, axis: i64) -> String {
        let shape = self.node(scope, "Shape", &[x], &[]);
        let axis = self.int(scope, axis);
        self.node(scope, "Gather", &[&shape, &axis], &[Attr::Int("axis", 0)])
    }

    /// One size of `x`, as a slice of its shape: what `x.size(-1)` in a trace becomes.
    fn sliced_size(&mut self, scope: &str, x: &str, start: i64, end: i64) -> String {
        let shape = self.node(scope, "Shape", &[x], &[]);
        let (axes, start, end) = (self.ints(scope, &[0]), self.ints(scope, &[start]), self.ints(scope, &[end]));
        let slice = self.node(scope, "Slice", &[&shape, &start, &end, &axes], &[]);
        let axes = self.ints(scope, &[0]);
        self.node(scope, "Squeeze", &[&slice, &axes], &[])
    }

    fn unsqueeze(&mut self, scope: &str, x: &str) -> String {
        let axes = self.ints(scope, &[0]);
        self.node(scope, "Unsqueeze", &[x, &axes], &[])
    }

    fn reshape(&mut self, scope: &str, x: &str, sizes: &[&str]) -> String {
        let shape = self.node(scope, "Concat", sizes, &[Attr::Int("axis", 0)]);
        self.node(scope, "Reshape", &[x, &shape], &[])
    }
}

/// All nodes; the answer is what stands in the graph after the initializers: its inputs and outputs.
fn network(config: &Gpt2Config, g: &mut Nodes) -> GraphProto {
    let t = "/transformer";
    let (mut x, tokens, width) = embeddings(g, t);
    for layer in 0..config.layers {
        x = block(config, g, &format!("{t}/h.{layer}"), &format!("transformer.h.{layer}"), &x, layer);
    }
    let x = layer_norm(config, g, &format!("{t}/ln_f"), "transformer.ln_f", &x);
    let rest = g.ints(t, &[-1]);
    let (tokens, width) = (g.unsqueeze(t, &tokens), g.unsqueeze(t, &width));
    let x = g.reshape(t, &x, &[&rest, &tokens, &width]);
    let input = port("input_ids", INT64, &["batch", "sequence"], None);
    let head = match config.head {
        HeadExport::Tied => {
            g.node("/lm_head", "Transpose", &["transformer.wte.weight"], &[Attr::Ints("perm", &[1, 0])])
        }
        HeadExport::Copied | HeadExport::Untied => HEAD.to_string(),
        HeadExport::Missing => {
            g.push("/Identity", "Identity", &[&x], &[], &["last_hidden_state".to_string()]);
            let output = port("last_hidden_state", FLOAT, &["batch", "sequence"], Some(config.width));
            return GraphProto { input: vec![input], output: vec![output], ..GraphProto::default() };
        }
    };
    g.push("/lm_head/MatMul", "MatMul", &[&x, &head], &[], &["logits".to_string()]);
    let output = port("logits", FLOAT, &["batch", "sequence"], Some(config.vocabulary));
    GraphProto { input: vec![input], output: vec![output], ..GraphProto::default() }
}

fn port(name: &str, elem: i32, symbols: &[&str], last: Option<usize>) -> ValueInfoProto {
    let symbol = |name: &&str| DimensionProto { dim_param: Some((*name).into()), ..DimensionProto::default() };
    let size = |size: usize| DimensionProto { dim_value: Some(size as i64), ..DimensionProto::default() };
    let dim = symbols.iter().map(symbol).chain(last.map(size)).collect();
    let tensor_type = TensorTypeProto { elem_type: elem, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// The sum of both embeddings; and the numbers of tokens and channels, as nodes.
fn embeddings(g: &mut Nodes, t: &str) -> (String, String, String) {
    let tokens = g.size(t, "input_ids", 1);
    let rest = g.ints(t, &[-1]);
    let last = g.unsqueeze(t, &tokens);
    let ids = g.reshape(t, "input_ids", &[&rest, &last]);
    let zero = g.int(t, 0);
    let end = g.node(t, "Cast", &[&tokens], &[Attr::Int("to", INT64.into())]);
    let one = g.int(t, 1);
    let range = g.node(t, "Range", &[&zero, &end, &one], &[]);
    let positions = g.unsqueeze(t, &range);
    let wte = g.node(&format!("{t}/wte"), "Gather", &["transformer.wte.weight", &ids], &[]);
    let wpe = g.node(&format!("{t}/wpe"), "Gather", &["transformer.wpe.weight", &positions], &[]);
    let wpe = g.node(t, "Cast", &[&wpe], &[Attr::Int("to", FLOAT.into())]);
    let x = g.node(t, "Add", &[&wte, &wpe], &[]);
    let width = g.sliced_size(t, &x, -1, i64::MAX);
    (x, tokens, width)
}

fn block(config: &Gpt2Config, g: &mut Nodes, scope: &str, weights: &str, x: &str, layer: usize) -> String {
    let y = layer_norm(config, g, &format!("{scope}/ln_1"), &format!("{weights}.ln_1"), x);
    let y = attention(config, g, &format!("{scope}/attn"), &format!("{weights}.attn"), &y, layer);
    let x = g.node(scope, "Add", &[&y, x], &[]);
    let y = layer_norm(config, g, &format!("{scope}/ln_2"), &format!("{weights}.ln_2"), &x);
    let y = conv(g, &format!("{scope}/mlp/c_fc"), &format!("{weights}.mlp.c_fc"), &y, 4 * config.width);
    let y = activation(config, g, &format!("{scope}/mlp/act"), &y);
    let y = conv(g, &format!("{scope}/mlp/c_proj"), &format!("{weights}.mlp.c_proj"), &y, config.width);
    g.node(scope, "Add", &[&x, &y], &[])
}

/// `layer_norm_epsilon` of GPT-2.
const EPS: f32 = 1e-5;

fn layer_norm(config: &Gpt2Config, g: &mut Nodes, scope: &str, weights: &str, x: &str) -> String {
    let (gain, bias) = (format!("{weights}.weight"), format!("{weights}.bias"));
    if config.opset >= 17 {
        let attributes = [Attr::Int("axis", -1), Attr::Float("epsilon", EPS)];
        return g.node(scope, "LayerNormalization", &[x, &gain, &bias], &attributes);
    }
    let mean = g.node(scope, "ReduceMean", &[x], &[Attr::Ints("axes", &[-1])]);
    let centred = g.node(scope, "Sub", &[x, &mean], &[]);
    let square = g.with_float(scope, "Pow", &centred, 2.0);
    let variance = g.node(scope, "ReduceMean", &[&square], &[Attr::Ints("axes", &[-1])]);
    let variance = g.with_float(scope, "Add", &variance, EPS);
    let deviation = g.node(scope, "Sqrt", &[&variance], &[]);
    let normal = g.node(scope, "Div", &[&centred, &deviation], &[]);
    let scaled = g.node(scope, "Mul", &[&normal, &gain], &[]);
    g.node(scope, "Add", &[&scaled, &bias], &[])
}

/// GPT-2's Conv1D: a Gemm on rows, between two reshapes.
fn conv(g: &mut Nodes, scope: &str, weights: &str, x: &str, outputs: usize) -> String {
    let batch = g.size(scope, x, 0);
    let tokens = g.size(scope, x, 1);
    let width = g.sliced_size(scope, x, -1, i64::MAX);
    let rest = g.ints(scope, &[-1]);
    let width = g.unsqueeze(scope, &width);
    let rows = g.reshape(scope, x, &[&rest, &width]);
    let (weight, bias) = (format!("{weights}.weight"), format!("{weights}.bias"));
    let attributes = [Attr::Float("alpha", 1.0), Attr::Float("beta", 1.0)];
    let y = g.node(scope, "Gemm", &[&rows, &weight, &bias], &attributes);
    let (batch, tokens) = (g.unsqueeze(scope, &batch), g.unsqueeze(scope, &tokens));
    let outputs = g.ints(scope, &[outputs as i64]);
    g.reshape(scope, &y, &[&batch, &tokens, &outputs])
}

fn attention(config: &Gpt2Config, g: &mut Nodes, scope: &str, weights: &str, x: &str, layer: usize) -> String {
    let d = config.width as i64;
    let qkv = conv(g, &format!("{scope}/c_attn"), &format!("{weights}.c_attn"), x, 3 * config.width);
    let sizes = g.ints(scope, &[d, d, d]);
    let parts = g.nodes(scope, "Split", &[&qkv, &sizes], &[Attr::Int("axis", 2)], 3);
    let [q_sizes, k_sizes] = [0, 1].map(|i| (g.size(scope, &parts[i], 0), g.size(scope, &parts[i], 1)));
    let shape = heads_shape(config, g, scope, &q_sizes);
    let q = g.node(scope, "Reshape", &[&parts[0], &shape], &[]);
    let q = turn(g, scope, &q, &[0, 2, 1, 3]);
    // The trace takes the values' sizes from the keys.
    let [k_shape, v_shape] = [0, 1].map(|_| heads_shape(config, g, scope, &k_sizes));
    let k = g.node(scope, "Reshape", &[&parts[1], &k_shape], &[]);
    let keys = turn(g, scope, &k, &[0, 2, 1, 3]);
    let v = g.node(scope, "Reshape", &[&parts[2], &v_shape], &[]);
    let v = turn(g, scope, &v, &[0, 2, 1, 3]);
    let k = turn(g, scope, &k, &[0, 2, 3, 1]);
    let scores = g.node(scope, "MatMul", &[&q, &k], &[]);
    let mut scores = scaled(g, scope, &scores, &v);
    if config.inverse_layer_scale {
        scores = g.with_float(scope, "Div", &scores, (layer + 1) as f32);
    }
    let mask = mask(config, g, scope, &q, &keys);
    let scores = g.node(scope, "Cast", &[&scores], &[Attr::Int("to", FLOAT.into())]);
    let lowest = g.float(scope, f32::MIN);
    let scores = g.node(scope, "Where", &[&mask, &scores, &lowest], &[]);
    let weight = g.node(scope, "Softmax", &[&scores], &[Attr::Int("axis", -1)]);
    let weight = g.node(scope, "Cast", &[&weight], &[Attr::Int("to", FLOAT.into())]);
    let y = g.node(scope, "MatMul", &[&weight, &v], &[]);
    let y = turn(g, scope, &y, &[0, 2, 1, 3]);
    let (batch, tokens) = (g.size(scope, &y, 0), g.size(scope, &y, 1));
    let (batch, tokens) = (g.unsqueeze(scope, &batch), g.unsqueeze(scope, &tokens));
    let rest = g.ints(scope, &[-1]);
    let y = g.reshape(scope, &y, &[&batch, &tokens, &rest]);
    conv(g, &format!("{scope}/c_proj"), &format!("{weights}.c_proj"), &y, config.width)
}

fn turn(g: &mut Nodes, scope: &str, x: &str, perm: &[i64]) -> String {
    g.node(scope, "Transpose", &[x], &[Attr::Ints("perm", perm)])
}

/// `[batch, tokens, heads, d / heads]`, as a node.
fn heads_shape(config: &Gpt2Config, g: &mut Nodes, scope: &str, (batch, tokens): &(String, String)) -> String {
    let (batch, tokens) = (g.unsqueeze(scope, batch), g.unsqueeze(scope, tokens));
    let rest = g.ints(scope, &[-1]);
    let width = g.ints(scope, &[(config.width / config.heads) as i64]);
    g.node(scope, "Concat", &[&batch, &tokens, &rest, &width], &[Attr::Int("axis", 0)])
}

/// Scores over the root of a head's width, which is computed from the values' shape.
fn scaled(g: &mut Nodes, scope: &str, scores: &str, v: &str) -> String {
    let width = g.sliced_size(scope, v, -1, i64::MAX);
    let width = g.node(scope, "Cast", &[&width], &[Attr::Int("to", FLOAT.into())]);
    let root = g.with_float(scope, "Pow", &width, 0.5);
    let no_axes = g.ints(scope, &[]);
    let zero = Attr::Tensor("value", tensor(&[1], FLOAT, &0f32.to_le_bytes()).into());
    let zero = g.node(scope, "ConstantOfShape", &[&no_axes], &[zero]);
    let root = g.node(scope, "Add", &[&zero, &root], &[]);
    g.node(scope, "Div", &[scores, &root], &[])
}

/// The rows and columns of a causal table that this call needs.
fn mask(config: &Gpt2Config, g: &mut Nodes, scope: &str, q: &str, k: &str) -> String {
    let queries = g.sliced_size(scope, q, -2, -1);
    let keys = g.sliced_size(scope, k, -2, -1);
    let past = g.node(scope, "Sub", &[&keys, &queries], &[]);
    let table = g.causal_table(scope, config.context);
    let axis = g.ints(scope, &[2]);
    let (past, end) = (g.unsqueeze(scope, &past), g.unsqueeze(scope, &keys));
    let step = g.ints(scope, &[1]);
    let rows = g.node(scope, "Slice", &[&table, &past, &end, &axis, &step], &[]);
    let (axis, start) = (g.ints(scope, &[3]), g.ints(scope, &[0]));
    let end = g.unsqueeze(scope, &keys);
    let step = g.ints(scope, &[1]);
    g.node(scope, "Slice", &[&rows, &start, &end, &axis, &step], &[])
}

fn activation(config: &Gpt2Config, g: &mut Nodes, scope: &str, x: &str) -> String {
    match config.activation {
        Activation::Relu => g.node(scope, "Relu", &[x], &[]),
        Activation::Silu => {
            let gate = g.node(scope, "Sigmoid", &[x], &[]);
            g.node(scope, "Mul", &[x, &gate], &[])
        }
        Activation::GeluQuick => {
            let gate = g.with_float(scope, "Mul", x, 1.702);
            let gate = g.node(scope, "Sigmoid", &[&gate], &[]);
            g.node(scope, "Mul", &[x, &gate], &[])
        }
        Activation::GeluErf => {
            let y = g.with_float(scope, "Div", x, std::f32::consts::SQRT_2);
            let y = g.node(scope, "Erf", &[&y], &[]);
            let y = g.with_float(scope, "Add", &y, 1.0);
            let y = g.node(scope, "Mul", &[x, &y], &[]);
            g.with_float(scope, "Mul", &y, 0.5)
        }
        Activation::GeluTanh => {
            let half = g.with_float(scope, "Mul", x, 0.5);
            let cube = g.with_float(scope, "Pow", x, 3.0);
            let cube = g.with_float(scope, "Mul", &cube, 0.044715);
            let y = g.node(scope, "Add", &[x, &cube], &[]);
            let y = g.with_float(scope, "Mul", &y, 0.797_884_6);
            let y = g.node(scope, "Tanh", &[&y], &[]);
            let y = g.with_float(scope, "Add", &y, 1.0);
            g.node(scope, "Mul", &[&half, &y], &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_published_models() {
        let million = |config: Gpt2Config| (config.parameters() as f64 / 1e6).round();
        assert_eq!(million(Gpt2Config::SMALL), 124.0);
        assert_eq!(million(Gpt2Config::MEDIUM), 355.0);
        assert_eq!(million(Gpt2Config::LARGE), 774.0);
    }

    #[test]
    fn the_same_configuration_gives_the_same_bytes() {
        let one = bytes(&Gpt2Config::TINY).expect("a model");
        assert_eq!(one, bytes(&Gpt2Config::TINY).expect("a model"));
        assert_ne!(one, bytes(&Gpt2Config { seed: 2, ..Gpt2Config::TINY }).expect("a model"));
    }

    #[test]
    fn normals_are_normal() {
        let mut normals = Normals::new(7, 0);
        let all: Vec<f64> = (0..100_000).map(|_| f64::from(normals.next())).collect();
        let mean = all.iter().sum::<f64>() / 1e5;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e5;
        let tail = all.iter().filter(|x| x.abs() > 1.96).count() as f64 / 1e5;
        assert!(
            mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02 && (tail - 0.05).abs() < 0.003,
            "{mean} {variance} {tail}"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(bytes(&Gpt2Config { heads: 5, ..Gpt2Config::TINY }).is_err());
        assert!(bytes(&Gpt2Config { opset: 12, ..Gpt2Config::TINY }).is_err());
        assert!(bytes(&Gpt2Config { layers: 0, ..Gpt2Config::TINY }).is_err());
    }
}
