//! Run folders grow old, are edited and get damaged: what is in them is read, or refused with a reason.
//!
//! `fixtures/runs/v1` was written by version 0.1.0 (format 1), as were the answers in its `expected.json`. Every later
//! version reads it, and gives the same answers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, cases, copy, succeeds, text, train_tiny};

fn version_1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runs/v1")
}

/// What the data set of all runs here is called on the command line.
fn data() -> String {
    cases().join("toy").display().to_string()
}

/// Exit code, standard output, standard error.
fn elmo(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = common::elmo(dir).args(arguments).output().unwrap();
    let (stdout, stderr) = text(&output);
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    (output.status.code().unwrap(), stdout, stderr)
}

/// What it prints; must succeed.
fn answer(dir: &Path, arguments: &[&str]) -> String {
    succeeds(common::elmo(dir).args(arguments)).0
}

/// A run of this version, which the tests copy.
fn run_of_today() -> PathBuf {
    let (dir, run) = common::toy();
    dir.join(run)
}

fn a_copy_of(run: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(run, &dir.path().join("run"));
    dir
}

/// The checkpoint folder that the index calls last.
fn last(run: &Path) -> PathBuf {
    let index: Value = serde_json::from_slice(&fs::read(run.join("checkpoint/index.json")).unwrap()).unwrap();
    run.join("checkpoint").join(index["last"]["folder"].as_str().unwrap())
}

#[test]
fn a_run_of_version_1_gives_the_answers_it_gave() {
    let data = data();
    let expected = fs::read_to_string(version_1().join("expected.json")).unwrap();
    let expected: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&expected).unwrap();
    assert_eq!(expected.len(), 2);
    for (run, checkpoints) in expected {
        let dir = a_copy_of(&version_1().join(&run));
        for (which, expected) in checkpoints {
            let arguments = ["evaluate", "run", "--json", "--checkpoint", &which, "--dataset-path", &data];
            let metrics: Value = serde_json::from_str(&answer(dir.path(), &arguments)).unwrap();
            for (key, value) in expected["evaluate"].as_object().unwrap() {
                let difference = metrics[key].as_f64().unwrap() - value.as_f64().unwrap();
                assert!(difference.abs() < 1e-9, "{run}, {which}: {key}: {} {value}", metrics[key]);
            }
            for expected in expected["predict"].as_array().unwrap() {
                let text = expected["text"].as_str().unwrap();
                fs::write(dir.path().join("texts"), format!("{text}\n")).unwrap();
                let arguments = ["predict", "run", "--checkpoint", &which, "--top-k", "3", "--input", "texts"];
                let predicted: Value = serde_json::from_str(&answer(dir.path(), &arguments)).unwrap();
                for (predicted, expected) in
                    (predicted["labels"].as_array().unwrap().iter()).zip(expected["labels"].as_array().unwrap())
                {
                    assert_eq!(predicted["title"], expected["title"], "{run}, {which}: {text}");
                    let difference = predicted["score"].as_f64().unwrap() - expected["score"].as_f64().unwrap();
                    assert!(difference.abs() < 1e-4, "{run}, {which}: {text}: {predicted} {expected}");
                }
            }
        }
        // Nothing is written into it or beside it.
        let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
        assert_eq!(names(&dir.path().join("run")), names(&version_1().join(&run)));
        assert_eq!(names(dir.path()), 2);
    }
}

/// Every key of `config.toml`, and those of `encoder.json` that are no sizes, may be from a later version.
#[test]
fn keys_that_came_later_have_defaults() {
    let run = version_1().join("fp8chunked");
    let dir = a_copy_of(&run);
    let predict = ["predict", "run", "apple bread", "--top-k", "1"];
    let intact = answer(dir.path(), &predict);
    for (file, keys) in [
        ("config.toml", ["validation_max =", "kahan =", "seed =", "test_batch_size =", "encoder_tokenizer ="]),
        ("encoder.json", ["initializer_range", "layer_norm_eps", "type_vocab_size", "pad_token_id", "hidden_act"]),
    ] {
        let text = fs::read_to_string(run.join(file)).unwrap();
        for key in keys {
            let mut lines: Vec<&str> =
                text.lines().filter(|line| !line.trim_matches([' ', '"']).starts_with(key)).collect();
            assert!(lines.len() < text.lines().count(), "{key}");
            // The last entry of an object has no comma.
            let before = lines.len() - 2;
            if lines[before].ends_with(',') {
                lines[before] = lines[before].trim_end_matches(',');
            }
            fs::write(dir.path().join("run").join(file), lines.join("\n")).unwrap();
            assert_eq!(answer(dir.path(), &predict), intact, "{file} without {key}");
        }
        fs::write(dir.path().join("run").join(file), text).unwrap();
    }
}

