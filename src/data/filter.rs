//! `filter_labels_{train,test}.txt`: pairs of row and label that an evaluation does not count.

use std::path::Path;

use super::{
    faults::Faults,
    ragged::Ragged,
    text::{CR_ALONE, Lines},
};
use crate::error::{Error, Result};

/// The filter of a split.
#[derive(Debug)]
pub(super) struct Filter {
    /// Sorted output indices of every row.
    pub rows: Ragged,
    /// Pairs left out because their label has no output: nothing could ever predict it.
    pub skipped: usize,
}

impl Filter {
    /// Reads `path` for a split of `rows` rows; `index` gives the output of a label id.
    ///
    /// No file means no pairs: several public data sets come without, and others ask for an empty one.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a line that is not "row label", or whose row does not exist.
    pub fn read(
        path: Option<&Path>,
        rows: usize,
        faults: &mut Faults,
        index: impl Fn(u32) -> Option<u32>,
    ) -> Result<Self> {
        let mut pairs = Vec::new();
        let mut skipped = 0;
        let mut lines = faults.good(path.map(Lines::open).transpose())?.flatten();
        while let Some(lines) = &mut lines {
            match faults
                .good(lines.advance().and_then(|more| if more { pair(lines, rows).map(Some) } else { Ok(None) }))?
            {
                Some(None) => break,
                Some(Some(Some((row, label)))) => match index(label) {
                    Some(index) => pairs.push((row, index)),
                    None => skipped += 1,
                },
                Some(Some(None)) | None => {}
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        Ok(Self { rows: Ragged::from_sorted_pairs(rows, &pairs), skipped })
    }
}

/// The row and the label of a line; `None` for an empty one.
fn pair(lines: &Lines, rows: usize) -> Result<Option<(u32, u32)>> {
    let content = lines.text();
    let wrong = |expected: String, hint: Option<&str>| Error::Data {
        place: lines.place(),
        expected,
        found: format!("`{}`", super::formats::json::beginning(content)),
        hint: hint.map(Into::into),
    };
    let hint = match content.trim().contains('\r') {
        true => format!("the file has {}; {}", CR_ALONE.0, CR_ALONE.1),
        false => "the numbers are whole, with a space between them, as in `12 345`; there is no header".into(),
    };
    let mut fields = content.split_ascii_whitespace().map(str::parse::<u32>);
    let (row, label) = match (fields.next(), fields.next(), fields.next()) {
        (None, ..) => return Ok(None),
        (Some(Ok(row)), Some(Ok(label)), None) => (row, label),
        _ => return Err(wrong("two numbers from 0, a row and a label".into(), Some(&hint))),
    };
    if row as usize >= rows {
        return Err(wrong(format!("a row below {rows}"), None));
    }
    Ok(Some((row, label)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::data::{testing::folder, text::tests::gzip};

    fn read(content: &[u8]) -> Result<Filter> {
        let dir = folder(&[]);
        let path = dir.path().join("f.txt");
        fs::write(&path, content).unwrap();
        Filter::read(Some(&path), 3, &mut Faults::fatal(), |id| (id < 10).then(|| 9 - id))
    }

    #[test]
    fn rows_are_sorted_by_output_and_unknown_labels_skipped() {
        let content = b"2 4\n0 1\n0 3\n0 1\n1 77\n\n";
        for content in [content.to_vec(), gzip(content), [b"\xef\xbb\xbf", &content[..]].concat()] {
            let filter = read(&content).unwrap();
            let rows: Vec<_> = filter.rows.rows().collect();
            assert_eq!(rows, [&[6, 8][..], &[], &[5]]);
            assert_eq!(filter.skipped, 1);
        }
    }

    #[test]
    fn absent_and_empty_files_filter_nothing() {
        let absent = Filter::read(None, 3, &mut Faults::fatal(), Some).unwrap();
        assert_eq!(absent.rows, read(b"").unwrap().rows);
        assert_eq!(absent.rows.len(), 3);
    }

    #[test]
    fn bad_lines_are_named() {
        for (content, expected) in [
            ("0 1\n3 1\n", "f.txt:2: expected a row below 3, found `3 1`"),
            ("0\n", "f.txt:1: expected two numbers"),
            ("0 1 2\n", "f.txt:1: expected two numbers"),
            ("0 -1\n", "f.txt:1: expected two numbers"),
            ("0 1\r1 2\r", "help: the file has lines that end in CR alone; `tr"),
            ("0,0\n", "help: the numbers are whole, with a space"),
            ("0.0 1.0\n", "help: the numbers are whole, with a space"),
            ("row label\n0 0\n", "there is no header"),
        ] {
            let message = read(content.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, numbers in "[0-9 \t\r\n-]{0,40}") {
            let _ = read(&bytes);
            let _ = read(numbers.as_bytes());
        }
    }
}
