//! Sites: the tensors that are coded as spikes, and with them the place of every node in the transformer.
//!
//! A site is called by its path, `h.0.attention.q` or `head`. A node stands at the site that it codes, or that it computes or
//! reads on behalf of: a projection at the site of its result where attention reads that, else at the site of its input; a norm
//! at the site that it feeds. The residual stream and the embedding stand at none. The text form writes `#h.0.attention.q`.

use std::fmt;

/// What reads a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The projections to queries, keys and values.
    AttentionIn,
    /// Attention, as queries.
    Query,
    /// Attention, as keys.
    Key,
    /// Attention, as values.
    Value,
    /// No weight: attention itself stands here.
    Attention,
    /// The projection behind attention.
    AttentionOut,
    /// The first projection of an MLP.
    MlpIn,
    /// The projection behind an activation function.
    MlpHidden,
    /// The projection to the logits.
    Head,
    /// A projection of another kind.
    Other,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 10] = [
        Role::AttentionIn,
        Role::Query,
        Role::Key,
        Role::Value,
        Role::Attention,
        Role::AttentionOut,
        Role::MlpIn,
        Role::MlpHidden,
        Role::Head,
        Role::Other,
    ];

    /// The last words of a path.
    pub fn path(self) -> &'static str {
        match self {
            Role::AttentionIn => "attention.in",
            Role::Query => "attention.q",
            Role::Key => "attention.k",
            Role::Value => "attention.v",
            Role::Attention => "attention",
            Role::AttentionOut => "attention.out",
            Role::MlpIn => "mlp.in",
            Role::MlpHidden => "mlp.hidden",
            Role::Head => "head",
            Role::Other => "other",
        }
    }

    /// Whether it belongs to attention: its projections or the core between them.
    pub fn is_attention(self) -> bool {
        match self {
            Role::AttentionIn | Role::Query | Role::Key | Role::Value | Role::Attention | Role::AttentionOut => true,
            Role::MlpIn | Role::MlpHidden | Role::Head | Role::Other => false,
        }
    }
}

/// Which of a site's channels, or what becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChannelGroup {
    /// All channels, or all but the outliers.
    #[default]
    Whole,
    /// Outlier channels, which have neurons and weights of their own.
    Outliers,
    /// What finer levels add for outliers.
    Residual,
    /// Features of softmax-free attention, made from all channels.
    Features,
}

impl ChannelGroup {
    /// All of them.
    pub const ALL: [ChannelGroup; 4] =
        [ChannelGroup::Whole, ChannelGroup::Outliers, ChannelGroup::Residual, ChannelGroup::Features];

    fn suffix(self) -> &'static str {
        match self {
            ChannelGroup::Whole => "",
            ChannelGroup::Outliers => ":outliers",
            ChannelGroup::Residual => ":residual",
            ChannelGroup::Features => ":features",
        }
    }
}

/// A tensor that is coded as spikes, or left dense.
///
/// ```
/// use snnc_ir::site::{Role, Site};
///
/// let site = Site::new(Some(3), Role::Query);
/// assert_eq!(site.to_string(), "h.3.attention.q");
/// assert_eq!(Site::parse("h.3.attention.q"), Some(site));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// The block that it belongs to, from 0; `None` for what the logits are made of.
    pub layer: Option<u32>,
    /// What reads it.
    pub role: Role,
    /// Which of its channels.
    pub group: ChannelGroup,
}

impl Site {
    /// All channels of what `role` reads in a block.
    pub fn new(layer: Option<u32>, role: Role) -> Self {
        Self { layer, role, group: ChannelGroup::Whole }
    }

    /// The same site, other channels.
    #[must_use]
    pub fn group(self, group: ChannelGroup) -> Self {
        Self { group, ..self }
    }

    /// What another role reads in the same block.
    #[must_use]
    pub fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// The site without its group: `h.3.attention.q`.
    pub fn path(self) -> String {
        self.group(ChannelGroup::Whole).to_string()
    }

    /// The block's path, or `head`.
    pub fn block(self) -> String {
        match self.layer {
            Some(layer) => format!("h.{layer}"),
            None => self.role.path().to_string(),
        }
    }

    /// The site that prints as `text`.
    pub fn parse(text: &str) -> Option<Self> {
        let (layer, rest) = match text.strip_prefix("h.") {
            Some(rest) => {
                let (layer, rest) = rest.split_once('.')?;
                (Some(layer.parse().ok()?), rest)
            }
            None => (None, text),
        };
        let all = Role::ALL.into_iter().flat_map(|role| ChannelGroup::ALL.map(|group| Site { layer, role, group }));
        let spells =
            |site: &Site| rest.strip_prefix(site.role.path()).is_some_and(|suffix| suffix == site.group.suffix());
        all.into_iter().find(spells).filter(|site| site.to_string() == text)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "h.{layer}.")?;
        }
        write!(f, "{}{}", self.role.path(), self.group.suffix())
    }
}
