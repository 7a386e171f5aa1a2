//! A load on `snnc serve`, bounded in time: latency and throughput for some numbers of clients, and clients that behave badly.
//!
//! `cargo run --release -p snnc-examples --example load -- 127.0.0.1:8080 --clients 1,4,16 --seconds 10`
//!
//! With `--rubbish` there are as many clients beside them that go away, send what is no request, send too much, or send and read too slowly. `--pid` is
//! the server's, whose resident memory is then printed. It speaks to this machine alone.
//!
//! With `--refusals KEY` it times refusals instead: without a key, with wrong ones that differ from `KEY` early or late, and from another origin. Their
//! times must not tell how much of a key is right.

use clap::Parser;
use serde_json::{Value as Json, json};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What no answer takes.
const LONG: Duration = Duration::from_secs(120);

/// Puts a load on a server of this machine, and says what became of it
#[derive(Parser, Debug)]
struct LoadOptions {
    /// Where the server listens, such as 127.0.0.1:8080
    address: SocketAddr,
    /// Clients at a time: a row for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    clients: Vec<usize>,
    /// Seconds per row
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=900))]
    seconds: u64,
    /// New tokens of a request
    #[arg(long, default_value_t = 64)]
    tokens: u64,
    /// What is continued
    #[arg(long, default_value = "Once upon a time there was a king who had three sons")]
    prompt: String,
    /// As many clients beside the others that behave badly
    #[arg(long)]
    rubbish: bool,
    /// The server's process, whose resident memory is printed
    #[arg(long)]
    pid: Option<u32>,
    /// A key of the server: times refusals, and puts no load on it
    #[arg(long, value_name = "KEY")]
    refusals: Option<String>,
}

/// One request on a connection of its own: the status and the body.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    ask_with(address, method, path, "", body)
}

/// The same with more lines in its head, each with its end.
fn ask_with(address: SocketAddr, method: &str, path: &str, more: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LONG))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_string()))
}

fn request(options: &LoadOptions, number: u64) -> Json {
    json!({"prompt": format!("{} {number}.", options.prompt), "max_tokens": options.tokens, "temperature": 0})
}

/// What the good clients saw.
#[derive(Default)]
struct LoadFigures {
    seconds: Vec<f64>,
    tokens: u64,
    wrong: u64,
    busy: u64,
}

/// Asks again and again; each text has to be the one that `expected` has for its prompt.
fn good_client(options: &LoadOptions, first: u64, expected: &[String], until: Instant, all: &Mutex<LoadFigures>) {
    let mut number = first;
    while Instant::now() < until {
        let which = number % expected.len() as u64;
        let began = Instant::now();
        let answer = ask(options.address, "POST", "/v1/completions", &request(options, which).to_string());
        let seconds = began.elapsed().as_secs_f64();
        let mut all = all.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match answer {
            Ok((200, body)) => {
                let answer: Json = serde_json::from_str(&body).unwrap_or_default();
                all.seconds.push(seconds);
                all.tokens += answer["usage"]["completion_tokens"].as_u64().unwrap_or(0);
                all.wrong += u64::from(answer["choices"][0]["text"] != json!(expected[which as usize]));
            }
            Ok((429 | 503, _)) => {
                all.busy += 1;
                drop(all);
                thread::sleep(Duration::from_millis(50));
            }
            Ok(_) | Err(_) => all.wrong += 1,
        }
        number += 1;
    }
}

/// Does what no client should.
fn bad_client(options: &LoadOptions, kind: u64, until: Instant, done: &AtomicU64) {
    let mut turn = kind;
    while Instant::now() < until {
        let _ = misbehave(options, turn % 6);
        done.fetch_add(1, Ordering::Relaxed);
        turn += 1;
        thread::sleep(Duration::from_millis(20));
    }
}

