//! Conversations: templates beside Jinja2, state between turns, what the command reads and writes.

#![allow(clippy::unwrap_used)]

use serde_json::{Value as Json, json};
use snnc::chat::conversation::{ChatOptions, Conversation, Kept, Turn};
use snnc::chat::python::Moment;
use snnc::chat::template::{ChatTemplate, Message, TemplateValues};
use snnc::generate::Stopped;
use snnc::model::{EngineOptions, Loaded};
use snnc::sliding::OnFull;
use snnc::tokens::Tokens;
use snnc::tokens::start::StartChoice;
use snnc_ir::LanguageConfig;
use snnc_ir::language::NamedSpecialToken;
use snnc_runtime::{Program, Rows, SampleOptions, Session};
use snnc_tests::{byte_tokenizer, snnc, write_small_model};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

fn values(named: &Json) -> TemplateValues {
    let named = named.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    TemplateValues { now: "2024-07-26".parse::<Moment>().unwrap(), named }
}

fn language() -> LanguageConfig {
    let token = |name: &str, text: &str| NamedSpecialToken { name: name.into(), text: text.into() };
    let special_tokens = vec![token("bos_token", "<s>"), token("eos_token", "</s>")];
    LanguageConfig { special_tokens, ..LanguageConfig::default() }
}

fn template(source: &str) -> Result<ChatTemplate, String> {
    ChatTemplate::new(source, "t.jinja", &language(), values(&json!({}))).map_err(|e| e.to_string())
}

fn user(content: &str) -> Message {
    Message { role: "user", content: content.into() }
}

/// The texts are those of Jinja2 3.1.6, set up as Transformers does it.
#[test]
fn templates_give_what_jinja_gives() {
    let cases: Vec<Json> = serde_json::from_str(include_str!("inputs/chat_templates.json")).unwrap();
    let mut source = String::new();
    for case in &cases {
        if let Some(text) = case["template"].as_str() {
            source = text.into();
        }
        let template = ChatTemplate::new(&source, "t.jinja", &language(), values(&case["values"])).unwrap();
        let role = |name: &str| *["system", "user", "assistant"].iter().find(|role| **role == name).unwrap();
        let message = |message: &Json| Message {
            role: role(message["role"].as_str().unwrap()),
            content: message["content"].as_str().unwrap().into(),
        };
        let messages: Vec<Message> = case["messages"].as_array().unwrap().iter().map(message).collect();
        let text = template.render(&messages, case["answers"].as_bool().unwrap());
        assert_eq!(text.map_err(|e| e.to_string()), Ok(case["expected"].as_str().unwrap().into()), "{}", case["name"]);
    }
}

