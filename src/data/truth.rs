//! What rankings are scored against: the labels of test rows, without a model of one's own.

use std::collections::HashMap;

use super::{
    Frequencies, LabelMap, Source, Split, TextTokenizer, Watch,
    faults::Faults,
    filter::Filter,
    formats::{Files, Labelling},
    points::Points,
    ragged::Ragged,
    space::Space,
    token_cache::TokenStore,
};
use crate::error::{Error, Place, Result};

/// The labels of a data set's test rows by their ids, and how often training rows have them.
#[derive(Debug)]
pub struct Truth {
    /// Of the training rows, by id.
    pub frequencies: Frequencies,
    /// Labels that are listed, or the largest id that is seen and those below it.
    pub labels: usize,
    positives: Ragged,
    filter: Ragged,
}

impl Truth {
    /// Reads the labels of a data set, and no text.
    ///
    /// # Errors
    /// As [`Corpus::load`](super::Corpus::load) for the files.
    pub fn load(source: &Source, watch: &Watch) -> Result<Self> {
        let files = Files::find(source)?;
        let mut space = Space::open(&files, &mut Faults::fatal(), watch)?;
        let mut train = Points::read(&files.train, &mut space, watch)?;
        let mut test = Points::read(&files.test, &mut space, watch)?;
        space.settle([&mut train.labels, &mut test.labels]);
        let filter = Filter::read(files.test_filter.as_deref(), test.labels.len(), &mut Faults::fatal(), Some)?;
        let largest = train.labels.values().iter().chain(test.labels.values()).max();
        let listed =
            space.listed.as_ref().map(|listed| listed.0).or((space.titles.len() > 0).then(|| space.titles.len()));
        let labels = listed.unwrap_or(largest.map_or(0, |id| *id as usize + 1));
        let label_rows = if source.augment_label_data { 0..labels as u32 } else { 0..0 };
        let frequencies = Frequencies::new(train.labels.rows(), label_rows);
        Ok(Self { frequencies, labels, positives: test.labels.map_and_sort(|id| id), filter: filter.rows })
    }

    /// Test rows.
    pub fn rows(&self) -> usize {
        self.positives.len()
    }

    /// The labels of a row, ascending.
    pub fn positives(&self, row: usize) -> &[u32] {
        self.positives.row(row)
    }

    /// The labels of a row that must not count, ascending.
    pub fn filter(&self, row: usize) -> &[u32] {
        self.filter.row(row)
    }
}

