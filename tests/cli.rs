//! The program as a user meets it: the real binary on the real data that comes with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::OnceLock,
};

use assert_cmd::Command;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

fn datasets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets")
}

/// The binary, run in `dir`, on the CPU whatever else it was built with.
fn elmo(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("elmo").unwrap();
    command.current_dir(dir).args(["--device", "cpu"]);
    command
}

/// Settings that make a run of a second or two: a very small encoder on `food`.
fn small() -> Vec<String> {
    let mut settings: Vec<String> = [
        "train",
        "dataset=food",
        "dataset.training.epochs=2",
        "dataset.data.max_len=16",
        "dataset.model.encoder.scratch.hidden_size=32",
        "dataset.model.encoder.scratch.intermediate_size=64",
        "dataset.model.encoder.scratch.num_hidden_layers=1",
        "dataset.model.encoder.scratch.vocab_size=2000",
    ]
    .map(String::from)
    .into();
    settings.push(format!("dataset_path={}", datasets().display()));
    settings
}

fn text(output: &Output) -> (String, String) {
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (string(&output.stdout), string(&output.stderr))
}

/// A finished run that the tests share, and what `train` printed.
fn trained() -> (&'static Path, &'static str) {
    static RUN: OnceLock<(TempDir, String)> = OnceLock::new();
    let (dir, printed) = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let output = elmo(dir.path()).args(small()).arg("log_fname=shared").output().unwrap();
        let (stdout, stderr) = text(&output);
        assert!(output.status.success(), "{stderr}");
        (dir, stdout)
    });
    (dir.path(), printed)
}

/// Fails with `code`, says every one of `parts` on standard error, and does not panic.
fn assert_fails(command: &mut Command, code: i32, parts: &[&str]) {
    let output = command.output().unwrap();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
}

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
    let epochs: Vec<Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
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
fn predict_prints_titles_and_scores() {
    let (dir, _) = trained();
    let output = elmo(dir)
        .args(["predict", "runs/shared", "a sweet red wine", "--top-k", "3"])
        .output()
        .unwrap();
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    let scores: Vec<f64> = stdout
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(scores.len(), 3);
    assert!(scores.is_sorted_by(|a, b| a >= b), "{stdout}");
}

