//! The presets of the reference's data sets, and the command lines that it gives: on small data, with small encoders in
//! a cache of Hugging Face's.

use std::{collections::BTreeMap, fs, path::Path};

use assert_cmd::Command;
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;

use crate::common::{assert_fails, cases, copy, elmo, succeeds, text};

/// Models that the presets name, the fixture that stands for each, and the longest text of any preset with it.
const ENCODERS: [(&str, &str, usize); 3] = [
    ("bert-base-uncased", "tiny-bert", 256),
    ("sentence-transformers/msmarco-distilbert-base-v4", "tiny-distilbert", 32),
    ("sentence-transformers/paraphrase-distilroberta-base-v2", "tiny-roberta", 128),
];

const WORDS: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nnurse\ndoctor\nhospital\nwheel\nengine\npiston\nlion\ntiger\npanther\n\
                     lake\nmountain\nviolin\ntrumpet\njudge\ncourt\nlawyer\nstar\nplanet\ngalaxy\n";

/// Puts a model into the cache, as a download does.
fn download(cache: &Path, model: &str, fixture: &str, longest: usize) {
    let folder = cache.join(format!("models--{}", model.replace('/', "--")));
    let snapshot = folder.join("snapshots/0123456789abcdef");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), "0123456789abcdef").unwrap();

    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder").join(fixture);
    let mut config: Value = serde_json::from_slice(&fs::read(fixture.join("config.json")).unwrap()).unwrap();
    // RoBERTa's positions begin after the padding token's id.
    let positions = longest + if config["model_type"] == "roberta" { 2 } else { 0 };
    config["max_position_embeddings"] = positions.into();
    fs::write(snapshot.join("config.json"), config.to_string()).unwrap();
    with_positions(&fixture.join("model.safetensors"), &snapshot.join("model.safetensors"), positions);
    match fixture.join("vocab.json").exists() {
        true => ["vocab.json", "merges.txt"].iter().for_each(|name| {
            fs::copy(fixture.join(name), snapshot.join(name)).unwrap();
        }),
        false => fs::write(snapshot.join("vocab.txt"), WORDS).unwrap(),
    }
}

/// Copies weights, the rows for positions repeated until there are enough.
fn with_positions(from: &Path, to: &Path, positions: usize) {
    let bytes = fs::read(from).unwrap();
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = (SafeTensors::deserialize(&bytes).unwrap().tensors())
        .into_iter()
        .map(|(name, tensor)| {
            let (mut shape, mut data) = (tensor.shape().to_vec(), tensor.data().to_vec());
            if name.ends_with("position_embeddings.weight") {
                let wanted = positions * data.len() / shape[0];
                data = data.iter().copied().cycle().take(wanted).collect();
                shape[0] = positions;
            }
            (name, (shape, data))
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, data))| (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, to).unwrap();
}

/// A folder with the data set in `Datasets/FOLDER` and all encoders in the cache.
fn prepared(folder: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&cases().join("toy/docs"), &dir.path().join("Datasets").join(folder));
    for (model, fixture, longest) in ENCODERS {
        download(&dir.path().join("hf/hub"), model, fixture, longest);
    }
    dir
}

/// `elmo train` with this line, on few epochs.
fn train(dir: &Path, line: &str) -> Command {
    let mut command = elmo(dir);
    command.env("HF_HOME", dir.join("hf")).env_remove("HF_HUB_CACHE").env_remove("HUGGINGFACE_HUB_CACHE");
    command.arg("train").args(line.split_whitespace()).arg("dataset.training.epochs=1");
    command
}

#[test]
fn the_command_lines_of_the_reference_train_and_evaluate() {
    let dir = prepared("AmazonTitles-670K");
    for (line, warning) in [
        (
            "dataset=amazontitles670k log_fname=log_bf16_at670k dataset_path=Datasets \
             dataset.model.xmc.implementation=chunked",
            None,
        ),
        (
            "dataset=amazontitles670k log_fname=log_fp8_at670k dataset_path=Datasets \
             dataset.model.xmc.implementation=fp8chunked dataset.training.FP8.use_fp8_encoder=True",
            Some("`dataset.training.FP8.use_fp8_encoder` has no effect"),
        ),
        (
            "dataset=amazontitles670k log_fname=log_sfp8_at670k dataset_path=Datasets \
             dataset.model.xmc.implementation=fp8chunked dataset.training.FP8.use_fp8_encoder=False \
             dataset.training.xmc.simulated_fp8=True",
            None,
        ),
        (
            "dataset=amazontitles670k log_fname=log_fp8_fp8enc_at670k dataset_path=Datasets \
             dataset.model.xmc.implementation=fp8chunked dataset.training.FP8.use_fp8_encoder=False",
            None,
        ),
    ] {
        let output = train(dir.path(), line).output().unwrap();
        let (stdout, stderr) = text(&output);
        assert!(output.status.success(), "{line}: {stderr}");
        assert!(stdout.contains("test P@1/3/5"), "{stdout}");
        match warning {
            Some(warning) => assert!(stderr.contains(warning), "{stderr}"),
            None => assert!(!stderr.contains("has no effect"), "{stderr}"),
        }
        let name = line.split_whitespace().find_map(|word| word.strip_prefix("log_fname=")).unwrap();
        let spec: Value =
            serde_json::from_slice(&fs::read(dir.path().join("runs").join(name).join("model.json")).unwrap()).unwrap();
        assert_eq!(spec["encoder"]["model_type"], "bert");
        assert_eq!(spec["classifier"]["labels"], 670_091);
    }
}

