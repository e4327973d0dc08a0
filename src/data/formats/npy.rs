//! NumPy's format of one array, as far as whole numbers and truth need it.

use std::io::{self, Read};

use crate::npy::{Fault, Header, sizes};

/// An array of one dimension, or a single value, as it lies in a file.
#[derive(Debug)]
pub(super) struct Array {
    kind: u8,
    width: usize,
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Array {
    /// Reads an array; `Err` says in words what is wrong.
    pub fn read(mut reader: impl Read) -> Result<Self, String> {
        let cut = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "an array that breaks off".into(),
            _ => error.to_string(),
        };
        let header = Header::read(&mut reader).map_err(|fault| match fault {
            Fault::Io(error) => cut(error),
            Fault::NoArray => "no array of NumPy".into(),
            Fault::Long(length) => format!("an array with a header of {length} bytes"),
        })?;
        let (Some(kind), Some(shape)) = (header.kind(), header.shape()) else {
            return Err("an array of an unknown kind".into());
        };
        let unknown = || format!("an array of the kind `{}`", super::json::beginning(kind));
        let sizes: Vec<usize> = sizes(shape).ok_or_else(unknown)?;
        if sizes.len() > 1 {
            return Err(format!("an array of {} dimensions", sizes.len()));
        }
        let [order, letter, digits @ ..] = kind.as_bytes() else {
            return Err(unknown());
        };
        let width = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).filter(|width| *width > 0);
        let Some(width) = width.filter(|_| b"<>|=".contains(order)) else {
            return Err(unknown());
        };
        // Characters of Unicode have four bytes.
        let width = if *letter == b'U' { 4 * width } else { width };
        let wanted = sizes.first().copied().unwrap_or(1).checked_mul(width).ok_or_else(unknown)?;
        let mut bytes = Vec::new();
        reader.take(wanted as u64).read_to_end(&mut bytes).map_err(cut)?;
        if bytes.len() < wanted {
            return Err("an array that breaks off".into());
        }
        Ok(Self { kind: *letter, width, big_endian: *order == b'>', bytes })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    /// The values, if they are whole numbers from 0.
    pub fn whole_numbers(&self) -> Result<impl Iterator<Item = Option<u64>>, String> {
        if !b"iu".contains(&self.kind) || !matches!(self.width, 1 | 2 | 4 | 8) {
            return Err("numbers that are not whole".into());
        }
        let signed = self.kind == b'i';
        Ok(self.bytes.chunks_exact(self.width).map(move |bytes| {
            let mut number = [0; 8];
            number[..bytes.len()].copy_from_slice(bytes);
            if self.big_endian {
                number[..bytes.len()].reverse();
            }
            let number = u64::from_le_bytes(number);
            let sign = 1 << (8 * bytes.len() - 1);
            (!signed || number & sign == 0).then_some(number)
        }))
    }

    /// Whether each value is another than 0, of whole numbers, numbers with a point, and truths.
    pub fn truths(&self) -> Result<impl Iterator<Item = bool>, String> {
        if !b"iufb".contains(&self.kind) {
            return Err("values that are no numbers".into());
        }
        Ok(self.bytes.chunks_exact(self.width).map(move |bytes| {
            let last = if self.big_endian { 0 } else { bytes.len() - 1 };
            // A zero with a sign is zero.
            let sign = if self.kind == b'f' { 0x80 } else { 0 };
            bytes.iter().enumerate().any(|(at, byte)| byte & !(if at == last { sign } else { 0 }) != 0)
        }))
    }

    /// The value as a text: of bytes, or of characters.
    pub fn text(&self) -> String {
        self.bytes.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
    }
}
