//! Sparse text: `ROWS COLUMNS`, then a line a row of `label:score`.

use std::path::{Path, PathBuf};

use super::Scored;
use crate::{
    data::{beginning, text::Lines},
    error::{Place, Result, wrong},
};

/// A matrix, read row by row.
pub struct SparseText {
    pub rows: usize,
    pub columns: usize,
    path: PathBuf,
    lines: Lines,
    read: usize,
}

const HEADER: &str = "a line `ROWS COLUMNS`, or an archive of scipy.sparse.save_npz";

impl SparseText {
    /// Opens the file and reads its first line.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Data`](crate::Error::Data) if it is no such matrix.
    pub fn open(path: &Path) -> Result<Self> {
        let mut lines = Lines::open(path)?;
        if !lines.advance()? {
            return Err(wrong(Place::file(path), HEADER, "an empty file", None));
        }
        let mut sizes = lines.text().split_ascii_whitespace().map(str::parse::<u32>);
        let (Some(Ok(rows)), Some(Ok(columns)), None) = (sizes.next(), sizes.next(), sizes.next()) else {
            let hint = "below it stands a line a row of test, as in `12:0.93 345:0.71`";
            return Err(wrong(lines.place(), HEADER, format!("`{}`", beginning(lines.text())), Some(hint)));
        };
        Ok(Self { rows: rows as usize, columns: columns as usize, path: path.to_owned(), lines, read: 0 })
    }

    /// The line that was read last.
    pub fn place(&self) -> Place {
        self.lines.place()
    }

    /// Adds the next row to `row`.
    pub fn read_row(&mut self, row: &mut Vec<Scored>) -> Result<()> {
        if !self.lines.advance()? {
            let expected = format!("{} rows, as its first line says", self.rows);
            return Err(wrong(Place::file(&self.path), expected, self.read.to_string(), None));
        }
        self.read += 1;
        for entry in self.lines.text().split_ascii_whitespace() {
            let parsed =
                entry.split_once(':').and_then(|(label, score)| Some((label.parse().ok()?, score.parse().ok()?)));
            row.push(parsed.ok_or_else(|| {
                wrong(self.place(), "entries `label:score`", format!("`{}`", beginning(entry)), None)
            })?);
        }
        Ok(())
    }

    /// After the last row: whether anything is left over.
    pub fn finish(mut self) -> Result<()> {
        while self.lines.advance()? {
            if !self.lines.text().trim().is_empty() {
                let expected = format!("{} rows, as the first line says", self.rows);
                return Err(wrong(self.place(), expected, "another one", None));
            }
        }
        Ok(())
    }
}
