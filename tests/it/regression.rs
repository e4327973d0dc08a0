//! Faults that users met, a test each. The inputs are in `tests/cases`, or written by the test.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use assert_cmd::Command;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::common::{assert_fails, cases, copy, elmo, succeeds, toy, train_tiny};

/// `elmo predict` on the shared toy run, from its folder.
fn predict() -> Command {
    let (dir, run) = toy();
    let mut command = elmo(dir);
    command.args(["predict", run]);
    command
}

/// The answers of JSON lines: the text, and how many labels it has.
fn answers(lines: &str) -> Vec<(String, usize)> {
    lines
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            (row["text"].as_str().unwrap().to_owned(), row["labels"].as_array().unwrap().len())
        })
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A child with pipes that predicts from standard input.
fn predicting(dir: &Path, arguments: &[&str]) -> Child {
    std::process::Command::new(assert_cmd::cargo::cargo_bin("elmo"))
        .args(["--device", "cpu", "predict"])
        .arg(toy().0.join(toy().1))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A warm-up that lasts as long as the training was not mentioned, and nothing was learned.
#[test]
fn a_warm_up_of_the_whole_training_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let train = |settings: &[&str]| {
        let mut command = train_tiny(dir.path(), &cases().join("toy"));
        succeeds(command.args(settings)).1
    };
    let long = train(&["dataset.training.xmc.warmup_steps=500", "dataset.training.epochs=5"]);
    assert!(long.contains("steps in all, 500 of them warm-up"), "{long}");
    assert!(long.contains("dataset.training.xmc.warmup_steps") && !long.contains("encoder.warmup_steps"), "{long}");
    let none = train(&[
        "dataset.training.epochs=1",
        "dataset.training.xmc.lr_scheduler=Constant",
        "dataset.training.encoder.warmup_steps=0",
    ]);
    assert!(!none.contains("warm-up"), "{none}");
}

/// A line break in a label's title made two lines of one answer.
#[test]
fn a_title_with_a_line_break_is_printed_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    copy(&cases().join("toy"), dir.path());
    let path = dir.path().join("docs/lbl.json");
    let labels = fs::read_to_string(&path).unwrap();
    let count = labels.lines().count();
    let title = "food\nand\tdrink\r";
    let named: Vec<String> = (0..count).map(|_| serde_json::json!({ "title": title }).to_string()).collect();
    fs::write(&path, named.join("\n") + "\n").unwrap();
    succeeds(train_tiny(dir.path(), dir.path()).arg("log_fname=run"));
    let (lines, _) = succeeds(elmo(dir.path()).args(["predict", "runs/run", "apple bread", "--top-k", "3"]));
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert_eq!(lines.matches("food\\nand\\tdrink\\r").count(), 3, "{lines}");
    let texts = dir.path().join("texts.txt");
    fs::write(&texts, "apple bread").unwrap();
    let (line, _) = succeeds(elmo(dir.path()).args(["predict", "runs/run", "--input", "texts.txt"]));
    let row: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(row["labels"][0]["title"], title);
}

/// A data set was refused because the program came without a preset of its name.
#[test]
fn a_data_set_trains_because_its_folder_is_there() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["dataset", "dataset.data.dataset"] {
        let path = format!("dataset_path={}", cases().join("toy").display());
        let fast = "dataset.training.epochs=1";
        let small = "dataset.model.encoder.scratch.vocab_size=200";
        succeeds(elmo(dir.path()).args(["train", &format!("{name}=docs"), &path, fast, small]));
        let typed = format!("`{name}`");
        assert_fails(
            elmo(dir.path()).args(["train", &format!("{name}=dosc"), &path]),
            2,
            &[&typed, "did you mean `docs`?"],
        );
    }
}

/// Habits of other programs met the parser's own advice, which led nowhere.
#[test]
fn habits_of_other_programs_are_told_the_way() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("my.cfg"), "").unwrap();
    for (line, part) in [
        ("train --seed 1", "dataset.training.seed=1"),
        ("train --seed=1", "dataset.training.seed=1"),
        ("train --epochs 3", "dataset.training.epochs=3"),
        ("train --batch-size 64", "dataset.data.batch_size=64"),
        ("train --lr 0.1", "dataset.training.encoder.lr=0.1 or dataset.training.xmc.lr=0.1"),
        ("train dataset=food --learning_rate 0.1", "dataset.training.encoder.lr=0.1"),
        ("train --dataset food", "dataset=food"),
        ("train my.toml", "--config my.toml"),
        ("train my.cfg", "--config my.cfg"),
        ("train food", "dataset=food"),
        ("train dataset.training.seed = 1", "without spaces: dataset.training.seed=VALUE"),
        ("train -- --seed 1", "dataset.training.seed=1"),
        ("train device=cpu", "--device cpu"),
        ("dataset=food", "elmo train dataset=food"),
        ("evaluate run --batch-size 64", "config.toml"),
        ("evaluate run dataset.training.seed=1", "config.toml"),
        ("predict run wine --k 3", "--top-k"),
        ("predict run --top-k many wine", "a whole number from 1 to 65535"),
        ("predict run --top-k -1 wine", "a whole number from 1 to 65535"),
        ("bench --batch-size 64", "--batch"),
        ("bench dataset=food", "--shape"),
    ] {
        let typed: Vec<&str> = line.split(' ').collect();
        // Without `--device`, whose place decides how the parser reads the rest.
        let mut command = Command::cargo_bin("elmo").unwrap();
        assert_fails(command.current_dir(dir.path()).args(typed), 2, &[part]);
    }
}

