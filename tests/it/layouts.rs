//! Data sets in every layout, from the files to the answers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::common::{assert_fails, cases, elmo, succeeds};

/// The same small data in every layout, a folder each.
fn formats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

/// Settings that train on `tests/formats/NAME` in a moment.
fn train(dir: &Path, name: &str) -> assert_cmd::Command {
    let mut command = elmo(dir);
    command.arg("train").arg("--config").arg(cases().join("tiny.toml"));
    command.args([format!("dataset_path={}", formats().display()), format!("dataset.data.dataset={name}")]);
    command
}

#[test]
fn a_layout_is_recognised_said_and_kept_for_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let tests: Vec<String> = ["label-features", "pecos", "sparse"]
        .map(|name| {
            let (stdout, _) = succeeds(train(dir.path(), name).arg(format!("log_fname={name}")));
            assert!(stdout.starts_with("data    ") && stdout.contains(&format!("({name})")), "{stdout}");
            let (again, _) = succeeds(elmo(dir.path()).args(["evaluate", &format!("runs/{name}")]));
            let test = stdout.lines().last().unwrap_or_default().to_owned();
            assert_eq!(again.lines().last().unwrap_or_default(), test);
            test
        })
        .into();
    assert!(tests.iter().all(|test| *test == tests[0]), "the same data, the same model: {tests:?}");
}

#[test]
fn labels_keep_their_names_up_to_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    succeeds(train(dir.path(), "annif").arg("log_fname=annif"));
    let (stdout, _) = succeeds(elmo(dir.path()).args(["predict", "runs/annif", "a course of a meal"]));
    assert!(stdout.lines().next().unwrap_or_default().ends_with(']') && stdout.contains("[http://wordnet.example/n"));
    fs::write(dir.path().join("texts.txt"), "a course of a meal\n").unwrap();
    let (stdout, _) = succeeds(elmo(dir.path()).args(["predict", "runs/annif", "--input", "texts.txt"]));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let label = &answer["labels"][0];
    assert!(label["name"].as_str().unwrap().starts_with("http://wordnet.example/n"), "{label}");
    assert!(label["title"].as_str().is_some_and(|title| !title.starts_with("http")), "{label}");
}

#[test]
fn a_layout_is_named_by_a_flag_or_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let none = ["expected X.trn.txt or X.trn.txt.gz"];
    assert_fails(train(dir.path(), "sparse").args(["--format", "pecos"]), 1, &none);
    assert_fails(train(dir.path(), "sparse").arg("dataset.data.format=pecos"), 1, &none);
    assert_fails(train(dir.path(), "sparse").args(["--format", "pecoss"]), 2, &["pecos", "four-files"]);
    assert_fails(train(dir.path(), "sparse").arg("dataset.data.format=pecoss"), 2, &["pecos", "four-files"]);
    assert_fails(&mut train(dir.path(), "bag-of-words"), 1, &["train.txt", "texts", "download the raw text"]);
    let (_, stderr) = succeeds(train(dir.path(), "sparse").args(["dataset.data.is_lf_data=false", "log_fname=old"]));
    assert!(stderr.contains("`dataset.data.is_lf_data` has no effect: the layout"), "{stderr}");
    let (_, stderr) = succeeds(train(dir.path(), "sparse").args([
        "--format",
        "sparse",
        "dataset.data.label_column=x",
        "log_fname=void",
    ]));
    assert!(stderr.contains("`dataset.data.label_column` has no effect"), "{stderr}");
}

#[test]
fn columns_of_a_table_are_named_by_keys() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("docs");
    fs::create_dir(&data).unwrap();
    for name in ["train.csv", "test.csv"] {
        fs::write(data.join(name), "what;kind\nred wine;wine, drink\ngreen tea;tea, drink\n").unwrap();
    }
    let run = |settings: &[&str]| {
        let mut command = elmo(dir.path());
        command.arg("train").arg("--config").arg(cases().join("tiny.toml")).arg("dataset_path=.").args(settings);
        command
    };
    assert_fails(&mut run(&[]), 1, &["train.csv:1", "found `what`, `kind`", "dataset.data.label_column=NAME"]);
    let named = ["dataset.data.text_column=what", "dataset.data.label_column=kind", "dataset.data.label_separator=,"];
    let (stdout, _) = succeeds(&mut run(&named));
    assert!(stdout.contains("text of what, labels of kind, split at `,`"), "{stdout}");
    assert!(stdout.contains("labels  3,"), "{stdout}");
}

