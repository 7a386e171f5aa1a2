//! Bad input ends in a clear error, the right status and untouched files: the command as a user meets it.

#![allow(clippy::unwrap_used)]

use prost::Message;
use snnc_ir::op::ArrayOp;
use snnc_ir::{Builder, Dim, Op, Shape, Stage, Tensor, container};
use snnc_onnx::proto::{
    DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};
use snnc_tests::{call, demo_model};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The call fails with `status`, says `words`, does not panic and leaves no file behind.
fn refused(folder: &Path, args: &[&str], status: i32, words: &str) {
    let list = || fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    let mut before = list();
    let output = call(folder, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    assert!(stderr.contains(words), "{args:?} should say `{words}`, it says: {stderr}");
    for name in args.iter().filter(|name| name.contains('.')) {
        assert!(!stderr.contains(&format!("{name}: {name}")), "{args:?} names the place once: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    let mut after = list();
    before.sort();
    after.sort();
    assert_eq!(before, after, "{args:?} leaves the folder as it was");
}

fn fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = fs::read(demo_model()).unwrap();
    fs::write(folder.path().join("model.onnx"), &model).unwrap();
    fs::write(folder.path().join("truncated.onnx"), &model[..model.len() / 2]).unwrap();
    fs::write(folder.path().join("text.onnx"), "this is no model").unwrap();
    fs::write(folder.path().join("empty.onnx"), "").unwrap();
    // The same file with one operator that nobody knows.
    let at = model.windows(7).position(|w| w == b"Softmax").unwrap();
    let mut unknown = model.clone();
    for at in (at..unknown.len() - 7).filter(|&at| &model[at..at + 7] == b"Softmax").collect::<Vec<_>>() {
        unknown[at..at + 7].copy_from_slice(b"Softmux");
    }
    fs::write(folder.path().join("unknown.onnx"), unknown).unwrap();
    folder
}

#[test]
fn files_that_are_no_model() {
    let folder = fixture();
    let at = folder.path();
    for (file, words) in [
        ("missing.onnx", "missing.onnx"),
        ("text.onnx", "text.onnx"),
        ("empty.onnx", "empty.onnx"),
        ("truncated.onnx", "truncated.onnx"),
        ("unknown.onnx", "Softmux"),
    ] {
        refused(at, &["compile", file, "-o", "out.snn"], 1, words);
    }
    let conv = no_transformer();
    fs::write(at.join("conv.onnx"), conv).unwrap();
    refused(at, &["compile", "conv.onnx", "-o", "out.snn"], 1, "convolutions (first at conv1)");
}

/// A well-formed ONNX file of one convolution.
fn no_transformer() -> Vec<u8> {
    let size = |n| DimensionProto { dim_value: Some(n), ..Default::default() };
    let tensor_type =
        TensorTypeProto { elem_type: 1, shape: Some(TensorShapeProto { dim: [1, 3, 8, 8].map(size).into() }) };
    let port = |name: &str| ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type.clone()) }),
    };
    let node = NodeProto {
        input: vec!["x".into(), "x".into()],
        output: vec!["y".into()],
        name: "conv1".into(),
        op_type: "Conv".into(),
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![node],
        name: "cnn".into(),
        input: vec![port("x")],
        output: vec![port("y")],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { version: 17, ..Default::default() };
    let model = ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![opset], ..Default::default() };
    model.encode_to_vec()
}

