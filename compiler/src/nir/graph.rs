//! A NIR graph, and how it is written to a file.
//!
//! The root has a string `version` and a group `node`; whatever stands in a node's group is a field of it, and readers take no other.
//! Strings have a fixed length, and data are contiguous, but for large matrices that are nearly all zeros: these are compressed.

use hdf5_pure::{FileBuilder, GroupBuilder};
use snnc_ir::{Diagnostic, ErrorCode};

/// The version of NIR that files say they have.
const VERSION: &str = "1.0";

/// Elements of a matrix that is never compressed: readers take longer for what is.
const DENSE_MAX: usize = 1 << 16;

/// One element in so many is not 0 where a matrix is compressed.
const SPARSE: usize = 32;

/// Rows that are compressed together.
const CHUNK: u64 = 64;

/// A node of a NIR graph. Neurons' numbers are by neuron; times are in seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum NirNode {
    /// Where signals come in, of this width.
    Input(usize),
    /// Where signals leave.
    Output(usize),
    /// `W x`.
    Linear {
        /// `[outputs, inputs]`.
        weight: Vec<f32>,
        /// How many outputs.
        outputs: usize,
    },
    /// `W x + b`.
    Affine {
        /// `[outputs, inputs]`.
        weight: Vec<f32>,
        /// By output.
        bias: Vec<f32>,
    },
    /// `s x`.
    Scale {
        /// By channel.
        scale: Vec<f32>,
    },
    /// `dv/dt = r I`; a spike above the threshold, then the reset.
    If {
        /// Resistances.
        r: Vec<f32>,
        /// When it spikes, and what it is then.
        firing: Firing,
    },
    /// `tau dv/dt = leak - v + r I`: the potential itself.
    Li {
        /// How the potential moves.
        leak: Leak,
    },
    /// The same with spikes.
    Lif {
        /// How the potential moves.
        leak: Leak,
        /// When it spikes, and what it is then.
        firing: Firing,
    },
    /// The same behind a current, `tau_syn di/dt = w_in I - i`.
    CubaLif {
        /// Time constants of the current.
        tau_syn: Vec<f32>,
        /// What inputs are multiplied by.
        w_in: Vec<f32>,
        /// How the potential moves.
        leak: Leak,
        /// When it spikes, and what it is then.
        firing: Firing,
    },
}

/// `tau dv/dt = rest - v + r I`.
#[derive(Clone, Debug, PartialEq)]
pub struct Leak {
    /// Time constants.
    pub tau: Vec<f32>,
    /// Resistances.
    pub r: Vec<f32>,
    /// Potentials at rest.
    pub rest: Vec<f32>,
}

/// A spike above the threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    /// Thresholds.
    pub threshold: Vec<f32>,
    /// Potentials after a spike. Where all are 0 they are not written: readers of old versions do not know them.
    pub reset: Vec<f32>,
}

impl Firing {
    /// Thresholds with resets to 0.
    pub fn to_zero(threshold: Vec<f32>) -> Self {
        Self { reset: vec![0.0; threshold.len()], threshold }
    }
}

/// A graph. What several nodes give to one is summed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NirGraph {
    /// Nodes by name, in order.
    pub nodes: Vec<(String, NirNode)>,
    /// Names of nodes: what gives, and what takes.
    pub edges: Vec<[String; 2]>,
}