#[test]
fn predict_answers_files_and_standard_input_in_order() {
    let (dir, _) = trained();
    fs::write(dir.join("texts.txt"), "a long text about bread and butter\nwine\n\n").unwrap();
    let file = elmo(dir)
        .args(["predict", "runs/shared", "--input", "texts.txt"])
        .args(["--top-k", "10", "--output", "predictions.jsonl"])
        .output()
        .unwrap();
    assert!(file.status.success(), "{}", text(&file).1);
    let saved = fs::read_to_string(dir.join("predictions.jsonl")).unwrap();
    let rows: Vec<Value> = saved.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1]["text"], "wine");
    assert_eq!(rows[1]["labels"].as_array().unwrap().len(), 10);
    // An empty line keeps its place, and is pointed out.
    assert_eq!(rows[2]["labels"], serde_json::json!([]));
    assert!(text(&file).1.contains("texts.txt:3"), "{}", text(&file).1);
    assert_fails(
        elmo(dir).args(["predict", "runs/shared", " "]),
        2,
        &["TEXT 1", "empty text"],
    );
    assert!(rows[0]["labels"][0]["title"].is_string() && rows[0]["labels"][0]["score"].is_f64());

    let stdin = elmo(dir)
        .args(["predict", "runs/shared", "-", "--top-k", "10"])
        .write_stdin(fs::read(dir.join("texts.txt")).unwrap())
        .output()
        .unwrap();
    assert_eq!(text(&stdin).0, saved);

    // What is on disk is not overwritten.
    assert_fails(
        elmo(dir)
            .args(["predict", "runs/shared", "--input", "texts.txt"])
            .args(["--output", "predictions.jsonl"]),
        1,
        &["predictions.jsonl", "exist"],
    );
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
fn mistakes_in_settings_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let train = |arguments: &[&str]| {
        let mut command = elmo(dir.path());
        command.arg("train").args(arguments);
        command
    };
    assert_fails(
        &mut train(&["dataset.training.epoch=3"]),
        2,
        &["dataset.training.epochs"],
    );
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
    for name in [
        "trn.json",
        "tst.json",
        "lbl.json",
        "filter_labels_train.txt",
        "filter_labels_test.txt",
    ] {
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
fn folders_that_are_no_runs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_fails(elmo(dir.path()).args(["evaluate", "nowhere"]), 1, &["nowhere"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert_fails(
        elmo(dir.path()).args(["predict", "empty", "text"]),
        1,
        &["config.toml is missing"],
    );
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
        ("checkpoint/index.json", "{}", "index.json"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(&shared.join("runs/shared"), &dir.path().join("run"));
        fs::write(dir.path().join("run").join(file), content).unwrap();
        assert_fails(
            elmo(dir.path()).args(["predict", "run", "wine", "--checkpoint", "last"]),
            1,
            &[part],
        );
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
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
    lines
        .find(|line| line.as_ref().unwrap().starts_with("epoch 1/"))
        .expect("an epoch ends")
        .unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("interrupted"), "{stderr}");
    let output = elmo(dir.path())
        .args(["evaluate", "runs/food-1", "--checkpoint", "last"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output).1);
}

/// A shape that takes milliseconds.
const TINY: [&str; 10] = [
    "bench",
    "--labels",
    "300",
    "--dim",
    "20",
    "--batch",
    "6",
    "--positives",
    "2",
    "--steps=4",
];

#[test]
fn bench_prints_a_table_and_continues_its_file() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        "--csv rows.csv",
        "--csv rows.csv --precision bf16 --loss --task step --chunk 70",
    ] {
        let output = elmo(dir.path()).args(TINY).args(options.split(' ')).output().unwrap();
        let (stdout, stderr) = text(&output);
        assert!(output.status.success(), "{stderr}");
        for part in ["custom: 300 labels x 20, batch 6", "median ms", "\nstep "] {
            assert!(stdout.contains(part), "`{part}` is not in: {stdout}");
        }
        assert_eq!(stdout.contains("\ntop5 "), !options.contains("--task"));
    }
    let rows = fs::read_to_string(dir.path().join("rows.csv")).unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert!(rows[0].starts_with("version,device,hardware,"));
    for (row, part) in rows[1..].iter().zip([
        ",custom,300,20,6,2,e4m3,e4m3,300,false,step,all,host,4,,",
        ",custom,300,20,6,2,e4m3,e4m3,300,false,top5,all,host,4,,",
        ",custom,300,20,6,2,bf16,bf16,70,true,step,all,host,4,,",
    ]) {
        assert!(row.contains(part), "`{part}` is not in: {row}");
    }
}

#[test]
fn bench_refuses_what_it_cannot_do() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |arguments: &str| {
        let mut command = elmo(dir.path());
        command.arg("bench").args(arguments.split(' '));
        command
    };
    assert_fails(
        &mut bench("--shape amazon"),
        2,
        &["amazontitles670k", "lfpaper2keywords", "small"],
    );
    for (arguments, part) in [
        ("--shape small --labels 10", "--labels"),
        ("--batch 10", "--labels"),
        ("--labels 0", "--labels"),
        ("--labels 3000000000", "--labels"),
        ("--labels 9 --dim 0", "--dim"),
        ("--labels 9 --batch 9999999999999", "--batch"),
        ("--labels 9 --positives 10", "--positives"),
        ("--labels 9 --positives NaN", "--positives"),
        ("--k 0", "--k"),
        ("--steps 0", "--steps"),
        ("--chunk 0", "--chunk"),
        ("--operands fp8", "e4m3"),
    ] {
        assert_fails(&mut bench(arguments), 2, &[part]);
    }
    assert_fails(
        &mut bench("--labels 2000000000 --dim 65536"),
        1,
        &["not enough memory", "TiB"],
    );
    fs::write(dir.path().join("other.csv"), "a,b\n").unwrap();
    assert_fails(&mut bench("--csv other.csv"), 1, &["other.csv:1", "header", "`a,b`"]);
    let kept = fs::read_to_string(dir.path().join("other.csv")).unwrap();
    assert_eq!(kept, "a,b\n");
    assert_fails(&mut bench("--csv no/such.csv"), 1, &["no/such.csv"]);
}