/// Files of prompts that are none, and one: each line is continued as if alone, in the order of the file.
fn prompts(at: &Path, long: &str) {
    let run = ["run", "full.snn", "--max-new-tokens", "6", "--temperature", "1"];
    let of = |file: &'static str| [&run[..], &["--prompts", file]].concat();
    refused(at, &of("missing.txt"), 1, "missing.txt: cannot be read");
    fs::write(at.join("none.txt"), "\n\n").unwrap();
    refused(at, &of("none.txt"), 1, "none.txt: has no prompts");
    fs::write(at.join("bytes.txt"), [b'a', 0xff]).unwrap();
    refused(at, &of("bytes.txt"), 1, "bytes.txt: is not UTF-8 text");
    fs::write(at.join("long.txt"), format!("The\n{long}\n")).unwrap();
    refused(at, &of("long.txt"), 1, "long.txt:2: the prompt is");
    refused(at, &["run", "full.snn"], 2, "--prompt");
    refused(at, &[&of("none.txt")[..], &["--batch", "0"]].concat(), 2, "--batch");
    refused(at, &[&run[..], &["--prompt", "x", "--json"]].concat(), 2, "cannot be used with");

    fs::write(at.join("prompts.txt"), "The river\n\nIn 1900 , a\nThe\n").unwrap();
    let written = |batch: &str, more: &[&str]| {
        let output = call(at, &[&of("prompts.txt")[..], &["--seed", "5", "--batch", batch], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (lines, texts) = (written("2", &["--json"]), written("2", &[]));
    let without_run = |lines: &str| {
        let line = |line: &str| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("run");
            line
        };
        lines.lines().map(line).collect::<Vec<serde_json::Value>>()
    };
    let one = written("1", &["--json"]);
    assert_eq!(without_run(&lines), without_run(&one), "how many share a pass does not show");
    for (line, (seed, prompt)) in lines.lines().zip([("6", "The river"), ("8", "In 1900 , a"), ("9", "The")]) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let alone = call(at, &[&run[..], &["--prompt", prompt, "--seed", seed]].concat());
        let text = line["text"].as_str().unwrap();
        assert_eq!(line["prompt"], prompt);
        assert_eq!((&line["tokens"], &line["stopped"]), (&6.into(), &"max-new-tokens".into()));
        assert_eq!(String::from_utf8(alone.stdout).unwrap(), format!("{prompt}{text}\n"));
        assert!(texts.contains(&format!(": {prompt}\n{text}\n\n")), "{texts}");
    }
    assert_eq!(lines.lines().count(), 3);
}

/// Kinds of attention are compiled, measured, accounted for and timed beyond the context; what needs training says so.
fn attention(at: &Path, tokenizer: &str) {
    for kind in ["linear,0=coincidence", "lif:spikes,1-2=topk:9,3=lif"] {
        let compile =
            ["compile", "model.onnx", "-o", "kind.snn", "--calibration-tokens", "256", "--tokenizer", tokenizer];
        let compiled = call(at, &[&compile[..], &["--attention", kind]].concat());
        let told = String::from_utf8_lossy(&compiled.stderr).into_owned();
        assert!(compiled.status.success() && told.contains("is not trained"), "{kind}: {told}");
        let eval = [
            "eval",
            "kind.snn",
            "--text",
            "text.txt",
            "--reference",
            "model.onnx",
            "--ledger",
            "--ledger-tokens",
            "64",
        ];
        let output = call(at, &eval);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && told.contains("h.3.attention "), "{kind}: {told}");
        for args in [&eval[..], &["run", "kind.snn", "--prompt", "x", "-n", "1"], &["report", "kind.snn"]] {
            let warned = String::from_utf8_lossy(&call(at, args).stderr).into_owned();
            assert!(warned.contains("untrained: the program: attention of"), "{args:?}: {warned}");
        }
        fs::remove_file(at.join("kind.html")).unwrap();
        let bench = ["bench", "kind.snn", "--context", "400", "--depths", "300", "--prompts", "16", "--decoded", "2"];
        let output = call(at, &bench);
        assert!(String::from_utf8_lossy(&output.stdout).contains("decoding past 300"), "{kind}");
    }
    refused(at, &["bench", "kind.snn", "--context", "0"], 2, "--context");
}

/// A figure worse than the baseline is told by status 3; a baseline that is none is refused.
fn bench(at: &Path) {
    let bench = [
        "bench",
        "bare.snn",
        "--prompts",
        "16",
        "--depths",
        "128",
        "--decoded",
        "8",
        "--repeats",
        "1",
        "--json",
        "--batches",
        "2",
    ];
    let output = call(at, &bench);
    assert!(output.status.success());
    let mut figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for name in ["load_ms", "decode_tokens_per_s"] {
        assert!(figures[name].as_f64().is_some_and(|x| x > 0.0), "{name} in {figures}");
    }
    let batched = &figures["collapsed"]["batched"][0];
    assert!(batched["at"] == 2 && batched["tokens_per_s"].as_f64().is_some_and(|x| x > 0.0), "{batched}");
    assert!(figures["prefill_1024_tokens_per_s"].is_null(), "the context is shorter");
    fs::write(at.join("slow.json"), figures.to_string().replace("decode_", "other_")).unwrap();
    figures["decode_tokens_per_s"] = serde_json::json!(1e12);
    fs::write(at.join("fast.json"), figures.to_string()).unwrap();
    let against = |file: &str, most: &str| {
        call(at, &[&bench[..], &["--baseline", file, "--max-regress", most]].concat()).status.code()
    };
    assert_eq!(against("fast.json", "50%"), Some(3));
    assert_eq!(against("slow.json", "100000%"), Some(0));
    refused(at, &["bench", "bare.snn", "--baseline", "text.txt"], 1, "is no JSON");
    // A second pinned pool has as many processors as the first.
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(2)).to_string();
    if cfg!(target_os = "linux") {
        let pinned = call(at, &[&bench[..], &["--pin", "--stepped", "--threads", &threads]].concat());
        assert_eq!(pinned.status.code(), Some(0), "{}", String::from_utf8_lossy(&pinned.stderr));
    }
    refused(at, &["bench", "model.onnx"], 1, "compile it first");
    refused(at, &["bench", "bare.snn", "--density", "2"], 2, "from 0 to 1");
}

