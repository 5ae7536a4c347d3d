//! The largest of many names, found in bounded memory (Misra and Gries, Finding repeated
//! elements, 1982).

use std::collections::HashMap;

/// Names that are taken for the largest. Each that has more than one part in `most` of all
/// that was added is among them, whatever came in what order.
pub struct Largest {
    most: usize,
    weights: HashMap<String, u64>,
}

impl Largest {
    pub fn of(most: usize) -> Largest {
        Largest {
            most,
            weights: HashMap::new(),
        }
    }

    pub fn add(&mut self, name: &str, weight: u64) {
        if let Some(sum) = self.weights.get_mut(name) {
            *sum = sum.saturating_add(weight);
            return;
        }
        if self.weights.len() < self.most {
            self.weights.insert(name.to_owned(), weight);
            return;
        }
        // As much is taken off one of each of so many names.
        let least = self.weights.values().copied().min().unwrap_or(0);
        let off = least.min(weight);
        self.weights.retain(|_, sum| {
            *sum -= off;
            *sum > 0
        });
        if weight > off {
            self.weights.insert(name.to_owned(), weight - off);
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_has_more_than_its_part_is_among_them(
            added in prop::collection::vec((0..40u8, 0..9u64), 0..400),
            most in 1..10usize,
        ) {
            let mut largest = Largest::of(most);
            let mut sums = BTreeMap::<String, u64>::new();
            for (name, weight) in added {
                let name = name.to_string();
                largest.add(&name, weight);
                *sums.entry(name).or_default() += weight;
            }
            let all: u64 = sums.values().sum();
            let named: Vec<&str> = largest.names().collect();
            prop_assert!(named.len() <= most);
            for (name, sum) in &sums {
                let more = sum * most as u64 > all;
                prop_assert!(!more || named.contains(&name.as_str()), "{name}: {sum} of {all}");
            }
        }
    }
}
