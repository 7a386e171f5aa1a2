//! An evaluation as one page of HTML: no script, nothing fetched.

use crate::findings::Findings;
use crate::ledger::{Cause, Ledger};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:right;padding:.15rem .5rem;border-bottom:1px solid #eee;font-variant-numeric:tabular-nums}\
th:first-child,td:first-child{text-align:left}.bar{display:flex;height:.8rem;min-width:12rem}.bar i{display:block}\
.warn{background:#fff4d6;padding:.4rem .8rem;margin:.3rem 0}.key i{display:inline-block;width:.8rem;height:.8rem;margin:0 .3rem 0 1rem}\
@media(prefers-color-scheme:dark){body{background:#16181d;color:#ddd}th,td{border-color:#333}.warn{background:#40351a}}";

/// Colours of the causes, told apart by people who see red and green alike.
const COLOURS: [&str; 5] = ["#0072b2", "#56b4e9", "#999999", "#e69f00", "#cc79a7"];

/// The page of an evaluation of the model called `title`.
pub fn html(title: &str, findings: &Findings) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    );
    let json = findings.json();
    page += "<h2>Scores</h2><table>";
    for (key, name) in [
        ("tokens", "tokens"),
        ("perplexity_dense", "perplexity, dense"),
        ("perplexity", "perplexity"),
        ("perplexity_increase", "increase"),
        ("perplexity_by_word", "perplexity by word"),
        ("cosine_centred", "cosine of logits, centred"),
        ("cosine", "cosine of logits, raw"),
        ("top1_agreement", "same best guess"),
        ("kl", "KL from dense, nats"),
        ("accuracy", "next token right"),
        ("accuracy_dense", "next token right, dense"),
        ("spikes_per_neuron", "spikes a neuron"),
        ("timesteps_mean", "timesteps, mean over neurons"),
    ] {
        if let Some(number) = json[key].as_f64() {
            let digits = if number.fract() == 0.0 { 0 } else { 6 };
            let _ = write!(page, "<tr><td>{name}<td>{number:.digits$}");
        }
    }
    if let Some(coverage) = &findings.coverage {
        let _ = write!(page, "<tr><td>multiplications driven by spikes<td>{:.1} %", 100.0 * coverage.total.ratio());
    }
    page += "</table>";
    if !findings.lints.is_empty() {
        page += "<h2>Warnings</h2>";
        for lint in &findings.lints {
            let (place, message) = (escaped(&lint.place), escaped(&lint.message));
            let _ = write!(page, "<p class=warn><b>{}</b> {place}: {message}", lint.kind.name());
        }
    }
    if let Some(ledger) = &findings.ledger {
        page += &ledger_table(ledger);
    }
    if let Some(coverage) = &findings.coverage {
        page += "<h2>Multiplications driven by spikes</h2><table><tr><th>part<th>multiply-accumulates<th>driven";
        for (place, share) in coverage.by_part() {
            let _ = write!(page, "<tr><td>{place}<td>{}<td>{:.1} %", share.all, 100.0 * share.ratio());
        }
        page += "</table>";
    }
    page + "</html>\n"
}

/// Every site's damage by cause, as numbers and as a bar.
fn ledger_table(ledger: &Ledger) -> String {
    let most = ledger.ranked().first().map_or(1.0, |entry| entry.sum()).max(f64::MIN_POSITIVE);
    let mut table = format!(
        "<h2>Where the error comes from</h2><p>KL divergence of the logits from the dense network's, in 10<sup>-6</sup> nats \
         a token, on {} tokens. In all {:.2}; the sites alone sum to {:.0} % of it.<p class=key>",
        ledger.tokens,
        1e6 * ledger.total,
        100.0 * ledger.explained()
    );
    for (cause, colour) in Cause::ALL.iter().zip(COLOURS) {
        let _ = write!(table, "<i style='background:{colour}'></i>{}", cause.name());
    }
    table += "<table><tr><th>site<th>T";
    Cause::ALL.iter().for_each(|cause| table += &format!("<th>{}", cause.name()));
    table += "<th>alone<th>added up<th>";
    for entry in &ledger.entries {
        let steps = entry.steps.map_or(String::new(), |steps| steps.to_string());
        let _ = write!(table, "<tr><td>{}<td>{steps}", escaped(&entry.path));
        for damage in entry.alone {
            let _ = write!(table, "<td>{}", damage.map_or(String::new(), |x| format!("{:.2}", 1e6 * x)));
        }
        let _ = write!(table, "<td>{:.2}<td>{:.2}<td><div class=bar>", 1e6 * entry.sum(), 1e6 * entry.added);
        for (damage, colour) in entry.alone.iter().zip(COLOURS) {
            let width = 100.0 * damage.unwrap_or(0.0).max(0.0) / most;
            if width > 0.0 {
                let _ = write!(table, "<i style='background:{colour};width:{width:.1}%'></i>");
            }
        }
        table += "</div>";
    }
    table += "</table><h2>What would mend it</h2><table><tr><th>site<th>cause<th>option";
    for entry in ledger.ranked().into_iter().take(8) {
        let (path, remedy) = (escaped(&entry.path), escaped(&entry.remedy));
        let _ = write!(table, "<tr><td>{path}<td>{}<td><code>{remedy}</code>", entry.worst().name());
    }
    table + "</table>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}
