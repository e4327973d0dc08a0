//! A run: what it leaves behind, and that it can be read and repeated.

use std::fs;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::{assert_fails, copy, elmo, small, text, trained};

#[test]
fn a_run_folder_holds_everything() {
    let (dir, printed) = trained();
    let run = dir.join("runs/shared");
    for file in [
        "config.toml",
        "log.txt",
        "labels.jsonl",
        "tokenizer.json",
        "run.json",
        "model.json",
        "checkpoint/index.json",
        "result.json",
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let epochs: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(epochs.len(), 2);
    for key in ["P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5"] {
        assert!(epochs[1]["valid"][key].is_f64(), "{key}");
    }
    assert!(epochs[1]["loss"].as_f64() < epochs[0]["loss"].as_f64());
    assert!(printed.contains("epoch 2/2"), "{printed}");
    assert!(printed.lines().last().unwrap().starts_with("test P@1/3/5"));
}

#[test]
fn evaluate_repeats_the_end_of_training_to_the_last_digit() {
    let (dir, printed) = trained();
    let output = elmo(dir).args(["evaluate", "runs/shared"]).output().unwrap();
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stdout.lines().last(), printed.lines().last());

    let output = elmo(dir).args(["evaluate", "runs/shared", "--json"]).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let saved = fs::read_to_string(dir.join("runs/shared/result.json")).unwrap();
    assert_eq!(printed, serde_json::from_str::<Value>(&saved).unwrap());
    assert!(printed["P@1"].is_f64() && printed["PSP@5"].is_f64());
}

#[test]
fn the_same_command_gives_the_same_model() {
    let (dir, printed) = trained();
    let output = elmo(dir).args(small()).output().unwrap();
    let (stdout, _) = text(&output);
    assert_eq!(stdout.lines().last(), printed.lines().last());
    let file = |run: &str| {
        let path = dir.join(run).join("checkpoint/epoch-2/model.safetensors");
        fs::read(path).unwrap()
    };
    let (one, other) = (file("runs/shared"), file("runs/food-1"));
    assert!(SafeTensors::deserialize(&one).unwrap().len() > 10);
    assert!(one == other);
}

#[test]
fn every_implementation_trains() {
    let dir = tempfile::tempdir().unwrap();
    for settings in [
        "dataset.model.xmc.implementation=chunked dataset.model.xmc.dtype=float32",
        "dataset.model.xmc.implementation=chunked dataset.model.xmc.dtype=bfloat16",
        "dataset.model.xmc.implementation=fp8chunked dataset.training.xmc.simulated_fp8=False",
        "dataset.model.xmc.implementation=fp8chunkedheadkahan dataset.data.label_sort=True",
        "dataset.model.xmc.implementation=fp8chunkedheadkahan dataset.data.label_sort=True \
         dataset.model.xmc.compensation=e5m2",
        "dataset.training.encoder.optimizer=adamw dataset.training.encoder.grad_accum_step=3 \
         dataset.data.validation_fraction=0",
        "dataset.training.encoder.optimizer=sgd dataset.training.encoder.max_grad_norm=1 \
         dataset.training.encoder.lr_scheduler=MultiStepLR dataset.training.xmc.lr_scheduler=ReduceLROnPlateau \
         dataset.training.evaluation.train_evaluate=True dataset.training.evaluation.train_evaluate_every=1",
    ] {
        let output = elmo(dir.path())
            .args(small())
            .arg("dataset.training.epochs=1")
            .args(settings.split_whitespace())
            .output()
            .unwrap();
        let (stdout, stderr) = text(&output);
        assert!(output.status.success(), "{settings}: {stderr}");
        assert!(stdout.lines().last().unwrap().starts_with("test P@1"));
    }
}

#[test]
fn folders_that_are_no_runs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_fails(elmo(dir.path()).args(["evaluate", "nowhere"]), 1, &["nowhere"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert_fails(elmo(dir.path()).args(["predict", "empty", "text"]), 1, &["config.toml is missing"]);
    assert_fails(elmo(dir.path()).args(["predict", "empty"]), 2, &["TEXT"]);
}

#[test]
fn damaged_run_folders_are_refused() {
    let (shared, _) = trained();
    for (file, content, part) in [
        ("labels.jsonl", "", "an empty file"),
        ("model.json", "{}", "model.json"),
        ("config.toml", "", "keys are missing"),
        ("config.toml", "[dataset]\nkind = 1\n", "kind"),
        ("tokenizer.json", "{", "tokenizer.json"),
        ("checkpoint/epoch-2/model.safetensors", "", "model.safetensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(&shared.join("runs/shared"), &dir.path().join("run"));
        fs::write(dir.path().join("run").join(file), content).unwrap();
        assert_fails(elmo(dir.path()).args(["predict", "run", "wine", "--checkpoint", "last"]), 1, &[part]);
    }
}

#[test]
fn numbers_that_are_not_finite_stop_the_training_before_they_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    for every in ["0", "10"] {
        assert_fails(
            elmo(dir.path())
                .args(small())
                .arg("dataset.training.encoder.lr=1e30")
                .arg(format!("dataset.training.loss_every={every}")),
            1,
            &["not finite"],
        );
    }
    assert!(!dir.path().join("runs/food-1/checkpoint/index.json").exists());
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_does_not_end_a_training() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("elmo"))
        .current_dir(dir.path())
        .args(small())
        .args(["--device", "cpu"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert!(dir.path().join("runs/food-1/result.json").is_file());
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_after_the_step_and_keeps_what_is_there() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("elmo"))
        .current_dir(dir.path())
        .args(small())
        .args(["dataset.training.epochs=1000", "--device", "cpu"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("epoch 1/")).expect("an epoch ends").unwrap();
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("interrupted"), "{stderr}");
    let output = elmo(dir.path()).args(["evaluate", "runs/food-1", "--checkpoint", "last"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output).1);
}