/// Changes a file of a run, expects an error that has these parts, and changes it back.
fn refused(run: &Path, file: &Path, content: &[u8], parts: &[&str]) {
    let intact = fs::read(file).unwrap();
    fs::write(file, content).unwrap();
    for command in
        [&["predict", "run", "apple", "--checkpoint", "last"][..], &["evaluate", "run", "--checkpoint", "last"]]
    {
        let (code, _, stderr) = elmo(run.parent().unwrap(), command);
        assert_eq!(code, 1, "{}: {parts:?}: {stderr}", file.display());
        for part in parts {
            assert!(stderr.contains(part), "{}: `{part}` is not in: {stderr}", file.display());
        }
    }
    fs::write(file, intact).unwrap();
}

fn replaced(file: &Path, from: &str, to: &str) -> Vec<u8> {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    text.replacen(from, to, 1).into()
}

#[test]
fn edited_settings_are_checked() {
    for run in [run_of_today(), version_1().join("fp8chunked")] {
        let dir = a_copy_of(&run);
        let run = dir.path().join("run");
        let file = run.join("config.toml");
        for (from, to, parts) in [
            ("max_len = 16", "max_len = 64", &["max_len", "16", "64"][..]),
            ("max_len = 16", "max_len = 0", &["config.toml:", "max_len", "found 0"]),
            ("test_batch_size = 256", "test_batch_size = 0", &["test_batch_size", "65535", "found 0"]),
            ("test_batch_size = 256", "test_batch_size = -1", &["test_batch_size"]),
            ("epochs = ", "epochs = \"many\" # ", &["epochs", "many"]),
            ("A = 0.55", "A = nan", &["evaluation.A"]),
            ("seed = ", "seeed = ", &["unknown key", "seeed"]),
            ("[dataset.data]", "[dataset.data", &["config.toml:", "TOML"]),
        ] {
            refused(&run, &file, &replaced(&file, from, to), parts);
        }
        refused(&run, &file, b"", &["all keys are missing"]);
        refused(&run, &file, b"\xff", &["config.toml: damaged", "UTF-8"]);
    }
}

#[test]
fn what_a_newer_version_wrote_is_said_to_be_newer() {
    let dir = a_copy_of(&run_of_today());
    let run = dir.path().join("run");
    let file = run.join("run.json");
    for (format, part) in [
        ("3", "written by a newer elmo (format 3; this one reads up to 2)"),
        ("999", "written by a newer elmo (format 999"),
        ("0", "there is no format 0"),
        ("\"two\"", "`format` is not a number"),
        ("-1", "`format` is not a number"),
    ] {
        // Whatever else a newer version may have changed.
        refused(&run, &file, format!("{{\"format\": {format}}}").as_bytes(), &["run.json", part]);
    }
    let dir = a_copy_of(&version_1().join("fp8chunked"));
    let run = dir.path().join("run");
    let file = run.join("checkpoint/index.json");
    for (version, part) in [("999", "written by a newer elmo (format 999"), ("0", "there is no format 0")] {
        let content = replaced(&file, "\"version\": 1", &format!("\"version\": {version}"));
        refused(&run, &file, &content, &["index.json", part]);
    }
}

