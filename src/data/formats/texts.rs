//! Plain texts, one a line, and the labels of their rows in a file of their own.

use std::{iter, path::PathBuf};

use super::{npz, sparse::Sparse, wrong};
use crate::{
    data::{
        ragged::Ragged,
        row::{Labels, Row},
        text::{CR_ALONE, Lines},
    },
    error::{Place, Result},
};

/// A file with the labels of every row.
#[derive(Debug, Clone)]
pub(super) enum LabelFile {
    /// Names, separated by blanks, a row a line.
    Names(PathBuf),
    /// pyxclib's sparse text.
    Sparse(PathBuf),
    /// SciPy's sparse matrix.
    Npz(PathBuf),
}

impl LabelFile {
    pub fn path(&self) -> &PathBuf {
        let (Self::Names(path) | Self::Sparse(path) | Self::Npz(path)) = self;
        path
    }

    /// Where the labels of the row on this line of the texts stand.
    pub fn place(&self, line: usize) -> Place {
        match self {
            Self::Names(path) => Place::line(path, line),
            Self::Sparse(path) => Place::line(path, line + 1),
            Self::Npz(path) => Place::file(path).field(format!("row {}", line - 1)),
        }
    }

    /// Number of labels, where the file says it.
    ///
    /// # Errors
    /// As [`LabelFile::open`].
    pub fn columns(&self) -> Result<Option<usize>> {
        Ok(match self {
            Self::Names(_) => None,
            Self::Sparse(path) => Some(Sparse::open(path)?.columns()),
            Self::Npz(path) => Some(npz::read(path)?.columns),
        })
    }

    fn open(&self) -> Result<LabelRows> {
        Ok(match self {
            Self::Names(path) => LabelRows::Names(Lines::open(path)?),
            Self::Sparse(path) => LabelRows::Sparse(Sparse::open(path)?),
            Self::Npz(path) => LabelRows::Matrix(npz::read(path)?.rows, 0),
        })
    }
}

/// The labels of the rows, in order.
enum LabelRows {
    Names(Lines),
    Sparse(Sparse),
    Matrix(Ragged, usize),
}

impl LabelRows {
    fn next(&mut self) -> Result<Option<Labels>> {
        Ok(match self {
            Self::Names(lines) => {
                advance(lines)?.map(|()| Labels::Names(lines.text().split_whitespace().map(str::to_owned).collect()))
            }
            Self::Sparse(matrix) => matrix.next_row()?.map(Labels::Ids),
            Self::Matrix(rows, next) => (*next < rows.len()).then(|| {
                *next += 1;
                Labels::Ids(rows.row(*next - 1).to_vec())
            }),
        })
    }

    /// Whether the file has as many rows as it says, once all were read.
    fn check_end(&self) -> Result<()> {
        match self {
            Self::Sparse(matrix) => matrix.check_end(),
            Self::Names(_) | Self::Matrix(..) => Ok(()),
        }
    }
}

/// The texts, one a line.
pub(super) fn texts(mut lines: Lines) -> impl Iterator<Item = Result<(usize, String)>> {
    iter::from_fn(move || {
        let advanced = advance(&mut lines).transpose()?;
        Some(advanced.map(|()| (lines.number(), lines.text().to_owned())))
    })
}

/// Reads the next line of a file that has one a row or a label; `None` at the end.
///
/// # Errors
/// As [`Lines::advance`]; and for a file whose lines end in CR alone, which is one line.
pub(super) fn advance(lines: &mut Lines) -> Result<Option<()>> {
    if !lines.advance()? {
        return Ok(None);
    }
    if lines.number() == 1 && lines.text().contains('\r') && lines.is_last() {
        return Err(wrong(lines.place(), "a row or a label a line", CR_ALONE.0, Some(CR_ALONE.1)));
    }
    Ok(Some(()))
}