#[test]
fn every_preset_of_the_reference_trains_with_its_encoder() {
    for (name, folder, family) in [
        ("amazon3m", "Amazon-3M", "bert"),
        ("amazon670k", "Amazon-670K", "bert"),
        ("amazontitles670k", "AmazonTitles-670K", "bert"),
        ("lfamazontitles1.3m", "LF-AmazonTitles-1.3M/raw_text", "distilbert"),
        ("lfamazontitles131k", "LF-AmazonTitles-131K/raw_text", "distilbert"),
        ("lfpaper2keywords", "lfpaper2keywords", "roberta"),
        ("lfwikiseealso320k", "LF-WikiSeeAlso-320K/raw_text", "roberta"),
        ("wiki500k", "Wiki-500K", "bert"),
    ] {
        let dir = prepared(folder);
        // The data are in one layout here, and have eight labels.
        let line = format!(
            "dataset={name} log_fname=it dataset_path=Datasets dataset.data.format=label-features dataset.data.num_labels=0"
        );
        if name == "lfamazontitles1.3m" {
            let file = "NGAME_ENCODERS/lfamazontitles1.3m/state_dict.pt: no such file";
            assert_fails(&mut train(dir.path(), &line), 1, &[file, "dataset.model.encoder.ngame_checkpoint"]);
            let model = dir.path().join("hf/hub/models--sentence-transformers--msmarco-distilbert-base-v4");
            let weights = model.join("snapshots/0123456789abcdef/model.safetensors");
            fs::rename(weights, dir.path().join("ngame.safetensors")).unwrap();
            let set = format!("{line} dataset.model.encoder.ngame_checkpoint=ngame.safetensors");
            succeeds(&mut train(dir.path(), &set));
        } else {
            succeeds(&mut train(dir.path(), &line));
        }
        let spec: Value = serde_json::from_slice(&fs::read(dir.path().join("runs/it/model.json")).unwrap()).unwrap();
        assert_eq!(spec["encoder"]["model_type"], family, "{name}");
        // What is needed later is in the run.
        fs::remove_dir_all(dir.path().join("hf")).unwrap();
        succeeds(elmo(dir.path()).args(["evaluate", "runs/it"]));
        let (stdout, _) = succeeds(elmo(dir.path()).args(["predict", "runs/it", "lion tiger"]));
        assert!(stdout.lines().count() > 1, "{stdout}");
    }
}

#[test]
fn an_encoder_that_is_nowhere_says_where_it_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let hub = dir.path().join("hf/hub/models--bert-base-uncased").display().to_string();
    let parts = ["bert-base-uncased: no such folder in /", &hub, "`hf download bert-base-uncased`", "HF_HUB_CACHE"];
    assert_fails(&mut train(dir.path(), "dataset=amazontitles670k dataset_path=Datasets"), 1, &parts);
}

/// The other poolings and the bottleneck layer, from training to an answer.
#[test]
fn what_comes_behind_the_layers_is_chosen() {
    let dir = prepared("AmazonTitles-670K");
    for (number, (settings, width)) in [
        ("dataset.model.encoder.pool_mode=last_hidden_weighted_avg", 16),
        ("dataset.model.encoder.pool_mode=last_nhidden_conlast dataset.model.encoder.feature_layers=3", 48),
        ("dataset.model.bottleneck.use_bottleneck_layer=True dataset.model.bottleneck.bottleneck_size=8", 8),
    ]
    .into_iter()
    .enumerate()
    {
        let line = format!(
            "dataset=amazontitles670k dataset_path=Datasets log_fname=run{number} dataset.data.num_labels=0 {settings}"
        );
        let (stdout, _) = succeeds(&mut train(dir.path(), &line));
        let run = format!("runs/run{number}");
        let spec: Value = serde_json::from_slice(&fs::read(dir.path().join(&run).join("model.json")).unwrap()).unwrap();
        assert_eq!(spec["classifier"]["dim"], width, "{settings}");
        // The checkpoint holds all of it.
        let (again, _) = succeeds(elmo(dir.path()).args(["evaluate", &run]));
        let last = |text: &str| text.lines().find(|line| line.contains("test P@1/3/5")).map(str::to_owned);
        assert_eq!(last(&again), last(&stdout), "{settings}");
    }
    let line = "dataset=amazontitles670k dataset_path=Datasets dataset.model.encoder.feature_layers=4 \
                dataset.model.encoder.pool_mode=last_nhidden_conlast";
    assert_fails(
        &mut train(dir.path(), line),
        2,
        &["`dataset.model.encoder.feature_layers`: expected from 1 to 3", "found 4"],
    );
}
