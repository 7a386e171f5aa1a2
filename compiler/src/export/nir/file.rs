//! A NIR file: a graph of nodes, in HDF5.
//!
//! The root has a string `version` and a group `node`; whatever stands in a node's group is a field of it, and readers take no other.
//! Data are contiguous and strings have a fixed length, which every reader takes.

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

/// A node of a NIR graph. Neurons' numbers are by neuron.
#[derive(Clone, Debug, PartialEq)]
pub enum NirNode {
    /// Where signals come in, of this width.
    Input(usize),
    /// Where signals leave.
    Output(usize),
    /// `W x + b`.
    Affine {
        /// `[outputs, inputs]`.
        weight: Vec<f32>,
        /// By output.
        bias: Vec<f32>,
    },
    /// `dv/dt = r I`, a spike above the threshold, then 0.
    If {
        /// Resistances.
        r: Vec<f32>,
        /// Thresholds.
        threshold: Vec<f32>,
    },
    /// `tau dv/dt = leak - v + r I`: the potential itself.
    Li {
        /// Time constants, in seconds.
        tau: Vec<f32>,
        /// Resistances.
        r: Vec<f32>,
        /// Potentials at rest.
        leak: Vec<f32>,
    },
    /// `tau dv/dt = leak - v + r I`, a spike above the threshold, then 0.
    Lif {
        /// Time constants, in seconds.
        tau: Vec<f32>,
        /// Resistances.
        r: Vec<f32>,
        /// Potentials at rest.
        leak: Vec<f32>,
        /// Thresholds.
        threshold: Vec<f32>,
    },
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
            NirNode::Affine { .. } => "Affine",
            NirNode::If { .. } => "IF",
            NirNode::Li { .. } => "LI",
            NirNode::Lif { .. } => "LIF",
        }
    }

    fn write(&self, group: &mut GroupBuilder) -> Result<(), hdf5_pure::Error> {
        string(group, "type", self.type_name())?;
        let list = |group: &mut GroupBuilder, name: &str, data: &[f32]| {
            group.create_dataset(name).with_f32_data(data).with_shape(&[data.len() as u64]);
        };
        match self {
            NirNode::Input(width) | NirNode::Output(width) => {
                group.create_dataset("shape").with_i64_data(&[*width as i64]).with_shape(&[1]);
            }
            NirNode::Affine { weight, bias } => {
                let inputs = weight.len() / bias.len().max(1);
                let (outputs, inputs) = (bias.len() as u64, inputs as u64);
                let set = group.create_dataset("weight").with_f32_data(weight).with_shape(&[outputs, inputs]);
                // Gains are a diagonal, and a diagonal of thousands is nearly all zeros.
                if weight.len() > DENSE_MAX && weight.iter().filter(|w| **w != 0.0).count() < weight.len() / SPARSE {
                    set.with_chunks(&[outputs.min(CHUNK), inputs]).with_deflate(1);
                }
                list(group, "bias", bias);
            }
            NirNode::If { r, threshold } => {
                list(group, "r", r);
                list(group, "v_threshold", threshold);
            }
            NirNode::Li { tau, r, leak } => {
                list(group, "tau", tau);
                list(group, "r", r);
                list(group, "v_leak", leak);
            }
            NirNode::Lif { tau, r, leak, threshold } => {
                list(group, "tau", tau);
                list(group, "r", r);
                list(group, "v_leak", leak);
                list(group, "v_threshold", threshold);
            }
        }
        Ok(())
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
        self.built().map_err(|e| Diagnostic::new("--to nir", format!("HDF5: {e}")).code(ErrorCode::EXPORT))
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
