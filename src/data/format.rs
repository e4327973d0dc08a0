//! The formats of data sets, and which files one consists of.
//!
//! A further format is an arm in each function of [`Format`], and a file beside `label_features.rs` that makes [`Row`]s
//! of lines. Nothing else knows formats.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Source, Watch, label_features,
    row::{Row, TextFields},
    text::Lines,
};
use crate::error::{Error, Place, Result};

/// How the files of a data set are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Label-feature JSON lines, as `datasets/README.md` shows them.
    LabelFeatures,
    /// Four text files, as some public data sets have them. Cannot be read in this version.
    FourFiles,
}

impl Format {
    /// The names of the training file, the test file and the list of labels, as they are without `.gz`.
    fn names(self, dir: &Path) -> Result<[&'static str; 3]> {
        match self {
            Self::LabelFeatures => Ok(["trn.json", "tst.json", "lbl.json"]),
            Self::FourFiles => Err(Error::Data {
                place: Place::file(dir),
                expected: "label-feature JSON lines (trn.json, tst.json, lbl.json)".into(),
                found: "`is_lf_data = false`, the four-file text format, which this version does not read".into(),
                hint: Some("datasets/README.md shows a row of the format that is read".into()),
            }),
        }
    }

    fn rows(self, lines: Lines, fields: TextFields) -> Box<dyn Iterator<Item = Result<Row>>> {
        match self {
            Self::LabelFeatures => Box::new(label_features::rows(lines, fields)),
            Self::FourFiles => unreachable!("its files have no names"),
        }
    }

    /// The names of the fields of the first row, as a message lists them.
    fn fields(self, path: &Path) -> Option<String> {
        match self {
            Self::LabelFeatures => label_features::fields(path),
            Self::FourFiles => None,
        }
    }
}

/// A file of rows.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub path: PathBuf,
    /// Not [`TextFields::Auto`].
    pub fields: TextFields,
    format: Format,
}

impl File {
    /// The rows, in order; each line of the file is one. `watch` is told of them as `doing` says.
    ///
    /// # Errors
    /// [`Error::Io`] and, with the line, [`Error::Data`].
    pub fn rows(&self, doing: &'static str, watch: &Watch) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
        let lines = Lines::open(&self.path)?.watched(doing, watch);
        Ok(self.format.rows(lines, self.fields))
    }

    /// The texts of the rows.
    ///
    /// # Errors
    /// As [`File::rows`].
    pub fn texts(&self, doing: &'static str, watch: &Watch) -> Result<impl Iterator<Item = Result<String>> + use<>> {
        Ok(self.rows(doing, watch)?.map(|row| Ok(row?.text)))
    }

    /// What the first row has in the place of a field that no row has.
    pub fn lacks(&self, field: &str) -> Option<String> {
        let names = self.format.fields(&self.path)?;
        Some(format!("no row has the field `{field}`; the first row has {names}"))
    }
}

/// The files of a data set.
#[derive(Debug)]
pub(super) struct Files {
    pub train: File,
    pub test: File,
    /// The list of labels, if there is one.
    pub titles: Option<File>,
    /// Pairs of row and label that an evaluation leaves out, if there are any.
    pub train_filter: Option<PathBuf>,
    pub test_filter: Option<PathBuf>,
}

impl Files {
    /// Finds the files of `source`.
    ///
    /// # Errors
    /// [`Error::Data`] for one that is missing, or a format that cannot be read.
    pub fn find(source: &Source) -> Result<Self> {
        let Source { dir, format, .. } = *source;
        let [train, test, labels] = format.names(dir)?;
        let file = |path, fields| File { path, fields, format };
        let fields = source.text.of(source.name);
        let train = file(find_required(dir, train)?, fields);
        let test = file(find_required(dir, test)?, fields);
        let titles = match source.augment_label_data {
            true => Some(find_required(dir, labels)?),
            false => find(dir, labels),
        };
        let filter = |name| source.use_filter_eval.then(|| find(dir, name)).flatten();
        Ok(Self {
            train,
            test,
            titles: titles.map(|path| file(path, TextFields::Title)),
            train_filter: filter("filter_labels_train.txt"),
            test_filter: filter("filter_labels_test.txt"),
        })
    }

    /// Finds the test file alone, and beside it the list of labels and the filter if they are there.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_test(source: &Source) -> Result<(File, Option<File>, Option<PathBuf>)> {
        let Source { dir, format, .. } = *source;
        let [_, test, labels] = format.names(dir)?;
        let file = |path, fields| File { path, fields, format };
        let test = file(find_required(dir, test)?, source.text.of(source.name));
        let titles = find(dir, labels).map(|path| file(path, TextFields::Title));
        let filter = source.use_filter_eval.then(|| find(dir, "filter_labels_test.txt")).flatten();
        Ok((test, titles, filter))
    }
}