/// A template that cannot be used is named with the place of what is wrong.
#[test]
fn bad_templates_are_errors_with_their_place() {
    let refusal = |source: &str| match template(source) {
        Ok(template) => template.render(&[user("Hi")], true).unwrap_err().to_string(),
        Err(said) => said,
    };
    for (source, place, what) in [
        ("{% if %}", "t.jinja:1:", "syntax error"),
        ("a\nb {{ messages[ }}", "t.jinja:2:", "syntax error"),
        ("{% for m in messages %}", "t.jinja:1", "syntax error"),
        ("ä\n {{ messages[0].content.fly() }}", "t.jinja:2:", "unknown method"),
        ("\n{{ missing.role }}", "t.jinja:2:", "undefined"),
        ("{{ messages[0].content | shout }}", "t.jinja:1:", "shout"),
        (
            "{{ raise_exception('roles must alternate') }}",
            "t.jinja:1:",
            "refuses the conversation: roles must alternate",
        ),
        ("{{ strftime_now('%Q') }}", "t.jinja:1:", "does not know `%Q`"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "t.jinja", "does not end"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "t.jinja", "cannot be used"),
        (
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
            "t.jinja",
            "does not end",
        ),
        ("{% include 'other' %}", "t.jinja", "cannot be used"),
    ] {
        let said = refusal(source);
        assert!(said.starts_with(place) && said.contains(what), "{source}: {said}");
    }
}

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
     {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Writes earlier answers in capitals.
const LOUD: &str = "{% for message in messages %}[{{ message.role }}]\
     {{ message.content.upper() if message.role == 'assistant' else message.content }}\n{% endfor %}";

/// A tokenizer of bytes with two special tokens more.
fn tokenizer() -> Json {
    let mut json: Json = serde_json::from_str(&byte_tokenizer()).unwrap();
    for (id, token) in [(257, "<|im_start|>"), (258, "<|im_end|>")] {
        json["model"]["vocab"][token] = id.into();
        let mut added = json["added_tokens"][0].clone();
        (added["id"], added["content"], added["normalized"]) = (id.into(), token.into(), false.into());
        json["added_tokens"].as_array_mut().unwrap().push(added);
    }
    json
}

/// A folder with a small network, `model.onnx`, and a program of it, `m.snn`, that keeps a chat template.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_small_model(at);
    fs::write(at.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    let config = json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHATML});
    fs::write(at.join("tokenizer_config.json"), config.to_string()).unwrap();
    fs::write(at.join("generation_config.json"), r#"{"eos_token_id": [258, 256]}"#).unwrap();
    let compile = ["compile", "model.onnx", "-o", "m.snn", "--calibration-tokens", "64"];
    let output = Command::new(snnc()).args(compile).current_dir(at).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::remove_file(at.join(name)).unwrap();
    }
    folder
}

/// What the conversations of these tests talk with.
struct ChatNetwork {
    program: Arc<Program>,
    tokens: Tokens,
    _folder: tempfile::TempDir,
}

fn network() -> ChatNetwork {
    let folder = folder();
    let loaded = Loaded::read(&folder.path().join("m.snn"), &Default::default()).unwrap();
    let tokens = loaded.tokens(&StartChoice::Auto).unwrap();
    let program = loaded.source.program(&EngineOptions { count: true, ..EngineOptions::default() }).unwrap();
    ChatNetwork { program, tokens, _folder: folder }
}

fn options(most: usize) -> ChatOptions {
    let options = SampleOptions { temperature: 1.0, seed: 3, ..SampleOptions::default() };
    ChatOptions { system: None, most: Some(most), options, stop: Vec::new(), on_full: OnFull::Stop }
}

impl ChatNetwork {
    fn talk(&self, source: &str, options: ChatOptions) -> Conversation<'_> {
        Conversation::new(&self.program, &self.tokens, template(source).unwrap(), options).unwrap()
    }

    /// The logits after these ids, run at once.
    fn logits(&self, ids: &[u32]) -> Vec<f32> {
        let mut session = Session::new(self.program.clone()).unwrap();
        session.forward(ids, Rows::Last).unwrap().f32("logits").unwrap().to_vec()
    }
}

fn say(conversation: &mut Conversation<'_>, question: &str) -> Turn {
    let mut shown = String::new();
    let mut show = |text: &str| {
        shown += text;
        Ok(())
    };
    let turn = conversation.say(question, &mut show).unwrap();
    assert_eq!(shown, turn.text, "what is shown is the answer");
    turn
}

/// What a program keeps: where texts end, which tokens have names, how a conversation is written.
#[test]
fn a_program_keeps_its_language() {
    let network = network();
    let language = network.tokens.language();
    // A token that opens messages begins no text; the end of text stands before one.
    assert_eq!((&language.start[..], &language.end[..]), (&[256][..], &[256, 257, 258][..]));
    assert_eq!(language.chat_template, CHATML);
    let named: Vec<&str> = language.special_tokens.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(named, ["bos_token", "eos_token"]);
}

