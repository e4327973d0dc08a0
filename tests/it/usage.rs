//! Mistakes of the user: each is named, with its place and the next step.

use std::fs;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{assert_fails, datasets, elmo, small};

#[test]
fn mistakes_in_settings_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let train = |arguments: &[&str]| {
        let mut command = elmo(dir.path());
        command.arg("train").args(arguments);
        command
    };
    assert_fails(&mut train(&["dataset.training.epoch=3"]), 2, &["dataset.training.epochs"]);
    assert_fails(&mut train(&["dataset.training.epochs=many"]), 2, &["epochs", "many"]);
    assert_fails(&mut train(&["dataset=foood"]), 2, &["food"]);
    fs::write(dir.path().join("my.toml"), "[dataset.training]\nseeed = 3\n").unwrap();
    assert_fails(&mut train(&["--config", "my.toml"]), 2, &["my.toml:2", "seed"]);
    assert_fails(&mut train(&["--config", "absent.toml"]), 1, &["absent.toml"]);
    assert_fails(&mut train(&["--epochs=3"]), 2, &["--epochs"]);
    assert_fails(
        &mut train(&["dataset.model.xmc.implementation=fp8chunkedheadkahan", &dataset_path()]),
        2,
        &["label_sort"],
    );
    assert!(!dir.path().join("runs").join("things-1").exists());
}

fn dataset_path() -> String {
    format!("dataset_path={}", datasets().display())
}

#[test]
fn devices_that_are_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (device, code, parts) in [
        ("gpu", 2, vec!["--device", "wgpu"]),
        ("cpu:3", 2, vec!["as there is one"]),
        ("metal", 1, vec!["--features metal"]),
    ] {
        let mut command = Command::cargo_bin("elmo").unwrap();
        command.current_dir(dir.path()).args(["train", "--device", device]);
        assert_fails(&mut command, code, &parts);
    }
}

/// A copy of `food` in which `file` has been changed.
fn broken(file: &str, change: impl FnOnce(String) -> String) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let food = dir.path().join("food");
    fs::create_dir(&food).unwrap();
    for name in ["trn.json", "tst.json", "lbl.json", "filter_labels_train.txt", "filter_labels_test.txt"] {
        fs::copy(datasets().join("food").join(name), food.join(name)).unwrap();
    }
    let path = food.join(file);
    let text = change(fs::read_to_string(&path).unwrap());
    fs::write(&path, text).unwrap();
    dir
}

fn train_in(dir: &TempDir) -> Command {
    let mut command = elmo(dir.path());
    command.args(small()).arg("dataset_path=.");
    command
}

#[test]
fn mistakes_in_data_are_located() {
    let dir = broken("trn.json", |text| text.replacen("{\"uid\"", "{uid", 3));
    assert_fails(&mut train_in(&dir), 1, &["trn.json:1"]);

    let dir = broken("tst.json", |text| {
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        let mut row: Value = serde_json::from_str(&lines[4]).unwrap();
        row["target_ind"] = serde_json::json!([4370]);
        lines[4] = row.to_string();
        lines.join("\n") + "\n"
    });
    assert_fails(&mut train_in(&dir), 1, &["tst.json:5", "4370", "437"]);

    let dir = broken("filter_labels_test.txt", |text| text + "7 seven\n");
    assert_fails(&mut train_in(&dir), 1, &["filter_labels_test.txt:142"]);

    let dir = broken("trn.json", |_| String::new());
    assert_fails(&mut train_in(&dir), 1, &["trn.json"]);

    let dir = tempfile::tempdir().unwrap();
    assert_fails(&mut train_in(&dir), 1, &["food", "trn.json"]);
}

#[test]
fn a_job_that_does_not_fit_is_refused_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    // 437 labels become 2 billion outputs.
    assert_fails(
        elmo(dir.path())
            .args(small())
            .arg("dataset.data.num_labels=20000000")
            .arg("dataset.model.encoder.scratch.hidden_size=65536")
            .arg("dataset.model.encoder.scratch.num_attention_heads=1"),
        1,
        &["not enough memory", "TiB"],
    );
}
