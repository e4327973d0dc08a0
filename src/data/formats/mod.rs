//! The layouts of data sets, and the readers that make [`Row`]s of their files.
//!
//! A further layout is a name in [`Format`], its files in `files.rs`, and a [`Reader`]. Nothing else knows layouts.

mod annif;
mod columns;
mod files;
mod format;
pub(super) mod json;
mod json_lines;
mod npy;
mod npz;
mod part;
mod recognise;
mod sparse;
mod table;
#[cfg(test)]
mod tests;
mod texts;

pub(super) use annif::Subjects;
pub use columns::Columns;
pub(super) use files::{Files, Labelling};
pub use format::Format;
pub(super) use part::Part;

use crate::error::wrong;

/// Names as a message lists them, the first ones of many.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<_> = names.into_iter().map(|name| format!("`{}`", json::beginning(name))).collect();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    match more {
        0 => names.join(", "),
        n => format!("{} and {n} more", names.join(", ")),
    }
}