/// Where `name` lies in a data set: in the folder, or in its `raw_text/`, as it is or with `.gz` added.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let gz = format!("{name}.gz");
    [dir.to_owned(), dir.join("raw_text")]
        .iter()
        .flat_map(|folder| [folder.join(name), folder.join(&gz)])
        .find(|path| path.is_file())
}

/// [`find`], for a file that must be there.
fn find_required(dir: &Path, name: &str) -> Result<PathBuf> {
    find(dir, name).ok_or_else(|| Error::Data {
        place: Place::file(dir),
        expected: format!("{name} or {name}.gz, here or in raw_text/"),
        found: match dir {
            _ if dir.join(name).is_dir() => format!("a folder called `{name}`"),
            _ if dir.is_dir() => neither(dir),
            _ if dir.exists() => "a file, not a folder".into(),
            _ => "no such folder".into(),
        },
        hint: Some(match other_end(dir, name) {
            Some(other) => format!("rename `{other}` to {name}"),
            None => {
                "dataset_path is the folder that holds the data sets, relative to where you are; datasets/README.md \
                 says where to get the public ones"
                    .into()
            }
        }),
    })
}

/// A file in a folder that is called `name`, but for what follows the point.
fn other_end(dir: &Path, name: &str) -> Option<String> {
    let stem = name.split_once('.')?.0;
    ["jsonl", "ndjson", "jsonlines"]
        .map(|end| format!("{stem}.{end}"))
        .into_iter()
        .find(|name| dir.join(name).is_file())
}

/// Says that a file is not in a folder, and which ones are.
fn neither(dir: &Path) -> String {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| format!("`{}`", entry.file_name().display())).collect();
    names.sort();
    names.truncate(5);
    match names.is_empty() {
        true => "neither".into(),
        false => format!("neither, but {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{
        testing::{folder, source},
        text::tests::gzip,
    };

    #[test]
    fn a_missing_file_is_named_in_both_forms_and_found_in_raw_text() {
        let dir = folder(&[("train.csv", "")]);
        let message = Files::find(&source(dir.path())).unwrap_err().to_string();
        assert!(message.contains("trn.json or trn.json.gz"), "{message}");
        let with_titles = Source { augment_label_data: true, ..source(dir.path()) };
        let message = Files::find(&with_titles).unwrap_err().to_string();
        assert!(message.contains("trn.json"), "the rows come first: {message}");
        assert!(message.contains("found neither, but `train.csv`"), "{message}");
        fs::write(dir.path().join("trn.jsonl"), "").unwrap();
        let message = Files::find(&source(dir.path())).unwrap_err().to_string();
        assert!(message.contains("help: rename `trn.jsonl` to trn.json"), "{message}");
        fs::create_dir(dir.path().join("trn.json")).unwrap();
        let message = Files::find(&source(dir.path())).unwrap_err().to_string();
        assert!(message.contains("found a folder called `trn.json`"), "{message}");
        fs::create_dir(dir.path().join("raw_text")).unwrap();
        for name in ["trn.json.gz", "tst.json"] {
            fs::write(dir.path().join("raw_text").join(name), "").unwrap();
        }
        assert!(Files::find(&source(dir.path())).is_ok());
    }

    #[test]
    fn a_file_is_read_as_what_it_is_whatever_its_name() {
        let plain = b"{\"title\": \"a\"}\n";
        for (name, bytes) in [
            ("trn.json", gzip(plain)),
            ("trn.json.gz", plain.to_vec()),
            ("trn.json.gz", gzip(plain)),
            ("trn.json", [b"\xef\xbb\xbf", &plain[..]].concat()),
        ] {
            let dir = folder(&[("tst.json", "")]);
            fs::write(dir.path().join(name), bytes).unwrap();
            let files = Files::find(&source(dir.path())).unwrap();
            let texts: Result<Vec<_>> = files.train.texts("reading", &Watch::default()).unwrap().collect();
            assert_eq!(texts.unwrap(), ["a "], "{name}");
        }
    }

    #[test]
    fn the_name_decides_which_fields_are_read_unless_the_key_does() {
        for (chosen, name, fields) in [
            (TextFields::Auto, "LF-AmazonTitles-131K", TextFields::Title),
            (TextFields::Auto, "LF-WikiSeeAlso-320K", TextFields::TitleAndContent),
            (TextFields::TitleAndContent, "subtitles", TextFields::TitleAndContent),
            (TextFields::Title, "docs", TextFields::Title),
        ] {
            assert_eq!(chosen.of(name), fields);
        }
    }

    #[test]
    fn the_format_that_is_not_read_is_said_so() {
        let four_files = Source { format: Format::FourFiles, ..source(Path::new("somewhere")) };
        let message = Files::find(&four_files).unwrap_err().to_string();
        assert!(message.contains("four-file text format"), "{message}");
    }
}
