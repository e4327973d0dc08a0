//! The label space: which output of the classifier stands for which label of the data set.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    Source,
    json_lines::{JsonLines, TextRule, json_error},
    ragged::Ragged,
};
use crate::{
    atomic,
    error::{Error, Place, Result},
};

/// Texts end to end in one allocation: with millions of labels, a `String` each would cost more than the titles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Titles {
    text: String,
    ends: Vec<usize>,
}

impl Titles {
    /// The titles of `lbl.json`; the title alone is a label's text, in every data set.
    pub fn read(path: &Path) -> Result<Self> {
        let mut titles = Self::default();
        for record in JsonLines::open(path)? {
            titles.push(&record?.text(TextRule::Title));
        }
        Ok(titles)
    }

    fn push(&mut self, title: &str) {
        self.text.push_str(title);
        self.ends.push(self.text.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.text[start..end])
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

/// The outputs of the classifier, in order, with the id and the title of their labels.
///
/// The id of a label is its line in `lbl.json`, from 0. The file need not exist; the title is the id as text then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    ids: Vec<u32>,
    titles: Titles,
    /// `(id, index)`, sorted: half the memory of a hash map, and as fast for what it is used for.
    by_id: Vec<(u32, u32)>,
}

/// One line of `labels.jsonl`.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    index: usize,
    id: u32,
    title: T,
}

impl LabelMap {
    /// The label space as the reference builds it: the labels of the training rows, of all label rows when those are
    /// training rows too, and of the test rows, sorted by id or by frequency with ties in order of appearance.
    ///
    /// Outputs beyond the labels seen (`num_labels` may ask for them) take the smallest ids left, at the end.
    ///
    /// # Errors
    /// [`Error::Config`] if `num_labels` is smaller than the number of labels seen, or above `i32::MAX`.
    pub(super) fn build(source: &Source, titles: &Titles, train: &Ragged, test: &Ragged) -> Result<Self> {
        let label_rows = if source.augment_label_data {
            0..titles.len() as u32
        } else {
            0..0
        };
        let mut slots = HashMap::new();
        let mut seen: Vec<(u32, u64)> = Vec::new();
        for id in (train.values().iter().copied())
            .chain(label_rows)
            .chain(test.values().iter().copied())
        {
            let slot = *slots.entry(id).or_insert_with(|| {
                seen.push((id, 0));
                seen.len() - 1
            });
            seen[slot].1 += 1;
        }
        if source.label_sort {
            seen.sort_by_key(|&(_, count)| Reverse(count));
        } else {
            seen.sort_unstable();
        }

        let outputs = match source.num_labels {
            0 => seen.len(),
            n => n,
        };
        if outputs < seen.len() || outputs > i32::MAX as usize {
            return Err(Error::Config {
                origin: format!("data set `{}`", source.name),
                key: "num_labels".into(),
                expected: format!("{} (the labels in its files) to {}", seen.len(), i32::MAX),
                found: outputs.to_string(),
                hint: Some("0 takes as many as there are".into()),
            });
        }
        let unseen = (0..).filter(|id| !slots.contains_key(id));
        let extra = outputs - seen.len();
        let ids: Vec<u32> = (seen.iter().map(|&(id, _)| id)).chain(unseen.take(extra)).collect();
        let mut ordered = Titles::default();
        for &id in &ids {
            match titles.get(id as usize) {
                Some(title) => ordered.push(title),
                None => ordered.push(&id.to_string()),
            }
        }
        Ok(Self::new(ids, ordered))
    }

    fn new(ids: Vec<u32>, titles: Titles) -> Self {
        let mut by_id: Vec<_> = (ids.iter().copied()).zip(0..).collect();
        by_id.sort_unstable();
        Self { ids, titles, by_id }
    }

