//! Text files, a line at a time, however they were saved.
//!
//! The readers of data sets and of texts go through [`Lines`]: gzip is known by its first bytes, whatever the file is
//! called, a byte order mark is skipped, and what is no UTF-8 is named as what it is.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Progress, Watch,
    plain::{Counted, check_first, plain, unreadable},
};
use crate::error::{Error, Place, Result};

/// What is wrong with a text whose lines end as they did on old machines, and what to do.
pub(crate) const CR_ALONE: (&str, &str) =
    ("lines that end in CR alone", "`tr '\\r' '\\n' < OLD > NEW` writes the usual ends");

/// The lines of a text, in order.
pub struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    number: usize,
    line: Vec<u8>,
    /// Whether a line feed ended it.
    ended: bool,
    /// Bytes of the file that were read, and all of them; the second is 0 where nobody knows.
    read: Arc<AtomicU64>,
    size: u64,
    /// Who is told how far it is, and what the lines are read for.
    watch: Watch,
    doing: &'static str,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lines({}:{})", self.path.display(), self.number)
    }
}

impl Lines {
    /// The lines of a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a file that begins as UTF-16 or as an archive other than gzip.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let lines = Self::from_reader(path, file)?;
        Ok(Self { size, ..lines })
    }

    /// The lines of anything that can be read, which messages call `name`. No more is read than a line needs: who types
    /// a line gets it back before the next one is typed.
    ///
    /// # Errors
    /// As [`Lines::open`].
    pub fn from_reader(name: &Path, reader: impl Read + Send + 'static) -> Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: reader, read: read.clone() };
        Ok(Self {
            reader: plain(name, Box::new(counted))?,
            path: name.to_owned(),
            number: 0,
            line: Vec::new(),
            ended: false,
            read,
            size: 0,
            watch: Watch::default(),
            doing: "reading",
        })
    }

    /// Reads the next line; false at the end. The line can be asked for with [`Lines::text`] then.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] with the line, if the archive is damaged or the line is not UTF-8. After a line
    /// that is not UTF-8, reading goes on with the next one.
    pub fn advance(&mut self) -> Result<bool> {
        if self.number.is_multiple_of(1024) {
            self.watch.tell(&Progress {
                doing: self.doing,
                file: &self.path,
                done: self.read.load(Ordering::Relaxed),
                total: self.size,
                rows: self.number as u64,
            });
        }
        self.line.clear();
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(0) => return Ok(false),
            Ok(_) => self.number += 1,
            Err(error) => {
                // Nothing comes behind it.
                self.reader = Box::new(io::empty());
                return Err(unreadable(&self.path, self.number + 1, error));
            }
        }
        self.ended = self.line.ends_with(b"\n");
        for end in [b'\n', b'\r'] {
            self.line.pop_if(|last| *last == end);
        }
        if self.number == 1 {
            check_first(&self.path, &self.line)?;
        }
        let Err(error) = str::from_utf8(&self.line) else {
            return Ok(true);
        };
        let column = error.valid_up_to() + 1;
        self.line.clear();
        Err(Error::Data {
            place: self.place(),
            expected: "text in UTF-8".into(),
            found: format!("an invalid byte at column {column}"),
            hint: Some("save the file as UTF-8, as `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` does".into()),
        })
    }

    /// The last line read, without its end.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.line).expect("`advance` keeps nothing else")
    }

    /// What messages call the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the last line read, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Where the last line read stands.
    pub fn place(&self) -> Place {
        Place::line(&self.path, self.number)
    }

    /// Whether no line follows.
    pub fn is_last(&mut self) -> bool {
        self.reader.fill_buf().map_or(true, <[u8]>::is_empty)
    }

    /// The same lines; `watch` is told from now on how much of the file has been read, and that it is read for `doing`.
    pub(super) fn watched(self, doing: &'static str, watch: &Watch) -> Self {
        let watch = watch.clone();
        Self { watch, doing, ..self }
    }
}

