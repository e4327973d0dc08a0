//! `elmo evaluate`: any k, other test rows, and the predictions of other systems.

use std::{fs, path::Path};

use serde_json::Value;

use crate::common::{assert_fails, cases, copy, elmo, succeeds, toy};

fn metrics(dir: &Path, arguments: &[&str]) -> Value {
    let (stdout, _) = succeeds(elmo(dir).arg("evaluate").args(arguments).arg("--json"));
    serde_json::from_str(&stdout).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_predict_answers_scores_as_the_run_itself() {
    let (dir, run) = toy();
    let data = cases().join("toy/docs");
    let here = tempfile::tempdir().unwrap();
    let tests = lines(&data.join("tst.json"));
    let texts: String =
        tests.iter().map(|row| format!("{} {}\n", row["title"], row["content"]).replace('"', "")).collect();
    let texts_path = here.path().join("texts");
    fs::write(&texts_path, texts).unwrap();
    let (answers, _) = succeeds(elmo(dir).args(["predict", run, "--top-k", "8", "--input"]).arg(&texts_path));
    let mut predictions = format!("{} 8\n", tests.len());
    for line in answers.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let labels = answer["labels"].as_array().unwrap();
        // Places rather than scores: a sigmoid of a large logit has no digits left.
        let entries: Vec<String> =
            labels.iter().enumerate().map(|(place, label)| format!("{}:-{place}", label["id"])).collect();
        predictions += &format!("{}\n", entries.join(" "));
    }
    let file = here.path().join("predictions.txt");
    fs::write(&file, predictions).unwrap();
    let (file, data) = (file.display().to_string(), data.display().to_string());

    let own = metrics(dir, &[run, "--k", "1,3,8"]);
    let scored = metrics(dir, &["--predictions", &file, "--data", &data, "--k", "1,3,8"]);
    assert_eq!(own["R@8"], 100.0, "all labels that there are");
    assert!(own["by_frequency"]["tail"]["P@1"].is_f64());
    for (key, value) in own.as_object().unwrap().iter().filter(|(key, _)| *key != "epoch") {
        assert_eq!(&scored[key], value, "{key}");
    }
    let (table, _) = succeeds(elmo(dir).args(["evaluate", "--predictions", &file, "--data", &data, "--k", "2,8"]));
    assert!(table.contains("@2      @8\nP  ") && table.contains("tail  R"), "{table}");
    assert!(table.lines().last().unwrap().starts_with("test P@2/8 "), "{table}");
}

#[test]
fn another_test_file_is_read_with_the_labels_of_the_run() {
    let (dir, run) = toy();
    let here = tempfile::tempdir().unwrap();
    let own = cases().join("toy/docs/tst.json");
    let rows = fs::read_to_string(own).unwrap();
    // The same rows, and as many again whose label the run does not know.
    let unknown: String = lines(&cases().join("toy/docs/tst.json"))
        .iter()
        .map(|row| format!("{{\"title\": {}, \"content\": {}, \"target_ind\": [900]}}\n", row["title"], row["content"]))
        .collect();
    fs::write(here.path().join("tst.json"), rows + &unknown).unwrap();
    let own = metrics(dir, &[run]);
    let other = metrics(dir, &[run, "--data", &here.path().display().to_string()]);
    assert_eq!(other["rows"].as_u64(), own["rows"].as_u64().map(|rows| 2 * rows));
    for key in ["P@1", "P@5", "nDCG@3", "R@5"] {
        let (half, own) = (other[key].as_f64().unwrap(), own[key].as_f64().unwrap());
        assert!((2.0 * half - own).abs() < 1e-9, "{key}: {half} {own}");
    }
    assert!(other["PSP@1"].as_f64() < own["PSP@1"].as_f64());
    fs::write(here.path().join("lbl.json"), "{\"title\": \"drink\"}\n").unwrap();
    assert_fails(
        elmo(dir).args(["evaluate", run, "--data"]).arg(here.path()),
        1,
        &["lbl.json:1: expected `food`, as in the run, found `drink`"],
    );
}

#[test]
fn the_propensity_protocol_is_chosen() {
    let (dir, _) = toy();
    let here = tempfile::tempdir().unwrap();
    copy(&cases().join("toy/docs"), here.path());
    let rows = lines(&here.path().join("tst.json")).len();
    // One label for all rows, so that weights matter.
    let predictions = format!("{rows} 8\n{}", "7:1 0:0.5\n".repeat(rows));
    let file = here.path().join("p.txt");
    fs::write(&file, predictions).unwrap();
    let (file, data) = (file.display().to_string(), here.path().display().to_string());
    let psp = |more: &[&str]| {
        let arguments = [&["--predictions", &file, "--data", &data], more].concat();
        metrics(dir, &arguments)["PSP@1"].as_f64().unwrap()
    };
    let with_titles = ["--dataset", "lfamazontitles131k", "--propensity", "0.6,2.6"];
    let published = psp(&with_titles);
    assert_eq!(published, psp(&["--propensity", "0.6,2.6"]));
    assert_ne!(published, psp(&["--propensity", "0.5,0.4"]));
    assert_ne!(published, psp(&[&with_titles[..], &["--protocol", "reference"]].concat()));
    assert_fails(elmo(dir).args(["evaluate", "--predictions", &file]), 2, &["--data"]);
    assert_fails(elmo(dir).args(["evaluate"]), 2, &["RUN"]);
    assert_fails(elmo(dir).args(["evaluate", "x", "--k", "0"]), 2, &["whole number from 1 to 65535"]);
}