/// The range of a number was told for some values that are not in it only.
#[test]
fn a_number_out_of_range_is_told_the_range() {
    let dir = tempfile::tempdir().unwrap();
    for value in ["-1", "0", "65536", "1.5", "many", "99999999999999999999"] {
        let setting = format!("dataset.data.batch_size={value}");
        let found = format!("found {value}");
        assert_fails(
            elmo(dir.path()).args(["train", &setting]),
            2,
            &["`dataset.data.batch_size`", "from 1 to 65535", &found],
        );
    }
    assert_fails(
        elmo(dir.path()).args(["train", "dataset.training.seed=18446744073709551615"]),
        2,
        &["from 0 to 9223372036854775807"],
    );
}

/// A place where no run can be made was found out after the data had been read, or with warnings about a cache.
#[test]
fn a_run_that_cannot_be_made_is_refused_before_the_data_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    fs::create_dir_all(dir.path().join("runs/taken")).unwrap();
    // No data are there, so whoever looks for them first says so.
    let refused = |arguments: &[&str], code: i32, parts: &[&str]| {
        let mut command = elmo(dir.path());
        let output = command.args(["train", "dataset_path=nowhere"]).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(!stderr.contains("WARN"), "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
        }
    };
    refused(&["--runs", "file"], 1, &["file: expected a folder", "`--runs`"]);
    refused(&["--runs", "file/below"], 1, &["file: expected a folder", "`--runs`"]);
    refused(&["log_fname=taken"], 1, &["taken: exists already"]);
    refused(&[&format!("log_fname={}", "x".repeat(300))], 1, &["xxx"]);
    for name in [".cache", ".CACHE", "a/b", "a\\b", ".", "..", "", "a\nb"] {
        refused(&[&format!("log_fname={name}")], 2, &["`log_fname`: expected a name"]);
    }
    assert_eq!(files(dir.path()), ["file", "runs"]);
}

/// A zero-width space had five labels.
#[test]
fn a_text_without_a_token_has_no_labels() {
    let (dir, _) = toy();
    let texts = [
        "apple",
        "",
        "\u{200b}",
        "\u{ad}",
        "\u{200d}",
        "\u{3000}\u{a0}",
        "\u{feff}",
        "\u{1}\u{7f}",
        "[SEP] [PAD]",
        "\u{301}",
        "\u{200b}bread",
    ];
    fs::write(dir.join("no-token.txt"), texts.join("\n") + "\n").unwrap();
    let (lines, warnings) = succeeds(predict().args(["--input", "no-token.txt"]));
    for (number, (text, labels)) in answers(&lines).iter().enumerate() {
        assert_eq!(text, texts[number]);
        let has_words = text.contains("apple") || text.contains("bread");
        assert_eq!(*labels, if has_words { 5 } else { 0 }, "{text:?}");
        let place = format!("no-token.txt:{}:", number + 1);
        assert_eq!(warnings.contains(&place), !has_words, "{warnings}");
    }
    assert_fails(predict().arg("\u{200b}"), 2, &["TEXT 1", "empty text"]);
    let (lines, warnings) = succeeds(predict().args(["apple", "[SEP]"]));
    assert!(lines.ends_with("[SEP]\n") && warnings.contains("TEXT 2"), "{lines}{warnings}");
}

