//! Which layout a folder has.

use std::path::Path;

use super::{
    Format, annif,
    columns::Chosen,
    files::{self, find},
    json_lines, table, wrong,
};
use crate::{
    data::text::Lines,
    error::{Place, Result},
};

/// The layout of the data set in `dir`. Of several the first one of those that are listed here; label-feature files where
/// there is none, so that their names are what a message asks for.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) for data without texts.
pub(super) fn recognise(dir: &Path) -> Result<Format> {
    if let Some(path) = find(dir, &["trn.json"]) {
        return Ok(json_format(&path, Format::LabelFeatures));
    }
    for (names, format) in [
        (&files::FOUR_FILES[..], Format::FourFiles),
        (&files::SPARSE[..], Format::Sparse),
        (&files::PECOS[..], Format::Pecos),
    ] {
        if find(dir, names).is_some() {
            return Ok(format);
        }
    }
    if let Some(path) = find(dir, &files::JSON_LINES[0]) {
        return Ok(json_format(&path, Format::JsonLines));
    }
    if let Some(path) = find(dir, &files::TABLES[0]) {
        let short_texts = annif::is_short_texts(&path) && !table::has_header(&path);
        return Ok(if short_texts { Format::Annif } else { Format::Table });
    }
    if files::folder(dir, &files::FOLDERS[0]).is_some() {
        return Ok(Format::Annif);
    }
    without_texts(dir)?;
    Ok(Format::LabelFeatures)
}

/// Whether the labels of JSON lines are ids or names; `likely` if the first row does not say.
fn json_format(path: &Path, likely: Format) -> Format {
    let names = json_lines::first_names(path);
    match () {
        () if names.iter().any(|name| name == "target_ind") => Format::LabelFeatures,
        () if Chosen::are_known(&names) => Format::JsonLines,
        () => likely,
    }
}

/// Refuses data of which the texts are not there: bags of words, and label matrices alone.
fn without_texts(dir: &Path) -> Result<()> {
    let begins_as_bag = |path: &Path| {
        let line = Lines::open(path).ok().and_then(|mut lines| lines.next()?.ok());
        line.is_some_and(|(_, line)| {
            line.split_whitespace().count() == 3 && line.split_whitespace().all(|word| word.parse::<u64>().is_ok())
        })
    };
    let legacy = find(dir, &["train.txt", "test.txt"]).filter(|path| begins_as_bag(path));
    let features = find(dir, &["trn_X_Xf.txt", "tst_X_Xf.txt", "X.trn.npz", "X.tst.npz", "X.tfidf.trn.npz"]);
    let labels = find(dir, &["trn_X_Y.txt", "tst_X_Y.txt", "Y.trn.npz", "Y.tst.npz"]);
    let (path, what) = match (legacy, features, labels) {
        (Some(path), ..) => (path, "features and labels in one file (the bag-of-words form of the repository)"),
        (_, Some(path), _) => (path, "features of words alone (bag-of-words)"),
        (.., Some(path)) => (path, "a label matrix alone"),
        (None, None, None) => return Ok(()),
    };
    let hint = "a model learns from texts: download the raw text of the data set too, as trn.json and tst.json (raw_text/), \
                trn_X.txt and tst_X.txt, or X.trn.txt and X.tst.txt";
    Err(wrong(Place::file(path), "a data set with its texts", what, Some(hint)))
}
