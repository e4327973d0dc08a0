//! SciPy's CSR matrices: an archive of the arrays `indptr`, `indices`, `data`, `shape` and `format`.

use std::{
    fs::File,
    io::{BufReader, Cursor, Read},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    thread,
};

use zip::{ZipArchive, result::ZipError};

use super::{
    Scored,
    npy::{Fault, Numbers},
};
use crate::error::{Error, Place, Result, wrong};

/// Bytes of an array that are unpacked at once.
const BLOCK: usize = 1 << 18;

/// A matrix, read row by row. Its arrays lie one after the other in the archive, so each is unpacked by a thread of its
/// own.
pub struct Csr {
    pub rows: usize,
    pub columns: usize,
    path: PathBuf,
    ends: Numbers<Unpacked>,
    labels: Numbers<Unpacked>,
    scores: Numbers<Unpacked>,
    /// Entries read so far.
    read: i64,
}

impl Csr {
    /// Opens the archive and reads its shape.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if it is no such matrix.
    pub fn open(path: &Path) -> Result<Self> {
        let array = |name: &'static str| {
            let unpacked = Unpacked::start(path, name)?;
            Numbers::start(unpacked).map_err(|fault| refused(path, name, fault))
        };
        let format = array("format")?.text().map_err(|fault| refused(path, "format", fault))?;
        if format != "csr" {
            let hint = "scipy.sparse.save_npz(FILE, matrix.tocsr()) writes one";
            return Err(wrong(Place::file(path), "a matrix in CSR", format!("one in `{format}`"), Some(hint)));
        }
        let mut shape = array("shape")?;
        let mut axis = || {
            let size = shape.integer().map_err(|fault| refused(path, "shape", fault))?;
            usize::try_from(size).ok().filter(|size| u32::try_from(*size).is_ok()).ok_or_else(|| {
                wrong(Place::file(path).field("shape"), "sizes from 0 to 4294967295", size.to_string(), None)
            })
        };
        let (rows, columns) = (axis()?, axis()?);
        let (mut ends, labels, scores) = (array("indptr")?, array("indices")?, array("data")?);
        if ends.left() != rows as u64 + 1 || labels.left() != scores.left() {
            let found = format!("{}, {} and {}", ends.left(), labels.left(), scores.left());
            let expected = format!("{} numbers in indptr, and as many in indices as in data", rows + 1);
            return Err(wrong(Place::file(path), expected, found, None));
        }
        let first = ends.integer().map_err(|fault| refused(path, "indptr", fault))?;
        if first != 0 {
            return Err(wrong(Place::file(path).field("indptr"), "0 first", first.to_string(), None));
        }
        Ok(Self { rows, columns, path: path.to_owned(), ends, labels, scores, read: 0 })
    }

    /// Adds the next row to `row`.
    pub fn read_row(&mut self, row: &mut Vec<Scored>) -> Result<()> {
        let Self { path, ends, labels, scores, read, .. } = self;
        let end = ends.integer().map_err(|fault| refused(path, "indptr", fault))?;
        let most = *read + labels.left().min(i64::MAX as u64) as i64;
        if !(*read..=most).contains(&end) {
            let expected = format!("numbers that ascend to {most}");
            return Err(wrong(Place::file(&*path).field("indptr"), expected, format!("{end} after {read}"), None));
        }
        for _ in *read..end {
            let label = labels.integer().map_err(|fault| refused(path, "indices", fault))?;
            let label = u32::try_from(label)
                .map_err(|_| wrong(Place::file(&*path).field("indices"), "labels from 0", label.to_string(), None))?;
            row.push((label, scores.float().map_err(|fault| refused(path, "data", fault))?));
        }
        *read = end;
        Ok(())
    }

    /// After the last row: whether anything is left over.
    pub fn finish(self) -> Result<()> {
        match self.labels.left() {
            0 => Ok(()),
            left => Err(wrong(
                Place::file(&self.path).field("indptr"),
                "an end after the last entry",
                format!("{left} more of them"),
                None,
            )),
        }
    }
}

fn refused(path: &Path, array: &str, fault: Fault) -> Error {
    match fault {
        Fault::Io(error) => match error.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput | std::io::ErrorKind::Other => {
                wrong(Place::file(path).field(array), "an archive that can be unpacked", error.to_string(), None)
            }
            _ => Error::io("read", path)(error),
        },
        Fault::Content(expected, found) => wrong(Place::file(path).field(array), expected, found, None),
    }
}

/// The bytes of a member of the archive, block by block.
struct Unpacked {
    blocks: Receiver<std::io::Result<Vec<u8>>>,
    block: Cursor<Vec<u8>>,
}

impl Unpacked {
    fn start(path: &Path, name: &'static str) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let member = format!("{name}.npy");
        let damaged = |error: ZipError| match error {
            ZipError::Io(error) => Error::io("read", path)(error),
            ZipError::FileNotFound => wrong(
                Place::file(path),
                "a matrix of scipy.sparse.save_npz, in CSR",
                format!("an archive without {member}"),
                None,
            ),
            error => wrong(Place::file(path), "an archive of scipy.sparse.save_npz", error.to_string(), None),
        };
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
        archive.by_name(&member).map_err(damaged)?;
        let (sender, blocks) = mpsc::sync_channel(2);
        thread::spawn(move || {
            let mut unpacked = match archive.by_name(&member) {
                Ok(unpacked) => unpacked,
                Err(error) => return drop(sender.send(Err(error.into()))),
            };
            loop {
                let mut block = Vec::with_capacity(BLOCK);
                let read = unpacked.by_ref().take(BLOCK as u64).read_to_end(&mut block);
                let is_end = !matches!(read, Ok(1..));
                // Nobody waits for it where another array was refused.
                if sender.send(read.map(|_| block)).is_err() || is_end {
                    return;
                }
            }
        });
        Ok(Self { blocks, block: Cursor::default() })
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.blocks.recv() {
                Ok(block) => match block? {
                    block if block.is_empty() => return Ok(0),
                    block => self.block = Cursor::new(block),
                },
                Err(_) => return Ok(0),
            }
        }
    }
}