#[test]
fn damage_is_named_by_its_file() {
    let dir = a_copy_of(&run_of_today());
    let run = dir.path().join("run");
    let checkpoint = last(&run);
    let files = [
        run.join("run.json"),
        run.join("model.json"),
        run.join("labels.jsonl"),
        run.join("tokenizer.json"),
        run.join("checkpoint/index.json"),
        checkpoint.join("state.json"),
        checkpoint.join("model.safetensors"),
    ];
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let intact = fs::read(&file).unwrap();
        refused(&run, &file, b"", &[name]);
        refused(&run, &file, &intact[..intact.len() / 2], &[name]);
        if !matches!(name, "run.json" | "index.json") {
            let mut flipped = intact.clone();
            flipped[intact.len() / 2] ^= 1;
            refused(&run, &file, &flipped, &[name, "damaged"]);
        }
        fs::remove_file(&file).unwrap();
        let (code, _, stderr) = elmo(dir.path(), &["predict", "run", "apple"]);
        assert!(code == 1 && stderr.contains(&format!("{name}: missing")), "{name}: {stderr}");
        fs::create_dir(&file).unwrap();
        let (code, _, stderr) = elmo(dir.path(), &["predict", "run", "apple", "--checkpoint", "last"]);
        assert!(code == 1 && stderr.contains(name), "a folder {name}: {stderr}");
        fs::remove_dir(&file).unwrap();
        fs::write(&file, intact).unwrap();
    }
    // Nor with all of its checkpoints was it stopped early.
    let (index, state) = (run.join("checkpoint/index.json"), checkpoint.join("state.json"));
    let bytes = fs::read(&index).unwrap();
    for (content, part) in [
        (&b" \n"[..], "an empty file"),
        (&bytes[..bytes.len() / 2], "cut short at line"),
        (b"{,}", "not JSON from line 1"),
    ] {
        refused(&run, &index, content, &["index.json: damaged", part]);
    }
    // Some editors begin a file so.
    fs::write(&index, [b"\xef\xbb\xbf", &bytes[..]].concat()).unwrap();
    answer(dir.path(), &["predict", "run", "apple"]);
    fs::remove_dir_all(run.join("checkpoint")).unwrap();
    let (code, _, stderr) = elmo(dir.path(), &["predict", "run", "apple"]);
    assert!(code == 1 && stderr.contains("index.json: missing") && !state.exists(), "{stderr}");
    // And in a folder of version 1, which has no fingerprints.
    let dir = a_copy_of(&version_1().join("fp8chunkedheadkahan"));
    let run = dir.path().join("run");
    for name in ["encoder.json", "labels.jsonl", "tokenizer.json", "checkpoint/index.json"] {
        let file = run.join(name);
        let intact = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let (code, _, stderr) = elmo(dir.path(), &["predict", "run", "apple"]);
        assert!(code == 1 && stderr.contains(&format!("{name}: missing")), "{name}: {stderr}");
        assert!(stderr.contains("belongs to the run"), "{name}: {stderr}");
        fs::write(&file, intact).unwrap();
    }
    for (file, from, to, parts) in [
        ("encoder.json", "\"hidden_size\": 16", "\"hidden_size\": 0", &["encoder.json", "hidden_size"][..]),
        ("encoder.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 3", &["encoder.json", "heads"]),
        ("encoder.json", "  \"hidden_size\": 16,\n", "", &["encoder.json", "`hidden_size`: missing"]),
        ("encoder.json", "\"vocab_size\": 148", "\"vocab_size\": 20", &["tokenizer.json", "148", "20"]),
        ("encoder.json", "\"vocab_size\": 148", "\"vocab_size\": 200", &["model.safetensors", "200"]),
        ("encoder.json", "\"pad_token_id\"", "\"padding\"", &["encoder.json", "`padding`: not a key"]),
        ("config.toml", "\"fp8chunkedheadkahan\"", "\"chunked\"", &["model.safetensors", "classifier.weights"]),
        ("checkpoint/index.json", "\"epoch\": 12", "\"epoch\": 13", &["epoch-13", "missing"]),
        ("checkpoint/index.json", "\"epoch\": 12", "\"epoch\": \"../x\"", &["index.json: damaged"]),
    ] {
        let file = run.join(file);
        refused(&run, &file, &replaced(&file, from, to), parts);
    }
    let file = run.join("checkpoint/epoch-12/model.safetensors");
    let intact = fs::read(&file).unwrap();
    refused(&run, &file, &intact[..intact.len() - 1], &["model.safetensors: damaged"]);
}

#[cfg(unix)]
#[test]
fn files_follow_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let run = run_of_today();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // Made with the mode that any new file gets here.
    let expected = mode(&run.join("log.txt"));
    for file in ["run.json", "model.json", "config.toml", "labels.jsonl", "tokenizer.json", "checkpoint/index.json"] {
        assert_eq!(mode(&run.join(file)), expected, "{file}");
    }
    assert_eq!(mode(&last(&run).join("model.safetensors")), expected);
    assert_eq!(mode(&last(&run).join("state.json")), expected);
}