/// The number of every line, from 1, and its text.
impl Iterator for Lines {
    type Item = Result<(usize, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(Ok((self.number, self.text().to_owned()))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// A small text file as a whole, read as [`Lines`] reads it.
///
/// # Errors
/// As [`Lines::open`] and [`Lines::advance`].
pub fn read_to_string(path: &Path) -> Result<String> {
    let mut lines = Lines::open(path)?;
    let mut text = String::new();
    while lines.advance()? {
        text.push_str(lines.text());
        text.extend(lines.ended.then_some('\n'));
    }
    Ok(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Cursor, Write};

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::data::plain::STARTS;

    pub fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The lines, or the first error.
    fn lines(bytes: &[u8]) -> Result<Vec<String>, String> {
        let lines = Lines::from_reader(Path::new("f"), Cursor::new(bytes.to_vec()));
        let lines = lines.and_then(|lines| lines.map(|line| Ok(line?.1)).collect());
        lines.map_err(|error: Error| error.to_string())
    }

    #[test]
    fn a_text_is_the_same_however_it_was_saved() {
        let plain = "one\n\u{e9}\n\nlast".as_bytes();
        let marked = [b"\xef\xbb\xbf", plain].concat();
        let ends = plain.iter().flat_map(|byte| match byte {
            b'\n' => vec![b'\r', b'\n'],
            byte => vec![*byte],
        });
        let two_members = [gzip(&plain[..4]), gzip(&plain[4..])].concat();
        for bytes in
            [plain.to_vec(), gzip(plain), gzip(&gzip(plain)), gzip(&marked), two_members, marked, ends.collect()]
        {
            assert_eq!(lines(&bytes).unwrap(), ["one", "\u{e9}", "", "last"]);
        }
    }

    #[test]
    fn what_is_no_text_in_utf_8_is_named() {
        let utf_16: Vec<u8> = "ab\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let zip: Vec<u8> = b"PK\x03\x04rest".to_vec();
        let packed = gzip(b"a line\nand more than that\n");
        for (bytes, expected) in [
            ([b"\xff\xfe", &utf_16[..]].concat(), "f: expected text in UTF-8, found UTF-16"),
            (utf_16.clone(), "f: expected text in UTF-8, found UTF-16LE"),
            (utf_16[1..].to_vec(), "f: expected text in UTF-8, found UTF-16BE"),
            ([b"\xfe\xff", &utf_16[1..]].concat(), "found UTF-16"),
            (gzip(&utf_16), "found UTF-16"),
            (b"a\nb\xffc\n".to_vec(), "f:2: expected text in UTF-8, found an invalid byte at column 2"),
            (zip, "f: expected text, plain or in gzip, found a zip archive"),
            (b"BZh91AY&SY".to_vec(), "found a bzip2 archive"),
            (b"\x5d\0\0\x80\0".to_vec(), "found an LZMA archive"),
            (b"\x04\x22\x4d\x18d".to_vec(), "found an LZ4 archive"),
            (b"\x1f\x9d\x90".to_vec(), "found an archive of `compress`"),
            ([&[b'n'; 100][..], &[0; 157], b"ustar\x0000text\n"].concat(), "found a tar archive"),
            (b"\xff\xfe\0\0a\0\0\0".to_vec(), "found UTF-32\n"),
            (b"\0\0\xfe\xff\0\0\0a".to_vec(), "found UTF-32\n"),
            (b"a\0\0\0".to_vec(), "found UTF-32LE"),
            (packed[..packed.len() - 9].to_vec(), "expected a complete gzip archive"),
            (b"\x1f\x8bno".to_vec(), "f:1: expected a complete gzip archive"),
        ] {
            let message = lines(&bytes).unwrap_err();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains("help: "), "{message}");
        }
    }

    #[test]
    fn reading_goes_on_after_a_bad_line() {
        let mut lines = Lines::from_reader(Path::new("f"), Cursor::new(b"a\n\xff\nb\n")).unwrap();
        assert!(lines.next().unwrap().is_ok());
        assert!(lines.next().unwrap().is_err());
        assert_eq!(lines.next().unwrap().unwrap(), (3, "b".into()));
        assert!(lines.next().is_none());
    }

    /// Gives its lines one by one, and panics when asked for more than was needed.
    struct Typist(Vec<&'static [u8]>);

    impl Read for Typist {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let line = self.0.first_mut().expect("asked for too much");
            let read = line.read(buffer)?;
            if line.is_empty() {
                self.0.remove(0);
            }
            Ok(read)
        }
    }

    #[test]
    fn a_line_is_given_before_the_next_one_is_read() {
        let mut lines = Lines::from_reader(Path::new("-"), Typist(vec![b"a\n", b"P\n"])).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), (1, "a".into()));
        assert_eq!(lines.next().unwrap().unwrap(), (2, "P".into()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, start in 0..STARTS.len()) {
            let _ = lines(&bytes);
            let _ = lines(&[STARTS[start].0, &bytes].concat());
            let _ = lines(&gzip(&bytes));
        }
    }
}
