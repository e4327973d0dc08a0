//! The points of the training and the test file: their labels in memory, their texts where they lie.

use std::collections::HashSet;

use super::{Watch, format::File, ragged::Ragged, row::TextFields};
use crate::error::{Error, Place, Result};

/// What is kept of a file of points.
#[derive(Debug)]
pub(super) struct Points {
    /// Label ids of every row as they are listed, each once.
    pub labels: Ragged,
    /// Whether any row has a list of labels, be it empty.
    pub have_labels: bool,
    /// Rows with content that the text leaves out.
    pub unread: usize,
}

impl Points {
    /// Reads the labels of `file`. `listed` is the number of labels in the list of labels, if there is one.
    ///
    /// A row without text is kept, for its number is its name in the filter files.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a file that has no row or no text at all, and with the line for a row that
    /// cannot be read or has a label that is not listed.
    pub fn read(file: &File, listed: Option<usize>, watch: &Watch) -> Result<Self> {
        let mut points = Self { labels: Ragged::new(), have_labels: false, unread: 0 };
        let (mut known, mut any_text) = (HashSet::new(), false);
        for row in file.rows("reading", watch)? {
            let row = row?;
            points.have_labels |= row.labels.is_some();
            let mut ids = row.labels.unwrap_or_default();
            if let Some(listed) = listed
                && let Some(id) = ids.iter().find(|&&id| id as usize >= listed)
            {
                return Err(Error::Data {
                    place: Place::line(&file.path, row.line).field("target_ind"),
                    expected: format!("ids below {listed}, the number of labels"),
                    found: id.to_string(),
                    hint: Some("ids are the line numbers of lbl.json, from 0".into()),
                });
            }
            known.clear();
            ids.retain(|&id| known.insert(id));
            points.labels.push(ids);
            points.unread += usize::from(row.unread);
            any_text |= !row.text.trim().is_empty();
        }
        if any_text {
            return Ok(points);
        }
        Err(Error::Data {
            place: Place::file(&file.path),
            expected: "rows with text".into(),
            found: match points.labels.len() {
                0 => "no row".into(),
                1 => "one row without".into(),
                n => format!("{n} rows without"),
            },
            hint: match file.fields {
                _ if points.labels.len() == 0 => None,
                TextFields::Title if points.unread > 0 => Some(
                    "only `title` is read, as dataset.data.text or the data set's name says; \
                     dataset.data.text=title+content reads both"
                        .into(),
                ),
                TextFields::Title => file.lacks("title"),
                _ => file.lacks("title` or `content"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{
        format::Files,
        testing::{folder, source},
    };

    fn read(content: &str, listed: Option<usize>) -> Result<Points> {
        let dir = folder(&[("trn.json", content), ("tst.json", "")]);
        let files = Files::find(&source(dir.path()))?;
        Points::read(&files.train, listed, &Watch::default())
    }

    #[test]
    fn labels_are_kept_once_in_the_order_listed() {
        let content = "{\"title\": \"a\", \"target_ind\": [5, 2, 5]}\n{\"content\": \"b\"}\n{\"target_ind\": [1]}";
        let points = read(content, None).unwrap();
        let rows: Vec<_> = points.labels.rows().collect();
        assert_eq!(rows, [&[5, 2][..], &[], &[1]]);
    }

    #[test]
    fn a_label_that_is_not_listed_is_named_with_its_line() {
        let content = "{\"title\": \"a\", \"target_ind\": [4]}\n{\"title\": \"b\", \"target_ind\": [0, 5]}";
        assert!(read(content, Some(6)).is_ok());
        let message = read(content, Some(5)).unwrap_err().to_string();
        assert!(
            message.contains("trn.json:2: `target_ind`: expected ids below 5, the number of labels, found 5"),
            "{message}"
        );
    }

    #[test]
    fn a_file_without_rows_or_without_any_text_is_an_error() {
        for (content, expected) in [
            ("", "trn.json: expected rows with text, found no row"),
            ("{\"title\": \" \"}\n{}", "found 2 rows without"),
            (
                "{\"text\": \"a\", \"labels\": [1]}\n",
                "no row has the field `title` or `content`; the first row has `labels`, `text`",
            ),
        ] {
            let message = read(content, None).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
