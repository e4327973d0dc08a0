//! Many short texts in little memory.

use super::{Watch, faults::Faults, formats::Part};
use crate::error::{Error, Place, Result};

/// Texts end to end in one allocation: with millions of labels, a `String` each would cost more than the titles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Titles {
    text: String,
    ends: Vec<usize>,
}

impl Titles {
    /// The titles of a list of labels.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a line that cannot be read, or a file without lines.
    pub fn read(file: &Part, faults: &mut Faults, watch: &Watch) -> Result<Self> {
        let mut titles = Self::default();
        for title in file.texts("reading", watch)? {
            // A label that cannot be read keeps its place.
            titles.push(&faults.good(title)?.unwrap_or_default());
        }
        if titles.len() > 0 {
            return Ok(titles);
        }
        Err(Error::Data {
            place: Place::file(&file.path),
            expected: "a label a line".into(),
            found: "an empty file".into(),
            hint: Some("without the file, labels are numbered as in the rows".into()),
        })
    }

    pub fn push(&mut self, title: &str) {
        self.text.push_str(title);
        self.ends.push(self.text.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.text[start..end])
    }

    /// Bytes of all texts.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

impl<T: AsRef<str>> FromIterator<T> for Titles {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut titles = Self::default();
        texts.into_iter().for_each(|text| titles.push(text.as_ref()));
        titles
    }
}