/// The test rows of a folder, for a model whose outputs are `labels`. Label ids are those of the model's own data set,
/// and names are names. A label that the model does not have counts as one that it does not find.
///
/// # Errors
/// [`Error::Io`] and [`Error::Data`], with file and line, for files that are missing or damaged, or a list of labels
/// with other titles.
pub fn load_test(source: &Source, tokenizer: &TextTokenizer, labels: &LabelMap, watch: &Watch) -> Result<Split> {
    let files = Files::find_test(source)?;
    let mut space = Space::open(&files, &mut Faults::fatal(), watch)?;
    if let Labelling::Ids(Some(list)) = &files.labelling {
        for (id, title) in (0..).zip(space.titles.iter()) {
            let ours = labels.index(id).map(|output| labels.title(output as usize));
            if let Some(ours) = ours.filter(|ours| ours != title) {
                return Err(Error::Data {
                    place: Place::line(&list.path, id as usize + 1),
                    expected: format!("`{ours}`, as in the run"),
                    found: format!("`{title}`"),
                    hint: Some("label ids must mean what they meant in training".into()),
                });
            }
        }
    }
    let test = &files.test;
    let mut points = Points::read(test, &mut space, watch)?;
    space.settle([&mut points.labels]);
    if !points.have_labels {
        return Err(Error::Data {
            place: test.labels_place(),
            expected: "at least one row with the field".into(),
            found: "none".into(),
            hint: test.lacks_labels(),
        });
    }
    let by_name: Option<HashMap<_, u32>> = (!matches!(files.labelling, Labelling::Ids(_))).then(|| {
        let called = |output: u32| match labels.name(output as usize) {
            Some(name) => name.to_owned(),
            None => labels.title(output as usize).into_owned(),
        };
        (0..labels.len() as u32).map(|output| (called(output), output)).collect()
    });
    let output = |id: u32| match &by_name {
        Some(by_name) => {
            let name = space.names.get(id as usize).or_else(|| space.titles.get(id as usize))?;
            by_name.get(name).copied()
        }
        None => labels.index(id),
    };
    // Ids that the model lacks come after its outputs, where no prediction is.
    let mut unknown: Vec<u32> = points.labels.values().iter().copied().filter(|id| output(*id).is_none()).collect();
    unknown.sort_unstable();
    unknown.dedup();
    let beyond = |id| labels.len() as u32 + unknown.partition_point(|other| *other < id) as u32;
    let filter = Filter::read(files.test_filter.as_deref(), points.labels.len(), &mut Faults::fatal(), output)?;
    let positives = points.labels.map_and_sort(|id| output(id).unwrap_or_else(|| beyond(id)));
    let texts = || test.texts("tokenising", watch);
    let (tokens, _) = TokenStore::open_or_build(None, "tst", tokenizer, source.max_len, texts)?;
    let rows = (0..positives.len() as u32).collect();
    Ok(Split::new(tokens.into(), rows, &positives, &filter.rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{
        Corpus,
        testing::{folder, food, source, tokenizer},
    };

    #[test]
    fn the_truth_is_that_of_the_corpus_by_id() {
        let dir = food();
        let source = Source { augment_label_data: true, label_sort: true, ..source(&dir) };
        let corpus = Corpus::load(&source, tokenizer(), None, &Watch::default()).unwrap();
        let truth = Truth::load(&source, &Watch::default()).unwrap();
        assert_eq!((truth.rows(), truth.labels), (corpus.test.len(), corpus.labels.len()));
        let ids = |outputs: &[u32]| {
            let mut ids: Vec<_> = outputs.iter().map(|output| corpus.labels.id(*output as usize)).collect();
            ids.sort_unstable();
            ids
        };
        for row in 0..truth.rows() {
            assert_eq!(truth.positives(row), ids(corpus.test.positives(row)));
            assert_eq!(truth.filter(row), ids(corpus.test.filter(row)));
        }
        let by_output = Frequencies::of(&corpus);
        let mapped = truth.frequencies.map(|id| corpus.labels.index(id));
        assert_eq!(mapped, by_output);
    }

    #[test]
    fn a_test_file_alone_is_enough_and_unknown_labels_are_never_found() {
        let dir = food();
        let corpus = Corpus::load(&source(&dir), tokenizer(), None, &Watch::default()).unwrap();
        let known = corpus.labels.id(3);
        let rows = format!("{{\"title\": \"a\", \"target_ind\": [900000, {known}, 800000]}}\n");
        let other = folder(&[("tst.json", &rows)]);
        let load = || load_test(&source(other.path()), tokenizer(), &corpus.labels, &Watch::default());
        let outputs = corpus.labels.len() as u32;
        assert_eq!(load().unwrap().positives(0), [3, outputs, outputs + 1]);

        std::fs::write(other.path().join("lbl.json"), "{\"title\": \"something else\"}\n").unwrap();
        let message = load().unwrap_err().to_string();
        assert!(message.contains("lbl.json:1: expected `substance`, as in the run"), "{message}");
    }

    #[test]
    fn names_mean_the_same_in_every_layout() {
        let at = |layout: &str| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(layout);
        let (own, other) = (at("json-lines"), at("table"));
        let auto = |dir| Source { format: crate::data::Format::Auto, ..source(dir) };
        let corpus = Corpus::load(&auto(&own), tokenizer(), None, &Watch::default()).unwrap();
        let rows = load_test(&auto(&other), tokenizer(), &corpus.labels, &Watch::default()).unwrap();
        assert_eq!(rows.len(), corpus.test.len());
        assert!((0..rows.len()).all(|row| rows.positives(row) == corpus.test.positives(row)));
        assert!((0..rows.len()).any(|row| !rows.positives(row).is_empty()));
    }
}
