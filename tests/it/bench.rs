//! `elmo bench`

use std::fs;

use crate::common::{assert_fails, elmo, text};

/// A shape that takes milliseconds.
const TINY: [&str; 10] = ["bench", "--labels", "300", "--dim", "20", "--batch", "6", "--positives", "2", "--steps=4"];

#[test]
fn bench_prints_a_table_and_continues_its_file() {
    let dir = tempfile::tempdir().unwrap();
    for options in ["--csv rows.csv", "--csv rows.csv --precision bf16 --loss --task step --chunk 70"] {
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
fn bench_times_whole_training_steps() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = "--task train-step --labels 300 --dim 32 --batch 6 --positives 2 --steps 1 --warmup 0 --lengths 5";
    for _ in 0..2 {
        let mut command = elmo(dir.path());
        let output = command.arg("bench").args(arguments.split(' ')).args(["--csv", "step.csv"]).output().unwrap();
        let (stdout, stderr) = text(&output);
        assert!(output.status.success(), "{stderr}");
        for part in
            ["custom: 300 labels, batch 6", "lengths 5", "encoder 12 x 32 in F32", "ms a step", "queued by the host"]
        {
            assert!(stdout.contains(part), "`{part}` is not in: {stdout}");
        }
    }
    let rows = fs::read_to_string(dir.path().join("step.csv")).unwrap();
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    let place = |name: &str| rows[0].iter().position(|column| *column == name).unwrap();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
    assert_eq!((rows[1][place("shape")], rows[1][place("part")]), ("custom", "step"));
    let number = |name| rows[1][place(name)].parse::<f64>().unwrap();
    assert!(number("median_ms") > 0.0 && number("tokens") > 12.0, "{rows:?}");
}

#[test]
fn bench_refuses_what_it_cannot_do() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |arguments: &str| {
        let mut command = elmo(dir.path());
        command.arg("bench").args(arguments.split(' '));
        command
    };
    assert_fails(&mut bench("--shape amazon"), 2, &["amazontitles670k", "lfpaper2keywords", "small"]);
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
        ("--lengths 1", "--lengths"),
        ("--lengths long", "uniform"),
    ] {
        assert_fails(&mut bench(arguments), 2, &[part]);
    }
    assert_fails(&mut bench("--labels 2000000000 --dim 65536"), 1, &["not enough memory", "TiB"]);
    fs::write(dir.path().join("other.csv"), "a,b\n").unwrap();
    assert_fails(&mut bench("--csv other.csv"), 1, &["other.csv:1", "header", "`a,b`"]);
    let kept = fs::read_to_string(dir.path().join("other.csv")).unwrap();
    assert_eq!(kept, "a,b\n");
    assert_fails(&mut bench("--csv no/such.csv"), 1, &["no/such.csv"]);
}
