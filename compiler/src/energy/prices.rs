//! ItemPrice lists: what an operation and a byte cost, with where each number comes from.
//!
//! A list is a TOML file. Those of the literature are built in; a user's own may stand on one of them (`base`). Whatever a
//! network does has a price, or is left out by the list with a reason, or is *unpriced*: then there is no total.

use crate::files;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_passes::cost::{Operation, Tally, Traffic};
use std::collections::BTreeMap;
use std::path::Path;

/// Lists that come with snnc, in the order in which they are shown.
const BUILT_IN: [&str; 9] = [
    include_str!("../../prices/paper45.toml"),
    include_str!("../../prices/int45.toml"),
    include_str!("../../prices/horowitz45.toml"),
    include_str!("../../prices/horowitz45-sram.toml"),
    include_str!("../../prices/lemaire.toml"),
    include_str!("../../prices/loihi.toml"),
    include_str!("../../prices/truenorth.toml"),
    include_str!("../../prices/spinnaker2.toml"),
    include_str!("../../prices/cpu.toml"),
];

/// How far a number may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Measured by whoever wrote the list.
    Measured,
    /// In the source that is named.
    Published,
    /// Made of published numbers.
    Derived,
    /// Quoted by others from the source that is named.
    SecondHand,
    /// From memory of the source that is named.
    Recollected,
    /// Nobody has published it.
    Assumed,
}

/// A price with where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemPrice {
    /// Picojoules.
    pub pj: f64,
    /// Technology node.
    pub node: String,
    /// Where the number comes from.
    pub source: String,
    /// How far it may be trusted.
    pub grade: Grade,
}

/// A memory of some size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryLevel {
    /// Its name.
    pub name: String,
    /// The largest memory of this kind; without it, all larger ones are.
    #[serde(default)]
    pub up_to_bytes: Option<u64>,
    /// Of an access.
    pub pj: f64,
    /// Technology node.
    pub node: String,
    /// Where the number comes from.
    pub source: String,
    /// How far it may be trusted.
    pub grade: Grade,
}

/// Where weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// All in one memory that is large enough.
    Network,
    /// Every matrix in a memory of its own.
    Own,
}

/// What bytes cost, by the memory they lie in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryPrices {
    /// Bits of an access; bytes are taken to fill it.
    pub access_bits: u32,
    /// Where weights lie.
    pub weights: Placement,
    /// Whether a price lies on the line between two levels, or is that of the first level that is large enough.
    #[serde(default)]
    pub interpolate: bool,
    /// The smaller first.
    pub levels: Vec<MemoryLevel>,
}

/// Something that is counted and may be priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PricedItem {
    /// An operation.
    Operation(Operation),
    /// Bytes of a kind.
    Traffic(Traffic),
}

impl PricedItem {
    /// All that is counted.
    pub fn all() -> impl Iterator<Item = PricedItem> {
        let operations = Operation::ALL.into_iter().map(PricedItem::Operation);
        operations.chain(Traffic::ALL.into_iter().map(PricedItem::Traffic))
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            PricedItem::Operation(operation) => operation.name(),
            PricedItem::Traffic(traffic) => traffic.name(),
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|item| item.name() == name)
    }

    /// How much of it a tally has: operations, or bytes.
    pub fn count(self, tally: &Tally) -> u64 {
        match self {
            PricedItem::Operation(operation) => tally.of(operation),
            PricedItem::Traffic(traffic) => tally.bytes(traffic),
        }
    }
}

/// A price list as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFile {
    name: String,
    about: String,
    base: Option<String>,
    #[serde(default)]
    operations: BTreeMap<String, ItemPrice>,
    memory: Option<MemoryPrices>,
    #[serde(default)]
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftOut {
    items: Vec<String>,
    why: String,
}

/// A price list.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceList {
    /// Its name.
    pub name: String,
    /// What the list is.
    pub about: String,
    /// Prices of operations.
    pub operations: BTreeMap<Operation, ItemPrice>,
    /// Prices of memory traffic.
    pub memory: Option<MemoryPrices>,
    /// What it leaves out, and why.
    pub left_out: BTreeMap<PricedItem, String>,
}

