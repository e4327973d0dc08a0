//! Files of SciPy's own (`tests/fixtures/predictions`), text, and damaged ones of either form.

use std::{fs, io::Write, path::PathBuf};

use proptest::prelude::*;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/predictions", name].iter().collect()
}

fn read(path: &Path) -> Result<Vec<Vec<Scored>>> {
    let predictions = Predictions::open(path)?;
    let mut rows = Vec::new();
    predictions.for_each(|number, row| {
        assert_eq!(number, rows.len());
        rows.push(row.clone());
    })?;
    Ok(rows)
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<Vec<Scored>>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    fs::write(&path, bytes).unwrap();
    read(&path)
}

fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(bytes);
    array
}

fn whole(numbers: &[i64]) -> Vec<u8> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    npy("<i8", &format!("({},)", numbers.len()), &bytes)
}

/// An archive of a matrix, with these arrays in place of its own.
fn archive(other: &[(&str, Option<Vec<u8>>)]) -> Vec<u8> {
    let scores: Vec<u8> = [0.5_f32, 0.25].iter().flat_map(|score| score.to_le_bytes()).collect();
    let mut arrays = vec![
        ("indptr", Some(whole(&[0, 1, 2]))),
        ("indices", Some(whole(&[3, 0]))),
        ("data", Some(npy("<f4", "(2,)", &scores))),
        ("shape", Some(whole(&[2, 4]))),
        ("format", Some(npy("|S3", "()", b"csr"))),
    ];
    for (name, bytes) in other {
        arrays.iter_mut().filter(|(known, _)| known == name).for_each(|array| array.1 = bytes.clone());
    }
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        if let Some(bytes) = bytes {
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
            zip.write_all(&bytes).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn scipy_and_text_say_the_same() {
    let text = b"3 5\n0:0.5 3:-1.25\n\n2:0.75  1:0 4:3.5e0\n";
    let rows = read_bytes(text).unwrap();
    assert_eq!(rows, [vec![(0, 0.5), (3, -1.25)], vec![], vec![(2, 0.75), (1, 0.0), (4, 3.5)]]);
    for name in ["i32-f32.npz", "i64-f64.npz"] {
        assert_eq!(read(&fixture(name)).unwrap(), rows, "{name}");
    }
    assert_eq!(read_bytes(&crate::data::text::tests::gzip(text)).unwrap(), rows);
    assert_eq!(read_bytes(&archive(&[])).unwrap(), [[(3, 0.5)], [(0, 0.25)]]);
}

#[test]
fn half_precision_is_read() {
    let scores = npy("<f2", "(2,)", &[0x00, 0x38, 0x00, 0xc0]);
    assert_eq!(read_bytes(&archive(&[("data", Some(scores))])).unwrap(), [[(3, 0.5)], [(0, -2.0)]]);
}

#[test]
fn damaged_matrices_are_refused() {
    let array = |name, bytes| archive(&[(name, Some(bytes))]);
    let csc = fs::read(fixture("csc.npz")).unwrap();
    for (bytes, part) in [
        (csc, "expected a matrix in CSR, found one in `csc`"),
        (archive(&[("indices", None)]), "found an archive without indices.npy"),
        (array("indptr", whole(&[0, 2, 1])), "`indptr`: expected numbers that ascend to 2, found 1 after 2"),
        (array("indptr", whole(&[0, 1, 9])), "`indptr`: expected numbers that ascend to 2, found 9 after 1"),
        (array("indptr", whole(&[0, -1, 2])), "found -1 after 0"),
        (array("indptr", whole(&[1, 1, 2])), "`indptr`: expected 0 first, found 1"),
        (array("indptr", whole(&[0, 1, 1])), "expected an end after the last entry, found 1 more of them"),
        (array("indptr", whole(&[0, 2])), "expected 3 numbers in indptr"),
        (array("indices", whole(&[3, 4])), "`row 1`: expected labels below 4, the columns, found 4"),
        (array("indices", whole(&[-3, 0])), "`indices`: expected labels from 0, found -3"),
        (array("indices", npy("<i8", "(2,)", &[1, 2, 3])), "`indices`: expected a complete array"),
        (array("data", npy("<c8", "(2,)", &[0; 16])), "found `<c8`"),
        (array("data", npy(">f4", "(2,)", &[0; 8])), "little-endian, found `>f4`"),
        (array("data", npy("<f4", "(2, 1)", &[0; 8])), "found the shape (2, 1)"),
        (array("data", npy("<f4", "(2,)", &[0, 0, 0xc0, 0x7f, 0, 0, 0, 0])), "found NaN for label 3"),
        (array("shape", whole(&[-1, 4])), "`shape`: expected sizes from 0"),
        (archive(&[])[..200].to_vec(), "an archive of scipy.sparse.save_npz"),
        (b"".to_vec(), "found an empty file"),
        (b"0:1 1:2\n".to_vec(), "p:1: expected a line `ROWS COLUMNS`"),
        (b"1 4\n1:0.5 1:0.7\n".to_vec(), "p:2: expected every label once a row, found label 1 twice"),
        (b"1 4\n4:0.5\n".to_vec(), "p:2: expected labels below 4"),
        (b"1 4\n1\n".to_vec(), "p:2: expected entries `label:score`, found `1`"),
        (b"1 4\n-1:2\n".to_vec(), "found `-1:2`"),
        (b"1 4\n1:nan\n".to_vec(), "p:2: expected scores that are numbers"),
        (b"2 4\n1:1\n".to_vec(), "expected 2 rows, as its first line says, found 1"),
        (b"1 4\n1:1\n2:1\n".to_vec(), "p:3: expected 1 rows, as the first line says, found another one"),
    ] {
        let message = read_bytes(&bytes).unwrap_err().to_string();
        assert!(message.contains(part), "{part}: {message}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
        let _ = read_bytes(&bytes);
        let mut zip = archive(&[]);
        let at = at.index(zip.len());
        zip[at] = byte;
        let _ = read_bytes(&zip);
    }
}
