//! ServerFigures of the server, as Prometheus reads them.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// Path and status of a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route; of all other paths `other`.
    pub path: String,
    /// The HTTP status.
    pub status: u16,
}

/// Which tokens.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum TokenKind {
    /// Run of a prompt.
    Prompt,
    /// Of a prompt whose state was there.
    Cached,
    /// Written.
    Written,
}

/// Which tokens.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TokenLabels {
    /// Which.
    pub kind: TokenKind,
}

/// All figures.
#[derive(Debug)]
pub struct ServerFigures {
    registry: Registry,
    /// Answers, by path and status.
    pub requests: Family<RequestLabels, Counter>,
    /// Sequences that wait for a place.
    pub waiting: Gauge,
    /// Sequences that are run.
    pub running: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Tokens.
    pub tokens: Family<TokenLabels, Counter>,
    /// Spikes of requests that asked for them.
    pub spikes: Counter,
    /// Estimated energy of the same, by the first price list, in joules.
    pub joules: Counter<f64, AtomicU64>,
    /// From the request to its answer's first token, in seconds.
    pub first_token: Histogram,
    /// Between two tokens of a sequence, in seconds.
    pub next_token: Histogram,
    /// From the request to the end of its answer, in seconds.
    pub whole: Histogram,
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0])
}

impl Default for ServerFigures {
    fn default() -> Self {
        let mut figures = Self {
            registry: Registry::with_prefix("snnc"),
            requests: Family::default(),
            waiting: Gauge::default(),
            running: Gauge::default(),
            connections: Gauge::default(),
            tokens: Family::default(),
            spikes: Counter::default(),
            joules: Counter::default(),
            first_token: seconds(),
            next_token: seconds(),
            whole: seconds(),
        };
        let all = &mut figures.registry;
        all.register("requests", "Answers", figures.requests.clone());
        all.register("sequences_waiting", "Sequences that wait for a place", figures.waiting.clone());
        all.register("sequences_running", "Sequences that are run", figures.running.clone());
        all.register("connections", "Open connections", figures.connections.clone());
        all.register("tokens", "Tokens", figures.tokens.clone());
        all.register("spikes", "Spikes of requests that asked for them", figures.spikes.clone());
        all.register("energy_joules", "Estimated energy of requests that asked for it", figures.joules.clone());
        all.register("first_token_seconds", "Time to the first token", figures.first_token.clone());
        all.register("next_token_seconds", "Time between tokens of a sequence", figures.next_token.clone());
        all.register("request_seconds", "Time of a request", figures.whole.clone());
        figures
    }
}

impl ServerFigures {
    /// Adds tokens.
    pub fn add_tokens(&self, kind: TokenKind, count: usize) {
        self.tokens.get_or_create(&TokenLabels { kind }).inc_by(count as u64);
    }

    /// All of them as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
