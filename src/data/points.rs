//! The points of the training and the test file: their labels in memory, their texts where they lie.

use std::collections::HashSet;

use super::{
    Watch,
    faults::Faults,
    formats::Part,
    ragged::Ragged,
    row::{Row, TextFields},
    space::Space,
};
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
    /// Whether any row has text.
    any_text: bool,
    known: HashSet<u32>,
}

impl Points {
    /// Reads the labels of `part`, which are among those of `space`.
    ///
    /// A row without text is kept, for its number is its name in the filter files.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a file that has no row or no text at all, and with the line for a row that
    /// cannot be read or has a label that is not listed.
    pub fn read(part: &Part, space: &mut Space, watch: &Watch) -> Result<Self> {
        Self::read_all(part, space, &mut Faults::fatal(), watch, |_| ())
    }

    /// [`Points::read`], which goes on behind `faults` if these are listed; `see` is shown every row that can be read.
    ///
    /// # Errors
    /// As [`Points::read`].
    pub fn read_all(
        part: &Part,
        space: &mut Space,
        faults: &mut Faults,
        watch: &Watch,
        mut see: impl FnMut(&Row),
    ) -> Result<Self> {
        let mut points = Self::new();
        let rows = faults.good(part.rows("reading", watch))?;
        for row in rows.into_iter().flatten() {
            match faults.good(row)? {
                Some(row) => {
                    see(&row);
                    let added = points.add(part, row, space);
                    faults.good(added)?;
                }
                // It keeps its place.
                None => points.labels.push([]),
            }
        }
        faults.good(points.check(part))?;
        Ok(points)
    }

    /// No rows yet.
    fn new() -> Self {
        Self { labels: Ragged::new(), have_labels: false, unread: 0, any_text: false, known: HashSet::new() }
    }

    /// Adds a row of `part`.
    ///
    /// # Errors
    /// [`Error::Data`] if it has a label that is not listed; the row is added without labels then.
    fn add(&mut self, part: &Part, row: Row, space: &mut Space) -> Result<()> {
        self.have_labels |= row.labels.is_some();
        self.unread += usize::from(row.unread);
        self.any_text |= !row.text.trim().is_empty();
        let ids = row.labels.map_or(Ok(Vec::new()), |labels| space.ids(labels));
        if let Some((_, place @ None)) = &mut space.first_unlisted {
            *place = Some(part.label_place(row.line));
        }
        let mut ids = match ids {
            Ok(ids) => ids,
            Err(id) => {
                self.labels.push([]);
                let (listed, list) = space.listed.clone().unwrap_or_default();
                return Err(Error::Data {
                    place: part.label_place(row.line),
                    expected: format!("ids below {listed}, the number of labels"),
                    found: id.to_string(),
                    hint: Some(format!("ids are numbers from 0; {list} says how many there are")),
                });
            }
        };
        self.known.clear();
        ids.retain(|&id| self.known.insert(id));
        self.labels.push(ids);
        Ok(())
    }

    /// Whether there is a row, and any text.
    ///
    /// # Errors
    /// [`Error::Data`] if not.
    fn check(&self, part: &Part) -> Result<()> {
        if self.any_text {
            return Ok(());
        }
        let rows = self.labels.len();
        Err(Error::Data {
            place: Place::file(&part.path),
            expected: "rows with text".into(),
            found: match rows {
                0 => "no row".into(),
                1 => "one row without".into(),
                n => format!("{n} rows without"),
            },
            hint: match part.fields {
                _ if rows == 0 => None,
                TextFields::Title if self.unread > 0 => Some(
                    "only the title is read, as dataset.data.text or the data set's name says; \
                     dataset.data.text=title+content reads both"
                        .into(),
                ),
                _ => part.lacks_text(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{
        formats::Files,
        testing::{folder, source},
    };

    fn read(content: &str, listed: Option<usize>) -> Result<Points> {
        let dir = folder(&[("trn.json", content), ("tst.json", "")]);
        let files = Files::find(&source(dir.path()))?;
        let mut space = Space::default();
        space.listed = listed.map(|listed| (listed, "lbl.json".into()));
        Points::read(&files.train, &mut space, &Watch::default())
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