/// What a tally costs by a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Priced {
    /// Picojoules by item, those that are counted and priced.
    pub items: Vec<(PricedItem, f64)>,
    /// Counted, and neither priced nor left out.
    pub unpriced: Vec<PricedItem>,
}

impl Priced {
    /// What has a price, in picojoules.
    pub fn partial_pj(&self) -> f64 {
        self.items.iter().fold(0.0, |sum, (_, pj)| sum + pj)
    }

    /// Picojoules of all; `None` where something is unpriced.
    pub fn pj(&self) -> Option<f64> {
        self.unpriced.is_empty().then(|| self.partial_pj())
    }

    /// The names of what has no price.
    pub fn unpriced_names(&self) -> Vec<&'static str> {
        self.unpriced.iter().map(|item| item.name()).collect()
    }
}

impl PriceList {
    /// All lists that come with snnc.
    pub fn built_in() -> Vec<PriceList> {
        let read = |text: &&str| Self::parse(text, "a built-in price list").unwrap_or_else(|e| panic!("{e:?}"));
        BUILT_IN.iter().map(read).collect()
    }

    /// The list of a name that comes with snnc, or that of a file.
    ///
    /// ```
    /// use snnc::energy::PriceList;
    /// use snnc_passes::cost::Operation;
    /// let list = PriceList::named("paper45")?;
    /// assert_eq!(list.operations[&Operation::Accumulate].pj, 0.9);
    /// assert!(PriceList::named("nobody").is_err());
    /// # Ok::<(), snnc_ir::Diagnostics>(())
    /// ```
    ///
    /// # Errors
    /// There is no such list or file, or it is no price list: every place that is wrong.
    pub fn named(name: &str) -> Result<Self, Diagnostics> {
        if let Some(list) = Self::find(name)? {
            return Ok(list);
        }
        let path = Path::new(name);
        if !path.is_file() && path.extension().is_none() {
            let names: Vec<String> = Self::built_in().into_iter().map(|list| list.name).collect();
            let message = format!("is neither a price list that snnc has ({}) nor a file", names.join(", "));
            return Err(Diagnostic::new(name, message).code(ErrorCode::PRICES).into());
        }
        let text = files::read_text(path)?;
        Self::parse(&text, name)
    }

    fn find(name: &str) -> Result<Option<Self>, Diagnostics> {
        let named = |text: &&&str| toml::from_str::<PriceFile>(text).is_ok_and(|file| file.name == name);
        BUILT_IN.iter().find(named).map(|text| Self::parse(text, name)).transpose()
    }

    /// The list that a TOML text is; `place` is what the text is called in messages.
    ///
    /// # Errors
    /// It is no price list: every place that is wrong.
    pub fn parse(text: &str, place: &str) -> Result<Self, Diagnostics> {
        let file: PriceFile = toml::from_str(text).map_err(|e| {
            let message = format!("is no price list: {}", e.to_string().trim_end());
            Diagnostics::from(
                Diagnostic::new(place, message).code(ErrorCode::PRICES).note("docs/energy.md says what one looks like"),
            )
        })?;
        let mut diagnostics = Diagnostics::new();
        let mut report_at = |at: &str, what: String| {
            diagnostics.push(Diagnostic::new(format!("{place}: {at}"), what).code(ErrorCode::PRICES))
        };
        let mut list = match &file.base {
            None => Self {
                name: String::new(),
                about: String::new(),
                operations: BTreeMap::new(),
                memory: None,
                left_out: BTreeMap::new(),
            },
            Some(base) => Self::find(base)?.ok_or_else(|| {
                Diagnostics::from(
                    Diagnostic::new(format!("{place}: base"), format!("`{base}` is no list that snnc has"))
                        .code(ErrorCode::PRICES),
                )
            })?,
        };
        (list.name, list.about) = (file.name, file.about);
        for (name, price) in file.operations {
            match PricedItem::from_name(&name) {
                Some(PricedItem::Operation(operation)) => {
                    check(&price, &name, &mut report_at);
                    list.left_out.remove(&PricedItem::Operation(operation));
                    list.operations.insert(operation, price);
                }
                Some(PricedItem::Traffic(_)) => report_at(&name, "is priced by [memory]".into()),
                None => {
                    let names: Vec<&str> = Operation::ALL.iter().map(|operation| operation.name()).collect();
                    report_at(&name, format!("is no operation; there are {}", names.join(", ")));
                }
            }
        }
        if let Some(memory) = file.memory {
            check_memory(&memory, &mut report_at);
            list.memory = Some(memory);
        }
        for LeftOut { items, why } in file.left_out {
            for name in items {
                match PricedItem::from_name(&name) {
                    Some(item) => {
                        if let PricedItem::Operation(operation) = item {
                            list.operations.remove(&operation);
                        }
                        list.left_out.insert(item, why.clone());
                    }
                    None => {
                        let names: Vec<&str> = PricedItem::all().map(PricedItem::name).collect();
                        report_at(
                            "left_out",
                            format!("`{name}` is nothing that is counted; there are {}", names.join(", ")),
                        );
                    }
                }
            }
        }
        if diagnostics.is_empty() { Ok(list) } else { Err(diagnostics) }
    }

