//! The label space: which output of the classifier stands for which label of the data set.

use std::{borrow::Cow, cmp::Reverse, collections::HashSet, io::Write, path::Path};

use serde::{Deserialize, Serialize};

use super::{Source, formats::json::mistake, id_table::IdTable, ragged::Ragged, text::Lines, titles::Titles};
use crate::{
    atomic,
    error::{Error, Place, Result},
};

/// The outputs of the classifier, in order, with the id and the title of their labels.
///
/// The id of a label is its line in the list of labels, from 0. Without a list, the title is the id as text. Where the
/// data call labels by name, the id is the place of the name among all names in order, or in the vocabulary.
///
/// Outputs that no label of the data asks for (`num_labels` may be any number) take no memory: they stand for the
/// smallest ids left, in order, after the outputs that are listed here.
#[derive(Debug, Clone)]
pub struct LabelMap {
    /// Outputs in all.
    outputs: usize,
    /// The ids of the first outputs: those of labels that appear in the data or have a title.
    ids: Vec<u32>,
    /// Their titles.
    titles: Titles,
    /// What the data call them, where that is neither the id nor the title: the URIs of a vocabulary. As many as ids, or
    /// none.
    names: Titles,
    /// `(id, index)` of them, sorted: half the memory of a hash map, and as fast for what it is used for.
    by_id: Vec<(u32, u32)>,
}

/// Whether every output stands for the same label.
impl PartialEq for LabelMap {
    fn eq(&self, other: &Self) -> bool {
        let listed = self.ids.len().max(other.ids.len());
        let same = |index| {
            self.id(index) == other.id(index)
                && self.title(index) == other.title(index)
                && self.name(index) == other.name(index)
        };
        self.outputs == other.outputs && (0..listed).all(same)
    }
}

/// One line of `labels.jsonl`.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    index: usize,
    id: u32,
    title: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<T>,
}

/// The last line of `labels.jsonl`, where there are more outputs than lines.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    outputs: usize,
}

impl LabelMap {
    /// The label space as the reference builds it: the labels of the training rows, of all label rows when those are
    /// training rows too, and of the test rows, sorted by id or by frequency with ties in order of appearance.
    ///
    /// Outputs beyond the labels seen (`num_labels` may ask for them) take the smallest ids left, at the end. They take
    /// no memory, but for those that have a title.
    ///
    /// # Errors
    /// [`Error::Config`] if `num_labels` is smaller than the number of labels seen, or above `i32::MAX`.
    pub(super) fn build(
        source: &Source,
        titles: &Titles,
        names: &Titles,
        train: &Ragged,
        test: &Ragged,
    ) -> Result<Self> {
        let label_rows = if source.augment_label_data { 0..titles.len() as u32 } else { 0..0 };
        let all = || (train.values().iter().copied()).chain(label_rows.clone()).chain(test.values().iter().copied());
        let largest = all().max().unwrap_or(0);
        let mut slots = IdTable::new(largest, all().count());
        let mut seen: Vec<(u32, u64)> = Vec::new();
        for id in all() {
            let slot = slots.get_or_insert(id, seen.len() as u32) as usize;
            if slot == seen.len() {
                seen.push((id, 0));
            }
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
        // Of the outputs left, those come first whose ids have a title.
        let titled = (0..titles.len() as u32).filter(|id| slots.get(*id).is_none());
        let extra = outputs - seen.len();
        let ids: Vec<u32> = (seen.iter().map(|&(id, _)| id)).chain(titled.take(extra)).collect();
        let mut ordered = Titles::default();
        for &id in &ids {
            match titles.get(id as usize) {
                Some(title) => ordered.push(title),
                None => ordered.push(&id.to_string()),
            }
        }
        let names = ids.iter().filter_map(|&id| names.get(id as usize)).collect();
        Ok(Self::new(outputs, ids, ordered, names))
    }

    fn new(outputs: usize, ids: Vec<u32>, titles: Titles, names: Titles) -> Self {
        let mut by_id: Vec<_> = (ids.iter().copied()).zip(0..).collect();
        by_id.sort_unstable();
        Self { outputs, ids, titles, names, by_id }
    }

    /// Number of outputs.
    pub fn len(&self) -> usize {
        self.outputs
    }

    /// Whether there is no output.
    pub fn is_empty(&self) -> bool {
        self.outputs == 0
    }

    /// Bytes that it takes, and that counts and propensities of its labels take beside it.
    pub fn bytes(&self) -> u64 {
        let fixed =
            size_of::<u32>() + size_of::<(u32, u32)>() + size_of::<usize>() + size_of::<u32>() + size_of::<f64>();
        (self.ids.len() * fixed + self.titles.bytes() + self.names.bytes()) as u64
    }

    /// The title of the label of output `index`.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn title(&self, index: usize) -> Cow<'_, str> {
        match self.titles.get(index) {
            Some(title) => title.into(),
            None => self.id(index).to_string().into(),
        }
    }

