//! Embeddings: text in, the vector that the classifier sees out; and the NumPy arrays that hold them.

use half::f16;

use crate::{
    error::{Error, Result},
    predict::batches,
    trained::Trained,
};

/// The embedding of every text, in their order; `None` for a text without words, as in [`predict`](mod@crate::predict).
///
/// # Errors
/// [`Error::Data`] if a text cannot be tokenised, [`Error::NotFinite`] if an embedding is not finite.
pub fn embed(trained: &Trained, texts: &[String]) -> Result<Vec<Option<Vec<f32>>>> {
    let mut embeddings = vec![None; texts.len()];
    let dim = dim(trained);
    for (rows, inputs) in batches(trained, texts)? {
        let values: Vec<f32> = trained.model.embed(inputs).into_data().iter().collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite {
                hint: Some("its training diverged; try --checkpoint last, or train again with lower rates".into()),
            });
        }
        for (row, values) in rows.into_iter().zip(values.chunks(dim)) {
            embeddings[row] = Some(values.to_vec());
        }
    }
    Ok(embeddings)
}

/// Numbers of an embedding.
pub fn dim(trained: &Trained) -> usize {
    trained.model.classifier.config().dim
}

/// How the numbers of an array are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// As they are computed.
    F32,
    /// Rounded to half precision.
    F16,
}

impl Numbers {
    /// The header of a NumPy array of `rows` embeddings of `dim` numbers, which follow row by row. Its length is always
    /// the same, so that it can be replaced when all rows are written.
    ///
    /// # Panics
    /// If there are more than 10^18 rows, which no disk holds.
    pub fn header(self, rows: u64, dim: usize) -> [u8; 128] {
        let descr = match self {
            Self::F32 => "<f4",
            Self::F16 => "<f2",
        };
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
        let mut header = [b' '; 128];
        header[..10].copy_from_slice(b"\x93NUMPY\x01\x00\x76\x00");
        header[10..10 + text.len()].copy_from_slice(text.as_bytes());
        header[127] = b'\n';
        header
    }

    /// Adds a row to `bytes`.
    ///
    /// # Errors
    /// The first value that half precision cannot hold.
    pub fn put(self, row: &[f32], bytes: &mut Vec<u8>) -> Result<(), f32> {
        match self {
            Self::F32 => bytes.extend(row.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => {
                for value in row {
                    let half = f16::from_f32(*value);
                    if half.is_infinite() {
                        return Err(*value);
                    }
                    bytes.extend(half.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_one_length_and_is_followed_by_the_numbers() {
        let header = Numbers::F16.header(10_u64.pow(18), usize::pow(2, 16));
        let text = String::from_utf8_lossy(&header[10..]);
        assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])), text.len());
        let text = "{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000000000, 65536), }";
        assert_eq!(header[10..10 + text.len()], *text.as_bytes());
        assert!(header.ends_with(b" \n") && header.len().is_multiple_of(64));
    }

    #[test]
    fn what_half_precision_cannot_hold_is_told() {
        let mut bytes = Vec::new();
        assert_eq!(Numbers::F16.put(&[1.0, -65504.0], &mut bytes), Ok(()));
        assert_eq!(bytes, [0x00, 0x3c, 0xff, 0xfb]);
        assert_eq!(Numbers::F16.put(&[1.0, 7e4], &mut bytes), Err(7e4));
        let mut bytes = Vec::new();
        assert_eq!(Numbers::F32.put(&[7e4], &mut bytes), Ok(()));
        assert_eq!(bytes, 7e4_f32.to_le_bytes());
    }
}
