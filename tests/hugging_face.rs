//! Hugging Face folders: their logits beside references and beside ONNX exports, and what is said of folders that are none.

#![allow(clippy::unwrap_used)]

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value as Json, json};
use snnc::describe::Network;
use snnc::front::{self, OnnxOptions};
use snnc::model::Loaded;
use snnc_ir::Graph;
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::random::SplitMix64;
use snnc_passes::Context;
use snnc_passes::options::Rotations;
use snnc_passes::rotate::rotate;
use snnc_runtime::{Engine, Options};
use snnc_tests::reference::{Reference, npy, safetensors};
use snnc_tests::{byte_tokenizer, documented, options, run, shared, snnc, spiking_cosine};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tensor to be written: its sizes and its elements.
type WrittenFolder = (Vec<usize>, Vec<f32>);

fn loaded(path: &Path) -> Graph {
    Loaded::read(path, &OnnxOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display())).source.graph
}

/// Logits by the meaning of the program.
fn meant(graph: &Graph, ids: &[u32]) -> Vec<f32> {
    let evaluator = Evaluator::<f32>::new(graph);
    let done = evaluator.run(ids, &mut Memory::new(graph)).unwrap_or_else(|e| panic!("{e}"));
    evaluator.get(&done, graph.output("logits").unwrap()).reals().to_vec()
}

/// Logits by an engine.
fn ran(graph: &Graph, options: Options, pieces: &[&[u32]]) -> Vec<f32> {
    run(&snnc::convert::raise(graph.clone(), false).unwrap(), options, pieces).logits()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The texts of a reference, and what they are to give.
fn texts(ids: &Reference, logits: &Reference) -> Vec<(Vec<u32>, Vec<f32>)> {
    let ids = ids.data.chunks(ids.sizes[1]).map(|row| row.iter().map(|&id| id as u32).collect());
    let per_text = logits.data.len() / logits.sizes[0];
    ids.zip(logits.data.chunks(per_text).map(<[f32]>::to_vec)).collect()
}

/// What engines and the program's meaning are from the reference, at most.
fn compare(name: &str, graph: &Graph, texts: &[(Vec<u32>, Vec<f32>)], most: f32) {
    for (ids, wanted) in texts {
        let meaning = meant(graph, ids);
        let difference = far(&meaning, wanted);
        assert!(difference < most, "{name}: the meaning differs by {difference}");
        for engine in [Engine::Jit, Engine::Interpreter] {
            let (first, rest) = ids.split_at(ids.len() / 3);
            let got = ran(graph, options(engine), &[first, rest]);
            assert_eq!(got, meaning, "{name}: {engine:?} differs from the meaning");
        }
    }
}

/// The folder of folders that are in the repository.
fn own_folders() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/folders")
}

/// Folders of references below a folder, by name.
fn folders(root: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), path);
    let mut all: Vec<(String, PathBuf)> =
        entries.filter(|path| path.join("ref_logits.npy").is_file()).map(named).collect();
    all.sort();
    all
}

/// Compares every folder with its reference, and its spiking program with it. What was measured, as rows of a table.
fn compare_folders(root: &Path) -> String {
    let mut rows = String::new();
    for (name, folder) in folders(root) {
        let texts = texts(&npy(&folder.join("ref_input_ids.npy")), &npy(&folder.join("ref_logits.npy")));
        let graph = loaded(&folder);
        compare(&name, &graph, &texts, 1e-4);
        let difference = texts.iter().map(|(ids, wanted)| far(&meant(&graph, ids), wanted)).fold(0.0, f32::max);
        let parts: BTreeMap<&str, String> = Network::of(&graph).unwrap().lines().into_iter().collect();
        let cosine = spiking_cosine(&graph, graph.clone(), false).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(cosine >= 0.99, "{name}: {cosine}");
        let config: Json = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
        let kind = config["model_type"].as_str().unwrap();
        let [positions, norms, mlp] = ["positions", "norms", "mlp"].map(|part| &parts[part]);
        rows += &format!("| {name} | `{kind}` | {positions} | {norms} | {mlp} | {difference:.1e} | {cosine:.4} |\n");
    }
    rows
}

#[test]
fn folders_give_the_logits_of_their_references() {
    let Some(root) = shared("hf") else { return };
    compare_folders(&root);
}

