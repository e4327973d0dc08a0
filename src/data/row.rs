//! What every format makes of its files: rows.

use serde::{Deserialize, Serialize};

/// Which fields of a row make its text: what the key `dataset.data.text` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextFields {
    /// The title alone if the data set's name contains "titles" in any case, as in the reference; else both.
    #[serde(rename = "auto")]
    Auto,
    /// The title.
    #[serde(rename = "title")]
    Title,
    /// The title, a space, and the content.
    #[serde(rename = "title+content")]
    TitleAndContent,
}

impl TextFields {
    /// `Title` or `TitleAndContent`, for a data set of this name.
    pub(super) fn of(self, name: &str) -> Self {
        match self {
            Self::Auto if name.to_lowercase().contains("titles") => Self::Title,
            Self::Auto => Self::TitleAndContent,
            chosen => chosen,
        }
    }
}

/// A row of a data set, or a label of its list of labels.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    /// Where it begins in its file, from 1.
    pub line: usize,
    /// Of a label: its title.
    pub text: String,
    /// As they are listed; `None` where the row has no such field.
    pub labels: Option<Labels>,
    /// Whether there is content that the text leaves out.
    pub unread: bool,
}

/// Labels of a row, by what the file calls them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Labels {
    Ids(Vec<u32>),
    Names(Vec<String>),
    /// The words for people of a list of labels that has names beside them.
    Titles(Vec<String>),
}
