//! The labels that the rows of a data set may have, while the rows are read.

use std::collections::HashMap;

use super::{
    Watch,
    faults::Faults,
    formats::{Files, Labelling, Subjects},
    ragged::Ragged,
    row::Labels,
    titles::Titles,
};
use crate::error::{Place, Result};

/// The labels known so far, and what they are called.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Titles by id.
    pub titles: Titles,
    /// What the data call them, by id, where that is not the title.
    pub names: Titles,
    /// Number of ids, if it is known beforehand, and the name of the file that says it.
    pub listed: Option<(usize, String)>,
    /// Labels of rows that the vocabulary does not have. They are left out.
    pub unlisted: usize,
    /// The first of these, and once its row is known, where it stands.
    pub first_unlisted: Option<(String, Option<Place>)>,
    by_name: HashMap<String, u32>,
    by_title: HashMap<String, u32>,
    /// Whether a name that was not seen before is a new label.
    grows: bool,
}

impl Space {
    /// The labels that are known before any row is read.
    ///
    /// # Errors
    /// Those of the list of labels, where `faults` end the work.
    pub fn open(files: &Files, faults: &mut Faults, watch: &Watch) -> Result<Self> {
        let name = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(match &files.labelling {
            Labelling::Names => Self { grows: true, ..Self::default() },
            Labelling::Ids(Some(list)) => {
                let titles = Titles::read(list, faults, watch)?;
                Self { listed: Some((titles.len(), name(&list.path))), titles, ..Self::default() }
            }
            Labelling::Ids(None) => {
                let [train, test] = [&files.train, &files.test].map(|part| faults.good(part.columns()));
                let columns = train?.flatten().max(test?.flatten());
                let listed = columns.map(|columns| (columns, name(&files.train.labels_place().path)));
                Self { listed, ..Self::default() }
            }
            Labelling::Subjects(path) => {
                let Subjects { uris, titles } = Subjects::read(path, faults)?;
                let names = uris.iter().collect();
                let by_name = uris.into_iter().zip(0..).collect();
                // Of several subjects of one label the first one counts, as in Annif.
                let by_title = (titles.iter().cloned()).zip(0..titles.len() as u32).rev().collect();
                Self { titles: titles.iter().collect(), names, by_name, by_title, ..Self::default() }
            }
        })
    }

    /// The ids of the labels of a row. With names these are numbers in order of appearance until [`Space::settle`].
    ///
    /// # Errors
    /// An id that is not listed.
    pub fn ids(&mut self, labels: Labels) -> Result<Vec<u32>, u32> {
        let names = match labels {
            Labels::Ids(ids) => {
                let listed = self.listed.as_ref().map_or(u64::MAX, |listed| listed.0 as u64);
                return match ids.iter().find(|id| u64::from(**id) >= listed) {
                    Some(id) => Err(*id),
                    None => Ok(ids),
                };
            }
            Labels::Titles(titles) if !self.grows => {
                let mut ids = Vec::with_capacity(titles.len());
                for title in titles {
                    match self.by_title.get(&title) {
                        Some(id) => ids.push(*id),
                        None => self.leave_out(title),
                    }
                }
                return Ok(ids);
            }
            Labels::Names(names) | Labels::Titles(names) => names,
        };
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            match self.by_name.get(&name) {
                Some(id) => ids.push(*id),
                None if self.grows => {
                    let id = self.by_name.len() as u32;
                    self.by_name.insert(name, id);
                    ids.push(id);
                }
                None => self.leave_out(name),
            }
        }
        Ok(ids)
    }

    fn leave_out(&mut self, label: String) {
        self.unlisted += 1;
        self.first_unlisted.get_or_insert((label, None));
    }

    /// Numbers the labels anew once all rows are read, where they have names: in the order of the names, by their bytes,
    /// as the reference sorts them. `rows` are the labels of all rows.
    pub fn settle<const N: usize>(&mut self, rows: [&mut Ragged; N]) {
        if !self.grows {
            return;
        }
        let mut names: Vec<(String, u32)> = std::mem::take(&mut self.by_name).into_iter().collect();
        names.sort_unstable();
        let mut ids = vec![0; names.len()];
        for (id, (_, seen)) in (0u32..).zip(&names) {
            ids[*seen as usize] = id;
        }
        for rows in rows {
            rows.map(|seen| ids[seen as usize]);
        }
        self.titles = names.into_iter().map(|(name, _)| name).collect();
        self.grows = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Labels {
        Labels::Names(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn names_are_numbered_in_their_order_whichever_comes_first() {
        let mut space = Space { grows: true, ..Space::default() };
        let (mut train, mut test) = (Ragged::new(), Ragged::new());
        train.push(space.ids(names(&["10", "b", "9"])).unwrap());
        test.push(space.ids(names(&["a", "b"])).unwrap());
        space.settle([&mut train, &mut test]);
        assert_eq!(space.titles.iter().collect::<Vec<_>>(), ["10", "9", "a", "b"]);
        assert_eq!((train.row(0), test.row(0)), (&[0, 3, 1][..], &[2, 3][..]));
    }

    #[test]
    fn a_vocabulary_has_the_labels_that_there_are() {
        let dir = crate::data::testing::folder(&[("v.tsv", "u:1\twine\nu:2\ttea\nu:3\twine\n")]);
        let files = |labelling| Files { labelling, ..testing_files() };
        let mut space =
            Space::open(&files(Labelling::Subjects(dir.path().join("v.tsv"))), &mut Faults::fatal(), &Watch::default())
                .unwrap();
        assert_eq!(space.ids(names(&["u:2", "u:9", "u:1"])), Ok(vec![1, 0]));
        assert_eq!(space.ids(Labels::Titles(vec!["wine".into(), "beer".into()])), Ok(vec![0]));
        assert_eq!((space.unlisted, space.titles.len()), (2, 3));
        space.settle([]);
        assert_eq!((space.titles.get(2), space.names.get(2)), (Some("wine"), Some("u:3")));
    }

    /// Any files; nobody reads them.
    fn testing_files() -> Files {
        Files::find(&crate::data::testing::source(&crate::data::testing::food())).unwrap()
    }

    #[test]
    fn ids_beyond_the_list_are_refused_and_large_ones_are_exact() {
        let mut space = Space { listed: Some((16_777_218, "Y.txt".into())), ..Space::default() };
        assert_eq!(space.ids(Labels::Ids(vec![16_777_217, 16_777_216])), Ok(vec![16_777_217, 16_777_216]));
        assert_eq!(space.ids(Labels::Ids(vec![16_777_218])), Err(16_777_218));
    }
}
