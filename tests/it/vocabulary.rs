//! The vocabulary that is learnt from texts: it keeps what tells them apart, and says what it cannot keep.

use std::{fs, path::Path};

use crate::common::{succeeds, train_tiny};

/// A data set `docs` of two labels, whose texts hold one word of the label's and some that tell nothing.
fn data(dir: &Path, words: impl Fn(usize, usize) -> String) {
    let folder = dir.join("docs");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("lbl.json"), "{\"title\": \"one\"}\n{\"title\": \"two\"}\n").unwrap();
    for (file, rows) in [("trn.json", 160), ("tst.json", 40)] {
        let rows = (0..rows).map(|row| {
            let label = row % 2;
            let text = format!("{} {}", words(label, row), ["alpha", "beta", "gamma"][row % 3]);
            format!("{{\"title\": \"{text}\", \"content\": \"{text}\", \"target_ind\": [{label}]}}\n")
        });
        fs::write(folder.join(file), rows.collect::<String>()).unwrap();
    }
}

/// P@1 on the test rows, and what is said on standard error, after a training with these settings.
fn train(dir: &Path, settings: &[&str]) -> (f64, String) {
    let mut command = train_tiny(dir, dir);
    let (stdout, stderr) =
        succeeds(command.args(["dataset.training.epochs=8", "dataset.training.encoder.lr=3e-3"]).args(settings));
    let line = stdout.lines().rfind(|line| line.starts_with("test P@1/3/5 ")).unwrap();
    let first = line["test P@1/3/5 ".len()..].split(' ').next().unwrap();
    (first.parse().unwrap(), stderr)
}

#[test]
fn words_that_differ_in_an_accent_alone_are_told_apart_unless_they_are_to_be_one() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), |label, _| ["mochte", "m\u{f6}chte"][label].to_owned());
    let (found, stderr) = train(dir.path(), &[]);
    assert_eq!(found, 100.0, "{stderr}");
    let (found, stderr) = train(dir.path(), &["dataset.model.encoder.scratch.strip_accents=always"]);
    assert_eq!(found, 50.0, "{stderr}");
    assert!(stderr.contains("as `mochte` and `m\u{f6}chte`: they are read as the same words"), "{stderr}");
    assert!(stderr.contains("strip_accents=never keeps them apart"), "{stderr}");
}

#[test]
fn words_that_differ_in_a_capital_alone_are_told_apart_if_they_are_to_be() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), |label, _| ["polish", "Polish"][label].to_owned());
    assert_eq!(train(dir.path(), &[]).0, 50.0);
    assert_eq!(train(dir.path(), &["dataset.model.encoder.scratch.lowercase=False"]).0, 100.0);
}

/// As Chinese has them: each character is a word of its own, and those of the label are rare.
#[test]
fn an_alphabet_of_any_size_is_kept_where_there_is_room_and_the_rest_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let character = |number: usize| char::from_u32(0x4e00 + number as u32).unwrap();
    data(dir.path(), |label, row| {
        let filling = (0..8).map(|place| character(100 + (row * 8 + place) % 1200));
        filling.chain([character(label)]).collect()
    });
    let (found, stderr) = train(dir.path(), &["dataset.model.encoder.scratch.vocab_size=4000"]);
    assert_eq!(found, 100.0, "{stderr}");
    assert!(!stderr.contains("unknown words"), "{stderr}");
    let (_, stderr) = train(dir.path(), &["dataset.model.encoder.scratch.vocab_size=300"]);
    assert!(stderr.contains("have a character for which a vocabulary of 300 tokens has no room"), "{stderr}");
    assert!(stderr.contains("raise dataset.model.encoder.scratch.vocab_size"), "{stderr}");
}
