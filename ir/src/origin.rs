//! Where a node comes from, and what it is part of. Passes hand both on.

use crate::diagnostic::Place;
use crate::site::Site;
use std::fmt;

/// The ONNX node that a node comes from, and the site that it stands at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeOrigin {
    /// The ONNX node's name; empty is "nowhere in particular".
    pub name: String,
    /// Where in the transformer, once that is known.
    pub site: Option<Site>,
}

/// Nowhere in particular.
pub(crate) static NOWHERE: NodeOrigin = NodeOrigin { name: String::new(), site: None };

impl NodeOrigin {
    /// The same ONNX node, at another site.
    #[must_use]
    pub fn at(&self, site: Option<Site>) -> Self {
        Self { name: self.name.clone(), site }
    }
}

impl fmt::Display for NodeOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl From<&str> for NodeOrigin {
    fn from(name: &str) -> Self {
        Self { name: name.to_string(), site: None }
    }
}

impl From<String> for NodeOrigin {
    fn from(name: String) -> Self {
        Self { name, site: None }
    }
}

impl From<&String> for NodeOrigin {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl From<&NodeOrigin> for NodeOrigin {
    fn from(origin: &NodeOrigin) -> Self {
        origin.clone()
    }
}

impl From<&NodeOrigin> for Place {
    fn from(origin: &NodeOrigin) -> Self {
        origin.name.as_str().into()
    }
}

impl From<NodeOrigin> for Place {
    fn from(origin: NodeOrigin) -> Self {
        origin.name.into()
    }
}
