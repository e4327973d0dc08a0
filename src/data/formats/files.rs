//! Which files a data set consists of.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Format, Part, annif,
    columns::{Chosen, separator},
    json_lines::{self, Members},
    part::Reader,
    recognise::recognise,
    table,
    texts::LabelFile,
    wrong,
};
use crate::{
    data::{Source, row::TextFields},
    error::{Error, Place, Result},
};

/// A file of JSON lines called by the first word or the second, as programs name such files.
macro_rules! names {
    [$first:literal, $second:literal] => {
        [
            concat!($first, ".json"),
            concat!($first, ".jsonl"),
            concat!($first, ".ndjson"),
            concat!($first, ".jsonlines"),
            concat!($second, ".json"),
            concat!($second, ".jsonl"),
            concat!($second, ".ndjson"),
            concat!($second, ".jsonlines"),
        ]
    };
}

/// Names of the training file, the test file and the list of labels, as they are without `.gz`; the first ones of each are
/// those that messages ask for.
pub(super) const LABEL_FEATURES: [[&str; 8]; 3] =
    [names!["trn", "train"], names!["tst", "test"], names!["lbl", "label"]];
pub(super) const FOUR_FILES: [&str; 2] = ["train_raw_texts.txt", "train_texts.txt"];
pub(super) const SPARSE: [&str; 1] = ["trn_X.txt"];
pub(super) const PECOS: [&str; 1] = ["X.trn.txt"];
pub(super) const JSON_LINES: [[&str; 8]; 2] = [names!["train", "trn"], names!["test", "tst"]];
pub(super) const TABLES: [[&str; 4]; 2] =
    [["train.csv", "train.tsv", "trn.csv", "trn.tsv"], ["test.csv", "test.tsv", "tst.csv", "tst.tsv"]];
const SHORT_TEXTS: [[&str; 2]; 2] = [["train.tsv", "trn.tsv"], ["test.tsv", "tst.tsv"]];
pub(super) const FOLDERS: [[&str; 2]; 2] = [["train", "trn"], ["test", "tst"]];
const VOCABULARIES: [&str; 6] =
    ["vocabulary.tsv", "vocabulary.csv", "vocab.tsv", "vocab.csv", "subjects.tsv", "subjects.csv"];
const FILTERS: [[&str; 2]; 2] =
    [["filter_labels_train.txt", "trn_filter_labels.txt"], ["filter_labels_test.txt", "tst_filter_labels.txt"]];

/// Folders in which a data set's files may lie, below its own.
const WITHIN: [&str; 3] = ["", "raw_text", "raw"];

/// The files of a data set.
#[derive(Debug)]
pub(in crate::data) struct Files {
    pub train: Part,
    pub test: Part,
    pub labelling: Labelling,
    /// Pairs of row and label that an evaluation leaves out, if there are any.
    pub train_filter: Option<PathBuf>,
    pub test_filter: Option<PathBuf>,
    /// What was recognised, for people.
    pub layout: String,
}

/// What rows call their labels.
#[derive(Debug)]
pub(in crate::data) enum Labelling {
    /// By number; the list of labels has their titles, if there is one.
    Ids(Option<Part>),
    /// By name.
    Names,
    /// By what a vocabulary lists.
    Subjects(PathBuf),
}