/// The texts with their labels, in order; at the end an error if there are not as many of these as of those.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) and [`Error::Data`](crate::Error::Data), if the file of labels cannot be opened.
pub(super) fn rows(lines: Lines, labels: &LabelFile) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let (place, beside) = (Place::file(lines.path()), labels.path().clone());
    let mut labels = labels.open()?;
    let (mut texts, mut read, mut ended) = (texts(lines), [0; 2], false);
    Ok(iter::from_fn(move || {
        if ended {
            return None;
        }
        let (text, row_labels) = (texts.next(), labels.next());
        read[0] += usize::from(text.is_some());
        read[1] += usize::from(!matches!(row_labels, Ok(None)));
        match (text, row_labels) {
            (Some(Ok((line, text))), Ok(Some(labels))) => {
                Some(Ok(Row { line, text, labels: Some(labels), unread: false }))
            }
            (Some(Err(error)), _) | (_, Err(error)) => Some(Err(error)),
            (None, Ok(None)) => {
                ended = true;
                labels.check_end().err().map(Err)
            }
            _ => {
                ended = true;
                read[0] += texts.by_ref().count();
                while !matches!(labels.next(), Ok(None)) {
                    read[1] += 1;
                }
                let expected = format!("{} lines, as many as {} has rows", read[1], beside.file_name()?.display());
                let hint = "a line of the one file belongs to the same line of the other; an empty line is an empty text, \
                            or no label";
                Some(Err(wrong(place.clone(), expected, read[0].to_string(), Some(hint))))
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::folder;

    /// The rows of these files, or the errors.
    fn read(texts: &str, labels: &str, file: fn(PathBuf) -> LabelFile) -> (Vec<Row>, Vec<String>) {
        let dir = folder(&[("x.txt", texts), ("y.txt", labels)]);
        let lines = Lines::open(&dir.path().join("x.txt")).unwrap();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        match rows(lines, &file(dir.path().join("y.txt"))) {
            Ok(rows) => rows.for_each(|row| match row {
                Ok(row) => good.push(row),
                Err(error) => bad.push(error.to_string()),
            }),
            Err(error) => bad.push(error.to_string()),
        }
        (good, bad)
    }

    #[test]
    fn texts_and_labels_come_together_by_their_lines() {
        let (rows, errors) = read("a b\n\nc", "\u{feff}x  y\r\n\r\nz\r\n", LabelFile::Names);
        assert!(errors.is_empty(), "{errors:?}");
        let rows: Vec<_> = rows.into_iter().map(|row| (row.line, row.text, row.labels.unwrap())).collect();
        let names = |names: &[&str]| Labels::Names(names.iter().map(|name| (*name).to_owned()).collect());
        let expected = [(1, "a b", names(&["x", "y"])), (2, "", names(&[])), (3, "c", names(&["z"]))];
        assert_eq!(rows, expected.map(|(line, text, labels)| (line, text.to_owned(), labels)));
    }

    #[test]
    fn every_fault_is_named_and_reading_goes_on_behind_it() {
        let (rows, errors) = read("a\nb\nc\n", "3 2\n0:1\nx\n1:1\n", LabelFile::Sparse);
        assert_eq!((rows.len(), errors.len()), (2, 1));
        assert!(errors[0].contains("y.txt:3: expected pairs of label and value"), "{errors:?}");
        let (rows, errors) = read("a\nb\n", "3 2\n0:1\n1:1\n", LabelFile::Sparse);
        assert_eq!(rows.len(), 2);
        assert!(errors[0].contains("y.txt:1: expected 2, the rows that follow, found 3"), "{errors:?}");
        for (texts, labels, rows) in [("a\nb\nc\n", "x\n", [1, 3]), ("a\n", "x\ny\nz\n", [3, 1])] {
            let (_, errors) = read(texts, labels, LabelFile::Names);
            let [labelled, found] = rows;
            let expected = format!("x.txt: expected {labelled} lines, as many as y.txt has rows, found {found}");
            assert!(errors.len() == 1 && errors[0].contains(&expected), "{errors:?}");
        }
        let (_, errors) = read("a\nb\n", "x\ry\r", LabelFile::Names);
        assert!(
            errors[0].contains("y.txt:1: expected a row or a label a line, found lines that end in CR"),
            "{errors:?}"
        );
        let (_, errors) = read("a\rb\r", "x\ny\n", LabelFile::Names);
        assert!(
            errors[0].contains("x.txt:1: expected a row or a label a line, found lines that end in CR alone"),
            "{errors:?}"
        );
    }
}
