//! Annif's corpora (github.com/NatLibFi/Annif): short texts in a TSV file, full texts in a folder; and its vocabularies.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    path::{Path, PathBuf},
};

use super::{columns::split_labels, wrong};
use crate::{
    data::{
        faults::Faults,
        plain::{Text, unreadable},
        row::{Labels, Row},
        text::{Lines, read_to_string},
    },
    error::{Error, Place, Result},
};

/// A subject's URI without the brackets that may be around it.
fn bare(uri: &str) -> &str {
    uri.trim().trim_start_matches('<').trim_end_matches('>')
}

/// The rows of a short-text corpus: `text<TAB>URI URI ...` a line. A line without a tab has no labels.
pub(super) fn short_texts(lines: Lines) -> impl Iterator<Item = Result<Row>> {
    super::texts::texts(lines).map(|line| {
        let (line, text) = line?;
        let (text, uris) = match text.split_once('\t') {
            Some((text, uris)) => (text, Some(uris)),
            None => (text.as_str(), None),
        };
        let names = |uris| split_labels(uris, " ").map(|uri| bare(uri).to_owned()).collect();
        Ok(Row { line, text: text.into(), labels: uris.map(names).map(Labels::Names), unread: false })
    })
}

/// Whether the first line of a file is that of a short-text corpus: behind the text stands a URI.
pub(super) fn is_short_texts(path: &Path) -> bool {
    let is_uri =
        |word: &str| word.starts_with('<') && word.ends_with('>') || word.contains("://") || word.starts_with("urn:");
    let first = Lines::open(path).ok().and_then(|mut lines| lines.next()?.ok());
    first.is_some_and(|(_, line)| {
        let uris = line.split_once('\t').map_or("", |(_, uris)| uris);
        uris.split_whitespace().next().is_some_and(is_uri)
    })
}

/// The texts of a full-text corpus, in the order of their names: its files that end in `.txt`.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn documents(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if (name.ends_with(".txt") || name.ends_with(".txt.gz")) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The files with the subjects of a document that may lie beside it: of URIs (and labels), and of labels.
pub(super) fn subject_files(document: &Path) -> [PathBuf; 2] {
    let name = document.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.trim_end_matches(".gz").trim_end_matches(".txt").to_owned();
    ["tsv", "key"].map(|end| document.with_file_name(format!("{stem}.{end}")))
}

/// A document and its subjects; `line` is its number in its folder, from 1.
pub(super) fn document(path: &Path, line: usize) -> Result<Row> {
    let text = read_to_string(path)?;
    let [uris, titles] = subject_files(path);
    let lines = |path: &Path, word: fn(&str) -> &str| -> Result<Vec<String>> {
        let lines = Lines::open(path)?.map(|line| Ok(word(&line?.1).to_owned()));
        lines.filter(|word| word.as_ref().map_or(true, |word| !word.is_empty())).collect()
    };
    let labels = match () {
        () if uris.is_file() => {
            Some(Labels::Names(lines(&uris, |line| bare(line.split('\t').next().unwrap_or_default()))?))
        }
        () if titles.is_file() => Some(Labels::Titles(lines(&titles, str::trim)?)),
        () => None,
    };
    Ok(Row { line, text, labels, unread: false })
}

/// A vocabulary: the URI and the label of every subject, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::data) struct Subjects {
    pub uris: Vec<String>,
    pub titles: Vec<String>,
}

impl Subjects {
    /// Reads a vocabulary: `URI<TAB>label<TAB>notation` a line, of which only the URI must be there; or, in a file that
    /// ends in `.csv`, a table with the columns `uri` and `label_LANGUAGE`. Of several languages the first one that a
    /// subject has counts. A subject without a label is called by its URI.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] with the line for a URI that is missing or there twice, or if there is none; where
    /// `faults` end the work.
    pub fn read(path: &Path, faults: &mut Faults) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let entries: Result<Entries> = match name.trim_end_matches(".gz").ends_with(".csv") {
            true => table_entries(path),
            false => line_entries(path),
        };
        let (mut subjects, mut known) = (Self::default(), HashMap::new());
        let entries = faults.good(entries)?;
        for entry in entries.into_iter().flatten() {
            let Some((line, uri, title)) = faults.good(entry)? else {
                continue;
            };
            let place = Place::line(path, line);
            match known.entry(uri.clone()) {
                _ if uri.is_empty() => faults.found(wrong(place, "the URI of a subject", "none", None))?,
                Entry::Occupied(first) => {
                    let found = format!("`{uri}`, as on line {}", first.get());
                    faults.found(wrong(place, "a URI of its own", found, None))?;
                }
                Entry::Vacant(entry) => {
                    entry.insert(line);
                    subjects.titles.push(if title.is_empty() { uri.clone() } else { title });
                    subjects.uris.push(uri);
                }
            }
        }
        if subjects.uris.is_empty() {
            faults.found(wrong(Place::file(path), "a subject a line", "none", None))?;
        }
        Ok(subjects)
    }
}

/// Line, URI and label of every subject.
type Entries = Box<dyn Iterator<Item = Result<(usize, String, String)>>>;

