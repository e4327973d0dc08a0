//! The same data in every layout.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    data::{
        Corpus, Source, Split, TextFields, Watch,
        testing::{folder, source, tokenizer},
        text::tests::gzip,
    },
    error::Result,
};

/// The cut of `food` in this layout.
fn cut(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(layout)
}

fn auto(dir: &Path) -> Source<'_> {
    Source { format: Format::Auto, validation_fraction: 0.1, ..source(dir) }
}

fn load(source: &Source) -> Corpus {
    Corpus::load(source, tokenizer(), None, &Watch::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// Tokens, positives and filter of every row.
fn rows(split: &Split) -> Vec<(Vec<u32>, Vec<u32>, Vec<u32>)> {
    let row = |row| (split.tokens(row).collect(), split.positives(row).to_vec(), split.filter(row).to_vec());
    (0..split.len()).map(row).collect()
}

/// Everything but the labels and the filters.
fn without_filters(corpus: &Corpus) -> impl PartialEq + std::fmt::Debug + use<> {
    let splits = [&corpus.train, &corpus.valid, &corpus.test];
    let rows = splits.map(|split| rows(split).into_iter().map(|row| (row.0, row.1)).collect::<Vec<_>>());
    (rows, corpus.train_label_freq.clone(), corpus.train_rows, corpus.labels.len())
}

fn assert_same(found: &Corpus, expected: &Corpus, layout: &str) {
    for (found, expected) in
        [(&found.train, &expected.train), (&found.valid, &expected.valid), (&found.test, &expected.test)]
    {
        assert_eq!(rows(found), rows(expected), "{layout}");
    }
    assert_eq!(without_filters(found), without_filters(expected), "{layout}");
    assert_eq!(found.labels, expected.labels, "{layout}");
}

/// `annif` as a full-text corpus.
fn documents() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in ["train", "test"] {
        let folder = dir.path().join(part);
        fs::create_dir(&folder).unwrap();
        let rows = fs::read_to_string(cut("annif").join(format!("{part}.tsv"))).unwrap();
        for (number, row) in rows.lines().enumerate() {
            let (text, uris) = row.split_once('\t').unwrap();
            fs::write(folder.join(format!("{number:02}.txt")), text).unwrap();
            fs::write(folder.join(format!("{number:02}.tsv")), uris.replace(' ', "\tlabel\n")).unwrap();
        }
    }
    fs::copy(cut("annif/vocabulary.tsv"), dir.path().join("vocabulary.tsv")).unwrap();
    dir
}

#[test]
fn every_layout_gives_the_same_corpus() {
    for (augment, sort) in [(false, false), (true, true), (false, true)] {
        let with = |dir: &Path| load(&Source { augment_label_data: augment, label_sort: sort, ..auto(dir) });
        let expected = with(&cut("label-features"));
        assert_eq!(
            (expected.train.len() + expected.valid.len(), expected.test.len()),
            (59 + if augment { 34 } else { 0 }, 20)
        );
        assert_eq!(expected.report.filter_pairs, 18);
        for layout in ["gz", "sparse", "pecos"] {
            assert_same(&with(&cut(layout)), &expected, layout);
        }
        let documents = documents();
        for dir in [cut("annif"), documents.path().to_owned()] {
            let found = with(&dir);
            let layout = &found.report.layout;
            assert!(layout.starts_with("an Annif corpus (annif): train"), "{layout}");
            assert_eq!(without_filters(&found), without_filters(&expected), "{layout}");
            for index in 0..expected.labels.len() {
                assert_eq!(found.labels.title(index), expected.labels.title(index));
                assert!(found.labels.name(index).unwrap().starts_with("http://wordnet.example/n"));
            }
        }
        if augment {
            continue;
        }
        for layout in ["four-files", "table", "json-lines"] {
            let found = with(&cut(layout));
            assert_eq!(without_filters(&found), without_filters(&expected), "{layout}");
            assert!(found.labels.title(0).starts_with('n'), "labels are called by their names");
        }
    }
}

/// The whole of the data, where it is there.
#[test]
fn food_is_the_same_in_all_its_layouts() {
    let food = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/food");
    if !food.exists() {
        return;
    }
    let expected = load(&auto(&food));
    for layout in ["gz", "renee", "pecos", "attentionxml"] {
        let found = load(&auto(&food.join("formats").join(layout)));
        assert_eq!(without_filters(&found), without_filters(&expected), "{layout}");
        if layout != "attentionxml" {
            assert_eq!(found.labels, expected.labels, "{layout}");
        }
    }
    let renee = load(&auto(&food.join("formats/renee")));
    assert_same(&renee, &expected, "renee");
    let message = Files::find(&auto(&food.join("formats/xmlrepo-bow"))).unwrap_err().to_string();
    assert!(message.contains("train.txt: expected a data set with its texts, found features and labels"), "{message}");
}

#[test]
fn a_folder_is_recognised_and_the_summary_says_as_what() {
    for (layout, words) in [
        (
            "label-features",
            "label-feature JSON lines (label-features): trn.json, tst.json, lbl.json, filter_labels_train.txt, \
             filter_labels_test.txt",
        ),
        ("gz", "label-feature JSON lines (label-features): raw_text/trn.json.gz, raw_text/tst.json.gz"),
        ("four-files", "four text files (four-files): train_raw_texts.txt, train_labels.txt, test_raw_texts.txt"),
        (
            "sparse",
            "sparse label matrices beside texts (sparse): trn_X.txt, trn_X_Y.txt, tst_X.txt, tst_X_Y.txt, Y.txt",
        ),
        ("pecos", "PECOS (pecos): X.trn.txt, Y.trn.npz, X.tst.txt, Y.tst.npz, output-items.txt"),
        ("table", "a table (table): train.csv, test.csv; text of title, content, labels of labels, split at `|`"),
        ("json-lines", "JSON lines with label names (json-lines): train.jsonl, test.jsonl; labels of `labels`"),
        ("annif", "an Annif corpus (annif): train.tsv, test.tsv, vocabulary.tsv"),
    ] {
        let summary = load(&auto(&cut(layout))).report.to_string();
        assert!(summary.starts_with(&format!("data    {words}")), "{summary}");
    }
}

#[test]
fn the_key_decides_where_a_folder_has_several_layouts() {
    let dir = tempfile::tempdir().unwrap();
    for layout in ["sparse", "label-features"] {
        for entry in fs::read_dir(cut(layout)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    let layout = |format| Files::find(&Source { format, ..auto(dir.path()) }).map(|files| files.layout);
    assert!(layout(Format::Auto).unwrap().contains("(label-features)"));
    assert!(layout(Format::Sparse).unwrap().contains("(sparse)"));
    let message = layout(Format::Pecos).unwrap_err().to_string();
    assert!(message.contains("expected X.trn.txt or X.trn.txt.gz, here or in raw_text/"), "{message}");
}

#[test]
fn data_without_texts_are_named_and_refused() {
    for (files, what) in [
        (
            &["trn_X_Xf.txt", "trn_X_Y.txt"][..],
            "trn_X_Xf.txt: expected a data set with its texts, found features of words",
        ),
        (
            &["trn_X_Y.txt", "tst_X_Y.txt"],
            "trn_X_Y.txt: expected a data set with its texts, found a label matrix alone",
        ),
        (&["X.trn.npz", "Y.trn.npz"], "X.trn.npz: expected a data set with its texts"),
    ] {
        let dir = folder(&[]);
        files.iter().for_each(|name| fs::write(dir.path().join(name), "").unwrap());
        let message = Files::find(&auto(dir.path())).unwrap_err().to_string();
        assert!(message.contains(what) && message.contains("help: a model learns from texts"), "{message}");
    }
    let message = Files::find(&auto(&cut("bag-of-words"))).unwrap_err().to_string();
    assert!(message.contains("train.txt: expected a data set with its texts, found features and labels"), "{message}");
    let four_files = cut("four-files");
    let message = Files::find(&Source { augment_label_data: true, ..auto(&four_files) }).unwrap_err().to_string();
    assert!(
        message.contains("expected texts of the labels") && message.contains("augment_label_data=false"),
        "{message}"
    );
}

/// The texts of the training part of these files.
fn texts(dir: &Path, format: Format) -> Result<Vec<String>> {
    let files = Files::find(&Source { format, ..source(dir) })?;
    files.train.texts("reading", &Watch::default())?.collect()
}

#[test]
fn every_file_is_read_as_what_it_is_however_it_was_saved() {
    for (layout, format) in [
        ("label-features", Format::LabelFeatures),
        ("four-files", Format::FourFiles),
        ("sparse", Format::Sparse),
        ("pecos", Format::Pecos),
        ("table", Format::Table),
        ("json-lines", Format::JsonLines),
        ("annif", Format::Annif),
    ] {
        let plain = load(&auto(&cut(layout)));
        let saved = |change: fn(&[u8]) -> Vec<u8>, end: &str| {
            let dir = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(cut(layout)).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let bytes = fs::read(entry.path()).unwrap();
                match name.ends_with(".npz") {
                    true => fs::write(dir.path().join(name), bytes).unwrap(),
                    false => fs::write(dir.path().join(name + end), change(&bytes)).unwrap(),
                }
            }
            dir
        };
        for dir in [
            saved(gzip, ""),
            saved(gzip, ".gz"),
            saved(|bytes| bytes.to_vec(), ".gz"),
            saved(|bytes| [b"\xef\xbb\xbf", bytes].concat(), ""),
            saved(|bytes| String::from_utf8_lossy(bytes).replace('\n', "\r\n").into_bytes(), ""),
        ] {
            let found = load(&Source { format, ..auto(dir.path()) });
            assert_same(&found, &plain, layout);
        }
        for (bytes, expected) in [
            (&b"\xff\xfea\0\n\0"[..], "expected text in UTF-8, found UTF-16"),
            (b"PK\x03\x04", "found a zip archive"),
            (b"a\nb\xff\n", "expected"),
        ] {
            let dir = saved(|bytes| bytes.to_vec(), "");
            let files = Files::find(&Source { format, ..source(dir.path()) }).unwrap();
            fs::write(&files.train.path, bytes).unwrap();
            let message = texts(dir.path(), format).unwrap_err().to_string();
            let name = files.train.path.display().to_string();
            assert!(message.starts_with(&name) && message.contains(expected), "{message}");
        }
    }
}

#[test]
fn names_of_labels_may_be_what_writers_make_of_them() {
    let labels = |line: &str| -> Result<Vec<String>, String> {
        let dir = folder(&[("train.jsonl", line), ("test.jsonl", line)]);
        let found = Corpus::load(
            &Source { format: Format::Auto, columns: Columns::default(), text: TextFields::Auto, ..source(dir.path()) },
            tokenizer(),
            None,
            &Watch::default(),
        );
        let labels = found.map_err(|error| error.to_string())?.labels;
        Ok((0..labels.len()).map(|index| labels.title(index).into_owned()).collect())
    };
    let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(labels(r#"{"text": "a", "labels": ["b", "a, b", 7, 3.0]}"#), names(&["3", "7", "a, b", "b"]));
    assert_eq!(labels(r#"{"text": "a", "label": "wine"}"#), names(&["wine"]));
    assert_eq!(labels(r#"{"text": "a \ud83d", "x": NaN, "tags": ["b"]}"#), names(&["b"]));
    let good = "{\"text\": \"a\", \"labels\": [\"b\"]}\n";
    for (value, expected) in [
        ("[null]", "train.jsonl:2: `labels`: expected label names (texts) in the list, found null"),
        ("[\"\"]", "found the text \"\""),
        ("[1.5]", "found 1.5"),
        ("[[\"a\"]]", "found a list"),
        ("{\"a\": 1}", "train.jsonl:2: `labels`: expected a list of label names, found an object"),
        ("true", "expected a list of label names, found true"),
    ] {
        let message = labels(&format!("{good}{{\"text\": \"b\", \"labels\": {value}}}\n")).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    let message = labels("{\"text\": \"a\", \"x\": [\"b\"]}\n").unwrap_err();
    assert!(message.contains("expected trn.json or trn.json.gz") || message.contains("label_column"), "{message}");
}

#[test]
fn json_lines_are_known_by_their_first_row() {
    let by_id = "{\"title\": \"a\", \"target_ind\": [0]}\n";
    let by_name = "{\"text\": \"a\", \"labels\": [\"b\"]}\n";
    for (train, test, content, expected) in [
        ("trn.json", "tst.json", by_id, "(label-features)"),
        ("trn.json", "tst.json", by_name, "(json-lines)"),
        ("train.jsonl", "test.jsonl", by_name, "(json-lines)"),
        ("train.jsonl", "test.ndjson", by_id, "(label-features)"),
        ("train.json", "tst.json", "{\"text\": NaN, \"labels\": []}\n", "(json-lines)"),
        ("train.json", "test.json", "[\n", "(json-lines)"),
        ("trn.json", "tst.json", "[\n", "(label-features)"),
    ] {
        let dir = folder(&[(train, content), (test, content)]);
        let files = Files::find(&auto(dir.path())).unwrap();
        assert!(files.layout.contains(expected), "{train} {content}");
    }
    let dir = folder(&[("train.json", "[\n{\"text\": \"a\"}\n]\n"), ("test.json", "")]);
    let message = texts(dir.path(), Format::Auto).unwrap_err().to_string();
    assert!(message.contains("train.json:1: expected one JSON object a line, found a JSON array"), "{message}");
}

#[test]
fn a_missing_file_is_named_in_both_forms_and_found_in_raw_text() {
    let dir = folder(&[("train.parquet", "")]);
    let find = |source: &Source| Files::find(source).map(drop).map_err(|error| error.to_string());
    let message = find(&auto(dir.path())).unwrap_err();
    assert!(
        message.contains("trn.json or trn.json.gz, here or in raw_text/, found neither, but `train.parquet`"),
        "{message}"
    );
    assert!(message.contains("datasets/README.md lists the layouts"), "{message}");
    let with_titles = Source { augment_label_data: true, ..source(dir.path()) };
    let message = find(&with_titles).unwrap_err();
    assert!(message.contains("trn.json"), "the rows come first: {message}");
    fs::write(dir.path().join("trn.jsonl"), "{\"title\": \"a\", \"target_ind\": [0]}\n").unwrap();
    let message = find(&auto(dir.path())).unwrap_err();
    assert!(message.contains("expected tst.json or tst.json.gz"), "{message}");
    assert!(message.contains("help: models are evaluated on it: hold some rows out"), "{message}");
    fs::create_dir(dir.path().join("tst.json")).unwrap();
    let message = find(&auto(dir.path())).unwrap_err();
    assert!(message.contains("found a folder called `tst.json`"), "{message}");
    fs::create_dir(dir.path().join("raw_text")).unwrap();
    for name in ["trn.json.gz", "tst.json"] {
        fs::write(dir.path().join("raw_text").join(name), "").unwrap();
    }
    assert!(find(&auto(dir.path())).is_ok());
    assert!(find(&auto(&dir.path().join("nowhere"))).unwrap_err().contains("found no such folder"));
}

#[test]
fn the_name_decides_which_fields_are_read_unless_the_key_does() {
    for (chosen, name, fields) in [
        (TextFields::Auto, "LF-AmazonTitles-131K", TextFields::Title),
        (TextFields::Auto, "LF-WikiSeeAlso-320K", TextFields::TitleAndContent),
        (TextFields::TitleAndContent, "subtitles", TextFields::TitleAndContent),
        (TextFields::Title, "docs", TextFields::Title),
    ] {
        assert_eq!(chosen.of(name), fields);
    }
}