#[test]
fn inspect_counts_draws_and_lists_every_fault() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["label-features", "four-files", "pecos", "table", "annif"] {
        let (stdout, _) = succeeds(elmo(dir.path()).args(["data", "inspect"]).arg(formats().join(name)));
        for part in [&format!("({name})"), "train   60 rows, ", "words a row, test", "torso", "│█", "no faults"] {
            assert!(stdout.contains(part), "{part}\n{stdout}");
        }
    }
    let data = dir.path().join("docs");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("train.csv"), format!("text,labels\na,x\n{}", "b\n".repeat(30))).unwrap();
    fs::write(data.join("test.csv"), "text,labels\na,x\n").unwrap();
    let mut command = elmo(dir.path());
    let output = command.args(["data", "inspect", "docs", "--faults", "3"]).output().unwrap();
    let (stdout, stderr) = crate::common::text(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stdout.contains("30 faults, of which the first 3\ndocs/train.csv:3: expected 2 columns"), "{stdout}");
    assert!(stdout.contains("docs/train.csv:5:") && !stdout.contains("docs/train.csv:6:"), "{stdout}");
    assert!(stderr.contains("30 faults"), "{stderr}");
    let data = formats().join("bag-of-words").display().to_string();
    assert_fails(elmo(dir.path()).args(["data", "inspect", &data]), 1, &["expected a data set with its texts"]);
    assert_fails(elmo(dir.path()).args(["data", "inspect", &data, "--format", "x"]), 2, &["four-files"]);
}

#[test]
fn a_data_set_is_made_up_and_can_be_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = ["--rows", "1500", "--labels", "20", "--words", "2"];
    let make = |out: &str, more: &[&str]| {
        let mut command = elmo(dir.path());
        command.args(["data", "synthesize", out]).args(sizes).args(more);
        command
    };
    let (stdout, _) = succeeds(&mut make("docs", &["--seed", "3", "--labels-per-row", "1.5"]));
    assert_eq!(stdout, "docs: 1500 training rows, 150 test rows, 20 labels\n");
    assert_fails(&mut make("docs", &[]), 1, &["cannot create docs", "exists", "choose another name"]);
    assert_fails(&mut make("other", &["--exponent", "-1"]), 2, &["--exponent"]);
    assert_fails(&mut make("other", &["--labels-per-row", "0.5"]), 2, &["--labels-per-row", "from 1 to 50"]);
    let mut train = elmo(dir.path());
    train.arg("train").arg("--config").arg(cases().join("tiny.toml")).arg("dataset_path=.");
    let (stdout, _) = succeeds(train.args(["dataset.training.epochs=8", "dataset.training.encoder.lr=3e-3"]));
    let test = stdout.lines().last().unwrap_or_default();
    let first: f64 = test.split_whitespace().nth(2).and_then(|number| number.parse().ok()).unwrap_or(0.0);
    assert!(first > 60.0, "a label's words say which one it is: {test}");
}

#[test]
fn what_was_prepared_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let prepare = |more: &[&str]| {
        let mut command = elmo(dir.path());
        command.args(["data", "prepare", "--config"]).arg(cases().join("tiny.toml"));
        command.args([format!("dataset_path={}", formats().display()), "dataset.data.dataset=table".into()]);
        command.args(more);
        succeeds(&mut command).0
    };
    let first = prepare(&[]);
    assert!(first.starts_with("data    a table (table)") && !first.contains("(from the cache)"), "{first}");
    let files = || {
        let entries = fs::read_dir(dir.path().join("runs/.cache")).unwrap();
        let time = |entry: fs::DirEntry| (entry.path(), entry.metadata().unwrap().modified().unwrap());
        let mut files: Vec<_> = entries.map(|entry| time(entry.unwrap())).collect();
        files.sort();
        files
    };
    let made = files();
    let is_tokenizer = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("tokenizer-");
    assert_eq!(made.len(), 3, "the tokenizer, and the tokens of train and test");
    assert_eq!(made.iter().filter(|(path, _)| is_tokenizer(path)).count(), 1);
    assert!(prepare(&[]).contains("(from the cache)"));
    let (trained, _) = succeeds(&mut train(dir.path(), "table"));
    assert!(trained.contains("(from the cache)"), "{trained}");
    assert_eq!(files(), made, "nothing is written again");

    // A damaged tokenizer is made again, with a warning; another vocabulary is another tokenizer.
    let (tokenizer, _) = made.iter().find(|(path, _)| is_tokenizer(path)).unwrap();
    let intact = fs::read(tokenizer).unwrap();
    fs::write(tokenizer, &intact[..100]).unwrap();
    assert!(prepare(&[]).contains("(from the cache)"));
    assert_eq!(fs::read(tokenizer).unwrap(), intact);
    assert!(!prepare(&["dataset.model.encoder.scratch.vocab_size=500"]).contains("(from the cache)"));
    assert_eq!(files().len(), 6);
}
