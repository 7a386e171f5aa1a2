//! Folders with the files that the documentation speaks of, and a shell in them.

use crate::pages::root;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use snnc_tests::{byte_tokenizer, ids, printed, snnc};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// What `cargo` does in a folder: what readers are told to do with it, and nothing else. Tests and builds are what runs this. `EXAMPLES` is
/// where programs of examples lie.
const CARGO: &str = r#"#!/bin/sh
set -eu
case "$*" in
    "run --release -- "*)
        shift 3
        exec snnc "$@" ;;
    "run --release -p snnc-examples --example "*)
        program="EXAMPLES/$6"
        shift 6
        [ "${1-}" != "--" ] || shift
        exec "$program" "$@" ;;
    "test --release --workspace"|"build --release") ;;
    *)
        echo "cargo $*: the documentation may not tell readers to type this" >&2
        exit 1 ;;
esac
"#;

/// Of each text that is cut out of the demo's sample.
const TEXT_BYTES: usize = 8 << 10;

/// Where this profile's programs of examples lie. They are built if one of these is not there.
fn examples(names: &[String]) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let folder = profile.join("examples");
    if names.iter().any(|name| !folder.join(name).is_file()) {
        let name = profile.file_name().and_then(|name| name.to_str()).unwrap();
        let mut build = Command::new(env!("CARGO"));
        // Of the whole workspace, as the tests were, so that nothing is built again for other features.
        build.args(["build", "--workspace", "--examples", "--profile", if name == "debug" { "dev" } else { name }]);
        assert!(build.status().unwrap().success(), "the examples build");
    }
    folder
}

/// Files that all folders have, made once.
pub struct Shelf {
    files: TempDir,
    examples: PathBuf,
}

impl Shelf {
    /// All that the documentation speaks of, programs of these examples among them.
    pub fn new(names: &[String]) -> Self {
        let shelf = Self { examples: examples(names), ..Self::empty() };
        let at = shelf.files.path();
        let tales = root().join("examples/models/tales");
        for name in ["model.onnx", "tokenizer.json"] {
            fs::copy(tales.join(name), at.join(name)).unwrap();
        }
        fs::copy(tales.join("story.txt"), at.join("test.txt")).unwrap();
        // Short texts: what they are good for is not what is tested.
        let text = fs::read_to_string(tales.join("sample.txt")).unwrap();
        let mut lines = text.lines();
        for name in ["sample.txt", "train.txt", "dev.txt"] {
            let mut part = String::new();
            while part.len() < TEXT_BYTES {
                part += lines.next().unwrap();
                part.push('\n');
            }
            fs::write(at.join(name), part).unwrap();
        }
        fs::write(at.join("prompts.txt"), "The river\nOnce upon a time\n").unwrap();
        fs::write(at.join("ids.npy"), npy(&ids(2 * 128, 4096), 128)).unwrap();
        for name in ["my-model", "SmolLM2-135M-Instruct"] {
            write_llama(&at.join(name));
        }
        printed(
            at,
            &["compile", "model.onnx", "-o", "model.snn", "--calibrate", "sample.txt", "--calibration-tokens", "512"],
        );
        printed(at, &["compile", "my-model", "-o", "my-model.snn", "--calibration-tokens", "512"]);
        shelf
    }

    /// Nothing.
    pub fn empty() -> Self {
        Self { files: tempfile::tempdir().unwrap(), examples: PathBuf::new() }
    }
}

/// A folder in which a page's commands run.
pub struct Sandbox(TempDir);

impl Sandbox {
    pub fn new(shelf: &Shelf) -> Self {
        let sandbox = Self(tempfile::tempdir().unwrap());
        let at = sandbox.0.path();
        copy(shelf.files.path(), at);
        fs::create_dir(at.join("bin")).unwrap();
        symlink(snnc(), at.join("bin/snnc")).unwrap();
        symlink(root().join("examples"), at.join("examples")).unwrap();
        let cargo = at.join("bin/cargo");
        fs::write(&cargo, CARGO.replace("EXAMPLES", &shelf.examples.display().to_string())).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        sandbox
    }

    /// Runs a command as a shell does that ends at the first failure.
    pub fn run(&self, command: &str) -> Output {
        let at = self.0.path();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", command]).current_dir(at).stdin(Stdio::null());
        shell.env("PATH", format!("{}:{path}", at.join("bin").display())).env("HOME", at).env("NO_COLOR", "1");
        shell.output().unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A NumPy file of token ids, int32 `[texts, width]`.
fn npy(ids: &[u32], width: usize) -> Vec<u8> {
    let texts = ids.len() / width;
    let mut header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({texts}, {width}), }}");
    // Magic, version and length take 10 bytes; data begin at a multiple of 64.
    header += &" ".repeat(63 - (10 + header.len()) % 64);
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    bytes
}

/// A Hugging Face folder of a small Llama with random weights, a tokenizer of bytes and a chat template. It stands for the folders that a
/// reader has.
fn write_llama(folder: &Path) {
    const WIDTH: usize = 32;
    const HIDDEN: usize = 64;
    const LAYERS: usize = 2;
    const VOCABULARY: usize = 257;
    fs::create_dir(folder).unwrap();
    let mut shapes: Vec<(String, Vec<usize>)> = vec![("model.embed_tokens".into(), vec![VOCABULARY, WIDTH])];
    for layer in 0..LAYERS {
        let square = vec![WIDTH, WIDTH];
        for (name, shape) in [
            ("input_layernorm", vec![WIDTH]),
            ("self_attn.q_proj", square.clone()),
            ("self_attn.k_proj", square.clone()),
            ("self_attn.v_proj", square.clone()),
            ("self_attn.o_proj", square.clone()),
            ("post_attention_layernorm", vec![WIDTH]),
            ("mlp.gate_proj", vec![HIDDEN, WIDTH]),
            ("mlp.up_proj", vec![HIDDEN, WIDTH]),
            ("mlp.down_proj", vec![WIDTH, HIDDEN]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}"), shape));
        }
    }
    shapes.push(("model.norm".into(), vec![WIDTH]));
    let numbers = |(name, shape): &(String, Vec<usize>)| -> Vec<u8> {
        let drawn = ids(shape.iter().product(), 2001);
        let number = |&id: &u32| if name.ends_with("norm") { 1.0 } else { (id as f32 - 1000.0) / 4000.0 };
        drawn.iter().map(number).flat_map(f32::to_le_bytes).collect()
    };
    let data: Vec<Vec<u8>> = shapes.iter().map(numbers).collect();
    let views: BTreeMap<String, TensorView> = (shapes.iter().zip(&data))
        .map(|((name, shape), bytes)| {
            (format!("{name}.weight"), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        })
        .collect();
    fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": VOCABULARY,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": true,
        "rope_theta": 10000.0, "bos_token_id": 256, "eos_token_id": 256,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), byte_tokenizer()).unwrap();
    let template = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}[assistant] ";
    let tokenizer = json!({ "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "chat_template": template });
    fs::write(folder.join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
}
