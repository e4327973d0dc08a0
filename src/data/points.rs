//! The points of `trn.json` and `tst.json`: their labels in memory, their texts where they lie.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{
    Source,
    json_lines::{JsonLines, TextRule, find_required},
    ragged::Ragged,
};
use crate::error::{Error, Place, Result};

/// A file of points.
#[derive(Debug)]
pub(super) struct Points {
    pub path: PathBuf,
    pub rule: TextRule,
    /// Label ids of every row as they are listed, each once.
    pub labels: Ragged,
    /// Rows without text.
    pub empty: usize,
}

impl Points {
    /// Reads the labels of `name`. `listed` is the number of rows of `lbl.json`, if there is one.
    ///
    /// A row without text is counted and kept, for its number is its name in the filter files.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a file that is missing, has no row or no text at all, and with the line for a
    /// row that cannot be read or has a label that is not listed.
    pub fn read(source: &Source, name: &str, listed: Option<usize>) -> Result<Self> {
        let path = find_required(source.dir, name)?;
        let rule = TextRule::of_points(source.name);
        let (mut labels, mut empty) = (Ragged::new(), 0);
        let mut known = HashSet::new();
        let mut lines = JsonLines::open(&path)?;
        while let Some(mut record) = lines.next().transpose()? {
            let mut ids = record.target_ind.take().unwrap_or_default();
            if let Some(listed) = listed
                && let Some(id) = ids.iter().find(|&&id| id as usize >= listed)
            {
                return Err(Error::Data {
                    place: Place::line(&path, lines.line()).field("target_ind"),
                    expected: format!("ids below {listed}, the number of labels"),
                    found: id.to_string(),
                    hint: Some("ids are the line numbers of lbl.json, from 0".into()),
                });
            }
            known.clear();
            ids.retain(|&id| known.insert(id));
            labels.push(ids);
            empty += usize::from(record.text(rule).trim().is_empty());
        }
        if empty == labels.len() {
            return Err(Error::Data {
                place: Place::file(&path),
                expected: "rows with text".into(),
                found: match empty {
                    0 => "no row".into(),
                    n => format!("{n} rows without"),
                },
                hint: (empty > 0).then(|| match rule {
                    TextRule::Title => "`title` is read alone, as the data set's name says".into(),
                    TextRule::TitleAndContent => "text is in `title` and `content`".into(),
                }),
            });
        }
        Ok(Self {
            path,
            rule,
            labels,
            empty,
        })
    }

    pub fn texts(&self) -> Result<impl Iterator<Item = Result<String>> + use<>> {
        texts(&self.path, self.rule)
    }
}

/// The texts of a file, one a row.
pub(super) fn texts(path: &Path, rule: TextRule) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    Ok(JsonLines::open(path)?.map(move |record| Ok(record?.text(rule))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{folder, source};

    fn read(content: &str, listed: Option<usize>) -> Result<Points> {
        let dir = folder(&[("trn.json", content)]);
        Points::read(&source(dir.path()), "trn.json", listed)
    }

    #[test]
    fn labels_are_kept_once_in_the_order_listed() {
        let content = "{\"title\": \"a\", \"target_ind\": [5, 2, 5]}\n{\"content\": \"b\"}\n{\"target_ind\": [1]}";
        let points = read(content, None).unwrap();
        let rows: Vec<_> = points.labels.rows().collect();
        assert_eq!(rows, [&[5, 2][..], &[], &[1]]);
        assert_eq!(points.empty, 1);
    }

    #[test]
    fn a_label_that_is_not_listed_is_named_with_its_line() {
        let content = "{\"title\": \"a\", \"target_ind\": [4]}\n{\"title\": \"b\", \"target_ind\": [0, 5]}";
        assert!(read(content, Some(6)).is_ok());
        let message = read(content, Some(5)).unwrap_err().to_string();
        assert!(
            message.contains("trn.json:2: `target_ind`: expected ids below 5, the number of labels, found 5"),
            "{message}"
        );
    }

    #[test]
    fn a_file_without_rows_or_without_any_text_is_an_error() {
        let message = read("", None).unwrap_err().to_string();
        assert!(
            message.contains("trn.json: expected rows with text, found no row"),
            "{message}"
        );
        let message = read("{\"title\": \" \"}\n{}", None).unwrap_err().to_string();
        assert!(message.contains("found 2 rows without"), "{message}");
    }
}