/// Networks of many families and settings, made by `inputs/folders/make.py`.
#[test]
fn folders_of_many_families_give_the_logits_of_the_library() {
    let rows = compare_folders(&own_folders());
    let head = "| folder | `model_type` | positions | norms | MLP | largest difference | spiking, cosine |\n|---|---|---|---|---|---|---|\n";
    documented("models.md", "folders", &[head, &rows].concat());
}

/// Networks whose residual stream does not turn: its norms act on it per channel, or on what is added to it.
const STAY: [&str; 5] = ["bloom", "bloom_6_heads", "olmo2", "openai_gpt", "opt_post_norm"];

/// The residual stream and heads of every family turn, and logits stay; where the stream cannot turn, heads do.
#[test]
fn folders_are_rotated() {
    let mut all = folders(&own_folders());
    all.extend(shared("hf").iter().flat_map(|root| folders(root)));
    for (name, folder) in all {
        let tensor = snnc::convert::dense(loaded(&folder), false, &mut |_, _, _| {}).unwrap();
        let of = |residual| {
            let rotations = Rotations { residual, heads: true, hidden: false };
            rotate(&tensor, &Context { rotations, ..Context::default() })
        };
        let stays = STAY.contains(&name.as_str());
        let rotated = match (of(true), stays) {
            (Ok(rotated), false) => rotated,
            (Err(_), true) => of(false).unwrap_or_else(|e| panic!("{name}: {e}")),
            (Ok(_), true) => panic!("{name} turns"),
            (Err(e), false) => panic!("{name}: {e}"),
        };
        let (ids, _) = texts(&npy(&folder.join("ref_input_ids.npy")), &npy(&folder.join("ref_logits.npy"))).remove(0);
        let (before, after) = (meant(&tensor, &ids), meant(&rotated, &ids));
        let range = before.iter().fold(0f32, |most, x| most.max(x.abs()));
        let difference = far(&before, &after);
        assert!(difference <= 1e-4 * range, "{name}: logits differ by {difference} of {range}");
    }
}

/// Trained networks of which both are there: the folder and its ONNX export predict the same.
#[test]
fn a_folder_and_its_export_give_the_same_logits() {
    for (name, folder, ids) in [("tales", "hf", "ref_input_ids.npy"), ("stories260k", ".", "ref_input_ids.npy")] {
        let Some(root) = shared(&format!("models/{name}")) else { continue };
        let folder = loaded(&root.join(folder));
        let export = snnc::convert::raise(loaded(&root.join("model.onnx")), false).unwrap();
        let ids = npy(&root.join(ids));
        let logits = npy(&root.join("ref_logits.npy"));
        for (ids, wanted) in texts(&ids, &logits) {
            let [ours, theirs] = [&folder, &export].map(|graph| ran(graph, options(Engine::Jit), &[&ids]));
            assert!(far(&ours, &theirs) < 1e-4, "{name}: {}", far(&ours, &theirs));
            assert!(far(&ours, &wanted) < 1e-3, "{name}: {}", far(&ours, &wanted));
        }
    }
}

