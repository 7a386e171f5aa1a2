//! `snnc serve`, asked over sockets: texts are those of `snnc run`, whoever else is served; rubbish is refused and frees its place.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use serde_json::{Value as Json, json};
use snnc_tests::browser::{self, Browser};
use snnc_tests::{snnc, write_small_model};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What no answer takes.
const LONG: Duration = Duration::from_secs(30);

/// A template that needs no special tokens.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";

/// A folder with a small program.
fn program() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_small_model(folder.path());
    fs::write(folder.path().join("chat.jinja"), TEMPLATE).unwrap();
    fs::write(folder.path().join("keys.txt"), "# of two people\nkey-of-anna\nkey-of-ben\n").unwrap();
    let done = command(folder.path())
        .args(["compile", "model.onnx", "-o", "m.snn", "--calibration-tokens", "256", "-q"])
        .status()
        .unwrap();
    assert!(done.success());
    folder
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(snnc());
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// A server of `m.snn`.
struct Server {
    child: Child,
    address: String,
    log: Option<thread::JoinHandle<String>>,
}

impl Drop for Server {
    /// Of a test that failed.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let mut child = command(folder)
            .args(["serve", "m.snn", "--port", "0", "--template", "chat.jinja", "-t", "1"])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut head = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the server ended: {head}");
            if let Some((_, rest)) = line.split_once("served at http://") {
                break rest.split(';').next().unwrap().to_string();
            }
            head += &line;
        };
        let log = thread::spawn(move || {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).unwrap();
            rest
        });
        Self { child, address, log: Some(log) }
    }

    /// Sends a request; the status, the head and the body.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let host = if headers.to_lowercase().contains("host:") {
            String::new()
        } else {
            format!("host: {}\r\n", self.address)
        };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A server may close before it has read a body that is too large.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("no answer to {method} {path}")).parse().unwrap();
        let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.into() };
        (status, head.into(), body)
    }

    fn post(&self, path: &str, body: &Json) -> Json {
        let (status, _, text) = self.send("POST", path, "", &body.to_string());
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The status and the message of a request that is refused.
    fn refused(&self, path: &str, body: &str) -> (u16, String) {
        let (status, _, text) = self.send("POST", path, "", body);
        let error: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        (status, error["error"]["message"].as_str().unwrap().into())
    }

    fn figure(&self, name: &str) -> f64 {
        let (_, _, text) = self.send("GET", "/metrics", "", "");
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn waits_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < LONG, "{what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end; what it logged.
    fn end(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        let log = self.log.take().unwrap().join().unwrap();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

fn unchunked(body: &str) -> String {
    let (mut rest, mut whole) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole += &after[..size];
        rest = &after[size + 2..];
    }
    whole
}

/// The events of a stream.
fn events(body: &str) -> Vec<Json> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    assert_eq!(body.lines().filter(|line| *line == "data: [DONE]").count(), 1, "{body}");
    data.filter(|text| *text != "[DONE]").map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// What `snnc run` writes behind a prompt.
fn written(folder: &Path, prompt: &str, more: &[&str]) -> String {
    let done =
        command(folder).args(["run", "m.snn", "-q", "-n", "12", "--prompt", prompt]).args(more).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    text.strip_prefix(prompt).unwrap().strip_suffix('\n').unwrap().to_string()
}

#[test]
fn texts_are_those_of_the_command() {
    let folder = program();
    let server = Server::start(folder.path(), &[]);
    let expected = written(folder.path(), "The river", &[]);
    let answer = server.post("/v1/completions", &json!({"prompt": "The river", "max_tokens": 12, "temperature": 0}));
    assert_eq!(answer["choices"][0]["text"], json!(expected));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    assert_eq!(answer["model"], "m");

    // Drawn tokens, by seed; each further answer has the next seed.
    let drawn = |seed: &str| written(folder.path(), "The river", &["--temp", "0.8", "--top-p", "0.9", "-s", seed]);
    let asked = json!({"prompt": "The river", "max_tokens": 12, "temperature": 0.8, "top_p": 0.9, "seed": 7, "n": 2});
    let answer = server.post("/v1/completions", &asked);
    assert_eq!(
        [&answer["choices"][0]["text"], &answer["choices"][1]["text"]],
        [&json!(drawn("7")), &json!(drawn("8"))]
    );

    // Token ids, several prompts, and a prompt that was there before.
    let ids = &server.post("/tokenize", &json!({"prompt": "The river"}))["tokens"];
    let answer = server.post("/v1/completions", &json!({"prompt": [ids, ids], "max_tokens": 12, "temperature": 0}));
    assert_eq!(answer["choices"][1]["text"], json!(expected));
    assert!(answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0, "{answer}");
    let own = &server.post("/tokenize", &json!({"prompt": "The river", "add_special_tokens": false}))["tokens"];
    assert_eq!(server.post("/detokenize", &json!({"tokens": own}))["prompt"], "The river");

    // Piece by piece.
    let asked = json!({"prompt": "The river", "max_tokens": 12, "temperature": 0, "stream": true,
        "stream_options": {"include_usage": true}});
    let (status, head, body) = server.send("POST", "/v1/completions", "", &asked.to_string());
    assert_eq!(status, 200);
    assert!(head.contains("text/event-stream"), "{head}");
    let events = events(&body);
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, expected);
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 12);

    // Up to a text that ends it.
    let stop: String = expected.chars().skip(4).take(2).collect();
    let answer = server
        .post("/v1/completions", &json!({"prompt": "The river", "max_tokens": 12, "temperature": 0, "stop": [stop]}));
    assert_eq!(answer["choices"][0]["text"], json!(expected.split(&stop).next().unwrap()));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let log = server.end();
    assert!(log.contains("POST /v1/completions 200"), "{log}");
    // The stream as well says what it took.
    let counted = log.lines().filter(|line| line.contains("/v1/completions 200"));
    let counted: Vec<&str> = counted.filter(|line| line.contains("prompt tokens, 12 written")).collect();
    assert_eq!(log.lines().filter(|line| line.contains("written")).count(), log.matches("/v1/completions 200").count());
    assert!(counted.len() >= 2, "{log}");
}

