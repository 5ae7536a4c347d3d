//! Ids that a person types: checked, because they become part of a path.

use super::Failure;

/// # Errors
/// What is no id that begins with `prefix`; `origin` says where those are told.
pub fn check<'a>(id: &'a str, prefix: &str, origin: &str) -> Result<&'a str, Failure> {
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match id.strip_prefix(prefix) {
        Some(rest) if !rest.is_empty() && plain(rest) => Ok(id),
        _ => Err(Failure::Other(format!(
            "`{id}` is no id of this kind: `{prefix}…`, {origin}"
        ))),
    }
}