/// The folder that an export was made from: weights of its products lie in the order of their use.
fn write_folder_of_export(folder: &Path, export: &Path, config: &Json, order: &[&str]) {
    let model = snnc_onnx::read::read(export).unwrap();
    let arrays = &model.graph.initializers;
    let mut tensors: BTreeMap<String, WrittenFolder> = BTreeMap::new();
    for (name, array) in arrays.iter().filter(|(name, _)| name.starts_with("m.")) {
        let name = name.trim_start_matches("m.").replace("lm_head", order[order.len() - 1]);
        if let (Some(numbers), false) = (array.as_f32(), name.ends_with(".bias") && array.rank() == 2) {
            tensors.insert(name, (array.sizes().to_vec(), numbers.to_vec()));
        }
    }
    let number = |name: &str| name.rsplit(['_', '.']).next().and_then(|n| n.parse::<usize>().ok());
    let mut products: Vec<(usize, &String)> = arrays
        .iter()
        .filter(|(name, array)| !name.starts_with("m.") && array.rank() == 2 && array.as_f32().is_some())
        .filter_map(|(name, _)| Some((number(name)?, name)))
        .collect();
    products.sort_unstable();
    let names = &order[..order.len() - 1];
    let layers = config.get("n_layer").unwrap_or(&config["num_hidden_layers"]).as_u64().unwrap() as usize;
    let untied = usize::from(config["tie_word_embeddings"] == json!(false));
    for (i, (_, name)) in products.iter().take(layers * names.len() + untied).enumerate() {
        let array = &arrays[*name];
        let [inputs, outputs] = *array.sizes() else { panic!("{name}") };
        let numbers = array.as_f32().unwrap();
        let column = |o: usize| (0..inputs).map(move |i| i * outputs + o);
        // Exporters turn weights to `[inputs, outputs]`.
        let lies = (0..outputs).flat_map(column).map(|at| numbers[at]).collect();
        let sizes = vec![outputs, inputs];
        let layer = i / names.len();
        let to = if layer < layers { names[i % names.len()] } else { "lm_head" };
        let to = to.replace("{layer}", &layer.to_string());
        tensors.insert(format!("{to}.weight"), (sizes, lies));
    }
    write(folder, config, &tensors, Dtype::F32);
}

fn write(folder: &Path, config: &Json, tensors: &BTreeMap<String, WrittenFolder>, dtype: Dtype) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, numbers))| {
            let bytes = numbers.iter().flat_map(|&x| match dtype {
                Dtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
                Dtype::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
                _ => x.to_le_bytes().to_vec(),
            });
            (name, bytes.collect())
        })
        .collect();
    let views =
        tensors.iter().map(|(name, (sizes, _))| (name, TensorView::new(dtype, sizes.clone(), &bytes[name]).unwrap()));
    fs::write(folder.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// Families and settings of which no folder is there, from their exports: multi-query attention in one tensor, biases
/// everywhere, scaled rotary positions of an untied network.
#[test]
fn folders_made_of_exports_give_the_logits_of_the_exports() {
    let Some(root) = shared("flavours2") else { return };
    const LLAMA: [&str; 8] = [
        "model.layers.{layer}.self_attn.q_proj",
        "model.layers.{layer}.self_attn.k_proj",
        "model.layers.{layer}.self_attn.v_proj",
        "model.layers.{layer}.self_attn.o_proj",
        "model.layers.{layer}.mlp.gate_proj",
        "model.layers.{layer}.mlp.up_proj",
        "model.layers.{layer}.mlp.down_proj",
        "lm_head",
    ];
    const BIGCODE: [&str; 5] = [
        "transformer.h.{layer}.attn.c_attn",
        "transformer.h.{layer}.attn.c_proj",
        "transformer.h.{layer}.mlp.c_fc",
        "transformer.h.{layer}.mlp.c_proj",
        "transformer.wte",
    ];
    let llama = json!({
        "model_type": "llama", "vocab_size": 208, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true,
    });
    let mut llama3 = llama.clone();
    llama3["rope_theta"] = json!(500000.0);
    llama3["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    });
    for key in ["tie_word_embeddings", "attention_bias", "mlp_bias"] {
        llama3[key] = json!(false);
    }
    let bigcode = json!({
        "model_type": "gpt_bigcode", "vocab_size": 208, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 80,
        "n_positions": 96, "activation_function": "gelu_pytorch_tanh", "multi_query": true,
    });
    for (file, config, order) in [
        ("llama_bias_legacy_op17_nocache", &llama, &LLAMA[..]),
        ("llama3_legacy_op17_nocache", &llama3, &LLAMA),
        ("gpt_bigcode_dynamo_op18_nocache", &bigcode, &BIGCODE),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_folder_of_export(folder.path(), &root.join(format!("{file}.onnx")), config, order);
        let reference = safetensors(&root.join(format!("{file}.io.safetensors")));
        let of = |prefix: &str| reference.iter().find(|(name, _)| name.starts_with(prefix)).unwrap().1;
        compare(file, &loaded(folder.path()), &texts(of("in."), of("out.logits")), 1e-4);
    }
}

/// A small Llama with two layers.
fn small() -> (Json, BTreeMap<String, WrittenFolder>) {
    llama(16, 24)
}

/// A Llama with two layers of so many channels, and MLPs of so many.
fn llama(width: usize, hidden: usize) -> (Json, BTreeMap<String, WrittenFolder>) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 260, "hidden_size": width, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": hidden, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
        "bos_token_id": 256, "eos_token_id": 256, "transformers_version": "4.51.3",
    });
    let mut sizes = vec![("model.embed_tokens".to_string(), vec![260, width]), ("model.norm".into(), vec![width])];
    for layer in 0..2 {
        let part = |name: &str, sizes: &[usize]| (format!("model.layers.{layer}.{name}"), sizes.to_vec());
        sizes.extend([
            part("input_layernorm", &[width]),
            part("post_attention_layernorm", &[width]),
            part("self_attn.q_proj", &[width, width]),
            part("self_attn.k_proj", &[width / 2, width]),
            part("self_attn.v_proj", &[width / 2, width]),
            part("self_attn.o_proj", &[width, width]),
            part("mlp.gate_proj", &[hidden, width]),
            part("mlp.up_proj", &[hidden, width]),
            part("mlp.down_proj", &[width, hidden]),
        ]);
    }
    let mut random = SplitMix64(7);
    let mut number = || (random.bits() % 2001) as f32 / 2000.0 - 0.5;
    let tensors = sizes.into_iter().map(|(name, sizes)| {
        let norm = sizes.len() == 1;
        let numbers = (0..sizes.iter().product()).map(|_| number() + if norm { 1.0 } else { 0.0 }).collect();
        (format!("{name}.weight"), (sizes, numbers))
    });
    (config, tensors.collect())
}

