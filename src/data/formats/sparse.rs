//! pyxclib's sparse text: a line with the numbers of rows and columns, then `column:value` pairs, a row a line.

use std::path::Path;

use super::{json::beginning, wrong};
use crate::{
    data::text::{CR_ALONE, Lines},
    error::{Place, Result},
};

/// The rows of a label matrix, in order.
#[derive(Debug)]
pub(super) struct Sparse {
    lines: Lines,
    rows: usize,
    columns: usize,
}

impl Sparse {
    /// Reads the first line.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Data`](crate::Error::Data) if it is not the header.
    pub fn open(path: &Path) -> Result<Self> {
        let mut lines = Lines::open(path)?;
        let expected = "a first line with the numbers of rows and labels, as `100 20`";
        if !lines.advance()? {
            return Err(wrong(Place::file(path), expected, "an empty file", None));
        }
        let text = lines.text();
        let numbers: Vec<Option<usize>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
        match numbers[..] {
            // Labels are numbered by 32 bits.
            [Some(rows), Some(columns)] if columns <= u32::MAX as usize => Ok(Self { lines, rows, columns }),
            _ => {
                let hint = match numbers[..] {
                    _ if text.trim().contains('\r') => Some(CR_ALONE.1),
                    [Some(_), Some(_), Some(_)] => {
                        Some("three numbers begin a file of features and labels without texts")
                    }
                    _ => None,
                };
                let found = format!("`{}`", beginning(text));
                Err(wrong(lines.place(), expected, found, hint))
            }
        }
    }

    /// Chosen, which are labels.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The columns of the next row whose value is not 0; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Data`](crate::Error::Data) for a line that is no row, behind which
    /// reading may go on.
    pub fn next_row(&mut self) -> Result<Option<Vec<u32>>> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        let pairs = self.lines.text().split_whitespace();
        pairs.filter_map(|pair| self.column(pair).transpose()).collect::<Result<_>>().map(Some)
    }

    /// Whether there were as many rows as the first line says, once all were read.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if not.
    pub fn check_end(&self) -> Result<()> {
        let read = self.lines.number() - 1;
        if read == self.rows {
            return Ok(());
        }
        let hint = "the file is incomplete, or was edited: write it, or download it, again";
        let place = Place::line(self.lines.path(), 1);
        Err(wrong(place, format!("{read}, the rows that follow"), self.rows.to_string(), Some(hint)))
    }

    /// The column of a pair, if its value is not 0.
    fn column(&self, pair: &str) -> Result<Option<u32>> {
        let wrong = |expected: &str, hint| {
            let found = format!("`{}`", beginning(pair));
            Err(wrong(self.lines.place(), expected, found, hint))
        };
        let parsed = pair.split_once(':').map(|(column, value)| (column.parse::<u64>(), value.parse::<f64>()));
        let Some((Ok(column), Ok(value))) = parsed else {
            return wrong("pairs of label and value, as `12:1.0`", None);
        };
        if column >= self.columns as u64 {
            let hint = "labels are numbered from 0; the second number of the first line says how many there are";
            return wrong(&format!("labels below {}", self.columns), Some(hint));
        }
        if !value.is_finite() || value < 0.0 {
            return wrong("a value that is 0 or more", None);
        }
        Ok((value != 0.0).then_some(column as u32))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::data::{testing::folder, text::tests::gzip};

    fn read(content: &[u8]) -> Result<Vec<Vec<u32>>, String> {
        let dir = folder(&[]);
        let path = dir.path().join("y.txt");
        fs::write(&path, content).unwrap();
        let mut matrix = Sparse::open(&path).map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        loop {
            match matrix.next_row() {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => return matrix.check_end().map(|()| rows).map_err(|error| error.to_string()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn pairs_are_read_however_they_are_written() {
        let content = b"4 20000000\n1:1.00000 16777217:1.0\n\n 3:1\t2:0 4:0.5 \n0:1e0\n";
        let crlf = String::from_utf8_lossy(content).replace('\n', "\r\n").into_bytes();
        for content in [content.to_vec(), gzip(content), crlf, [b"\xef\xbb\xbf", &content[..]].concat()] {
            assert_eq!(read(&content).unwrap(), [vec![1, 16_777_217], vec![], vec![3, 4], vec![0]]);
        }
        assert!(read(b"0 5\n").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_matrix_is_named() {
        for (content, expected) in [
            ("", "y.txt: expected a first line with the numbers of rows and labels, as `100 20`, found an empty file"),
            ("1:1.0\n", "y.txt:1: expected a first line"),
            ("2 3 4\n", "three numbers begin a file of features"),
            ("1 3\r0:1\r", "help: `tr '\\r'"),
            ("1 4294967296\n", "y.txt:1: expected a first line"),
            ("2 3\n0:1\n", "y.txt:1: expected 1, the rows that follow, found 2"),
            ("1 3\n0:1\n1:1\n", "y.txt:1: expected 2, the rows that follow, found 1"),
            ("1 3\n0:1 3:1\n", "y.txt:2: expected labels below 3, found `3:1`"),
            ("1 3\n-1:1\n", "y.txt:2: expected pairs of label and value"),
            ("1 3\n1\n", "y.txt:2: expected pairs of label and value"),
            ("1 3\n1:x\n", "y.txt:2: expected pairs of label and value"),
            ("1 3\n1:nan\n", "y.txt:2: expected a value that is 0 or more"),
            ("1 3\n1:-1\n", "y.txt:2: expected a value that is 0 or more"),
        ] {
            let message = read(content.as_bytes()).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text in "[0-9:. \t\r\n-]{0,60}") {
            let _ = read(&bytes);
            let _ = read(format!("3 9\n{text}").as_bytes());
        }
    }
}
