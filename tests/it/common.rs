//! What all tests of the program share.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::OnceLock,
};

use assert_cmd::Command;
use tempfile::TempDir;

pub fn datasets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets")
}

/// The binary, run in `dir`, on the CPU whatever else it was built with.
pub fn elmo(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("elmo").unwrap();
    command.current_dir(dir).args(["--device", "cpu"]);
    command
}

/// Settings that make a run of a second or two: a very small encoder on `food`.
pub fn small() -> Vec<String> {
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

pub fn text(output: &Output) -> (String, String) {
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (string(&output.stdout), string(&output.stderr))
}

/// A finished run that the tests share, and what `train` printed.
pub fn trained() -> (&'static Path, &'static str) {
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
pub fn assert_fails(command: &mut Command, code: i32, parts: &[&str]) {
    let output = command.output().unwrap();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
}

pub fn copy(from: &Path, to: &Path) {
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

/// Small inputs of `tests/cases`.
pub fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// `elmo train` in `dir` with a model that trains in a fraction of a second, on the data set `docs` below `data`.
pub fn train_tiny(dir: &Path, data: &Path) -> Command {
    let mut command = elmo(dir);
    command.arg("train").arg("--config").arg(cases().join("tiny.toml"));
    command.arg(format!("dataset_path={}", data.display()));
    command
}

/// A finished run on `tests/cases/toy` that the tests share: the folder to be in, and the run's path from there.
pub fn toy() -> (&'static Path, &'static str) {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let dir = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        train_tiny(dir.path(), &cases().join("toy"))
            .args(["log_fname=toy", "dataset.training.epochs=10"])
            .assert()
            .success();
        dir
    });
    (dir.path(), "runs/toy")
}

/// Succeeds; what it prints on standard output and on standard error.
pub fn succeeds(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}