impl Files {
    /// Finds the files of `source`.
    ///
    /// # Errors
    /// [`Error::Data`] for one that is missing, or data without texts.
    pub fn find(source: &Source) -> Result<Self> {
        let Source { dir, columns: wanted, augment_label_data, .. } = *source;
        let format = match source.format {
            Format::Auto => recognise(dir)?,
            format => format,
        };
        let fields = source.text.of(source.name);
        let mut notes = String::new();
        let [train, test] = match format {
            Format::Auto | Format::LabelFeatures => {
                let members = Arc::new(Members::label_features());
                let part = |names| Ok(Part::new(require(dir, names)?, fields, Reader::Json(members.clone(), None)));
                [part(&LABEL_FEATURES[0])?, part(&LABEL_FEATURES[1])?]
            }
            Format::FourFiles => {
                let part = |texts: &[&str], labels| {
                    let labels = LabelFile::Names(require(dir, &[labels])?);
                    Ok(Part::new(require(dir, texts)?, TextFields::Title, Reader::Texts(Some(labels))))
                };
                if augment_label_data {
                    return Err(no_label_texts(dir));
                }
                [
                    part(&FOUR_FILES, "train_labels.txt")?,
                    part(&["test_raw_texts.txt", "test_texts.txt"], "test_labels.txt")?,
                ]
            }
            Format::Sparse => [
                with_matrix(dir, "trn_X.txt", &["trn_X_Y.txt", "Y.trn.npz"])?,
                with_matrix(dir, "tst_X.txt", &["tst_X_Y.txt", "Y.tst.npz"])?,
            ],
            Format::Pecos => [
                with_matrix(dir, "X.trn.txt", &["Y.trn.npz", "trn_X_Y.txt"])?,
                with_matrix(dir, "X.tst.txt", &["Y.tst.npz", "tst_X_Y.txt"])?,
            ],
            Format::JsonLines => {
                let [train, test] = [require(dir, &JSON_LINES[0])?, require(dir, &JSON_LINES[1])?];
                let columns = match &json_lines::first_names(&train)[..] {
                    // Nothing that can be read: the reader says what it is.
                    [] => Chosen { title: "text".into(), content: None, labels: "labels".into() },
                    names => Chosen::choose(names, wanted, &Place::line(&train, 1))?,
                };
                let fields = if columns.content.is_some() { fields } else { TextFields::Title };
                notes = format!("; labels of `{}`", columns.labels);
                let separator = wanted.separator.map(|word| separator(word).to_owned());
                let reader = Reader::Json(Arc::new(Members::named(&columns)), separator);
                [train, test].map(|path| Part::new(path, fields, reader.clone()))
            }
            Format::Table => {
                let [train, test] = [require(dir, &TABLES[0])?, require(dir, &TABLES[1])?];
                let layout = table::Layout::of(&train, wanted)?;
                notes = format!("; {}", layout.words());
                let test_layout = layout.like(&test)?;
                let fields = if layout.columns.content.is_some() { fields } else { TextFields::Title };
                [(train, layout), (test, test_layout)]
                    .map(|(path, layout)| Part::new(path, fields, Reader::Table(layout)))
            }
            Format::Annif => [annif_part(dir, 0)?, annif_part(dir, 1)?],
        };
        let list = |names: &[&str], reader, fields| {
            let path = match augment_label_data {
                true => Some(require(dir, names)?),
                false => find(dir, names),
            };
            Ok(path.map(|path| Part::new(path, fields, reader)))
        };
        let labelling = match format {
            Format::Auto | Format::LabelFeatures => {
                let reader = Reader::Json(Arc::new(Members::label_features()), None);
                Labelling::Ids(list(&LABEL_FEATURES[2], reader, TextFields::Title)?)
            }
            Format::Sparse => Labelling::Ids(list(&["Y.txt"], Reader::Texts(None), TextFields::Title)?),
            Format::Pecos => Labelling::Ids(list(&["output-items.txt"], Reader::Texts(None), TextFields::Title)?),
            Format::FourFiles => Labelling::Names,
            Format::JsonLines | Format::Table | Format::Annif => match find(dir, &VOCABULARIES) {
                Some(path) => Labelling::Subjects(path),
                None => Labelling::Names,
            },
        };
        let has_ids = matches!(labelling, Labelling::Ids(_));
        let filter = |names: &[&str]| (source.use_filter_eval && has_ids).then(|| find(dir, names)).flatten();
        let [train_filter, test_filter] = [filter(&FILTERS[0]), filter(&FILTERS[1])];
        let list = match &labelling {
            Labelling::Ids(list) => list.as_ref().map(|part| part.path.as_path()),
            Labelling::Names => None,
            Labelling::Subjects(path) => Some(path.as_path()),
        };
        let files = (train.files().into_iter()).chain(test.files()).chain(list);
        let files = files.chain(train_filter.as_deref()).chain(test_filter.as_deref());
        let names: Vec<_> = files.map(|path| path.strip_prefix(dir).unwrap_or(path).display().to_string()).collect();
        let layout = format!("{} ({}): {}{notes}", format.words(), format.name(), names.join(", "));
        Ok(Self { train, test, labelling, train_filter, test_filter, layout })
    }

