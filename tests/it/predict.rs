//! `elmo predict`: an answer for every text, in order, and soon.

use std::fs;

use serde_json::Value;

use crate::common::{assert_fails, elmo, text, trained};

#[test]
fn predict_prints_titles_and_scores() {
    let (dir, _) = trained();
    let output = elmo(dir).args(["predict", "runs/shared", "a sweet red wine", "--top-k", "3"]).output().unwrap();
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    let scores: Vec<f64> =
        stdout.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
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
    assert_fails(elmo(dir).args(["predict", "runs/shared", " "]), 2, &["TEXT 1", "empty text"]);
    assert!(rows[0]["labels"][0]["title"].is_string() && rows[0]["labels"][0]["score"].is_f64());

    let stdin = elmo(dir)
        .args(["predict", "runs/shared", "-", "--top-k", "10"])
        .write_stdin(fs::read(dir.join("texts.txt")).unwrap())
        .output()
        .unwrap();
    assert_eq!(text(&stdin).0, saved);

    // What is on disk is not overwritten.
    assert_fails(
        elmo(dir).args(["predict", "runs/shared", "--input", "texts.txt"]).args(["--output", "predictions.jsonl"]),
        1,
        &["predictions.jsonl", "exist"],
    );
}