fn misbehave(options: &LoadOptions, kind: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect(options.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.set_write_timeout(Some(Duration::from_secs(3)))?;
    let body = json!({"prompt": options.prompt, "max_tokens": options.tokens, "stream": true}).to_string();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    match kind {
        // Asks, and goes away at the first piece.
        0 => {
            stream.write_all((head + &body).as_bytes())?;
            stream.read_exact(&mut [0; 64])
        }
        // Goes away in the middle of its request.
        1 => stream.write_all(&head.as_bytes()[..head.len() / 2]),
        2 => stream.write_all(b"\x16\x03\x01 this is no HTTP \r\n\r\n"),
        3 => stream.write_all(format!("{head}{}", "{".repeat(body.len())).as_bytes()),
        // Too much.
        4 => {
            stream
                .write_all(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\n")?;
            let block = [b'a'; 1 << 16];
            (0..64).try_for_each(|_| stream.write_all(&block))
        }
        // Too slowly: a byte now and then.
        _ => head.as_bytes().iter().take(20).try_for_each(|byte| {
            thread::sleep(Duration::from_millis(50));
            stream.write_all(&[*byte])
        }),
    }
}

fn resident_mb(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted.get(((sorted.len() as f64 - 1.0) * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Requests of each kind that are refused and timed.
const REFUSED: usize = 2000;

/// Prints how long refusals take, by kind. The kinds take turns, so that whatever else the machine does meets all of them.
fn time_refusals(address: SocketAddr, key: &str) -> Result<(), Box<dyn Error>> {
    if key.len() < 2 || !key.is_ascii() {
        return Err("a key of two or more ASCII characters is needed".into());
    }
    let other = |byte: u8| if byte == b'x' { 'y' } else { 'x' };
    let (first, last) = (key.as_bytes()[0], key.as_bytes()[key.len() - 1]);
    let early = format!("{}{}", other(first), &key[1..]);
    let late = format!("{}{}", &key[..key.len() - 1], other(last));
    let with = |key: &str| format!("authorization: Bearer {key}\r\n");
    let kinds = [
        ("no key", String::new(), 401),
        ("wrong from the first character", with(&early), 401),
        ("wrong in the last character", with(&late), 401),
        ("another origin, no key", "origin: http://elsewhere.example\r\n".into(), 403),
        ("another origin, right key", format!("{}origin: http://elsewhere.example\r\n", with(key)), 403),
    ];
    let mut times = vec![Vec::with_capacity(REFUSED); kinds.len()];
    for _ in 0..REFUSED {
        for ((name, more, status), times) in kinds.iter().zip(&mut times) {
            let began = Instant::now();
            let (found, _) = ask_with(address, "GET", "/v1/models", more, "")?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
            if found != *status {
                return Err(format!("{name}: the server answers {found}, not {status}").into());
            }
        }
    }
    let mut out = io::stdout();
    writeln!(out, "refused                          5 % us  25 % us  median us  75 % us")?;
    for ((name, ..), times) in kinds.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let [low, quarter, half, more] = [0.05, 0.25, 0.5, 0.75].map(|share| quantile(times, share));
        writeln!(out, "{name:<31}  {low:>6.1}  {quarter:>7.1}  {half:>9.1}  {more:>7.1}")?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = LoadOptions::parse();
    if !options.address.ip().is_loopback() {
        return Err("the load is for servers of this machine".into());
    }
    if let Some(key) = &options.refusals {
        return time_refusals(options.address, key);
    }
    let mut out = io::stdout();
    // Alone, before there is any load.
    let mut expected = Vec::new();
    for number in 0..8 {
        let (status, body) = ask(options.address, "POST", "/v1/completions", &request(&options, number).to_string())?;
        if status != 200 {
            return Err(format!("the server answers {status}: {body}").into());
        }
        let answer: Json = serde_json::from_str(&body)?;
        expected.push(answer["choices"][0]["text"].as_str().unwrap_or_default().to_string());
    }
    writeln!(out, "clients  answers  tokens/s  median s  95 % s  busy  wrong  bad clients  resident MB")?;
    for &clients in &options.clients {
        let until = Instant::now() + Duration::from_secs(options.seconds);
        let (all, bad) = (Mutex::new(LoadFigures::default()), AtomicU64::new(0));
        let began = Instant::now();
        thread::scope(|scope| {
            for client in 0..clients as u64 {
                let (options, expected, all, bad) = (&options, &expected, &all, &bad);
                scope.spawn(move || good_client(options, client, expected, until, all));
                if options.rubbish {
                    scope.spawn(move || bad_client(options, client, until, bad));
                }
            }
        });
        let seconds = began.elapsed().as_secs_f64();
        let mut all = all.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        all.seconds.sort_by(f64::total_cmp);
        let resident = options.pid.and_then(resident_mb).map_or("-".to_string(), |mb| format!("{mb:.1}"));
        writeln!(
            out,
            "{clients:>7}  {:>7}  {:>8.1}  {:>8.3}  {:>6.3}  {:>4}  {:>5}  {:>11}  {resident:>11}",
            all.seconds.len(),
            all.tokens as f64 / seconds,
            quantile(&all.seconds, 0.5),
            quantile(&all.seconds, 0.95),
            all.busy,
            all.wrong,
            bad.load(Ordering::Relaxed),
        )?;
        if all.wrong > 0 {
            return Err("an answer was wrong".into());
        }
    }
    let (_, figures) = ask(options.address, "GET", "/metrics", "")?;
    let free = |name: &str| figures.lines().any(|line| line == format!("{name} 0"));
    if !free("snnc_sequences_running") || !free("snnc_sequences_waiting") {
        thread::sleep(Duration::from_secs(2));
        let (_, figures) = ask(options.address, "GET", "/metrics", "")?;
        let left = figures.lines().filter(|line| line.starts_with("snnc_sequences"));
        writeln!(out, "{}", left.collect::<Vec<&str>>().join("\n"))?;
    }
    Ok(())
}