#[cfg(unix)]
#[test]
fn who_may_not_read_a_file_is_told_so() {
    use std::os::unix::fs::PermissionsExt;
    let dir = a_copy_of(&run_of_today());
    let run = dir.path().join("run");
    let probe = run.join("labels.jsonl");
    fs::set_permissions(&probe, PermissionsExt::from_mode(0o000)).unwrap();
    if fs::read(&probe).is_ok() {
        // An administrator may read everything: a file that is a link to itself cannot be read by anyone.
        for file in ["run.json", "config.toml", "model.json", "labels.jsonl", "tokenizer.json", "checkpoint/index.json"]
        {
            let file = run.join(file);
            let intact = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink(&file, &file).unwrap();
            let (code, _, stderr) = elmo(dir.path(), &["predict", "run", "apple"]);
            assert_eq!(code, 1, "{stderr}");
            assert!(stderr.contains("cannot read") && !stderr.contains("train again"), "{}: {stderr}", file.display());
            fs::remove_file(&file).unwrap();
            fs::write(&file, intact).unwrap();
        }
        return;
    }
    fs::set_permissions(&probe, PermissionsExt::from_mode(0o644)).unwrap();
    let checkpoint = last(&run);
    let files = ["run.json", "config.toml", "model.json", "labels.jsonl", "tokenizer.json", "checkpoint/index.json"]
        .map(|file| run.join(file));
    for file in files.into_iter().chain(["state.json", "model.safetensors"].map(|file| checkpoint.join(file))) {
        fs::set_permissions(&file, PermissionsExt::from_mode(0o000)).unwrap();
        let (code, _, stderr) = elmo(dir.path(), &["predict", "run", "apple", "--checkpoint", "last"]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("Permission denied") && !stderr.contains("train again"), "{stderr}");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    }
}

#[test]
fn equal_runs_write_equal_files() {
    let dir = tempfile::tempdir().unwrap();
    succeeds(train_tiny(dir.path(), &cases().join("toy")).args(["log_fname=toy", "dataset.training.epochs=10"]));
    let (one, other) = (run_of_today(), dir.path().join("runs/toy"));
    let mut files = vec![PathBuf::new()];
    let mut compared = 0;
    while let Some(path) = files.pop() {
        if one.join(&path).is_dir() {
            files.extend(fs::read_dir(one.join(&path)).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        } else if !matches!(path.to_str(), Some("log.txt" | "metrics.jsonl")) {
            assert!(fs::read(one.join(&path)).unwrap() == fs::read(other.join(&path)).unwrap(), "{}", path.display());
            compared += 1;
        }
    }
    assert!(compared >= 9, "{compared} files");
}

#[test]
fn weights_that_are_not_finite_are_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    // All of it in the one step of the one epoch.
    let mut command = train_tiny(dir.path(), &cases().join("toy"));
    command.args(["log_fname=run", "dataset.training.epochs=1", "dataset.data.batch_size=4096"]);
    command.args(["dataset.training.encoder.warmup_steps=0", "dataset.training.encoder.lr=1e39"]);
    common::assert_fails(&mut command, 1, &["the numbers are not finite any more"]);
    let left = fs::read_dir(dir.path().join("runs/run/checkpoint")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    // A run of version 1 that was saved so.
    let dir = a_copy_of(&version_1().join("fp8chunked"));
    let file = dir.path().join("run/checkpoint/epoch-12/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    refused(&dir.path().join("run"), &file, &bytes, &["not finite", "--checkpoint best"]);
}

#[test]
fn evaluate_and_predict_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = data();
    copy(&run_of_today(), &dir.path().join("runs/run"));
    let runs = dir.path().join("runs");
    answer(&runs.join("run"), &["evaluate", ".", "--dataset-path", &data]);
    answer(&runs, &["evaluate", "run", "--dataset-path", &data]);
    answer(dir.path(), &["predict", "runs/run", "apple"]);
    // Nor into a folder called .cache that is there, be it somebody else's.
    fs::create_dir(runs.join(".cache")).unwrap();
    answer(&runs, &["evaluate", "run", "--dataset-path", &data]);
    assert_eq!(fs::read_dir(runs.join(".cache")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&runs).unwrap().count(), 2);
    assert!(!runs.join("run/.cache").exists());
}

#[test]
fn settings_that_decide_the_labels_are_named() {
    let dir = a_copy_of(&run_of_today());
    let file = dir.path().join("run/config.toml");
    let intact = fs::read_to_string(&file).unwrap();
    for (key, value, part) in [
        ("num_labels", "5", "config.toml: `dataset.data.num_labels`: expected"),
        ("num_labels", "300", "the 300 labels of"),
        ("label_sort", "true", "the labels, or their order, of"),
    ] {
        let line = intact.lines().find(|line| line.starts_with(key)).unwrap();
        fs::write(&file, intact.replace(line, &format!("{key} = {value}"))).unwrap();
        let (code, _, stderr) = elmo(dir.path(), &["evaluate", "run", "--dataset-path", &data()]);
        assert_eq!(code, 1, "{stderr}");
        for part in [part, "dataset.data.label_sort", "run's config.toml"] {
            assert!(stderr.contains(part), "{key}: `{part}` is not in: {stderr}");
        }
    }
}
