//! What a file is by its first bytes, and the text in it: unpacked, and from behind its byte order mark.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Place, Result};

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    Gzip,
    /// The byte order mark of UTF-8.
    Mark,
    /// Another encoding of characters.
    Encoding(&'static str),
    /// Something to unpack or convert first.
    Packed(&'static str),
}

pub(super) const STARTS: [(&[u8], Start); 15] = [
    (b"\x1f\x8b", Start::Gzip),
    (b"\xef\xbb\xbf", Start::Mark),
    (b"\xff\xfe\0\0", Start::Encoding("UTF-32")),
    (b"\0\0\xfe\xff", Start::Encoding("UTF-32")),
    (b"\xff\xfe", Start::Encoding("UTF-16")),
    (b"\xfe\xff", Start::Encoding("UTF-16")),
    (b"\x28\xb5\x2f\xfd", Start::Packed("a Zstandard archive")),
    (b"\xfd7zXZ\0", Start::Packed("an xz archive")),
    (b"\x5d\0\0", Start::Packed("an LZMA archive")),
    (b"BZh", Start::Packed("a bzip2 archive")),
    (b"\x04\x22\x4d\x18", Start::Packed("an LZ4 archive")),
    (b"\x1f\x9d", Start::Packed("an archive of `compress`")),
    (b"PK\x03\x04", Start::Packed("a zip archive")),
    (b"7z\xbc\xaf\x27\x1c", Start::Packed("a 7z archive")),
    (b"PAR1\x15", Start::Packed("a Parquet file")),
];

/// A text file for a reader that finds its own lines: unpacked, and from behind its byte order mark.
pub(super) struct Text {
    pub reader: Box<dyn BufRead + Send>,
    /// Bytes of the file that were read, and all of them.
    pub read: Arc<AtomicU64>,
    pub size: u64,
}

impl Text {
    /// Opens a file.
    ///
    /// # Errors
    /// As [`Lines::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let read = Arc::new(AtomicU64::new(0));
        let mut reader = plain(path, Box::new(Counted { inner: file, read: read.clone() }))?;
        let mut start = Vec::new();
        reader.by_ref().take(512).read_to_end(&mut start).map_err(|error| unreadable(path, 1, error))?;
        check_first(path, start.split(|byte| *byte == b'\n').next().unwrap_or_default())?;
        let reader = Box::new(Cursor::new(start).chain(reader));
        Ok(Self { reader, read, size })
    }

    /// The text with a line feed at the end of every line, whatever there was: readers count lines by it.
    pub fn line_feeds(self) -> impl Read + use<> {
        LineFeeds { inner: self.reader, after_return: false }
    }
}

/// A text whose lines end in a line feed, whatever they ended in.
struct LineFeeds<R> {
    inner: R,
    /// Whether the last byte was a carriage return, for which a line feed was given.
    after_return: bool,
}

impl<R: BufRead> Read for LineFeeds<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let bytes = self.inner.fill_buf()?;
            let (given, mut put) = (bytes.len().min(out.len()), 0);
            for &byte in &bytes[..given] {
                if !(byte == b'\n' && self.after_return) {
                    out[put] = if byte == b'\r' { b'\n' } else { byte };
                    put += 1;
                }
                self.after_return = byte == b'\r';
            }
            self.inner.consume(given);
            // Nothing is the end, unless all there was has been left out.
            if put > 0 || given == 0 {
                return Ok(put);
            }
        }
    }
}

/// Counts the bytes that are read.
pub(super) struct Counted<R> {
    pub inner: R,
    pub read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The text in `reader`, which messages call `path`: unpacked, and from behind its byte order mark. No more is read
/// than is needed to know what it is.
///
/// # Errors
/// As [`Lines::open`].
pub(crate) fn plain(path: &Path, mut reader: Box<dyn Read + Send>) -> Result<Box<dyn BufRead + Send>> {
    loop {
        let (head, start) = start_of(&mut reader).map_err(|error| unreadable(path, 1, error))?;
        let whole = Cursor::new(head).chain(reader);
        reader = match start {
            // Servers and browsers may pack what is packed already, so the loop looks again.
            Some(Start::Gzip) => Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, whole))),
            Some(Start::Mark) => Box::new(whole.into_inner().1),
            None => return Ok(Box::new(BufReader::with_capacity(1 << 16, whole))),
            Some(Start::Encoding(name)) => return Err(other_encoding(path, name)),
            Some(Start::Packed(name)) => return Err(packed(path, name)),
        };
    }
}

/// Whether the first line of a file is text, where the first bytes do not say so.
///
/// # Errors
/// [`Error::Data`] for a tar archive, and for UTF-16 and UTF-32 without a byte order mark.
pub(crate) fn check_first(path: &Path, line: &[u8]) -> Result<()> {
    if line.get(257..262) == Some(b"ustar") {
        return Err(packed(path, "a tar archive"));
    }
    // An ASCII character is zero bytes and another one.
    match line {
        [0, 0, 0, ..] => Err(other_encoding(path, "UTF-32BE")),
        [_, 0, 0, 0, ..] => Err(other_encoding(path, "UTF-32LE")),
        [0, ..] => Err(other_encoding(path, "UTF-16BE")),
        [_, 0, ..] => Err(other_encoding(path, "UTF-16LE")),
        _ => Ok(()),
    }
}

/// Takes bytes as long as they may be the beginning of one of [`STARTS`], and says which one they begin with.
fn start_of(reader: &mut dyn Read) -> io::Result<(Vec<u8>, Option<Start>)> {
    let mut head = Vec::new();
    while STARTS.iter().any(|(bytes, _)| bytes.len() > head.len() && bytes.starts_with(&head)) {
        let mut byte = [0];
        match reader.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let start = STARTS.iter().find(|(bytes, _)| head.starts_with(bytes)).map(|(_, start)| *start);
    Ok((head, start))
}

fn packed(path: &Path, name: &str) -> Error {
    Error::Data {
        place: Place::file(path),
        expected: "text, plain or in gzip".into(),
        found: name.into(),
        hint: Some("unpack or convert it first".into()),
    }
}

fn other_encoding(path: &Path, name: &str) -> Error {
    Error::Data {
        place: Place::file(path),
        expected: "text in UTF-8".into(),
        found: name.into(),
        hint: Some(format!("save the file as UTF-8, as `iconv -f {name} -t UTF-8 OLD > NEW` does")),
    }
}

/// A damaged archive is the file's fault, everything else the machine's. `line` is the one that was to be read.
pub(crate) fn unreadable(path: &Path, line: usize, error: io::Error) -> Error {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    if matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) {
        return Error::Data {
            place: Place::line(path, line),
            expected: "a complete gzip archive".into(),
            found: error.to_string(),
            hint: Some("download the file again".into()),
        };
    }
    Error::io("read", path)(error)
}
