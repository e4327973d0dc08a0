//! Values in messages.

use std::collections::BTreeSet;

use serde_json::Value;

/// How many names a message lists.
const LISTED: usize = 8;

/// A JSON value as a message shows it: its beginning, if it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The first names, and how many more there are.
pub(super) fn list(names: &BTreeSet<String>) -> String {
    let shown: Vec<_> = names.iter().take(LISTED).map(|n| format!("`{n}`")).collect();
    let rest = names.len() - shown.len();
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}
