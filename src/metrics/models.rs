//! Names of models as labels.

use std::{collections::HashSet, sync::Arc};

use parking_lot::RwLock;

/// A model's name, or `other`.
pub type Model = Arc<str>;

/// Models that are told apart, the first that were called. Providers have dozens with
/// prices, and an installation uses a few.
pub const MOST: usize = 32;

/// Every model without a price, and those behind the first [`MOST`].
pub const OTHER: &str = "other";

/// Which models are told apart.
pub struct Models {
    other: Model,
    named: RwLock<HashSet<Model>>,
}

impl Default for Models {
    fn default() -> Self {
        Models {
            other: OTHER.into(),
            named: RwLock::default(),
        }
    }
}

impl Models {
    /// The label of a model. `priced` is the name that its price stands under, where it
    /// has one: a caller can think up names, but not prices.
    pub fn label(&self, priced: Option<&str>) -> Model {
        let Some(name) = priced else {
            return self.other.clone();
        };
        if let Some(known) = self.named.read().get(name) {
            return known.clone();
        }
        let mut named = self.named.write();
        if named.len() >= MOST && !named.contains(name) {
            return self.other.clone();
        }
        let name: Model = name.into();
        named.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_names_and_no_more() {
        let models = Models::default();
        let labels: HashSet<Model> = (0..1_000)
            .map(|number| models.label(Some(&format!("model-{number}"))))
            .collect();
        assert_eq!(labels.len(), MOST + 1);
        assert_eq!(&*models.label(Some("model-0")), "model-0");
        assert_eq!(&*models.label(None), OTHER);
    }
}
