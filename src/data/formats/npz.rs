//! SciPy's sparse matrices (`scipy.sparse.save_npz`), as PECOS keeps its labels.

use std::{fs::File, io::BufReader, path::Path};

use zip::{ZipArchive, result::ZipError};

use super::{npy::Array, wrong};
use crate::{
    data::ragged::Ragged,
    error::{Error, Place, Result},
};

/// A label matrix.
#[derive(Debug)]
pub(super) struct Matrix {
    /// The columns of every row whose value is not 0.
    pub rows: Ragged,
    pub columns: usize,
}

/// Reads the matrix in `path`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] for anything but a matrix in compressed sparse rows.
pub(super) fn read(path: &Path) -> Result<Matrix> {
    let damaged = |expected: &str, found: String| {
        let hint = "scipy.sparse.save_npz(FILE, matrix.tocsr()) writes such a file";
        wrong(Place::file(path), expected, found, Some(hint))
    };
    const SPARSE: &str = "a sparse matrix of SciPy";
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut archive = match ZipArchive::new(BufReader::new(file)) {
        Ok(archive) => archive,
        Err(ZipError::Io(error)) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(Error::io("read", path)(error));
        }
        Err(error) => return Err(damaged(SPARSE, format!("no archive that is whole ({error})"))),
    };
    let mut array = |name: &str| {
        let entry = archive.by_name(&format!("{name}.npy"));
        let entry = entry.map_err(|_| damaged(SPARSE, format!("no array `{name}`")))?;
        Array::read(entry).map_err(|found| damaged(&format!("the array `{name}`"), found))
    };
    let format = array("format")?.text();
    if format != "csr" {
        let found = format!("the format `{}`", super::json::beginning(&format));
        return Err(damaged("a matrix in compressed sparse rows (CSR)", found));
    }
    let [shape, starts, columns, values] = ["shape", "indptr", "indices", "data"].map(&mut array);
    let [shape, starts, columns, values] = [shape?, starts?, columns?, values?];
    let whole = |array: &Array, name: &str| -> Result<Vec<usize>> {
        let expected = format!("whole numbers from 0 in the array `{name}`");
        let numbers = array.whole_numbers().map_err(|found| damaged(&expected, found))?;
        numbers
            .map(|number| number.and_then(|number| number.try_into().ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| damaged(&expected, "a negative one".into()))
    };
    let (shape, starts) = (whole(&shape, "shape")?, whole(&starts, "indptr")?);
    let [rows, width] = shape[..] else {
        return Err(damaged("a matrix of rows and labels", format!("{} dimensions", shape.len())));
    };
    if starts.first() != Some(&0)
        || starts.len() != rows.saturating_add(1)
        || !starts.is_sorted()
        || starts.last() != Some(&columns.len())
        || values.len() != columns.len()
    {
        return Err(damaged("arrays that fit each other", "others".into()));
    }
    let mut numbers =
        columns.whole_numbers().map_err(|found| damaged("whole numbers in the array `indices`", found))?;
    let mut truths = values.truths().map_err(|found| damaged("numbers in the array `data`", found))?;
    let mut matrix = Matrix { rows: Ragged::new(), columns: width };
    let mut row = Vec::new();
    for (number, ends) in starts.windows(2).enumerate() {
        row.clear();
        for (column, truth) in numbers.by_ref().zip(truths.by_ref()).take(ends[1] - ends[0]) {
            match column.map(|column| (column, u32::try_from(column))) {
                Some((column, Ok(id))) if column < width as u64 => row.extend(truth.then_some(id)),
                column => {
                    let found = column.map_or("a negative one".into(), |(column, _)| column.to_string());
                    return Err(damaged(&format!("labels below {width} in row {number}"), found));
                }
            }
        }
        matrix.rows.push(row.iter().copied());
    }
    Ok(matrix)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;
    use crate::data::testing::folder;

    fn array(kind: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), bytes].concat()
    }

    fn numbers<const N: usize>(kind: &str, numbers: &[i64], bytes: impl Fn(i64) -> [u8; N]) -> Vec<u8> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| bytes(*number)).collect();
        array(kind, &format!("({},)", numbers.len()), &bytes)
    }

    fn int32(values: &[i64]) -> Vec<u8> {
        numbers("<i4", values, |value| (value as i32).to_le_bytes())
    }

    /// The arrays of a matrix of three rows and 20,000,000 columns.
    fn arrays() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("format", array("|S3", "()", b"csr")),
            ("shape", numbers("<i8", &[3, 20_000_000], i64::to_le_bytes)),
            ("indptr", int32(&[0, 2, 2, 4])),
            ("indices", int32(&[5, 16_777_217, 3, 4])),
            ("data", numbers("<f4", &[1, 1, 0, 1], |value| (value as f32).to_le_bytes())),
        ]
    }

    fn write(path: &Path, arrays: &[(&str, Vec<u8>)], method: CompressionMethod) {
        let mut archive = ZipWriter::new(File::create(path).unwrap());
        for (name, bytes) in arrays {
            let options = SimpleFileOptions::default().compression_method(method);
            archive.start_file(format!("{name}.npy"), options).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
    }

    fn read_arrays(arrays: &[(&str, Vec<u8>)]) -> Result<Vec<Vec<u32>>, String> {
        let dir = folder(&[]);
        let path = dir.path().join("Y.trn.npz");
        let mut read_rows = Vec::new();
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            write(&path, arrays, method);
            let matrix = read(&path).map_err(|error| error.to_string())?;
            read_rows = matrix.rows.rows().map(<[u32]>::to_vec).collect();
        }
        Ok(read_rows)
    }

    fn with(name: &str, bytes: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
        let mut arrays = arrays();
        arrays.iter_mut().find(|array| array.0 == name).unwrap().1 = bytes;
        arrays
    }

    #[test]
    fn rows_are_read_whatever_their_numbers_are_kept_in() {
        let rows = [vec![5, 16_777_217], vec![], vec![4]];
        assert_eq!(read_arrays(&arrays()).unwrap(), rows);
        for (name, bytes) in [
            ("indices", numbers("<i8", &[5, 16_777_217, 3, 4], i64::to_le_bytes)),
            ("indices", numbers(">u4", &[5, 16_777_217, 3, 4], |value| (value as u32).to_be_bytes())),
            ("data", array("|b1", "(4,)", &[1, 1, 0, 1])),
            ("data", array("<f8", "(4,)", &[1.0, 2.0, -0.0, 0.5].map(f64::to_le_bytes).concat())),
            ("format", array("<U3", "()", b"c\0\0\0s\0\0\0r\0\0\0")),
        ] {
            assert_eq!(read_arrays(&with(name, bytes)).unwrap(), rows, "{name}");
        }
    }

    #[test]
    fn what_is_no_matrix_of_rows_is_named() {
        for (name, bytes, expected) in [
            (
                "format",
                array("|S3", "()", b"csc"),
                "expected a matrix in compressed sparse rows (CSR), found the format `csc`",
            ),
            ("indices", int32(&[5, 20_000_000, 3, 4]), "expected labels below 20000000 in row 0, found 20000000"),
            ("indices", int32(&[5, 7, 3, -4]), "expected labels below 20000000 in row 2, found a negative one"),
            ("indices", int32(&[5, 7, 3]), "arrays that fit each other"),
            ("indptr", int32(&[0, 3, 2, 4]), "arrays that fit each other"),
            ("indptr", int32(&[0, 2, 4]), "arrays that fit each other"),
            ("indptr", int32(&[0, -2, 2, 4]), "whole numbers from 0 in the array `indptr`, found a negative one"),
            ("data", array("|O", "(4,)", b""), "an array of the kind `|O`"),
            ("data", array("<f4", "(4,)", b"\0\0"), "an array that breaks off"),
            ("data", array("<f4", "(2, 2)", b""), "an array of 2 dimensions"),
            ("shape", b"{}".to_vec(), "an array that breaks off"),
            ("shape", b"{}              ".to_vec(), "no array of NumPy"),
        ] {
            let message = read_arrays(&with(name, bytes)).unwrap_err();
            assert!(message.contains(expected) && message.contains("help: scipy"), "{message}");
        }
        let mut arrays = arrays();
        arrays.remove(2);
        assert!(read_arrays(&arrays).unwrap_err().contains("no array `indptr`"));
        let dir = folder(&[("Y.npz", "PK\x03\x04"), ("Z.npz", "text")]);
        for name in ["Y.npz", "Z.npz"] {
            let message = read(&dir.path().join(name)).unwrap_err().to_string();
            assert!(message.contains("no archive that is whole"), "{message}");
        }
    }

    #[test]
    fn no_single_byte_makes_it_panic() {
        let dir = folder(&[]);
        let path = dir.path().join("Y.npz");
        write(&path, &arrays(), CompressionMethod::Stored);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x5a;
            fs::write(&path, &changed).unwrap();
            let _ = read(&path);
            fs::write(&path, &bytes[..at]).unwrap();
            assert!(read(&path).is_err());
        }
    }
}