/// Weights of 16 bits become f32 as they are read, and lie in files where memory is short: the program has the same bytes.
#[test]
fn weights_of_16_bits_lie_in_files_as_well() {
    let (config, tensors) = llama(512, 768);
    for dtype in [Dtype::BF16, Dtype::F16] {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::create_dir(at.join("net")).unwrap();
        write(&at.join("net"), &config, &tensors, dtype);
        let compile = ["compile", "net", "--calibration-tokens", "128"];
        let run = |more: &[&str]| {
            let (status, _, told) = call(at, &[&compile[..], more].concat());
            assert_eq!(status, Some(0), "{told}");
            told
        };
        assert!(!run(&["-o", "free.snn"]).contains("lay in files"));
        let told = run(&["-o", "limited.snn", "--max-memory", "44M"]);
        assert!(told.contains("lay in files"), "{dtype:?}: {told}");
        assert!(fs::read(at.join("free.snn")).unwrap() == fs::read(at.join("limited.snn")).unwrap(), "{dtype:?}");
        assert_eq!(fs::read_dir(at).unwrap().count(), 3, "nothing else is left");
    }
}

fn write_small(folder: &Path) {
    let (config, tensors) = small();
    write(folder, &config, &tensors, Dtype::F32);
}

/// Halves of both kinds are the numbers that they are, and f32 that lie off a multiple of four are copied.
#[test]
fn how_numbers_are_stored_does_not_show() {
    let (config, tensors) = small();
    let ids: Vec<u32> = (0..20).map(|i| i * 13 % 260).collect();
    let at = |dtype: Dtype, tensors: &BTreeMap<String, WrittenFolder>| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &config, tensors, dtype);
        meant(&loaded(folder.path()), &ids)
    };
    for (dtype, round) in
        [(Dtype::F16, (|x| f16::from_f32(x).to_f32()) as fn(f32) -> f32), (Dtype::BF16, |x| bf16::from_f32(x).to_f32())]
    {
        let rounded = tensors.iter().map(|(name, (sizes, numbers))| {
            (name.clone(), (sizes.clone(), numbers.iter().map(|&x| round(x)).collect()))
        });
        assert_eq!(at(dtype, &tensors), at(Dtype::F32, &rounded.collect()), "{dtype:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &config, &tensors, Dtype::F32);
    let path = folder.path().join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let moved = [&(header as u64 + 1).to_le_bytes()[..], &file[8..8 + header], b" ", &file[8 + header..]].concat();
    fs::write(&path, moved).unwrap();
    assert_eq!(meant(&loaded(folder.path()), &ids), at(Dtype::F32, &tensors));
}

/// Base models lack the prefix of names, and old ones hold tables of what the configuration says.
#[test]
fn names_with_and_without_a_prefix_are_one_network() {
    let (config, mut tensors) = small();
    let ids = [1, 2, 3, 250];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &config, &tensors, Dtype::F32);
    let wanted = meant(&loaded(folder.path()), &ids);
    tensors = tensors.into_iter().map(|(name, tensor)| (name.replacen("model.", "", 1), tensor)).collect();
    tensors.insert("layers.1.self_attn.rotary_emb.inv_freq".into(), (vec![2], vec![1.0, 0.01]));
    write(folder.path(), &config, &tensors, Dtype::F32);
    assert_eq!(meant(&loaded(folder.path()), &ids), wanted);
}