/// Sizes that have 2^128 + 2^23 elements have not 2^23.
#[test]
fn sizes_beyond_all_integers_are_refused() {
    let sizes = [50_077_472, 63_786_336, 59_285_648, 36_589_088, 49_109_808];
    let mut b = Builder::new(Stage::Imported, 8);
    let weight = b.weight("w", Arc::new(Tensor::f32(&[1 << 23], vec![0.0; 1 << 23])));
    let reshape = Op::Array(ArrayOp::Reshape(Shape::new(&sizes.map(Dim::Fixed))));
    let error = b.add(reshape, &[weight], "").unwrap_err();
    assert!(error.to_string().contains("more elements than can be counted"), "{error}");
}

/// What cannot be asked of `compile`: outputs, options and kinds of attention.
#[test]
fn options_of_compile() {
    let folder = fixture();
    let at = folder.path();
    refused(at, &["compile", "model.onnx", "-o", "no/such/folder/out.snn"], 1, "cannot be written");
    refused(at, &["compile", "model.onnx", "-o", "."], 1, "is a folder");
    #[cfg(unix)]
    refused(at, &["compile", "model.onnx", "-o", "/dev/null"], 1, "is a device");
    refused(at, &["compile", "model.onnx", "--timesteps", "0"], 2, "--timesteps");
    refused(at, &["compile", "model.onnx", "--timesteps", "40", "-o", "out.snn"], 1, "at most 16 timesteps");
    refused(at, &["compile", "model.onnx", "--bogus"], 2, "--bogus");
    refused(at, &["compile", "model.onnx", "--timesteps", "4,=5", "-o", "out.snn"], 2, "is not SITE=VALUE");
    refused(at, &["compile", "model.onnx", "--timesteps", "4,mpl=5", "-o", "out.snn"], 1, "names no site");
    refused(at, &["compile", "model.onnx", "--code", "ternary", "-o", "out.snn"], 2, "there is no code `ternary`");
    refused(at, &["compile", "model.onnx", "--neuron", "hodgkin_huxley", "-o", "out.snn"], 2, "there is no neuron");
    for (kind, status, words) in [
        ("sigmoid", 2, "there is no attention `sigmoid`"),
        ("topk:0", 2, "there is no attention `topk:0`"),
        ("4-2=linear", 2, "names no layers"),
        ("4=linear", 1, "layers are 0 to 3"),
        ("mlp=linear", 1, "names no attention"),
    ] {
        refused(at, &["compile", "model.onnx", "-o", "out.snn", "--attention", kind], status, words);
    }
    for (kind, dense) in [("linear", "h.1.v"), ("coincidence", "q"), ("lif:spikes", "h.3.out")] {
        let compile = ["compile", "model.onnx", "-o", "out.snn", "--attention", kind, "--dense", dense];
        refused(at, &compile, 1, "cannot stay dense");
    }
    refused(at, &["tune", "model.onnx", "--text", "text.onnx", "--budget", "1%"], 2, "perplexity+1%");
    refused(at, &["eval", "model.onnx", "--text", "text.onnx", "--ledger"], 2, "--reference");
}

/// Compiles the model of `folder`, which has no tokenizer, to `bare.snn`.
fn compile_bare(at: &Path) {
    let compiled = call(at, &["compile", "model.onnx", "-o", "bare.snn", "--calibration-tokens", "256"]);
    assert!(compiled.status.success());
    assert!(String::from_utf8_lossy(&compiled.stderr).contains("seeded random ids"), "compile without one warns");
}

/// Without a tokenizer there is no text; ids are checked; a failed compilation leaves an older output as it is.
#[test]
fn a_program_without_a_tokenizer() {
    let folder = fixture();
    let at = folder.path();
    refused(at, &["run", "model.onnx", "--prompt", "x"], 1, "no tokenizer");
    refused(at, &["compile", "model.onnx", "-o", "out.snn", "--calibrate", "text.onnx"], 1, "no tokenizer");
    compile_bare(at);
    refused(at, &["run", "bare.snn", "--prompt", "x"], 1, "no tokenizer");
    fs::write(at.join("text.txt"), "The river runs to the sea . ").unwrap();
    refused(at, &["eval", "bare.snn", "--text", "text.txt"], 1, "no tokenizer");
    refused(at, &["compile", "bare.snn", "-o", "out.snn"], 1, "is compiled already");
    refused(at, &["logits", "bare.snn", "--tokens", "4096", "-o", "out.npy"], 1, "4096");
    refused(at, &["logits", "bare.snn", "--tokens", "1,x", "-o", "out.npy"], 2, "invalid value");
    let before = fs::read(at.join("bare.snn")).unwrap();
    refused(at, &["compile", "truncated.onnx", "-o", "bare.snn"], 1, "truncated.onnx");
    assert!(fs::read(at.join("bare.snn")).unwrap() == before);
    bench(at);
    changed_bytes(at);
}