    /// What the data call the label of output `index`, where that is neither its id nor its title, as the URI of a
    /// vocabulary.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index)
    }

    /// The id of the label of output `index`.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn id(&self, index: usize) -> u32 {
        assert!(index < self.outputs, "output {index} of {}", self.outputs);
        let Some(left) = index.checked_sub(self.ids.len()) else {
            return self.ids[index];
        };
        // Below the listed id number `i` in rising order, `id - i` ids are left. The ids fit: there are at most as many
        // outputs as numbers below 2^31, and the id is below the number of outputs unless a listed one is in its place.
        let (mut from, mut to) = (0, self.by_id.len());
        while from < to {
            let middle = (from + to) / 2;
            match self.by_id[middle].0 as usize - middle <= left {
                true => from = middle + 1,
                false => to = middle,
            }
        }
        (left + from) as u32
    }

    /// The outputs of the labels that appear in the data or have a title, to look up many of them.
    pub(super) fn table(&self) -> IdTable {
        let mut table = IdTable::new(self.by_id.last().map_or(0, |(id, _)| *id), self.by_id.len());
        for (id, index) in &self.by_id {
            table.get_or_insert(*id, *index);
        }
        table
    }

    /// The output that stands for the label `id`.
    pub fn index(&self, id: u32) -> Option<u32> {
        match self.by_id.binary_search_by_key(&id, |&(id, _)| id) {
            Ok(at) => Some(self.by_id[at].1),
            Err(smaller) => {
                let index = self.ids.len() + id as usize - smaller;
                (index < self.outputs).then_some(index as u32)
            }
        }
    }

    /// Writes one line `{"index", "id", "title"}` an output, whole or not at all. Where outputs stand for the ids left,
    /// one line `{"outputs"}` with the number of all outputs takes the place of theirs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        atomic::write(path, |sink| {
            for (index, (&id, title)) in self.ids.iter().zip(self.titles.iter()).enumerate() {
                let name = self.names.get(index);
                serde_json::to_writer(&mut *sink, &Line { index, id, title, name })
                    .map_err(Into::into)
                    .and_then(|()| sink.write_all(b"\n"))
                    .map_err(Error::io("write", path))?;
            }
            let outputs = self.outputs;
            if outputs > self.ids.len() {
                let line = serde_json::json!(LastLine { outputs });
                writeln!(sink, "{line}").map_err(Error::io("write", path))?;
            }
            Ok(())
        })
    }

    /// Reads what [`LabelMap::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Data`] with the line if one is missing, out of order, or has the id of another.
    pub fn load(path: &Path) -> Result<Self> {
        let (mut ids, mut titles, mut names) = (Vec::new(), Titles::default(), Titles::default());
        let mut known = HashSet::new();
        let mut outputs = None;
        let mut lines = Lines::open(path)?;
        while lines.advance()? {
            let (place, index) = (lines.place(), ids.len());
            let wrong = |expected: &str, found: String| Error::Data {
                place: place.clone(),
                expected: expected.into(),
                found,
                hint: Some("the file belongs to the run folder and is not meant to be edited".into()),
            };
            if outputs.is_some() {
                return Err(wrong("the end of the file", "a line".into()));
            }
            let line: Line<String> = match serde_json::from_str(lines.text()) {
                Ok(line) => line,
                Err(error) => match serde_json::from_str::<LastLine>(lines.text()) {
                    Ok(last) if last.outputs > index && last.outputs <= i32::MAX as usize => {
                        outputs = Some(last.outputs);
                        continue;
                    }
                    _ => {
                        let found = match error.is_data() {
                            true => "a field that is missing or of another type".into(),
                            false => mistake(lines.text(), &error, index == 0, false).0,
                        };
                        return Err(wrong("a label with index, id and title", found));
                    }
                },
            };
            if line.index != index {
                return Err(wrong(&format!("index {index}"), line.index.to_string()));
            }
            if !known.insert(line.id) {
                return Err(wrong("an id of its own", format!("{} again", line.id)));
            }
            ids.push(line.id);
            titles.push(&line.title);
            if let Some(name) = &line.name {
                names.push(name);
            }
            if !matches!(names.len(), 0) && names.len() != ids.len() {
                return Err(wrong("a name for every label or for none", "one for some".into()));
            }
        }
        if ids.is_empty() && outputs.is_none() {
            return Err(Error::Data {
                place: Place::file(path),
                expected: "a label a line".into(),
                found: "an empty file".into(),
                hint: Some("the file belongs to the run folder; train again".into()),
            });
        }
        Ok(Self::new(outputs.unwrap_or(ids.len()), ids, titles, names))
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

    fn build(source: &Source, titles: &Titles, train: &Ragged, test: &Ragged) -> Result<LabelMap> {
        LabelMap::build(source, titles, &Titles::default(), train, test)
    }

    fn ids(change: impl FnOnce(&mut Source)) -> Result<Vec<u32>> {
        let mut source = testing::source(Path::new(""));
        change(&mut source);
        let (train, test) = (ragged(&[&[5, 3], &[9, 3]]), ragged(&[&[9, 7], &[9]]));
        let map = LabelMap::build(&source, &titles(10), &Titles::default(), &train, &test)?;
        Ok((0..map.len()).map(|index| map.id(index)).collect())
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

    /// Also as many as there may be, without the memory that they would take.
    #[test]
    fn outputs_without_a_label_stand_for_the_ids_left() {
        for (listed, outputs) in [(0, 6), (10, 9), (10, 14), (12, i32::MAX as usize)] {
            let mut source = testing::source(Path::new(""));
            source.num_labels = outputs;
            let map = build(&source, &titles(listed), &ragged(&[&[5, 3], &[11, 3]]), &ragged(&[&[5]])).unwrap();
            assert_eq!(map.len(), outputs);
            assert!(map.bytes() < 2000);
            // The slow way to say it.
            let left = (0..).filter(|id| ![3, 5, 11].contains(id));
            for (index, id) in [3, 5, 11].into_iter().chain(left).take(outputs.min(40)).enumerate() {
                let title = match (id as usize) < listed {
                    true => format!("title {id}"),
                    false => id.to_string(),
                };
                assert_eq!((map.id(index), map.title(index).as_ref()), (id, title.as_str()));
                assert_eq!(map.index(id), Some(index as u32));
            }
            let last = map.id(outputs - 1);
            assert_eq!(map.index(last), Some(outputs as u32 - 1));
            assert_eq!(map.index(last.max(11) + 1), None);

            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("labels.jsonl");
            map.save(&path).unwrap();
            let back = LabelMap::load(&path).unwrap();
            assert_eq!(back, map);
            assert!(fs::metadata(&path).unwrap().len() < 1000);
            let shorter = LabelMap::new(outputs - 1, map.ids[..3].to_vec(), titles(0), Titles::default());
            assert_ne!(map, shorter);
        }
    }

    /// What a version wrote that listed every output.
    #[test]
    fn a_map_that_lists_the_ids_left_is_equal_to_one_that_does_not() {
        let mut source = testing::source(Path::new(""));
        source.num_labels = 5;
        let map = build(&source, &titles(0), &ragged(&[&[2, 0]]), &ragged(&[])).unwrap();
        let mut titles = Titles::default();
        for title in ["0", "2", "1", "3", "4"] {
            titles.push(title);
        }
        assert_eq!(map, LabelMap::new(5, vec![0, 2, 1, 3, 4], titles.clone(), Titles::default()));
        assert_ne!(map, LabelMap::new(5, vec![0, 2, 3, 1, 4], titles, Titles::default()));
    }

    #[test]
    fn titles_are_ids_where_there_is_no_label_file() {
        let source = testing::source(Path::new(""));
        let map = build(&source, &Titles::default(), &ragged(&[&[670_090, 2]]), &ragged(&[])).unwrap();
        assert_eq!((map.title(1).as_ref(), map.id(1)), ("670090", 670_090));
        assert_eq!((map.index(2), map.index(3)), (Some(0), None));
    }

    #[test]
    fn names_beside_the_titles_are_saved_for_all_labels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        let names = (0..10).map(|i| format!("u:{i}")).collect();
        let source = testing::source(Path::new(""));
        let map = LabelMap::build(&source, &titles(10), &names, &ragged(&[&[7, 2]]), &ragged(&[])).unwrap();
        assert_eq!((map.name(0), map.name(1), map.name(2)), (Some("u:2"), Some("u:7"), None));
        map.save(&path).unwrap();
        assert_eq!(LabelMap::load(&path).unwrap(), map);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen(",\"name\":\"u:2\"", "", 1)).unwrap();
        let message = LabelMap::load(&path).unwrap_err().to_string();
        assert!(message.contains(":2: expected a name for every label or for none"), "{message}");
    }

    #[test]
    fn a_saved_map_comes_back_and_a_changed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        let map = LabelMap::new(3, vec![4, 1, 2], titles(3), Titles::default());
        map.save(&path).unwrap();
        assert_eq!(LabelMap::load(&path).unwrap(), map);

        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], r#"{"index":0,"id":4,"title":"title 0"}"#);
        for (changed, expected) in [
            ([lines[0], lines[2]].join("\n"), ":2: expected index 1, found 2"),
            (text.replace("\"id\":2", "\"id\":4"), ":3: expected an id of its own"),
            (text.replace("\"id\":1", "\"id\":"), ":2: expected a label with"),
            (text.replace("\"id\":1", "\"id\":-1"), "found a field that is missing or of another type"),
            (format!("{text}{{\"outputs\":3}}\n"), ":4: expected a label with"),
            (format!("{text}{{\"outputs\":9}}\n{}", lines[0]), ":5: expected the end of the file"),
        ] {
            fs::write(&path, changed).unwrap();
            let message = LabelMap::load(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
