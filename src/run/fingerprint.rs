//! How a file is known to be the one that was written: by its length and a checksum.

use std::{fs::File, io::Read, path::Path};

use flate2::Crc;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::error::Category;

use crate::error::{Error, Result};

/// Length and CRC-32 of a file.
///
/// They tell damage: a file cut short, a bit that flipped, another file of that name. Nobody gains by forging a file of
/// his own run, so there is no cryptographic hash; this one is as fast as the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    bytes: u64,
    crc32: String,
}

/// A [`Fingerprint`] in the making.
#[derive(Default)]
pub(super) struct Hash {
    crc: Crc,
    bytes: u64,
}

impl Hash {
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub fn finish(self) -> Fingerprint {
        Fingerprint { bytes: self.bytes, crc32: format!("{:08x}", self.crc.sum()) }
    }
}

impl Fingerprint {
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = Hash::default();
        hash.update(bytes);
        hash.finish()
    }

    /// # Errors
    /// [`Error::Io`], [`Error::Run`] if there is no such file.
    pub fn of_file(path: &Path) -> Result<Self> {
        let mut file = open(path)?;
        let mut buffer = vec![0; 1 << 16];
        let mut hash = Hash::default();
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", path))? {
                0 => return Ok(hash.finish()),
                n => hash.update(&buffer[..n]),
            }
        }
    }

    /// How the file that `found` is of differs from the one that was written; `None` if they are equal.
    pub fn difference(&self, found: &Self) -> Option<String> {
        if found == self {
            return None;
        }
        Some(match (found.bytes, self.bytes) {
            (0, _) => "damaged: an empty file".into(),
            (found, written) if found == written => "damaged or edited: its content is not what was written".into(),
            (found, written) => format!("damaged or edited: {found} bytes, expected {written}"),
        })
    }
}

/// Opens a file of a run.
///
/// # Errors
/// [`Error::Run`] if it is not there; for any other reason, such as missing permission, [`Error::Io`].
pub(super) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| missing_or_io(path, error))
}

/// The content of a file of a run.
///
/// # Errors
/// As [`open`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| missing_or_io(path, error))
}

/// What a file of a run holds as JSON, which may begin with a byte order mark.
///
/// # Errors
/// [`Error::Run`] if it is none, or not of that shape.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = match error.classify() {
            _ if json.trim_ascii().is_empty() => "an empty file".into(),
            Category::Eof => format!("cut short at line {line}"),
            Category::Data => error.to_string(),
            Category::Syntax | Category::Io => format!("not JSON from line {line}, column {column} on"),
        };
        damage(path, format!("damaged: {message}"))
    })
}

fn missing_or_io(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => damage(path, "missing"),
        _ => Error::io("read", path)(error),
    }
}

/// The error for a file of a run that is not as the run wrote it.
pub(super) fn damage(path: &Path, message: impl Into<String>) -> Error {
    Error::Run {
        path: path.to_owned(),
        message: message.into(),
        hint: Some("the file belongs to the run: restore it, or train again".into()),
    }
}
