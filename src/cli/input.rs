//! Texts to answer, a line each: from a file, plain or gzipped, or from a pipe as they come.

use std::{
    fs::{self, File},
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    data::{
        plain::{check_first, plain, unreadable},
        text::CR_ALONE,
    },
    error::{Error, Place, Result},
};

/// Lines that are read ahead.
const AHEAD: usize = 8192;

/// How long the first line of a pipe waits for others to be answered with it.
const GATHER: Duration = Duration::from_millis(10);

/// A line without its end.
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Its text, with U+FFFD for bytes that are not UTF-8.
    pub text: String,
    /// The column of the first byte that is not UTF-8.
    pub invalid: Option<usize>,
}

/// The lines of a file or a pipe, read by a thread of its own.
pub struct Lines {
    /// What messages call it.
    name: PathBuf,
    received: Receiver<Result<Line>>,
    /// An error that is kept until the lines before it are taken.
    error: Option<Error>,
    /// Whether lines come when they like, and are wanted then.
    streams: bool,
    /// Bytes read so far, and bytes in all where that is known.
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Lines {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened, [`Error::Usage`] if it is a folder. What is in it is not looked at yet.
    pub fn open(path: &Path) -> Result<Self> {
        let mut total = None;
        let (name, source): (PathBuf, Box<dyn Read + Send>) = if path == Path::new("-") {
            ("standard input".into(), Box::new(io::stdin()))
        } else {
            // Before opening it: a named pipe waits for its writer there.
            let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
            if metadata.is_dir() {
                return Err(Error::Usage {
                    argument: "--input".into(),
                    expected: "a file with one text a line".into(),
                    found: format!("the folder {}", path.display()),
                    hint: None,
                });
            }
            total = metadata.is_file().then_some(metadata.len());
            (path.to_owned(), Box::new(File::open(path).map_err(Error::io("read", path))?))
        };
        let read = Arc::new(AtomicU64::new(0));
        let (sender, received) = mpsc::sync_channel(AHEAD);
        let reader = Reader { name: name.clone(), sender };
        let counted = Counted(source, read.clone());
        thread::spawn(move || reader.run(counted));
        Ok(Self { name, received, error: None, streams: total.is_none(), read, total })
    }

    /// Where a line stands, for messages.
    pub fn place(&self, line: usize) -> Place {
        Place::line(&self.name, line)
    }

    /// A function that tells which part of the input has been read, where its size is known.
    pub fn share_read(&self) -> impl Fn() -> Option<f64> + Send + use<> {
        let (read, total) = (self.read.clone(), self.total);
        move || total.map(|total| read.load(Ordering::Relaxed) as f64 / total.max(1) as f64)
    }

    /// The next lines, at most `most`, none at the end: of a file as many as there are, of a pipe those that have come.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Data`], once the lines before it have been taken.
    pub fn next_batch(&mut self, most: usize) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut until = None;
        while lines.len() < most && self.error.is_none() {
            let next = match until {
                None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => self.received.recv_timeout(until - Instant::now().min(until)),
            };
            match next {
                Ok(Ok(line)) => lines.push(line),
                Ok(Err(error)) => self.error = Some(error),
                Err(_) => break,
            }
            if self.streams && until.is_none() {
                until = Some(Instant::now() + GATHER);
            }
        }
        match self.error.take_if(|_| lines.is_empty()) {
            Some(error) => Err(error),
            None => Ok(lines),
        }
    }
}

/// Counts the bytes that pass.
struct Counted<R>(R, Arc<AtomicU64>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read(buffer)?;
        self.1.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// What the thread does.
struct Reader {
    name: PathBuf,
    sender: SyncSender<Result<Line>>,
}

impl Reader {
    fn run(self, source: impl Read + Send + 'static) {
        if let Err(error) = self.send_lines(source) {
            // Nobody listens any more if the answers could not be written.
            let _ = self.sender.send(Err(error));
        }
    }

    fn send_lines(&self, source: impl Read + Send + 'static) -> Result<()> {
        let mut reader = plain(&self.name, Box::new(source))?;
        let mut bytes = Vec::new();
        for number in 1.. {
            let read = reader.read_until(b'\n', &mut bytes);
            if read.map_err(|error| unreadable(&self.name, number, error))? == 0 {
                break;
            }
            let end = bytes.strip_suffix(b"\n").map_or(&bytes[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
            if number == 1 {
                check_first(&self.name, end)?;
                if end.trim_ascii().contains(&b'\r') {
                    return Err(Error::Data {
                        place: Place::line(&self.name, number),
                        expected: "one text a line".into(),
                        found: CR_ALONE.0.into(),
                        hint: Some(CR_ALONE.1.into()),
                    });
                }
            }
            let line = Line {
                number,
                text: String::from_utf8_lossy(end).into_owned(),
                invalid: str::from_utf8(end).err().map(|error| error.valid_up_to() + 1),
            };
            if self.sender.send(Ok(line)).is_err() {
                break;
            }
            bytes.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(content: &[u8]) -> Result<Vec<(String, Option<usize>)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("texts");
        fs::write(&path, content).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        let mut all = Vec::new();
        loop {
            let batch = lines.next_batch(2)?;
            if batch.is_empty() {
                return Ok(all);
            }
            all.extend(batch.into_iter().map(|line| (line.text, line.invalid)));
        }
    }

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let text = "a\r\n\nc";
        let lines = ["a", "", "c"].map(|line| (line.to_owned(), None));
        let marked = [b"\xef\xbb\xbf", text.as_bytes()].concat();
        for content in [text.into(), gzip(text.as_bytes()), marked.clone(), gzip(&marked)] {
            assert_eq!(read(&content).unwrap(), lines);
        }
        assert!(read(b"").unwrap().is_empty() && read(&gzip(b"")).unwrap().is_empty());
        assert_eq!(read(b"\xef").unwrap(), [("\u{fffd}".into(), Some(1))]);
        for (content, part) in [
            (&gzip(b"some words")[..20], "texts:1: expected a complete gzip archive"),
            (&b"\xff\xfea\0"[..], "expected text in UTF-8, found UTF-16"),
            (b"BZh91AY&SY", "found a bzip2 archive"),
            (b"a\0b\0\n\0", "found UTF-16LE"),
            (b"apple\rbread\r", "texts:1: expected one text a line, found lines that end in CR alone\n  help: `tr"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_bad_byte_is_a_bad_line_and_no_more() {
        let lines = read(b"a\nK\xe4se\nb\n").unwrap();
        let expected = [("a", None), ("K\u{fffd}se", Some(2)), ("b", None)];
        assert_eq!(lines, expected.map(|(text, invalid)| (text.to_owned(), invalid)));
    }
}