    /// The files of a folder whose test rows alone are wanted. Label features may come without training rows, and their
    /// place is taken by the test rows then.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_test(source: &Source) -> Result<Self> {
        let is_alone = matches!(source.format, Format::Auto | Format::LabelFeatures)
            && find(source.dir, &LABEL_FEATURES[0]).is_none();
        let Some(path) = is_alone.then(|| find(source.dir, &LABEL_FEATURES[1])).flatten() else {
            return Self::find(source);
        };
        let reader = || Reader::Json(Arc::new(Members::label_features()), None);
        let test = Part::new(path, source.text.of(source.name), reader());
        let list = find(source.dir, &LABEL_FEATURES[2]).map(|path| Part::new(path, TextFields::Title, reader()));
        Ok(Self {
            train: test.clone(),
            test,
            labelling: Labelling::Ids(list),
            train_filter: None,
            test_filter: source.use_filter_eval.then(|| find(source.dir, &FILTERS[1])).flatten(),
            layout: Format::LabelFeatures.words().to_owned(),
        })
    }
}

/// A text a line, and a label matrix.
fn with_matrix(dir: &Path, texts: &str, matrices: &[&str]) -> Result<Part> {
    let texts = require(dir, &[texts])?;
    let matrix = require(dir, matrices)?;
    let labels = match matrix.extension().is_some_and(|extension| extension == "npz") {
        true => LabelFile::Npz(matrix),
        false => LabelFile::Sparse(matrix),
    };
    Ok(Part::new(texts, TextFields::Title, Reader::Texts(Some(labels))))
}

/// A corpus of Annif: a file of short texts, or a folder of documents.
fn annif_part(dir: &Path, part: usize) -> Result<Part> {
    if let (None, Some(folder)) = (find(dir, &SHORT_TEXTS[part]), folder(dir, &FOLDERS[part])) {
        let documents = annif::documents(&folder)?;
        if documents.is_empty() {
            let hint = "a full-text corpus has a file NAME.txt a document, and NAME.tsv or NAME.key with its subjects";
            return Err(wrong(Place::file(folder), "files whose names end in .txt", "none", Some(hint)));
        }
        return Ok(Part::new(folder, TextFields::Title, Reader::Documents(documents.into())));
    }
    Ok(Part::new(require(dir, &SHORT_TEXTS[part])?, TextFields::Title, Reader::ShortTexts))
}

fn no_label_texts(dir: &Path) -> Error {
    wrong(
        Place::file(dir),
        "texts of the labels, which augment_label_data makes training rows",
        "four text files, which only have their names",
        Some("dataset.data.augment_label_data=false trains without"),
    )
}

/// Where one of `names` lies in a data set: in the folder, or in its `raw_text/` or `raw/`, as it is or with `.gz` added.
pub(super) fn find(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    let places = names.iter().flat_map(|name| WITHIN.map(|within| dir.join(within).join(name)));
    places
        .flat_map(|path| {
            let gz = path.with_added_extension("gz");
            [path, gz]
        })
        .find(|path| path.is_file())
}

/// A folder in a data set that has one of these names.
pub(super) fn folder(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| dir.join(name)).find(|path| path.is_dir())
}

/// [`find`], for a file that must be there.
fn require(dir: &Path, names: &[&str]) -> Result<PathBuf> {
    let name = names[0];
    find(dir, names).ok_or_else(|| {
        let found = match dir {
            _ if dir.join(name).is_dir() => format!("a folder called `{name}`"),
            _ if dir.is_dir() => neither(dir),
            _ if dir.exists() => "a file, not a folder".into(),
            _ => "no such folder".into(),
        };
        let hint = match name.starts_with(['t', 'X']) && name.contains("st") && dir.is_dir() {
            true => "models are evaluated on it: hold some rows out of the training file and write them there",
            false => {
                "dataset_path is the folder that holds the data sets, relative to where you are; datasets/README.md lists \
                 the layouts that are read, and says where to get the public data sets"
            }
        };
        wrong(Place::file(dir), format!("{name} or {name}.gz, here or in raw_text/"), found, Some(hint))
    })
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
