//! A file of rows, whatever its layout.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    annif,
    json_lines::{self, Members, Shape},
    table,
    texts::{self, LabelFile},
};
use crate::{
    data::{
        Progress, Watch,
        hash::{Fnv128, Hashes},
        row::{Row, TextFields},
        text::Lines,
    },
    error::{Place, Result},
};

/// The rows of one part of a data set: of train, of test, or of the list of labels.
#[derive(Debug, Clone)]
pub(in crate::data) struct Part {
    /// The file with the texts, or the folder.
    pub path: PathBuf,
    /// Not [`TextFields::Auto`].
    pub fields: TextFields,
    reader: Reader,
}

/// How a part is read.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    /// An object a line, and what separates labels in a text.
    Json(Arc<Members>, Option<String>),
    /// A text a line, and the labels in a file of their own, if there are any.
    Texts(Option<LabelFile>),
    Table(table::Layout),
    ShortTexts,
    /// A document a file.
    Documents(Arc<[PathBuf]>),
}

type Rows = Box<dyn Iterator<Item = Result<Row>>>;

impl Part {
    pub(super) fn new(path: PathBuf, fields: TextFields, reader: Reader) -> Self {
        Self { path, fields, reader }
    }

    /// The rows, in order. `watch` is told of them as `doing` says. Behind an error reading may go on.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and, with the line, [`Error::Data`](crate::Error::Data).
    pub fn rows(&self, doing: &'static str, watch: &Watch) -> Result<Rows> {
        let lines = || Ok(Lines::open(&self.path)?.watched(doing, watch));
        Ok(match &self.reader {
            Reader::Json(members, separator) => {
                let shape = Shape { members: members.clone(), fields: self.fields, separator: separator.clone() };
                Box::new(json_lines::rows(lines()?, shape))
            }
            Reader::Texts(Some(labels)) => Box::new(texts::rows(lines()?, labels)?),
            Reader::Texts(None) => Box::new(texts::texts(lines()?).map(|line| {
                let (line, text) = line?;
                Ok(Row { line, text, labels: None, unread: false })
            })),
            Reader::Table(layout) => Box::new(table::rows(&self.path, layout.clone(), self.fields, doing, watch)?),
            Reader::ShortTexts => Box::new(annif::short_texts(lines()?)),
            Reader::Documents(paths) => {
                let (paths, watch, folder) = (paths.clone(), watch.clone(), self.path.clone());
                Box::new((0..paths.len()).map(move |at| {
                    let (done, total) = (at as u64, paths.len() as u64);
                    watch.tell(&Progress { doing, file: &folder, done, total, rows: done });
                    annif::document(&paths[at], at + 1)
                }))
            }
        })
    }

    /// The texts of the rows, without looking at labels that lie in a file of their own.
    ///
    /// # Errors
    /// As [`Part::rows`].
    pub fn texts(&self, doing: &'static str, watch: &Watch) -> Result<impl Iterator<Item = Result<String>> + use<>> {
        let rows = match &self.reader {
            Reader::Texts(Some(_)) => Self { reader: Reader::Texts(None), ..self.clone() }.rows(doing, watch),
            _ => self.rows(doing, watch),
        };
        Ok(rows?.map(|row| Ok(row?.text)))
    }

    /// Where the labels of the row on this line stand.
    pub fn label_place(&self, line: usize) -> Place {
        match &self.reader {
            Reader::Json(members, _) => Place::line(&self.path, line).field(members.labels()),
            Reader::Texts(Some(labels)) => labels.place(line),
            Reader::Table(layout) => Place::line(&self.path, line).field(&layout.columns.labels),
            Reader::Texts(None) | Reader::ShortTexts => Place::line(&self.path, line),
            Reader::Documents(paths) => {
                let [uris, titles] = paths.get(line - 1).map(|path| annif::subject_files(path)).unwrap_or_default();
                Place::file(if uris.is_file() { uris } else { titles })
            }
        }
    }

    /// Where the labels of all rows stand.
    pub fn labels_place(&self) -> Place {
        match &self.reader {
            Reader::Json(members, _) => Place::file(&self.path).field(members.labels()),
            Reader::Texts(Some(labels)) => Place::file(labels.path()),
            Reader::Table(layout) => Place::file(&self.path).field(&layout.columns.labels),
            Reader::Texts(None) | Reader::ShortTexts | Reader::Documents(_) => Place::file(&self.path),
        }
    }

    /// Number of labels, where a file says it.
    ///
    /// # Errors
    /// As [`Part::rows`].
    pub fn columns(&self) -> Result<Option<usize>> {
        match &self.reader {
            Reader::Texts(Some(labels)) => labels.columns(),
            _ => Ok(None),
        }
    }

    /// What the first row has in the place of a text that no row has.
    pub fn lacks_text(&self) -> Option<String> {
        match self.fields {
            TextFields::Title => self.lacks("title"),
            _ => self.lacks("title` or `content"),
        }
    }

    /// What the first row has in the place of labels that no row has.
    pub fn lacks_labels(&self) -> Option<String> {
        match &self.reader {
            Reader::Json(members, _) => self.lacks(members.labels()),
            Reader::ShortTexts => Some("the labels of a text stand behind it, with a tab between them".into()),
            Reader::Documents(_) => Some("the labels of NAME.txt stand in NAME.tsv or NAME.key".into()),
            Reader::Texts(_) | Reader::Table(_) => None,
        }
    }

    fn lacks(&self, field: &str) -> Option<String> {
        let Reader::Json(..) = &self.reader else {
            return None;
        };
        let names = json_lines::fields(&self.path)?;
        Some(format!("no row has the field `{field}`; the first row has {names}"))
    }

    /// The files it consists of.
    pub fn files(&self) -> Vec<&Path> {
        match &self.reader {
            Reader::Texts(Some(labels)) => vec![&self.path, labels.path()],
            _ => vec![&self.path],
        }
    }

    /// A hash of all that the texts depend on.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn hash_texts(&self, hashes: &Hashes) -> Result<u128> {
        let mut hash = Fnv128::new();
        match &self.reader {
            Reader::Documents(paths) => {
                for path in paths.iter() {
                    hash.write(&hashes.of_file(path)?.to_le_bytes());
                }
            }
            _ => hash.write(&hashes.of_file(&self.path)?.to_le_bytes()),
        }
        hash.write(&[u8::from(self.fields == TextFields::TitleAndContent)]);
        match &self.reader {
            Reader::Json(members, _) => hash.write(format!("{members:?}").as_bytes()),
            Reader::Table(layout) => hash.write(format!("{layout:?}").as_bytes()),
            Reader::Texts(_) => hash.write(b"lines"),
            Reader::ShortTexts => hash.write(b"short"),
            Reader::Documents(_) => hash.write(b"documents"),
        }
        Ok(hash.finish())
    }
}