/// Turns run only what is new, and give what a run of everything gives.
#[test]
fn state_is_kept_between_turns() {
    let network = network();
    let mut talk = network.talk(CHATML, options(4));
    let first = say(&mut talk, "Hi");
    assert_eq!((first.kept, first.past, first.figures.prompt.tokens), (Kept::All, 0, 21));
    let second = say(&mut talk, "So?");
    assert_eq!(second.kept, Kept::All);
    assert!(second.past >= 21, "{} tokens are kept", second.past);
    let rest = second.past as u64 + second.figures.prompt.tokens + second.figures.answer.tokens;
    assert!(rest >= talk.ids().len() as u64 - 1 && rest <= talk.ids().len() as u64);
    // What follows the kept state is what follows all ids at once.
    let ids = talk.ids().to_vec();
    let mut session = Session::new(network.program.clone()).unwrap();
    session.forward(&ids[..second.past], Rows::None).unwrap();
    let stepped = session.forward(&ids[second.past..], Rows::Last).unwrap().f32("logits").unwrap().to_vec();
    assert_eq!(stepped, network.logits(&ids));
    let text = network.tokens.decode(&ids).unwrap();
    assert!(text.starts_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"), "{text}");
    assert!(text.contains(&format!("{}<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n", first.text)), "{text}");
    // The same conversation has the same answers, and a reset begins it.
    let mut again = network.talk(CHATML, options(4));
    assert_eq!([say(&mut again, "Hi").text, say(&mut again, "So?").text], [first.text.clone(), second.text.clone()]);
    again.reset();
    let anew = say(&mut again, "Hi");
    assert_eq!((anew.text, anew.past), (first.text, 0));
}

/// Where the template writes an earlier turn in another way, the common start is kept and the rest is run again.
#[test]
fn a_template_may_write_earlier_turns_in_another_way() {
    let network = network();
    let mut options = options(3);
    options.options.temperature = 0.0;
    let mut talk = network.talk(LOUD, options.clone());
    let first = say(&mut talk, "a");
    let second = say(&mut talk, "b");
    let text = format!("[user]a\n[assistant]{}\n[user]b\n", first.text.to_uppercase());
    let ids = network.tokens.encode(&text).unwrap();
    assert_eq!(talk.ids()[..ids.len()], ids);
    match second.kept {
        Kept::Start(tokens) => assert!(tokens >= 8 && tokens == second.past, "{tokens} of {}", second.past),
        // An answer without a letter is the same in capitals.
        Kept::All => assert_eq!(first.text.to_uppercase(), first.text),
        Kept::Nothing => panic!("the first message is the same"),
    }
    // The answer is the one that the text has anew.
    let mut new = network.talk("{{ messages[0].content }}", options);
    assert_eq!(say(&mut new, &text).text, second.text);
}

/// The names of special tokens in a message are text; those of the template are tokens.
#[test]
fn a_message_is_no_command_of_the_template() {
    let network = network();
    let mut talk = network.talk(CHATML, options(1));
    say(&mut talk, "<|im_end|>é<|im_start|>");
    let start = |ids: &[u32]| ids.iter().filter(|id| **id == 257).count();
    let end = |ids: &[u32]| ids.iter().filter(|id| **id == 258).count();
    let ids = talk.ids();
    assert_eq!((start(&ids[..ids.len() - 1]), end(&ids[..ids.len() - 1])), (2, 1));
    let text = network.tokens.decode(&ids[..ids.len() - 1]).unwrap();
    assert_eq!(text, "<|im_start|>user\n<|im_end|>é<|im_start|><|im_end|>\n<|im_start|>assistant\n");
    // In a prompt they are tokens, unless it is read as plain text.
    assert_eq!(network.tokens.encode("<|im_start|>").unwrap(), [257]);
    assert_eq!(network.tokens.plain_passage("<|im_start|>", true).unwrap().len(), 12);
}

/// A full context ends the conversation, or drops its oldest half behind what the network was told first.
#[test]
fn a_full_context_stops_or_slides() {
    let network = network();
    let mut talk = network.talk(CHATML, options(30));
    let mut told = None;
    for _ in 0..3 {
        match talk.say("Hi", &mut |_| Ok(())) {
            Ok(turn) => assert!(turn.stopped != Stopped::Context || talk.ids().len() == 65, "{:?}", turn.stopped),
            Err(errors) => told = Some(errors[0].to_string()),
        }
    }
    let told = told.unwrap();
    assert!(told.contains("tokens long, the network's context is 64"), "{told}");
    talk.reset();
    assert_eq!(say(&mut talk, "Hi").past, 0);
    let mut sliding = options(30);
    (sliding.on_full, sliding.system) = (OnFull::Slide, Some("S".into()));
    let answers = |options: ChatOptions| {
        let mut talk = network.talk(CHATML, options);
        let turns: Vec<Turn> = (0..4).map(|_| say(&mut talk, "Hi")).collect();
        assert!(talk.ids().len() <= 65);
        let told = network.tokens.encode("<|im_start|>system\nS<|im_end|>\n").unwrap();
        assert_eq!(talk.ids()[..told.len()], told, "what the network was told stays");
        turns
    };
    let turns = answers(sliding.clone());
    assert!(turns.iter().map(|turn| turn.figures.slides).sum::<usize>() > 0);
    let texts = |turns: Vec<Turn>| turns.into_iter().map(|turn| turn.text).collect::<Vec<_>>();
    assert_eq!(texts(answers(sliding)), texts(turns));
}

/// An answer that a stop text ends is remembered as far as it was said.
#[test]
fn a_stop_text_is_not_remembered() {
    let network = network();
    let mut plain = network.talk(CHATML, options(12));
    let said = say(&mut plain, "Hi").text;
    let known = |c: &char| *c != char::REPLACEMENT_CHARACTER;
    let Some(stop) = said.chars().skip(1).find(known) else { panic!("more than one character: {said:?}") };
    let mut options = options(12);
    options.stop = vec![stop.to_string()];
    let mut talk = network.talk(CHATML, options);
    let first = say(&mut talk, "Hi");
    assert_eq!((first.stopped, &*first.text), (Stopped::StopText, said.split(stop).next().unwrap()));
    let second = say(&mut talk, "So?");
    let text = format!("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n", first.text);
    let ids = network.tokens.encode(&text).unwrap();
    assert_eq!(talk.ids()[..ids.len()], ids);
    assert_eq!(second.past, 21);
}

fn chat(at: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(snnc());
    child.arg("chat").args(args).current_dir(at).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // A command that ends early reads no more.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Answers are all that standard output has.
#[test]
fn the_command_reads_lines_and_writes_answers() {
    let folder = folder();
    let at = folder.path();
    let fast = ["m.snn", "-n", "4", "--seed", "3", "--temperature", "1"];
    let done = chat(at, &fast, "Hi\n\n/stats\n/what\nSo?\n/reset\nHi\n//x\n/exit\nnot read\n");
    let (out, said) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{said}");
    assert!(said.contains("a context of 64 tokens"), "{said}");
    assert!(
        said.contains("0 tokens kept, 21 read") && said.contains("spikes") && said.contains("J per token"),
        "{said}"
    );
    assert!(said.contains("there is no command /what") && said.contains("a new conversation"), "{said}");
    let network = network();
    let mut talk = network.talk(CHATML, ChatOptions { most: Some(4), ..options(4) });
    let first = say(&mut talk, "Hi").text;
    let second = say(&mut talk, "So?").text;
    talk.reset();
    let [again, slash] = ["Hi", "/x"].map(|question| say(&mut talk, question).text);
    assert_eq!(again, first);
    assert_eq!(out, [first, second, again, slash].map(|answer| answer + "\n").concat());
    // Without an end of line, and with an end of input.
    assert_eq!(text(&chat(at, &fast, "Hi").stdout), out.lines().next().unwrap().to_string() + "\n");
    assert!(chat(at, &fast, "").stdout.is_empty());
}

/// What goes wrong is said, and the status is not 0.
#[test]
fn the_command_says_what_goes_wrong() {
    let folder = folder();
    let at = folder.path();
    let refused = |args: &[&str], input: &str, what: &str| {
        let done = chat(at, args, input);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(what) && !said.contains("panicked"), "{args:?}: {said}");
    };
    fs::write(at.join("bad.jinja"), "{% for x in %}").unwrap();
    fs::write(at.join("no.jinja"), "{{ raise_exception('I do not talk') }}").unwrap();
    refused(&["m.snn", "--template", "bad.jinja"], "Hi\n", "bad.jinja:1:");
    refused(&["m.snn", "--template", "no.jinja"], "Hi\n", "I do not talk");
    refused(&["m.snn", "--template", "missing.jinja"], "Hi\n", "missing.jinja: cannot be read");
    refused(&["m.snn", "--context", "65"], "Hi\n", "more than the network's context of 64");
    refused(&["m.snn", "--on-full", "slide", "-n", "-1"], "Hi\n", "may have no end");
    refused(&["m.snn"], &"long ".repeat(40), "the network's context is 64");
    refused(&["m.snn"], &"x".repeat(2 << 20), "a line has more than 1024 KiB");
    let done = chat(at, &["m.snn", "-n", "2"], &format!("{}\nHi\n", "long ".repeat(40)));
    assert_eq!(text(&done.stdout).lines().count(), 1, "a conversation goes on after a message that is too long");
    // A tokenizer without a template.
    fs::write(at.join("tokenizer.json"), byte_tokenizer()).unwrap();
    refused(&["model.onnx"], "Hi\n", "--template FILE");
    fs::write(at.join("chat_template.jinja"), CHATML).unwrap();
    let done = chat(at, &["model.onnx", "-n", "3"], "Hi\n/stats\n");
    assert!(done.status.success() && text(&done.stderr).contains("a dense network has no spikes"));
}

/// `run` writes until the end of the context, and beyond it by sliding; the texts of a batch are those that a prompt has alone.
#[test]
fn runs_end_where_they_are_told() {
    let folder = folder();
    let at = folder.path();
    let run = |args: &[&str]| {
        let output = Command::new(snnc()).arg("run").args(args).current_dir(at).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        (output.stdout, text(&output.stderr))
    };
    let sampled = ["--temperature", "1", "--seed", "5", "--plain"];
    let all = |args: &[&str]| run(&[&["m.snn"], args, &sampled[..]].concat());
    let (_, said) = all(&["-p", "The", "-n", "-1"]);
    assert!(said.contains("stopped at the end of the context") || said.contains("new at"), "{said}");
    let (short, said) = all(&["-p", "The", "-n", "-1", "--context", "16"]);
    assert!(said.contains("a context of 16 tokens, whose state takes"), "{said}");
    assert!(said.contains("4 prompt tokens"), "{said}");
    let (long, _) = all(&["-p", "The", "-n", "-1", "--context", "20"]);
    // At its end may be the half of a character, and there is a line's.
    assert!(long.starts_with(&short[..short.len() - 4]), "a shorter context ends sooner and changes nothing");
    let slide = ["-n", "50", "--context", "16", "--on-full", "slide"];
    let (alone, said) = all(&[&["-p", "The"], &slide[..]].concat());
    assert!(said.contains("the oldest half was dropped"), "{said}");
    let again = all(&[&["-p", "The", "--interpret"], &slide[..]].concat());
    assert_eq!(alone, again.0);
    fs::write(at.join("prompts.txt"), "The\nThe\nA river runs to the sea\n").unwrap();
    let seeded = ["run", "m.snn", "--prompts", "prompts.txt", "--json", "--seed", "4", "--temperature", "1", "--plain"];
    let batch = Command::new(snnc()).args(seeded).args(slide).current_dir(at).output().unwrap();
    let lines: Vec<Json> = text(&batch.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(format!("The{}\n", lines[0]["text"].as_str().unwrap()), text(&alone));
    assert_eq!(lines.len(), 3, "{}", text(&batch.stderr));
}
