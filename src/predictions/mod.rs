//! The predictions of any system, read row by row: labels with scores, as the field's programs write them.
//!
//! Two forms are known by their first bytes: a SciPy CSR matrix (`scipy.sparse.save_npz`), and sparse text as pyxclib
//! writes it, plain or gzipped: a line `ROWS COLUMNS`, then a line a row of `label:score`. Neither is held in memory.

mod npy;
mod npz;
mod sparse_text;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use npz::Csr;
use sparse_text::SparseText;

use crate::error::{Error, Place, Result, wrong};

/// A label's column and its score.
pub type Scored = (u32, f64);

/// A file of predictions, opened.
pub struct Predictions {
    path: PathBuf,
    rows: usize,
    columns: usize,
    matrix: Matrix,
}

enum Matrix {
    Csr(Box<Csr>),
    Text(Box<SparseText>),
}

impl Predictions {
    /// Opens a file and reads how large its matrix is.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if it is of neither form.
    pub fn open(path: &Path) -> Result<Self> {
        let mut first = Vec::new();
        let file = File::open(path).map_err(Error::io("read", path))?;
        file.take(4).read_to_end(&mut first).map_err(Error::io("read", path))?;
        let (rows, columns, matrix) = match first.starts_with(b"PK") {
            true => {
                let csr = Csr::open(path)?;
                (csr.rows, csr.columns, Matrix::Csr(Box::new(csr)))
            }
            false => {
                let text = SparseText::open(path)?;
                (text.rows, text.columns, Matrix::Text(Box::new(text)))
            }
        };
        Ok(Self { path: path.to_owned(), rows, columns, matrix })
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix: the number of labels.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Calls `each` with the number of every row and what it holds, in the file's order, each label once.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for what is damaged, beyond the matrix, twice in a row, or no number.
    pub fn for_each(self, mut each: impl FnMut(usize, &mut Vec<Scored>)) -> Result<()> {
        let Self { path, rows, columns, mut matrix } = self;
        let (mut row, mut labels) = (Vec::new(), Vec::new());
        for number in 0..rows {
            row.clear();
            match &mut matrix {
                Matrix::Csr(csr) => csr.read_row(&mut row)?,
                Matrix::Text(text) => text.read_row(&mut row)?,
            }
            let place = || match &matrix {
                Matrix::Csr(_) => Place::file(&path).field(format!("row {number}")),
                Matrix::Text(text) => text.place(),
            };
            labels.clear();
            labels.extend(row.iter().map(|(label, _)| *label));
            labels.sort_unstable();
            check_labels(&labels, columns, place)?;
            if let Some((label, _)) = row.iter().find(|(_, score)| score.is_nan()) {
                return Err(wrong(place(), "scores that are numbers", format!("NaN for label {label}"), None));
            }
            each(number, &mut row);
        }
        match matrix {
            Matrix::Csr(csr) => csr.finish(),
            Matrix::Text(text) => text.finish(),
        }
    }
}

/// Whether `labels`, ascending, are columns of the matrix, each once.
fn check_labels(labels: &[u32], columns: usize, place: impl Fn() -> Place) -> Result<()> {
    if let Some(label) = labels.last().filter(|label| **label as usize >= columns) {
        let hint = "columns are counted from 0";
        return Err(wrong(place(), format!("labels below {columns}, the columns"), label.to_string(), Some(hint)));
    }
    match labels.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(wrong(place(), "every label once a row", format!("label {} twice", pair[0]), None)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