    /// What a tally costs; `network` is the bytes of all weights in its form.
    pub fn price(&self, tally: &Tally, network: u64) -> Priced {
        let mut priced = Priced::default();
        for item in PricedItem::all().filter(|item| item.count(tally) > 0 && !self.left_out.contains_key(item)) {
            let pj = match item {
                PricedItem::Operation(operation) => {
                    self.operations.get(&operation).map(|price| price.pj * tally.of(operation) as f64)
                }
                PricedItem::Traffic(traffic) => self.memory.as_ref().and_then(|memory| {
                    let of = tally.traffic.iter().filter(|((of, _), _)| *of == traffic);
                    let mut sum = 0.0;
                    for (&(_, own), &bytes) in of {
                        let together = traffic == Traffic::Weights && memory.weights == Placement::Network;
                        sum += memory.access_pj(if together { network } else { own })?
                            * (bytes as f64 * 8.0 / f64::from(memory.access_bits));
                    }
                    Some(sum)
                }),
            };
            match pj {
                Some(pj) => priced.items.push((item, pj)),
                None => priced.unpriced.push(item),
            }
        }
        priced
    }
}

impl MemoryPrices {
    /// Picojoules of an access to a memory of so many bytes; `None` where it is larger than all levels.
    fn access_pj(&self, bytes: u64) -> Option<f64> {
        let size = |level: &MemoryLevel| level.up_to_bytes.unwrap_or(u64::MAX);
        let fits = self.levels.iter().position(|level| bytes <= size(level));
        if !self.interpolate {
            return fits.map(|i| self.levels[i].pj);
        }
        let upper = fits.unwrap_or(self.levels.len().checked_sub(1)?).max(1);
        let (a, b) = (self.levels.get(upper - 1)?, self.levels.get(upper)?);
        let (from, to) = (size(a) as f64, size(b) as f64);
        Some(a.pj + (bytes as f64 - from) / (to - from) * (b.pj - a.pj))
    }
}

fn check(price: &ItemPrice, name: &str, report_at: &mut impl FnMut(&str, String)) {
    if !(price.pj >= 0.0 && price.pj.is_finite()) {
        report_at(name, format!("is {}; a price is a number of picojoules, 0 or more", price.pj));
    }
    if price.source.trim().is_empty() || price.node.trim().is_empty() {
        report_at(name, "says no source or no technology node; every price has both".into());
    }
}

fn check_memory(memory: &MemoryPrices, report_at: &mut impl FnMut(&str, String)) {
    if memory.access_bits == 0 {
        report_at("memory: access_bits", "is 0".into());
    }
    for level in &memory.levels {
        let MemoryLevel { name, pj, node, source, grade, .. } = level.clone();
        check(&ItemPrice { pj, node, source, grade }, &format!("memory: {name}"), report_at);
    }
    let sizes: Vec<u64> = memory.levels.iter().map(|level| level.up_to_bytes.unwrap_or(u64::MAX)).collect();
    if sizes.is_empty() || sizes.windows(2).any(|pair| pair[0] >= pair[1]) {
        report_at(
            "memory: levels",
            "are not one or more, the smaller first; only the last may have no `up_to_bytes`".into(),
        );
    }
    if memory.interpolate && (sizes.len() < 2 || sizes.contains(&u64::MAX)) {
        report_at(
            "memory: levels",
            "lie on no line: two or more with `up_to_bytes` each are needed to interpolate".into(),
        );
    }
}