/// `FILE.part` of somebody else was overwritten by `--output FILE`.
#[test]
fn other_files_beside_the_output_stay() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("answers.jsonl");
    let other = dir.path().join("answers.jsonl.part");
    fs::write(&other, "my own notes").unwrap();
    succeeds(predict().arg("apple").arg("--output").arg(&output));
    assert_eq!(fs::read_to_string(&other).unwrap(), "my own notes");
    assert_eq!(answers(&fs::read_to_string(&output).unwrap()), [("apple".into(), 5)]);
    assert_eq!(files(dir.path()), ["answers.jsonl", "answers.jsonl.part"]);

    // What is there is never written to, not even as its own input.
    assert_fails(
        predict().arg("--input").arg(&other).arg("--output").arg(&other),
        2,
        &["`--output`", "another file than --input"],
    );
    assert_fails(predict().arg("apple").arg("--output").arg(&other), 1, &["exists"]);
    assert_fails(
        predict().arg("apple").arg("--output").arg(dir.path().join("no/file")),
        1,
        &["no/file: No such file or directory"],
    );
    assert_fails(predict().arg("--input").arg(dir.path()), 2, &["`--input`", "the folder"]);
    assert_eq!(fs::read_to_string(&other).unwrap(), "my own notes");
    assert_eq!(files(dir.path()).len(), 2);
}

/// An interrupted `--output` left its temporary file behind.
#[cfg(unix)]
#[test]
fn an_interrupted_prediction_leaves_no_file() {
    for signal in ["-INT", "-TERM"] {
        if signal == "-TERM" && !cfg!(target_os = "linux") {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut child = predicting(dir.path(), &["-", "--output", "more.jsonl"]);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all("apple bread\n".repeat(9000).as_bytes()).unwrap();
        let start = Instant::now();
        while files(dir.path()).is_empty() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(files(dir.path()).len(), 1);
        let killed = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("interrupted"), "{stderr}");
        assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
    }
}

/// One byte that is not UTF-8 took all answers with it.
#[test]
fn a_bad_byte_costs_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("texts.txt");
    let mut texts: Vec<Vec<u8>> = (0..9000).map(|i| format!("apple bread {i}\n").into_bytes()).collect();
    texts[8500] = b"K\xe4se apple\n".to_vec();
    fs::write(&path, texts.concat()).unwrap();
    let output = dir.path().join("answers.jsonl");
    let (_, warnings) = succeeds(predict().arg("--input").arg(&path).arg("--output").arg(&output));
    assert!(warnings.contains("texts.txt:8501: "), "{warnings}");
    let answers = answers(&fs::read_to_string(&output).unwrap());
    assert_eq!(answers.len(), 9000);
    assert_eq!(answers[8500], ("K\u{fffd}se apple".into(), 0));
    assert!(answers.iter().enumerate().all(|(at, (_, labels))| (*labels == 5) == (at != 8500)));
}

/// A gzip archive of texts was refused as bytes that are not UTF-8.
#[test]
fn texts_in_an_archive_are_read_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("texts.txt");
    let texts = b"\xef\xbb\xbfapple bread\r\ntiger\n";
    let (plain, _) = {
        fs::write(&path, texts).unwrap();
        succeeds(predict().arg("--input").arg(&path))
    };
    assert_eq!(answers(&plain), [("apple bread".into(), 5), ("tiger".into(), 5)]);
    fs::write(&path, gzip(texts)).unwrap();
    assert_eq!(succeeds(predict().arg("--input").arg(&path)).0, plain);
    assert_eq!(succeeds(predict().arg("-").write_stdin(gzip(texts))).0, plain);

    // The answers before the damage are kept, and it is said how many.
    let many: String = (0..50_000).map(|i| format!("apple {} bread {}\n", i * 7919 % 10_007, i)).collect();
    let archive = gzip(many.as_bytes());
    fs::write(&path, &archive[..archive.len() / 4]).unwrap();
    let output = dir.path().join("answers.jsonl");
    assert_fails(
        predict().arg("--input").arg(&path).arg("--output").arg(&output).args(["--top-k", "1"]),
        1,
        &["texts.txt:", "a complete gzip archive", "answers so far are in"],
    );
    let kept = answers(&fs::read_to_string(&output).unwrap());
    assert!(kept.len() > 1000 && kept.iter().all(|(_, labels)| *labels == 1), "{}", kept.len());
}