fn line_entries(path: &Path) -> Result<Entries> {
    let lines = super::texts::texts(Lines::open(path)?)
        .filter(|line| line.as_ref().map_or(true, |(_, text)| !text.trim().is_empty()));
    Ok(Box::new(lines.map(|line| {
        let (line, text) = line?;
        let mut cells = text.split('\t').map(str::trim);
        let (uri, title) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        Ok((line, bare(uri).to_owned(), title.to_owned()))
    })))
}

fn table_entries(path: &Path) -> Result<Entries> {
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(Text::open(path)?.line_feeds());
    let error = |path: &Path, error: csv::Error| {
        let line = error.position().map_or(1, |position| position.line() as usize);
        match error.into_kind() {
            csv::ErrorKind::Io(error) => unreadable(path, line, error),
            _ => wrong(Place::line(path, line), "a row of a table in UTF-8", "none", None),
        }
    };
    let header = table.headers().map_err(|found| error(path, found))?.clone();
    let Some(uri) = header.iter().position(|name| name.trim() == "uri") else {
        return Err(wrong(Place::line(path, 1), "a column `uri`", super::listed(header.iter()), None));
    };
    let labels: Vec<_> = (0..header.len()).filter(|at| header[*at].trim().starts_with("label")).collect();
    let path = path.to_owned();
    Ok(Box::new(table.into_records().map(move |record| {
        let record = record.map_err(|found| error(&path, found))?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        let mut titles = labels.iter().filter_map(|at| record.get(*at)).map(str::trim);
        let title = titles.find(|title| !title.is_empty()).unwrap_or_default();
        Ok((line, bare(record.get(uri).unwrap_or_default()).to_owned(), title.to_owned()))
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::folder;

    fn names(names: &[&str]) -> Option<Labels> {
        Some(Labels::Names(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn short_texts_have_their_subjects_behind_a_tab() {
        let dir = folder(&[
            ("train.tsv", "\u{feff}a b\t<http://u/1> http://u/2\r\nno subject\nc\t\n"),
            ("x.tsv", "text\tlabels\n"),
        ]);
        let path = dir.path().join("train.tsv");
        let rows: Vec<_> = short_texts(Lines::open(&path).unwrap()).map(|row| row.unwrap()).collect();
        let labels: Vec<_> = rows.iter().map(|row| (row.text.as_str(), row.labels.clone())).collect();
        assert_eq!(labels, [("a b", names(&["http://u/1", "http://u/2"])), ("no subject", None), ("c", names(&[]))]);
        assert!(is_short_texts(&path));
        assert!(!is_short_texts(&dir.path().join("x.tsv")));
    }

    #[test]
    fn full_texts_have_their_subjects_beside_them() {
        let dir = folder(&[
            ("b.txt", "second\ntext\n"),
            ("b.key", "wine\n\ngreen tea \n"),
            ("a.txt", "first"),
            ("a.tsv", "<http://u/1>\twine\nhttp://u/2\n"),
            ("a.key", "not read"),
            ("c.txt", ""),
            ("readme.md", ""),
        ]);
        let rows: Vec<_> =
            (1..).zip(documents(dir.path()).unwrap()).map(|(line, path)| document(&path, line).unwrap()).collect();
        let found: Vec<_> = rows.into_iter().map(|row| (row.text, row.labels)).collect();
        let titles = Some(Labels::Titles(vec!["wine".into(), "green tea".into()]));
        let first = ("first".to_owned(), names(&["http://u/1", "http://u/2"]));
        assert_eq!(found, [first, ("second\ntext\n".into(), titles), (String::new(), None)]);
    }

    #[test]
    fn vocabularies_are_read_in_both_forms() {
        let tsv = "<http://u/1>\twine\t42.1\nhttp://u/2\n";
        let csv = "notation,uri,label_fi,label_en\n42.1,http://u/1,,wine\n,http://u/2,,\n";
        let dir = folder(&[("v.tsv", tsv), ("v.csv", csv)]);
        let expected = Subjects {
            uris: vec!["http://u/1".into(), "http://u/2".into()],
            titles: vec!["wine".into(), "http://u/2".into()],
        };
        for name in ["v.tsv", "v.csv"] {
            assert_eq!(Subjects::read(&dir.path().join(name), &mut Faults::fatal()).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn a_vocabulary_that_cannot_be_is_named() {
        for (name, content, expected) in [
            ("v.tsv", "u:1\ta\nu:1\tb\n", "v.tsv:2: expected a URI of its own, found `u:1`, as on line 1"),
            ("v.tsv", "u:1\n\n\tb\n", "v.tsv:3: expected the URI of a subject"),
            (
                "v.tsv",
                "u:1\ta\ru:2\tb\r",
                "v.tsv:1: expected a row or a label a line, found lines that end in CR alone",
            ),
            ("v.tsv", "", "v.tsv: expected a subject a line"),
            ("v.csv", "a,b\n1,2\n", "v.csv:1: expected a column `uri`, found `a`, `b`"),
            ("v.csv", "uri,label\nu:1,a\n<u:1>,b\n", "v.csv:3: expected a URI of its own"),
        ] {
            let dir = folder(&[(name, content)]);
            let message = Subjects::read(&dir.path().join(name), &mut Faults::fatal()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
