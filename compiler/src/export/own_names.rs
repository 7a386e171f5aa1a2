//! Names that are not given twice.

use std::collections::BTreeSet;

/// Names that were given.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnNames {
    given: BTreeSet<String>,
}

impl OwnNames {
    /// The name, or if it is taken the name with the first number behind it that is free: `NAME_2`.
    pub fn own(&mut self, name: &str) -> String {
        let mut own = name.to_string();
        let mut number = 1;
        while !self.given.insert(own.clone()) {
            number += 1;
            own = format!("{name}_{number}");
        }
        own
    }
}
