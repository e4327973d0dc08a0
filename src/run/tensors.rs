//! A writer of safetensors files whose bytes depend on the tensors alone.
//!
//! The header is computed first, with its keys in order; then the tensors follow one after the other, each in pieces as
//! they come. So equal tensors make equal files, and the host holds one piece at a time.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path};

use burn::tensor::DType;
use safetensors::Dtype;
use serde_json::json;

use super::fingerprint::{Fingerprint, Hash};
use crate::error::{Error, Result};

/// Takes the bytes of a tensor, piece by piece.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// A tensor to be written: what it is, and who hands out its bytes, the lowest first.
pub(super) struct Source<'a> {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub write: Box<dyn FnOnce(Sink) -> Result<()> + 'a>,
}

impl Source<'_> {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes the tensors to a new file, waits until it is on disk, and says what it holds.
///
/// # Errors
/// [`Error::Io`], or that of a source.
///
/// # Panics
/// If a source hands out more or less than its shape says.
pub(super) fn write(path: &Path, sources: BTreeMap<String, Source>) -> Result<Fingerprint> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, source) in &sources {
        let start = end;
        end += source.bytes();
        header.insert(
            name.clone(),
            json!({ "dtype": source.dtype, "shape": source.shape, "data_offsets": [start, end] }),
        );
    }
    let mut header = serde_json::Value::from(header).to_string().into_bytes();
    // The tensors begin at a multiple of 8 bytes, as the format asks.
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = File::create(path).map_err(Error::io("create", path))?;
    let mut hash = Hash::default();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        file.write_all(bytes).map_err(Error::io("write", path))
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for (name, source) in sources {
        let mut left = source.bytes();
        (source.write)(&mut |bytes| {
            left =
                (left.checked_sub(bytes.len())).unwrap_or_else(|| panic!("tensor `{name}` is longer than its shape"));
            put(bytes)
        })?;
        assert_eq!(left, 0, "tensor `{name}` is shorter than its shape");
    }
    file.sync_all().map_err(Error::io("write", path))?;
    Ok(hash.finish())
}

/// The name that safetensors has for a type; `None` if it has none.
pub(super) fn name(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 | DType::Flex32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U64 => Dtype::U64,
        DType::I64 => Dtype::I64,
        DType::U32 => Dtype::U32,
        DType::I32 => Dtype::I32,
        DType::U8 => Dtype::U8,
        _ => return None,
    })
}

/// The type that is called so; the inverse of [`name`].
pub(super) fn dtype(name: Dtype) -> Option<DType> {
    Some(match name {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::U64 => DType::U64,
        Dtype::I64 => DType::I64,
        Dtype::U32 => DType::U32,
        Dtype::I32 => DType::I32,
        Dtype::U8 => DType::U8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::finite::are_finite;

    fn source(dtype: Dtype, shape: &[usize], pieces: Vec<Vec<u8>>) -> Source<'static> {
        Source {
            dtype,
            shape: shape.to_vec(),
            write: Box::new(move |sink| pieces.iter().try_for_each(|piece| sink(piece))),
        }
    }

    #[test]
    fn what_is_written_is_a_safetensors_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let sources = [
            ("b", source(Dtype::U32, &[2, 1], vec![vec![1, 0, 0, 0], vec![2, 0, 0, 0]])),
            ("a", source(Dtype::BF16, &[3], vec![vec![0, 1, 2, 3, 4, 5]])),
        ];
        let written = write(&path, sources.map(|(name, source)| (name.into(), source)).into()).unwrap();
        assert_eq!(Fingerprint::of_file(&path).unwrap(), written);
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("b").unwrap().data(), [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(tensors.tensor("b").unwrap().shape(), [2, 1]);
        assert_eq!(tensors.tensor("a").unwrap().dtype(), Dtype::BF16);
        assert_eq!(tensors.tensor("a").unwrap().data(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn infinities_and_nan_are_found_in_every_format() {
        let f = |values: [f32; 2]| values.map(f32::to_le_bytes).concat();
        for (dtype, bytes, finite) in [
            (Dtype::F32, f([f32::MAX, -1e-45]), true),
            (Dtype::F32, f([1.0, f32::NAN]), false),
            (Dtype::F32, f([f32::NEG_INFINITY, 0.0]), false),
            (Dtype::F64, f64::MIN.to_le_bytes().to_vec(), true),
            (Dtype::F64, f64::NAN.to_le_bytes().to_vec(), false),
            (Dtype::BF16, vec![0xff, 0x7f], false),
            (Dtype::BF16, vec![0x7f, 0x7f], true),
            (Dtype::F16, vec![0x00, 0xfc], false),
            (Dtype::F16, vec![0xff, 0x7b], true),
            (Dtype::F8_E4M3, vec![0x7e, 0xfe], true),
            (Dtype::F8_E4M3, vec![0, 0xff], false),
            (Dtype::F8_E5M2, vec![0x7b, 0], true),
            (Dtype::F8_E5M2, vec![0x7c, 0], false),
            (Dtype::U8, vec![0xff], true),
        ] {
            assert_eq!(are_finite(dtype, &bytes), finite, "{dtype:?} {bytes:?}");
        }
    }
}
