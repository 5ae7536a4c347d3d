//! Names of models as settings and keys list them.

/// Whether `pattern` stands for `model`: exactly, or by its beginning where the pattern
/// ends with `*`.
pub fn matches(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => model.starts_with(start),
        None => pattern == model,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_rest() {
        for (pattern, model, expected) in [
            ("o3", "o3", true),
            ("o3", "o3-mini", false),
            ("gpt-5*", "gpt-5.4", true),
            ("gpt-5*", "gpt-5", true),
            ("gpt-5*", "gpt-4o", false),
            ("*", "", true),
            ("", "gpt-5", false),
        ] {
            assert_eq!(matches(pattern, model), expected, "{pattern} {model}");
        }
    }
}