/// A byte changed anywhere is noticed.
fn changed_bytes(at: &Path) {
    let good = fs::read(at.join("bare.snn")).unwrap();
    let mut step = 0;
    for i in (0..good.len()).step_by(good.len() / 100) {
        let mut bad = good.clone();
        bad[(i + step) % good.len()] ^= 1 << (step % 8);
        step += 1;
        if step % 25 == 0 {
            fs::write(at.join("bad.snn"), &bad).unwrap();
            refused(at, &["show", "bad.snn"], 1, "bad.snn");
        }
        assert!(container::read(Arc::new(bad)).is_err(), "a change near byte {i}");
    }
}

/// Prompts that are too long, and limits that fail: status 3, and what was measured is printed all the same.
#[test]
fn prompts_and_limits() {
    let folder = fixture();
    let at = folder.path();
    let tokenizer = demo_model().with_file_name("tokenizer.json");
    let long = "river ".repeat(300);
    let compile = ["compile", "model.onnx", "-o", "full.snn", "--calibration-tokens", "256", "--tokenizer"];
    let named = tokenizer.display().to_string();
    assert!(call(at, &[&compile[..], &[named.as_str()]].concat()).status.success());
    refused(at, &["run", "full.snn", "--prompt", &long], 1, "the network's context is 256");
    prompts(at, &long);
    fs::write(at.join("text.txt"), "The river runs to the sea . ".repeat(20)).unwrap();
    let measure = |more: &[&str]| {
        let eval = ["eval", "full.snn", "--text", "text.txt", "--reference", "model.onnx"];
        let output = call(at, &[&eval[..], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).contains("perplexity"))
    };
    fs::copy(&tokenizer, at.join("tokenizer.json")).unwrap();
    assert_eq!(measure(&["--max-perplexity-increase", "50%", "--min-agreement", "0.5"]), (Some(0), true));
    assert_eq!(measure(&["--max-perplexity-increase=-50%"]), (Some(3), true));
    assert_eq!(measure(&["--min-cosine", "1"]), (Some(3), true));
    labels(at);
    attention(at, &named);
    much_worse(at, &named);
}

/// What is compared is called what it is; options that mean nothing for a file are refused.
fn labels(at: &Path) {
    let eval = ["eval", "full.snn", "--reference", "full.snn", "--text", "text.txt"];
    let told = String::from_utf8_lossy(&call(at, &eval).stdout).into_owned();
    assert!(told.contains("perplexity, spiking reference") && !told.contains("dense"), "{told}");
    let json: serde_json::Value = serde_json::from_slice(&call(at, &[&eval[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!(json["reference"], "spiking");
    refused(at, &[&eval[..], &["--ledger"]].concat(), 1, "--reference is a spiking program");
    refused(at, &["show", "full.snn", "--until", "fold"], 1, "there is no pass `fold` here");
    refused(at, &["energy", "full.snn", "--firing-rate", "50"], 1, "more than the 7 timesteps");
    assert!(call(at, &["show", "full.snn", "--until", "tie_embedding"]).status.success());
}

/// A network that predicts much worse than its reference is warned of.
fn much_worse(at: &Path, tokenizer: &str) {
    let text = snnc::convert::BUILT_IN_TEXT.get(..4096).unwrap();
    fs::write(at.join("long.txt"), text).unwrap();
    for (steps, worse) in [("1", true), ("7", false)] {
        let compile =
            ["compile", "model.onnx", "-o", "coarse.snn", "--timesteps", steps, "--calibration-tokens", "512"];
        assert!(call(at, &[&compile[..], &["--tokenizer", tokenizer]].concat()).status.success());
        for args in [
            &["eval", "coarse.snn", "--reference", "model.onnx", "--text", "long.txt"][..],
            &["report", "coarse.snn", "--reference", "model.onnx", "--text", "long.txt", "-o", "page.html"],
        ] {
            let warned = String::from_utf8_lossy(&call(at, args).stderr).into_owned();
            assert_eq!(warned.contains("% above the reference's"), worse, "{args:?}, {steps} timesteps: {warned}");
        }
    }
}
