//! Label-feature JSON lines: `trn.json`, `tst.json`, `lbl.json`, plain or gzipped, read a line at a time.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use crate::error::{Error, Place, Result};

/// What is read of a line. `uid` means nothing to training; `target_rel` is left out because labels are binary: a label
/// that is listed is a positive.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    title: Option<String>,
    content: Option<String>,
    /// Label ids; absent in `lbl.json`.
    pub target_ind: Option<Vec<u32>>,
}

/// Which fields make the text of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextRule {
    Title,
    TitleAndContent,
}

impl TextRule {
    /// The reference's rule for points: the title alone if the data set's name says that it has only titles.
    pub fn of_points(dataset: &str) -> Self {
        if dataset.to_lowercase().contains("titles") {
            Self::Title
        } else {
            Self::TitleAndContent
        }
    }
}

impl Record {
    pub fn text(self, rule: TextRule) -> String {
        let mut text = self.title.unwrap_or_default();
        if rule == TextRule::TitleAndContent {
            text.push(' ');
            text.push_str(self.content.as_deref().unwrap_or_default());
        }
        text
    }
}

/// Where `name` lies in a data set: in the folder, or in its `raw_text/`, as it is or with `.gz` added.
pub(super) fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let gz = format!("{name}.gz");
    [dir.to_owned(), dir.join("raw_text")]
        .iter()
        .flat_map(|folder| [folder.join(name), folder.join(&gz)])
        .find(|path| path.is_file())
}

/// [`find`], for a file that must be there.
pub(super) fn find_required(dir: &Path, name: &str) -> Result<PathBuf> {
    find(dir, name).ok_or_else(|| Error::Data {
        place: Place::file(dir),
        expected: format!("{name} or {name}.gz, here or in raw_text/"),
        found: match dir {
            _ if dir.is_dir() => "neither".into(),
            _ if dir.exists() => "a file, not a folder".into(),
            _ => "no such folder".into(),
        },
        hint: Some(
            "dataset_path is the folder that holds the data sets, relative to where you are; datasets/README.md says where \
             to get the public ones"
                .into(),
        ),
    })
}

/// The records of a file, in order.
pub(super) struct JsonLines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    line: usize,
    buffer: Vec<u8>,
}

impl JsonLines {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let reader: Box<dyn Read + Send> = if path.extension().is_some_and(|e| e == "gz") {
            Box::new(MultiGzDecoder::new(BufReader::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self {
            path: path.to_owned(),
            reader: Box::new(BufReader::with_capacity(1 << 16, reader)),
            line: 0,
            buffer: Vec::new(),
        })
    }

    /// The line of the last record, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    fn read(&mut self) -> Result<Option<Record>> {
        self.buffer.clear();
        self.line += 1;
        match self.reader.read_until(b'\n', &mut self.buffer) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(self.unreadable(error)),
        }
        let wrong = |expected: &str, found: String, hint: Option<&str>| Error::Data {
            place: Place::line(&self.path, self.line),
            expected: expected.into(),
            found,
            hint: hint.map(Into::into),
        };
        let text = str::from_utf8(&self.buffer).map_err(|error| {
            let found = format!("an invalid byte at column {}", error.valid_up_to() + 1);
            wrong("UTF-8 text", found, None)
        })?;
        if text.trim().is_empty() {
            let hint = "rows are known by their line number: remove the line, also at the end";
            return Err(wrong("a JSON object", "an empty line".into(), Some(hint)));
        }
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| wrong("a row of a data set in JSON", json_error(&error), None))
    }

    /// A damaged archive is the file's fault, everything else the machine's.
    fn unreadable(&self, error: io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        if matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) {
            Error::Data {
                place: Place::line(&self.path, self.line),
                expected: "a complete gzip archive".into(),
                found: error.to_string(),
                hint: Some("download the file again".into()),
            }
        } else {
            Error::io("read", &self.path)(error)
        }
    }
}

impl Iterator for JsonLines {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// `serde_json`'s message for one line: its "at line 1" would be mistaken for the line of the file.
pub(super) fn json_error(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(what, _)| what);
    format!("{what} at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::data::testing;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn first_error(name: &str, content: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        let error = JsonLines::open(&path).unwrap().find_map(Result::err);
        let message = error.unwrap().to_string();
        message.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn gzip_reads_as_plain() {
        let plain = testing::food().join("tst.json");
        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("tst.json.gz");
        fs::write(&packed, gzip(&fs::read(&plain).unwrap())).unwrap();
        let read = |path: &Path| -> Vec<_> {
            let rows = JsonLines::open(path).unwrap().map(Result::unwrap);
            rows.map(|row| (row.target_ind.clone(), row.text(TextRule::TitleAndContent)))
                .collect()
        };
        assert_eq!(read(&plain).len(), 236);
        assert_eq!(read(&plain), read(&packed));
    }

    #[test]
    fn errors_name_the_line() {
        let good = b"{\"title\": \"a\", \"target_ind\": [1]}\n";
        let after_good = |bad: &[u8]| first_error("trn.json", &[good, bad].concat());
        assert_eq!(
            after_good(b"{\"title\": 3}\n"),
            "trn.json:2: expected a row of a data set in JSON, found invalid type: integer `3`, expected a string \
             at column 11"
        );
        assert!(after_good(b"{\"target_ind\": [-1]}\n").starts_with("trn.json:2:"));
        assert!(after_good(b"{\"title\": \"a").starts_with("trn.json:2:"));
        assert!(after_good(b"\n").contains("trn.json:2: expected a JSON object, found an empty"));
        assert!(
            after_good(b"{\"title\": \"\xff\"}\n")
                .contains("trn.json:2: expected UTF-8 text, found an invalid byte at column 12")
        );
    }

    #[test]
    fn a_cut_or_false_archive_is_an_error_of_the_file() {
        let whole = gzip(b"{\"title\": \"a\"}\n");
        for bytes in [&whole[..whole.len() - 9], b"no archive at all"] {
            let message = first_error("trn.json.gz", bytes);
            assert!(message.contains("expected a complete gzip archive"), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_named_in_both_forms_and_found_in_raw_text() {
        let dir = tempfile::tempdir().unwrap();
        let message = find_required(dir.path(), "trn.json").unwrap_err().to_string();
        assert!(message.contains("trn.json or trn.json.gz"), "{message}");
        fs::create_dir(dir.path().join("raw_text")).unwrap();
        fs::write(dir.path().join("raw_text/trn.json.gz"), "").unwrap();
        assert!(find_required(dir.path(), "trn.json").is_ok());
    }

    #[test]
    fn text_is_the_title_where_the_name_says_titles() {
        let record = || Record {
            title: Some("a".into()),
            content: Some("b".into()),
            target_ind: None,
        };
        let text = |name: &str| record().text(TextRule::of_points(name));
        assert_eq!(text("LF-AmazonTitles-131K"), "a");
        assert_eq!(text("LF-WikiSeeAlso-320K"), "a b");
    }
}
