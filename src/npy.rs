//! The header of NumPy's format of an array:
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::{
    io::{self, Read},
    str::FromStr,
};

/// Bytes of a header at most; those of NumPy have 128 or fewer.
const LONGEST: usize = 1 << 16;

/// What stands before the numbers of an array.
#[derive(Debug)]
pub(crate) struct Header {
    text: String,
}

/// Why there is no header.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(io::Error),
    /// It is another file.
    NoArray,
    /// It says that it has so many bytes.
    Long(usize),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Header {
    /// Reads up to the first number.
    pub fn read(source: &mut impl Read) -> Result<Self, Fault> {
        let mut start = [0; 8];
        source.read_exact(&mut start)?;
        let [magic @ .., major, _] = start;
        if magic != *b"\x93NUMPY" {
            return Err(Fault::NoArray);
        }
        let mut length = [0; 4];
        source.read_exact(&mut length[..if major == 1 { 2 } else { 4 }])?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(Fault::Long(length));
        }
        let mut text = vec![0; length];
        source.read_exact(&mut text)?;
        Ok(Self { text: String::from_utf8_lossy(&text).into_owned() })
    }

    /// The type of its numbers, as `<f4`.
    pub fn kind(&self) -> Option<&str> {
        self.of("descr")?.strip_prefix('\'')?.split('\'').next()
    }

    /// Its sizes, as they stand between brackets.
    pub fn shape(&self) -> Option<&str> {
        self.of("shape")?.strip_prefix('(')?.split(')').next()
    }

    fn of(&self, name: &str) -> Option<&str> {
        Some(self.text.split_once(&format!("'{name}':"))?.1.trim_start())
    }
}

/// The sizes in a [`Header::shape`], if all are numbers.
pub(crate) fn sizes<T: FromStr>(shape: &str) -> Option<Vec<T>> {
    shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect()
}