#[test]
fn probabilities_are_those_of_the_logits() {
    let folder = program();
    let server = Server::start(folder.path(), &[]);
    let prompt = "The road follows it";
    let asked = json!({"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 1});
    let answer = server.post("/v1/completions", &asked);
    let scores = &answer["choices"][0]["logprobs"];
    let logprobs = scores["token_logprobs"].as_array().unwrap();
    assert_eq!(logprobs[0], Json::Null);
    // One is of the token that was written.
    let own: Vec<f64> = logprobs[1..logprobs.len() - 1].iter().filter_map(Json::as_f64).collect();
    assert_eq!(own.len(), prompt.len(), "a token per byte, behind a start token");

    fs::write(folder.path().join("one.txt"), prompt).unwrap();
    let done = command(folder.path()).args(["eval", "m.snn", "--text", "one.txt", "--json", "-q"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let eval: Json = serde_json::from_slice(&done.stdout).unwrap();
    let perplexity = (-own.iter().sum::<f64>() / own.len() as f64).exp();
    let expected = eval["perplexity"].as_f64().unwrap_or_else(|| panic!("{eval}"));
    assert!((perplexity / expected - 1.0).abs() < 1e-12, "{perplexity} {expected}");

    // The start token is no part of the text.
    let tokens: String = scores["tokens"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
    assert_eq!(answer["choices"][0]["text"], json!(tokens));
    assert_eq!(scores["text_offset"][3], 2);
    // Each entry has the likeliest token and the token itself.
    for (top, own) in scores["top_logprobs"].as_array().unwrap().iter().zip(logprobs).skip(1) {
        let best = top.as_object().unwrap().values().filter_map(Json::as_f64).fold(f64::MIN, f64::max);
        assert!(best >= own.as_f64().unwrap());
    }

    // The state of an earlier request changes nothing.
    assert_eq!(server.post("/v1/completions", &asked)["choices"], answer["choices"]);
    server.end();
}

#[test]
fn conversations_follow_the_template() {
    let folder = program();
    let server = Server::start(folder.path(), &[]);
    let text = "system: Be brief.\nuser: Hi\nassistant:";
    let expected = written(folder.path(), text, &[]);
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]);
    let asked = json!({"messages": messages, "max_tokens": 12, "temperature": 0, "logprobs": true, "top_logprobs": 2});
    let answer = server.post("/v1/chat/completions", &asked);
    assert_eq!(answer["choices"][0]["message"]["content"], json!(expected));
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    let scored = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(scored.len(), 12);
    assert!(scored.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));

    let mut streamed = asked.clone();
    streamed["stream"] = true.into();
    let (_, _, body) = server.send("POST", "/v1/chat/completions", "", &streamed.to_string());
    let events = events(&body);
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, expected);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");

    for (body, words) in [
        (json!({"messages": []}), "there are none"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "tool"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "image_url"),
        (json!({"messages": [{"role": "user", "content": "x"}], "tools": [{}]}), "tools"),
        (json!({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}), "logprobs"),
    ] {
        let (status, message) = server.refused("/v1/chat/completions", &body.to_string());
        assert_eq!(status, 400, "{message}");
        assert!(message.contains(words), "{message}");
    }
    server.end();
}

/// Many at once, some of which go away: each text is the one that its prompt gives alone, and every place is free again.
#[test]
fn neighbours_do_not_show() {
    let folder = program();
    let server = Server::start(folder.path(), &["--batch", "3", "--queue", "200"]);
    let prompts: Vec<String> = (0..12).map(|i| format!("The road {i} follows the river")).collect();
    let alone: Vec<String> = prompts.iter().map(|prompt| written(folder.path(), prompt, &[])).collect();
    thread::scope(|scope| {
        for (prompt, expected) in prompts.iter().zip(&alone) {
            let server = &server;
            scope.spawn(move || {
                for counted in [false, true] {
                    let asked = json!({"prompt": prompt, "max_tokens": 12, "temperature": 0, "snn": counted});
                    let answer = server.post("/v1/completions", &asked);
                    assert_eq!(answer["choices"][0]["text"], json!(expected));
                    assert_eq!(answer["usage"]["snn"]["spikes"].as_u64().is_some_and(|spikes| spikes > 0), counted);
                }
            });
            // Clients that do not wait for what they asked for.
            scope.spawn(move || {
                let mut stream = TcpStream::connect(&server.address).unwrap();
                let body = json!({"prompt": prompt, "max_tokens": 40, "stream": true}).to_string();
                let head = format!(
                    "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let sent = if prompt.len() % 2 == 0 { head + &body } else { head };
                stream.write_all(sent.as_bytes()).unwrap();
            });
        }
    });
    server.waits_until("places are free", |server| {
        server.figure("snnc_sequences_running") == 0.0 && server.figure("snnc_sequences_waiting") == 0.0
    });
    assert!(server.figure("snnc_spikes_total") > 0.0);
    server.end();
}

#[test]
fn what_is_wrong_is_refused_and_said() {
    let folder = program();
    let limits = ["--max-body", "4", "--max-tokens", "20", "--queue", "4", "--patience", "1"];
    let server = Server::start(folder.path(), &limits);
    let context = "a".repeat(65);
    for (body, status, words) in [
        ("{", 400, "JSON".to_string()),
        ("[]", 400, "JSON".into()),
        (r#"{"prompt": 5}"#, 400, "JSON".into()),
        (r#"{"prompt": []}"#, 400, "prompts".into()),
        (r#"{"prompt": [999999]}"#, 400, "999999".into()),
        (r#"{"prompt": [-1]}"#, 400, "JSON".into()),
        (r#"{"prompt": "x", "model": "gpt-4"}"#, 404, "gpt-4".into()),
        (r#"{"prompt": "x", "max_tokens": 21}"#, 400, "20".into()),
        (r#"{"prompt": "x", "temperature": 3}"#, 400, "temperature".into()),
        (r#"{"prompt": "x", "top_p": 0}"#, 400, "top_p".into()),
        (r#"{"prompt": "x", "n": 17}"#, 400, "16".into()),
        (r#"{"prompt": "x", "logprobs": 21}"#, 400, "logprobs".into()),
        (r#"{"prompt": "x", "stop": [""]}"#, 400, "stop".into()),
        (r#"{"prompt": "x", "suffix": "y"}"#, 400, "suffix".into()),
        (r#"{"prompt": "x", "n": 5}"#, 429, "queue".into()),
        (&format!(r#"{{"prompt": "{context}"}}"#), 400, "context".into()),
        (&format!(r#"{{"prompt": "{}"}}"#, "a".repeat(5000)), 413, "4096".into()),
    ] {
        let (found, message) = server.refused("/v1/completions", body);
        assert_eq!(found, status, "{body:.80}: {message}");
        assert!(message.contains(&words), "{body:.80}: {message}");
    }
    assert_eq!(server.send("GET", "/v1/completions", "", "").0, 405);
    assert_eq!(server.send("GET", "/nothing", "", "").0, 404);
    assert_eq!(server.send("GET", "/v1/models/other", "", "").0, 404);
    assert_eq!(server.send("GET", "/v1/models/m", "", "").0, 200);
    assert_eq!(server.send("GET", "/health", "", "").2, r#"{"status":"ok"}"#);
    assert_eq!(server.send("GET", "/health", "host: evil.example\r\n", "").0, 403);
    assert_eq!(server.send("GET", "/health", "origin: http://evil.example\r\n", "").0, 403);

    // A client that does not go on loses its connection, and is told if it can be.
    let mut slow = TcpStream::connect(&server.address).unwrap();
    slow.set_read_timeout(Some(LONG)).unwrap();
    slow.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");

    let (_, head, page) = server.send("GET", "/", "", "");
    assert!(head.contains("content-security-policy"), "{head}");
    assert!(!page.contains("http://") && !page.contains("https://"), "the page refers to nothing outside");
    let (_, _, text) = server.send("GET", "/openapi.json", "", "");
    let document: Json = serde_json::from_str(&text).unwrap();
    let all = text.matches("\"$ref\":\"#/components/schemas/").count();
    let names = document["components"]["schemas"].as_object().unwrap();
    for part in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(names.contains_key(name), "{name}");
    }
    assert!(all > 10 && document["paths"]["/v1/completions"]["post"].is_object());
    server.end();
}

#[test]
fn keys_are_asked_for() {
    let folder = program();
    let server = Server::start(folder.path(), &["--api-key-file", "keys.txt", "--log", "json"]);
    let body = r#"{"prompt": "x", "max_tokens": 1}"#;
    let with = |headers: &str| server.send("POST", "/v1/completions", headers, body).0;
    assert_eq!(with(""), 401);
    assert_eq!(with("authorization: Bearer key-of-carl\r\n"), 401);
    assert_eq!(with("authorization: Bearer # of two people\r\n"), 401);
    assert_eq!(with("authorization: Bearer key-of-ben\r\n"), 200);
    assert_eq!(server.send("GET", "/metrics", "", "").0, 401);
    assert_eq!(server.send("GET", "/health", "", "").0, 200);
    let log = server.end();
    let lines: Vec<Json> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(lines[0]["status"], 401);
    assert_eq!(lines[3]["path"], "/v1/completions");
    assert!(!log.contains("key-of-ben"));

    for (more, words) in [
        (&["--host", "0.0.0.0"][..], "without a key"),
        (&["--api-key-file", "nothing.txt"], "nothing.txt"),
        (&["--api-key-file", "m.snn"], "m.snn"),
    ] {
        let done = command(folder.path()).args(["serve", "m.snn", "--port", "0"]).args(more).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(words), "{said}");
    }
}

/// A conversation on the page, and the spikes of its answer; with a key, which the page asks for.
#[test]
fn the_page_talks() {
    let program_of_browser = browser::program();
    if program_of_browser.is_none() {
        eprintln!("skipped: there is no Chromium; `bash tests/chromium.sh` installs it, or SNNC_CHROMIUM names it");
    }
    let Some(mut browser) = program_of_browser.map(|program| Browser::start(&program)) else { return };
    let folder = program();
    let server = Server::start(folder.path(), &["--api-key-file", "keys.txt"]);
    let address = format!("http://{}/", server.address);
    for (width, theme) in [(1200, "light"), (360, "dark")] {
        browser.look(width, 800, theme);
        browser.visit(&address, "document.getElementById('key-row')?.hidden === false");
        browser.eval("document.getElementById('key').value = 'key-of-anna'");
        browser.eval("document.getElementById('key-row').requestSubmit()");
        let wait = |browser: &mut Browser, what: &str| {
            let began = Instant::now();
            while browser.eval(what) != json!(true) {
                assert!(began.elapsed() < LONG, "{what}: {:?}", browser.complaints);
                thread::sleep(Duration::from_millis(20));
            }
        };
        wait(&mut browser, "document.getElementById('name').textContent === 'm'");
        browser.eval("document.getElementById('most').value = 8");
        browser.eval("document.getElementById('text').value = 'Hi'");
        browser.eval("document.getElementById('ask').requestSubmit()");
        wait(&mut browser, "document.getElementById('sum').textContent.includes('8 written')");
        assert_eq!(
            browser.eval("document.querySelectorAll('#layers .layer').length"),
            json!(3),
            "two layers and the head"
        );
        assert_eq!(browser.eval("document.querySelectorAll('#talk .said').length"), json!(2));
        assert_eq!(browser.eval("document.documentElement.scrollWidth <= innerWidth"), json!(true), "{width} pixels");
        let contrast = browser.least_contrast("document.querySelectorAll('body *')", "script, style");
        assert!(contrast["ratio"].as_f64().unwrap_or(0.0) >= 4.5, "{contrast}");
        browser.eval("sessionStorage.clear()");
    }
    // The first question for the models has no key.
    let expected = |complaint: &&String| !complaint.contains(&server.address) && !complaint.contains("401");
    let complaints: Vec<&String> = browser.complaints.iter().filter(expected).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    server.end();
}

/// The end waits for answers that were begun, and takes no new ones.
#[test]
fn the_end_waits_for_answers() {
    let folder = program();
    let server = Server::start(folder.path(), &[]);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let body = json!({"prompt": "The river", "max_tokens": 12, "temperature": 0}).to_string();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body[..5]).as_bytes()).unwrap();
    // It is known to be there.
    server.waits_until("the connection is open", |server| server.figure("snnc_connections") >= 2.0);
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    server.waits_until("nobody listens", |server| TcpStream::connect(&server.address).is_err());
    stream.write_all(&body.as_bytes()[5..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("the server is about to end"), "{answer}");
    let mut server = server;
    assert_eq!(server.child.wait().unwrap().code(), Some(0));

    // An address that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let done = command(folder.path()).args(["serve", "m.snn", "--port", &port]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(1) && said.contains("--port"), "{said}");
}