impl NirNode {
    /// How NIR calls the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            NirNode::Input(_) => "Input",
            NirNode::Output(_) => "Output",
            NirNode::Linear { .. } => "Linear",
            NirNode::Affine { .. } => "Affine",
            NirNode::Scale { .. } => "Scale",
            NirNode::If { .. } => "IF",
            NirNode::Li { .. } => "LI",
            NirNode::Lif { .. } => "LIF",
            NirNode::CubaLif { .. } => "CubaLIF",
        }
    }

    /// Channels that it gives.
    pub fn width(&self) -> usize {
        match self {
            NirNode::Input(width) | NirNode::Output(width) => *width,
            NirNode::Linear { outputs, .. } => *outputs,
            NirNode::Affine { bias, .. } => bias.len(),
            NirNode::Scale { scale } => scale.len(),
            NirNode::If { r, .. } => r.len(),
            NirNode::Li { leak } | NirNode::Lif { leak, .. } | NirNode::CubaLif { leak, .. } => leak.r.len(),
        }
    }

    /// Whether it sends spikes.
    pub fn spikes(&self) -> bool {
        matches!(self, NirNode::If { .. } | NirNode::Lif { .. } | NirNode::CubaLif { .. })
    }

    fn write(&self, group: &mut GroupBuilder) -> Result<(), hdf5_pure::Error> {
        string(group, "type", self.type_name())?;
        match self {
            NirNode::Input(width) | NirNode::Output(width) => {
                group.create_dataset("shape").with_i64_data(&[*width as i64]).with_shape(&[1]);
            }
            NirNode::Linear { weight, outputs } => matrix(group, weight, *outputs),
            NirNode::Affine { weight, bias } => {
                matrix(group, weight, bias.len());
                list(group, "bias", bias);
            }
            NirNode::Scale { scale } => list(group, "scale", scale),
            NirNode::If { r, firing } => {
                list(group, "r", r);
                firing.write(group);
            }
            NirNode::Li { leak } => leak.write(group, "tau"),
            NirNode::Lif { leak, firing } => {
                leak.write(group, "tau");
                firing.write(group);
            }
            NirNode::CubaLif { tau_syn, w_in, leak, firing } => {
                list(group, "tau_syn", tau_syn);
                leak.write(group, "tau_mem");
                firing.write(group);
                list(group, "w_in", w_in);
            }
        }
        Ok(())
    }
}

impl Leak {
    fn write(&self, group: &mut GroupBuilder, tau: &str) {
        list(group, tau, &self.tau);
        list(group, "r", &self.r);
        list(group, "v_leak", &self.rest);
    }
}

impl Firing {
    fn write(&self, group: &mut GroupBuilder) {
        list(group, "v_threshold", &self.threshold);
        if self.reset.iter().any(|v| *v != 0.0) {
            list(group, "v_reset", &self.reset);
        }
    }
}

fn list(group: &mut GroupBuilder, name: &str, data: &[f32]) {
    group.create_dataset(name).with_f32_data(data).with_shape(&[data.len() as u64]);
}

fn matrix(group: &mut GroupBuilder, weight: &[f32], outputs: usize) {
    let (rows, columns) = (outputs as u64, (weight.len() / outputs.max(1)) as u64);
    let set = group.create_dataset("weight").with_f32_data(weight).with_shape(&[rows, columns]);
    // Gains are a diagonal, and a diagonal of thousands is nearly all zeros.
    if weight.len() > DENSE_MAX && weight.iter().filter(|w| **w != 0.0).count() < weight.len() / SPARSE {
        set.with_chunks(&[rows.min(CHUNK), columns]).with_deflate(1);
    }
}

/// A string without an axis.
fn string(group: &mut GroupBuilder, name: &str, text: &str) -> Result<(), hdf5_pure::Error> {
    group.create_dataset(name).with_strings(&[text])?.with_shape(&[]);
    Ok(())
}

impl NirGraph {
    /// The file's bytes.
    ///
    /// # Errors
    /// It has more than HDF5 can hold.
    pub fn bytes(&self) -> Result<Vec<u8>, Diagnostic> {
        self.built().map_err(|e| Diagnostic::new("NIR", format!("HDF5: {e}")).code(ErrorCode::EXPORT))
    }

    fn built(&self) -> Result<Vec<u8>, hdf5_pure::Error> {
        let mut file = FileBuilder::new();
        file.create_dataset("version").with_strings(&[VERSION])?.with_shape(&[]);
        let mut root = file.create_group("node");
        string(&mut root, "type", "NIRGraph")?;
        let edges: Vec<&str> = self.edges.iter().flatten().map(String::as_str).collect();
        root.create_dataset("edges").with_strings(&edges)?.with_shape(&[edges.len() as u64 / 2, 2]);
        let mut nodes = root.create_group("nodes");
        for (name, node) in &self.nodes {
            let mut group = nodes.create_group(name);
            node.write(&mut group)?;
            nodes.add_group(group.finish());
        }
        root.add_group(nodes.finish());
        file.add_group(root.finish());
        file.finish()
    }
}