/// A head that is stored although it is tied is not read: that is said where its numbers are others.
#[test]
fn a_tied_head_is_the_table() {
    let (config, mut tensors) = small();
    let folder = tempfile::tempdir().unwrap();
    let warnings = |tensors: &BTreeMap<String, WrittenFolder>| {
        write(folder.path(), &config, tensors, Dtype::F32);
        Loaded::read(folder.path(), &OnnxOptions::default()).unwrap_or_else(|e| panic!("{e}")).warnings
    };
    let mut head = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), head.clone());
    assert_eq!(warnings(&tensors), [""; 0]);
    head.1[3] += 1.0;
    tensors.insert("lm_head.weight".into(), head);
    assert!(warnings(&tensors)[0].contains("`lm_head.weight` are not read"));
}

fn call(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(snnc()).args(args).current_dir(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// `check` refuses the folder `net`, which `make` writes below a temporary one, with these words.
fn refused(make: impl FnOnce(&Path), words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path().join("net");
    fs::create_dir(&net).unwrap();
    make(&net);
    let (status, _, told) = call(folder.path(), &["check", "net"]);
    assert_eq!(status, Some(1), "{words:?}: {told}");
    assert!(!told.contains("panicked"), "{told}");
    for words in words {
        assert!(told.contains(words), "it should say `{words}`, it says: {told}");
    }
}

/// A small folder with another configuration or other tensors.
fn with(change: impl FnOnce(&mut Json, &mut BTreeMap<String, WrittenFolder>)) -> impl FnOnce(&Path) {
    move |net| {
        let (mut config, mut tensors) = small();
        change(&mut config, &mut tensors);
        write(net, &config, &tensors, Dtype::F32);
    }
}

#[test]
fn configurations_that_say_another_network_are_refused() {
    let set = |key: &'static str, value: Json| with(move |config, _| config[key] = value);
    for (key, value, words) in [
        ("model_type", json!("hyena"), &["is hyena, of which there is no description", "--architecture"][..]),
        ("model_type", json!("gemma2"), &["capped softly", "cannot be compiled yet"]),
        ("architectures", json!(["LlamaForSequenceClassification"]), &["LlamaForSequenceClassification"]),
        ("hidden_act", json!("mish"), &["is mish"]),
        ("attn_logit_softcapping", json!(50.0), &["capped softly"]),
        ("quantization_config", json!({"bits": 4}), &["quantised weights"]),
        ("rope_scaling", json!({"rope_type": "longrope"}), &["longrope"]),
        ("num_key_value_heads", json!(3), &["does not divide the 4 heads"]),
        ("num_attention_heads", json!(5), &["does not divide the width 16"]),
        ("hidden_size", json!(-16), &["a whole number from 1"]),
        ("num_hidden_layers", json!(4_000_000_000u64), &["a whole number from 1"]),
        ("num_hidden_layers", json!(1_000_000), &["at most 4096"]),
        ("head_dim", json!(2_147_483_646), &["at most 16384"]),
        ("num_hidden_layers", json!(3), &["are missing", "model.layers.2.input_layernorm.weight [16]"]),
        ("num_hidden_layers", json!(1), &["have no place in the network", "model.layers.1."]),
        ("vocab_size", json!(261), &["model.embed_tokens.weight", "it is [260, 16]", "should be [261, 16]"]),
        ("tie_word_embeddings", json!(false), &["are missing", "lm_head.weight [260, 16]"]),
        ("layer_types", json!(["full_attention", "linear_attention"]), &["the kind linear_attention"]),
        ("rms_norm_eps", json!("1e-5"), &["a number was expected"]),
    ] {
        refused(set(key, value), words);
    }
    let codegen = |config: &mut Json, _: &mut BTreeMap<String, WrittenFolder>| {
        *config = json!({"model_type": "codegen", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 260, "n_positions": 32,
            "rotary_dim": 4});
    };
    refused(with(codegen), &["n_head", "want a multiple of 4"]);
    // All that is in the way is told at once.
    let both = |config: &mut Json, _: &mut BTreeMap<String, WrittenFolder>| {
        (config["hidden_act"], config["clip_qkv"]) = (json!("mish"), json!(8.0));
    };
    refused(with(both), &["hidden_act", "is mish", "clip_qkv"]);
}

#[test]
fn damaged_folders_are_refused() {
    let file = |bytes: fn(Vec<u8>) -> Vec<u8>| {
        move |net: &Path| {
            write_small(net);
            let path = net.join("model.safetensors");
            fs::write(&path, bytes(fs::read(&path).unwrap())).unwrap();
        }
    };
    refused(file(|bytes| bytes[..4].to_vec()), &["header: is missing"]);
    refused(file(|bytes| bytes[..100].to_vec()), &["is it truncated?"]);
    refused(file(|bytes| bytes[..bytes.len() - 1].to_vec()), &["is it truncated?"]);
    refused(file(|bytes| [bytes, vec![0]].concat()), &["its last 1 bytes belong to no tensor"]);
    refused(file(|_| vec![255; 64]), &["this is no safetensors file"]);
    refused(file(|_| Vec::new()), &["header: is missing"]);
    refused(file(|_| b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n".to_vec()), &["git lfs pull"]);
    let number =
        |x: f32| with(move |_, tensors| tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().1[5] = x);
    refused(number(f32::NAN), &["tensor model.layers.1.mlp.up_proj.weight", "it holds NaN (element 5 of 384)"]);
    refused(number(f32::INFINITY), &["it holds an infinity"]);
    let extra = with(|_, tensors| {
        tensors.insert("model.layers.0.self_attn.q_proj.bias".into(), (vec![16], vec![0.0; 16]));
    });
    refused(extra, &["have no place in the network", "model.layers.0.self_attn.q_proj.bias"]);
}

#[test]
fn folders_of_other_files_are_refused() {
    let sharded = |map: Json| {
        move |net: &Path| {
            write_small(net);
            fs::rename(net.join("model.safetensors"), net.join("a.safetensors")).unwrap();
            fs::write(net.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
        }
    };
    refused(sharded(json!({"model.norm.weight": "../net/a.safetensors"})), &["not a name within its folder"]);
    refused(sharded(json!({"model.norm.weight": "b.safetensors"})), &["`b.safetensors`, which is not here"]);
    refused(
        sharded(json!({"model.hat.weight": "a.safetensors"})),
        &["model.hat.weight", "is not in the file a.safetensors"],
    );
    let pickled = |net: &Path| {
        write_small(net);
        fs::rename(net.join("model.safetensors"), net.join("pytorch_model.bin")).unwrap();
    };
    refused(pickled, &["runs code when it is read", "save_pretrained"]);
    let unnamed = |net: &Path| {
        write_small(net);
        fs::remove_file(net.join("config.json")).unwrap();
    };
    refused(unnamed, &["no config.json"]);
    refused(|_| {}, &["holds no network"]);
}

/// A number below `below`.
fn pick(random: &mut SplitMix64, below: usize) -> usize {
    (random.bits() % below as u64) as usize
}

/// Whatever a folder says, it is read or refused with a word, and neither takes long nor panics.
#[test]
fn mutants_of_a_folder_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path();
    let odd = [
        json!(null),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(4096),
        json!(2_147_483_646u64),
        json!(1e300),
        json!(0.5),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
        json!({"rope_type": "yarn", "factor": 1e-300}),
    ];
    let keys = [
        "head_dim",
        "rope_scaling",
        "rope_theta",
        "partial_rotary_factor",
        "layer_types",
        "mlp_bias",
        "attention_bias",
        "architectures",
        "model_type",
    ];
    write_small(net);
    let file = fs::read(net.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let (mut random, mut taken) = (SplitMix64(11), 0);
    for _ in 0..1500 {
        let (mut config, _) = small();
        let known: Vec<String> = config.as_object().unwrap().keys().cloned().chain(keys.map(String::from)).collect();
        let mut bytes = file.clone();
        for _ in 0..1 + pick(&mut random, 2) {
            if pick(&mut random, 2) == 0 {
                config[&known[pick(&mut random, known.len())]] = odd[pick(&mut random, odd.len())].clone();
            } else {
                let at = pick(&mut random, 8 + header);
                bytes[at] = if pick(&mut random, 2) == 0 {
                    random.bits() as u8
                } else {
                    b"0129,:[]{}\"F"[pick(&mut random, 12)]
                };
            }
        }
        fs::write(net.join("config.json"), config.to_string()).unwrap();
        fs::write(net.join("model.safetensors"), bytes).unwrap();
        match front::load(net, &OnnxOptions::default()) {
            Ok(_) => taken += 1,
            Err(told) => assert!(!told.is_empty() && !told[0].message.is_empty(), "{config}"),
        }
    }
    assert!(taken > 50, "{taken} mutants are harmless");
}

#[test]
fn files_of_other_kinds_are_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    write_small(folder.path());
    for (name, bytes, words) in [
        ("a.gguf", &b"GGUF\x03\0\0\0"[..], "Hugging Face folder that it was made from"),
        ("pytorch_model.bin", b"PK\x03\x04rest", "runs code when it is read"),
        ("lfs.onnx", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
        let (status, _, told) = call(folder.path(), &["check", name]);
        assert!(status == Some(1) && told.contains(words), "{name}: {told}");
    }
    let (_, _, told) = call(folder.path(), &["compile", "model.safetensors"]);
    assert!(told.contains("name its folder"), "{told}");
}

/// What commands do with an ONNX file, they do with a folder.
#[test]
fn commands_take_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path().join("tiny-llama-0.1");
    fs::create_dir(&net).unwrap();
    write_small(&net);
    fs::write(net.join("tokenizer.json"), byte_tokenizer()).unwrap();
    fs::write(folder.path().join("text.txt"), "The river runs to the sea, and the road follows it.\n".repeat(40))
        .unwrap();
    let done = |args: &[&str]| {
        let (status, out, told) = call(folder.path(), args);
        assert_eq!(status, Some(0), "{args:?}: {told}");
        (out, told)
    };
    let (out, _) = done(&["check", "tiny-llama-0.1/"]);
    assert!(out.contains("a Hugging Face folder of llama, 20 tensors, transformers 4.51.3"), "{out}");
    let (out, _) = done(&["check", "tiny-llama-0.1", "--json"]);
    let json: Json = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["file"]["architecture"], &json["compilable"]), (&json!("llama"), &json!(true)));
    let (_, told) = done(&["compile", "tiny-llama-0.1", "--calibration-tokens", "256"]);
    assert!(told.contains("a folder has no nodes of its own") && told.contains("tiny-llama-0.1.snn"), "{told}");
    done(&["logits", "tiny-llama-0.1", "--tokens", "1,2,3", "-o", "dense.npy"]);
    done(&["run", "tiny-llama-0.1", "--prompt", "The", "--max-new-tokens", "4"]);
    done(&["eval", "tiny-llama-0.1.snn", "--text", "text.txt", "--reference", "tiny-llama-0.1", "--windows", "2"]);
    done(&["inspect", "tiny-llama-0.1.snn", "--reference", "tiny-llama-0.1"]);
    done(&["show", "tiny-llama-0.1"]);
    let (status, _, told) =
        call(folder.path(), &["compile", "tiny-llama-0.1", "-o", "tiny-llama-0.1/model.safetensors"]);
    assert!(status == Some(1) && told.contains("is a file of the model as well"), "{told}");
    let own = "[mine]\nlike = \"llama\"\n[mine.mlp]\ncurve = \"relu\"\n";
    fs::write(folder.path().join("own.toml"), own).unwrap();
    let (mut config, tensors) = small();
    config["model_type"] = json!("mine");
    write(&net, &config, &tensors, Dtype::F32);
    let (out, _) = done(&["check", "tiny-llama-0.1", "--architecture", "own.toml"]);
    assert!(out.contains("folder of mine") && out.contains("relu"), "{out}");
}
