//! The operations on a CPU, in F32.
//!
//! Every sum runs in one order, so that results depend neither on the number of threads nor on chance. Rows that belong
//! to no token are zero and are not computed.

pub mod activation;
mod attention;
pub mod embed;
pub mod layer;
mod norm;
mod product;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::texts::TextLayout;

/// The lists of [`PackedTexts`](super::PackedTexts), read back.
pub struct Texts {
    words: Vec<u32>,
    /// The rows of each text.
    pub rows: Vec<Range<usize>>,
    /// The text of each row.
    texts_of_rows: Range<usize>,
}

impl Texts {
    /// # Panics
    /// If there are fewer words than `layout` says.
    pub fn new(words: Vec<u32>, layout: &TextLayout) -> Self {
        let rows = words[layout.starts()].windows(2).map(|starts| starts[0] as usize..starts[1] as usize).collect();
        Self { words, rows, texts_of_rows: layout.texts_of_rows() }
    }

    /// Number `at` of one of the lists.
    fn word(&self, list: Range<usize>, at: usize) -> usize {
        self.words[list.start + at] as usize
    }

    /// A row's place in its text.
    fn position(&self, row: usize) -> usize {
        row - self.rows[self.word(self.texts_of_rows.clone(), row)].start
    }
}
