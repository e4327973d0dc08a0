//! What rankings are scored against: the labels of test rows, without a model of one's own.

use super::{
    Frequencies, LabelMap, Source, Split, TextTokenizer, Watch, filter::Filter, format::Files, labels::Titles,
    points::Points, ragged::Ragged, token_cache::TokenStore,
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
        let titles = files.titles.as_ref().map(|file| Titles::read(file, watch)).transpose()?;
        let listed = titles.as_ref().map(Titles::len);
        let train = Points::read(&files.train, listed, watch)?;
        let test = Points::read(&files.test, listed, watch)?;
        let filter = Filter::read(files.test_filter.as_deref(), test.labels.len(), Some)?;
        let largest = train.labels.values().iter().chain(test.labels.values()).max();
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

/// The test rows of a folder, for a model whose outputs are `labels`. Its label ids are those of the model's own data
/// set. A label that the model does not have counts as one that it does not find.
///
/// # Errors
/// [`Error::Io`] and [`Error::Data`], with file and line, for files that are missing or damaged, or a list of labels
/// with other titles.
pub fn load_test(source: &Source, tokenizer: &TextTokenizer, labels: &LabelMap, watch: &Watch) -> Result<Split> {
    let (test, titles, filter) = Files::find_test(source)?;
    let listed = titles.as_ref().map(|file| Titles::read(file, watch)).transpose()?;
    for (id, title) in (0..).zip(listed.iter().flat_map(Titles::iter)) {
        let ours = labels.index(id).map(|output| labels.title(output as usize));
        if let (Some(ours), Some(file)) = (ours.filter(|ours| ours != title), &titles) {
            return Err(Error::Data {
                place: Place::line(&file.path, id as usize + 1),
                expected: format!("`{ours}`, as in the run"),
                found: format!("`{title}`"),
                hint: Some("label ids must mean what they meant in training".into()),
            });
        }
    }
    let points = Points::read(&test, listed.as_ref().map(Titles::len), watch)?;
    if !points.have_labels {
        return Err(Error::Data {
            place: Place::file(&test.path).field("target_ind"),
            expected: "at least one row with the field".into(),
            found: "none".into(),
            hint: test.lacks("target_ind"),
        });
    }
    // Ids that the model lacks come after its outputs, where no prediction is.
    let mut unknown: Vec<u32> =
        points.labels.values().iter().copied().filter(|id| labels.index(*id).is_none()).collect();
    unknown.sort_unstable();
    unknown.dedup();
    let beyond = |id| labels.len() as u32 + unknown.partition_point(|other| *other < id) as u32;
    let filter = Filter::read(filter.as_deref(), points.labels.len(), |id| labels.index(id))?;
    let positives = points.labels.map_and_sort(|id| labels.index(id).unwrap_or_else(|| beyond(id)));
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
}