/// The answer to a line of a pipe waited for thousands of others.
#[test]
fn a_line_is_answered_before_the_next_one_comes() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["-"][..], &["--input", "-"]] {
        let mut child = predicting(dir.path(), arguments);
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for text in ["apple bread", "tiger"] {
            writeln!(stdin, "{text}").unwrap();
            // Would wait for ever: standard input stays open.
            let line = lines.next().unwrap().unwrap();
            assert_eq!(answers(&line), [(text.into(), 5)]);
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
}

/// Weights that are not numbers answered with nothing, and exit code 0.
#[test]
fn a_model_that_is_not_finite_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (toy_dir, run) = toy();
    copy(&toy_dir.join(run), &dir.path().join("run"));
    for entry in fs::read_dir(dir.path().join("run/checkpoint")).unwrap() {
        let path = entry.unwrap().path().join("model.safetensors");
        if !path.is_file() {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let start = bytes.as_ptr() as usize;
        let spans: Vec<_> = file
            .iter()
            .filter(|(name, tensor)| name.contains("encoder") && tensor.dtype() == safetensors::Dtype::F32)
            .map(|(_, tensor)| (tensor.data().as_ptr() as usize - start, tensor.data().len()))
            .collect();
        assert!(!spans.is_empty());
        for (from, length) in spans {
            for number in bytes[from..from + length].chunks_exact_mut(4) {
                number.copy_from_slice(&f32::NAN.to_le_bytes());
            }
        }
        fs::write(&path, bytes).unwrap();
    }
    assert_fails(elmo(dir.path()).args(["predict", "run", "apple"]), 1, &["not finite"]);
}

/// More labels than there are was neither an error nor fewer answers.
#[test]
fn as_many_labels_as_there_are() {
    let (lines, _) = succeeds(predict().args(["apple", "--top-k", "65535"]));
    let labels = fs::read_to_string(toy().0.join(toy().1).join("labels.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), labels.lines().count());
}

#[test]
fn nothing_in_gives_nothing_out() {
    assert_eq!(succeeds(predict().arg("-").write_stdin("")).0, "");
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("answers.jsonl");
    succeeds(predict().arg("-").arg("--output").arg(&output).write_stdin(""));
    assert_eq!(fs::read_to_string(&output).unwrap(), "");
}

/// A folder of Hugging Face is read in the forms in which it comes. What is wrong with it is said before the data are
/// read: here there are none.
#[test]
fn a_pretrained_encoder_comes_in_many_forms_and_is_looked_at_first() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder/tiny-bert");
    let encoder = dir.path().join("encoder");
    fs::create_dir(&encoder).unwrap();
    fs::copy(fixture.join("config.json"), encoder.join("config.json")).unwrap();
    fs::write(encoder.join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\napple\nbread\ncheese\n").unwrap();
    let train = |data: &Path| {
        let mut command = train_tiny(dir.path(), data);
        command.args(["dataset.model.encoder.encoder_model=encoder", "dataset.data.max_len=8"]);
        command
    };
    let printed = ["model.safetensors", "pytorch_model.bin"].map(|weights| {
        fs::copy(fixture.join(weights), encoder.join(weights)).unwrap();
        let (stdout, _) = succeeds(&mut train(&cases().join("toy")));
        fs::remove_file(encoder.join(weights)).unwrap();
        stdout.lines().last().unwrap().to_owned()
    });
    assert_eq!(printed[0], printed[1]);

    let nowhere = dir.path().join("nowhere");
    for (file, content, parts) in [
        ("tf_model.h5", "", ["holds TensorFlow weights only", "from_tf=True"]),
        ("pytorch_model.bin", "", ["an empty file", "download it again"]),
        ("model.safetensors", "version https://git-lfs", ["a git-lfs pointer", "git lfs pull"]),
    ] {
        fs::write(encoder.join(file), content).unwrap();
        assert_fails(&mut train(&nowhere), 1, &parts);
    }
    fs::copy(fixture.join("model.safetensors"), encoder.join("model.safetensors")).unwrap();
    fs::remove_file(encoder.join("vocab.txt")).unwrap();
    fs::remove_file(encoder.join("tf_model.h5")).unwrap();
    assert_fails(&mut train(&nowhere), 1, &["no tokenizer.json, vocab.txt or vocab.json"]);
}

/// Texts and settings in other forms got garbage for answers, or the words of Rust.
#[test]
fn texts_and_settings_that_are_no_plain_text_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (content, part) in [
        (&b"apple\rbread\r"[..], "texts.txt:1: expected one text a line, found lines that end in CR alone"),
        (b"BZh91AY&SY\x01\x02", "texts.txt: expected text, plain or in gzip, found a bzip2 archive"),
        (b"\xff\xfe\0\0a\0\0\0", "texts.txt: expected text in UTF-8, found UTF-32"),
    ] {
        let path = dir.path().join("texts.txt");
        fs::write(&path, content).unwrap();
        assert_fails(predict().arg("--input").arg(&path), 1, &[part, "help: "]);
    }
    for (content, code, part) in [
        (gzip(b"nonsense = 1\n"), 2, "my.toml:1: unknown key `nonsense`"),
        (b"\xff\xfea\0".to_vec(), 1, "my.toml: expected text in UTF-8, found UTF-16"),
        (b"# K\xe4se\n".to_vec(), 1, "my.toml:1: expected text in UTF-8, found an invalid byte at column 4"),
        (b"{\"dataset\": \"food\"}".to_vec(), 2, "found what looks like JSON"),
    ] {
        fs::write(dir.path().join("my.toml"), content).unwrap();
        assert_fails(elmo(dir.path()).args(["train", "--config", "my.toml"]), code, &[part, "help: "]);
    }
}