    /// Number of outputs.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no output.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The title of the label of output `index`.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn title(&self, index: usize) -> &str {
        self.titles.get(index).expect("index is an output")
    }

    /// The id of the label of output `index`.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn id(&self, index: usize) -> u32 {
        self.ids[index]
    }

    /// The output that stands for the label `id`.
    pub fn index(&self, id: u32) -> Option<u32> {
        let found = self.by_id.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(self.by_id[found].1)
    }

    /// Writes one line `{"index", "id", "title"}` an output, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        atomic::write(path, |sink| {
            for (index, (&id, title)) in self.ids.iter().zip(self.titles.iter()).enumerate() {
                serde_json::to_writer(&mut *sink, &Line { index, id, title })
                    .map_err(Into::into)
                    .and_then(|()| sink.write_all(b"\n"))
                    .map_err(Error::io("write", path))?;
            }
            Ok(())
        })
    }

    /// Reads what [`LabelMap::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Data`] with the line if one is missing, out of order, or has the id of another.
    pub fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let (mut ids, mut titles, mut known) = (Vec::new(), Titles::default(), HashSet::new());
        for (index, text) in BufReader::new(file).lines().enumerate() {
            let wrong = |expected: &str, found: String| Error::Data {
                place: Place::line(path, index + 1),
                expected: expected.into(),
                found,
                hint: Some("the file belongs to the run folder and is not meant to be edited".into()),
            };
            let text = text.map_err(Error::io("read", path))?;
            let line: Line<String> = serde_json::from_str(&text)
                .map_err(|error| wrong("a label with index, id and title", json_error(&error)))?;
            if line.index != index {
                return Err(wrong(&format!("index {index}"), line.index.to_string()));
            }
            if !known.insert(line.id) {
                return Err(wrong("an id of its own", format!("{} again", line.id)));
            }
            ids.push(line.id);
            titles.push(&line.title);
        }
        if ids.is_empty() {
            return Err(Error::Data {
                place: Place::file(path),
                expected: "a label a line".into(),
                found: "an empty file".into(),
                hint: Some("the file belongs to the run folder; train again".into()),
            });
        }
        Ok(Self::new(ids, titles))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::testing;

    fn ragged(rows: &[&[u32]]) -> Ragged {
        let mut ragged = Ragged::new();
        for row in rows {
            ragged.push(row.iter().copied());
        }
        ragged
    }

    fn titles(n: usize) -> Titles {
        let mut titles = Titles::default();
        for i in 0..n {
            titles.push(&format!("title {i}"));
        }
        titles
    }

    fn ids(change: impl FnOnce(&mut Source)) -> Result<Vec<u32>> {
        let mut source = testing::source(Path::new(""));
        change(&mut source);
        let (train, test) = (ragged(&[&[5, 3], &[9, 3]]), ragged(&[&[9, 7], &[9]]));
        LabelMap::build(&source, &titles(10), &train, &test).map(|map| map.ids)
    }

    #[test]
    fn outputs_are_in_the_references_order() {
        assert_eq!(ids(|_| ()).unwrap(), [3, 5, 7, 9]);
        assert_eq!(ids(|s| s.label_sort = true).unwrap(), [9, 3, 5, 7]);
        let both = ids(|s| (s.label_sort, s.augment_label_data) = (true, true));
        assert_eq!(both.unwrap(), [9, 3, 5, 7, 0, 1, 2, 4, 6, 8]);
    }

    #[test]
    fn more_outputs_than_labels_are_allowed_and_fewer_are_not() {
        assert_eq!(ids(|s| s.num_labels = 6).unwrap(), [3, 5, 7, 9, 0, 1]);
        let message = ids(|s| s.num_labels = 3).unwrap_err().to_string();
        assert!(message.contains("`num_labels`: expected 4"), "{message}");
    }

    #[test]
    fn titles_are_ids_where_there_is_no_label_file() {
        let source = testing::source(Path::new(""));
        let map = LabelMap::build(&source, &Titles::default(), &ragged(&[&[670_090, 2]]), &ragged(&[])).unwrap();
        assert_eq!((map.title(1), map.id(1)), ("670090", 670_090));
        assert_eq!((map.index(2), map.index(3)), (Some(0), None));
    }

    #[test]
    fn a_saved_map_comes_back_and_a_changed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        let map = LabelMap::new(vec![4, 1, 2], titles(3));
        map.save(&path).unwrap();
        assert_eq!(LabelMap::load(&path).unwrap(), map);

        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], r#"{"index":0,"id":4,"title":"title 0"}"#);
        for (changed, expected) in [
            ([lines[0], lines[2]].join("\n"), ":2: expected index 1, found 2"),
            (text.replace("\"id\":2", "\"id\":4"), ":3: expected an id of its own"),
            (text.replace("\"id\":1", "\"id\":"), ":2: expected a label with"),
        ] {
            fs::write(&path, changed).unwrap();
            let message = LabelMap::load(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
