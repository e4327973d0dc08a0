//! `filter_labels_{train,test}.txt`: pairs of row and label that an evaluation does not count.

use std::{fs, path::Path};

use super::ragged::Ragged;
use crate::error::{Error, Place, Result};

/// The filter of a split.
#[derive(Debug)]
pub(super) struct Filter {
    /// Sorted output indices of every row.
    pub rows: Ragged,
    /// Pairs left out because their label has no output: nothing could ever predict it.
    pub skipped: usize,
}

impl Filter {
    pub fn none(rows: usize) -> Self {
        Self {
            rows: Ragged::from_sorted_pairs(rows, &[]),
            skipped: 0,
        }
    }

    /// Reads `name` for a split of `rows` rows; `index` gives the output of a label id.
    ///
    /// No file means no pairs: several public data sets come without, and others ask for an empty one.
    ///
    /// # Errors
    /// [`Error::Data`] for a line that is not "row label", or whose row does not exist.
    pub fn read(dir: &Path, name: &str, rows: usize, index: impl Fn(u32) -> Option<u32>) -> Result<Self> {
        let places = [dir.join(name), dir.join("raw_text").join(name)];
        let Some(path) = places.into_iter().find(|path| path.is_file()) else {
            return Ok(Self::none(rows));
        };
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let mut pairs = Vec::new();
        let mut skipped = 0;
        for (line, content) in text.lines().enumerate() {
            let wrong = |expected: String| Error::Data {
                place: Place::line(&path, line + 1),
                expected,
                found: format!("`{content}`"),
                hint: None,
            };
            let mut fields = content.split_ascii_whitespace();
            let (row, label) = match (fields.next(), fields.next(), fields.next()) {
                (None, ..) => continue,
                (Some(row), Some(label), None) => (row.parse::<u32>(), label.parse::<u32>()),
                _ => return Err(wrong("two numbers, a row and a label".into())),
            };
            let (Ok(row), Ok(label)) = (row, label) else {
                return Err(wrong("two numbers, a row and a label".into()));
            };
            if row as usize >= rows {
                return Err(wrong(format!("a row below {rows}")));
            }
            match index(label) {
                Some(index) => pairs.push((row, index)),
                None => skipped += 1,
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        Ok(Self {
            rows: Ragged::from_sorted_pairs(rows, &pairs),
            skipped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::folder;

    fn read(content: &str) -> Result<Filter> {
        let dir = folder(&[("f.txt", content)]);
        Filter::read(dir.path(), "f.txt", 3, |id| (id < 10).then(|| 9 - id))
    }

    #[test]
    fn rows_are_sorted_by_output_and_unknown_labels_skipped() {
        let filter = read("2 4\n0 1\n0 3\n0 1\n1 77\n\n").unwrap();
        let rows: Vec<_> = filter.rows.rows().collect();
        assert_eq!(rows, [&[6, 8][..], &[], &[5]]);
        assert_eq!(filter.skipped, 1);
    }

    #[test]
    fn absent_and_empty_files_filter_nothing() {
        let dir = folder(&[]);
        let absent = Filter::read(dir.path(), "f.txt", 3, Some).unwrap();
        assert_eq!(absent.rows, read("").unwrap().rows);
        assert_eq!(absent.rows.len(), 3);
    }

    #[test]
    fn bad_lines_are_named() {
        for (content, expected) in [
            ("0 1\n3 1\n", "f.txt:2: expected a row below 3, found `3 1`"),
            ("0\n", "f.txt:1: expected two numbers"),
            ("0 1 2\n", "f.txt:1: expected two numbers"),
            ("0 -1\n", "f.txt:1: expected two numbers"),
        ] {
            let message = read(content).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
