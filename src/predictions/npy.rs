//! NumPy arrays of one dimension, read number by number: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{self, Read};

use half::f16;

use crate::npy::{self, Header};

/// The numbers of an array, as they come.
pub struct Numbers<R> {
    source: R,
    kind: Kind,
    /// Numbers that are still to come.
    left: u64,
}

/// Types of numbers, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F16,
    F32,
    F64,
    I32,
    I64,
    U8,
    /// Text of so many bytes.
    Bytes(usize),
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "<f2" => Self::F16,
            "<f4" => Self::F32,
            "<f8" => Self::F64,
            "<i4" => Self::I32,
            "<i8" => Self::I64,
            "|u1" | "|b1" => Self::U8,
            _ => Self::Bytes(name.strip_prefix("|S")?.parse().ok().filter(|bytes| *bytes <= 64)?),
        })
    }
}

/// What is wrong with an array.
#[derive(Debug)]
pub enum Fault {
    /// It cannot be read.
    Io(io::Error),
    /// What was expected, and what is there.
    Content(String, String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Content("a complete array".into(), "its beginning".into()),
            _ => Self::Io(error),
        }
    }
}

impl<R: Read> Numbers<R> {
    /// Reads the header of an array.
    pub fn start(mut source: R) -> Result<Self, Fault> {
        let header = Header::read(&mut source).map_err(|fault| match fault {
            npy::Fault::Io(error) => error.into(),
            npy::Fault::NoArray => Fault::Content("a NumPy array".into(), "something else".into()),
            npy::Fault::Long(length) => {
                Fault::Content("a header of a NumPy array".into(), format!("one of {length} bytes"))
            }
        })?;
        let descr = header.kind().unwrap_or_default();
        let kind = Kind::named(descr).ok_or_else(|| {
            Fault::Content("numbers of type f2, f4, f8, i4 or i8, little-endian".into(), format!("`{descr}`"))
        })?;
        let shape = header.shape().unwrap_or("?");
        let axes: Option<Vec<u64>> = npy::sizes(shape);
        let left = match axes.as_deref() {
            Some([]) => 1,
            Some([length]) => *length,
            _ => return Err(Fault::Content("an array of one dimension".into(), format!("the shape ({shape})"))),
        };
        Ok(Self { source, kind, left })
    }

    /// Numbers that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn advance(&mut self) -> Result<(), Fault> {
        self.left =
            self.left.checked_sub(1).ok_or_else(|| Fault::Content("a longer array".into(), "its end".into()))?;
        Ok(())
    }

    /// The next number.
    pub fn float(&mut self) -> Result<f64, Fault> {
        match self.kind {
            Kind::F16 => {
                self.advance()?;
                Ok(f16::from_le_bytes(self.bytes()?).into())
            }
            Kind::F32 => {
                self.advance()?;
                Ok(f32::from_le_bytes(self.bytes()?).into())
            }
            Kind::F64 => {
                self.advance()?;
                Ok(f64::from_le_bytes(self.bytes()?))
            }
            Kind::Bytes(_) => Err(Fault::Content("numbers".into(), "text".into())),
            Kind::I32 | Kind::I64 | Kind::U8 => self.integer().map(|whole| whole as f64),
        }
    }

    /// The next number, where it is to be a whole one.
    pub fn integer(&mut self) -> Result<i64, Fault> {
        self.advance()?;
        match self.kind {
            Kind::I32 => Ok(i32::from_le_bytes(self.bytes()?).into()),
            Kind::I64 => Ok(i64::from_le_bytes(self.bytes()?)),
            Kind::U8 => Ok(self.bytes::<1>()?[0].into()),
            _ => Err(Fault::Content("whole numbers".into(), "others".into())),
        }
    }

    /// The text that is all of the array.
    pub fn text(mut self) -> Result<String, Fault> {
        let Kind::Bytes(length) = self.kind else {
            return Err(Fault::Content("text".into(), "numbers".into()));
        };
        let mut bytes = vec![0; length];
        self.source.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
    }
}
