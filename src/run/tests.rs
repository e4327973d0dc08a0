use super::*;
use crate::{classifier::ClassifierConfig, encoder::TransformerConfig};

fn compute() -> Compute {
    Compute::open(Some("cpu"), false, 1).unwrap()
}

fn spec(labels: usize, seed: u64) -> ModelSpec {
    let bert = TransformerConfig {
        vocab_size: 11,
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        max_position_embeddings: 8,
        ..TransformerConfig::default()
    };
    ModelSpec {
        encoder: EncoderConfig::bert(bert),
        embed_dropout: 0.0,
        classifier: ClassifierConfig::new(labels, 8).with_seed(seed),
    }
}

fn model(labels: usize, seed: u64) -> XmcModel {
    spec(labels, seed).init(None, &compute()).unwrap()
}

fn run() -> (tempfile::TempDir, RunFolder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path(), Some("run"), "x").unwrap();
    (dir, folder)
}

fn epochs(folder: &RunFolder) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.checkpoints())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_last_and_the_best_epoch_stay() {
    let (_dir, folder) = run();
    let model = model(20, 1);
    for (epoch, precision) in [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1)] {
        let state = State::new(epoch, 10 * epoch as u64, Some(precision));
        folder.save_checkpoint(&model, state).unwrap();
    }
    assert_eq!(epochs(&folder), ["epoch-2", "epoch-4", "index.json"]);
    assert_eq!(folder.state(Which::Best).unwrap().epoch, 2);
    assert_eq!(folder.state(Which::Last).unwrap().steps, 40);
}

#[test]
fn a_loaded_model_is_the_saved_one() {
    let (_dir, folder) = run();
    let saved = model(20, 1);
    folder.save_checkpoint(&saved, State::new(1, 77, None)).unwrap();
    let (loaded, state) = folder.load_checkpoint(&spec(20, 2), Which::Best, &compute()).unwrap();
    assert_eq!(state, State::new(1, 77, None));
    assert_eq!(loaded.classifier.weights(), saved.classifier.weights());
    assert_eq!(loaded.classifier.steps(), 77);
}

#[test]
fn damage_is_named() {
    let (_dir, folder) = run();
    assert!((folder.state(Which::Best).unwrap_err().to_string()).contains("before its first epoch"));
    let saved = model(20, 1);
    folder.save_checkpoint(&saved, State::new(1, 1, None)).unwrap();
    // Of another shape.
    let error = folder
        .load_checkpoint(&spec(21, 1), Which::Last, &compute())
        .unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    // Cut short.
    let weights = folder.epoch_path(1).join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let error = folder
        .load_checkpoint(&spec(20, 1), Which::Last, &compute())
        .unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    // Not JSON.
    let index = folder.checkpoints().join("index.json");
    fs::write(&index, "{").unwrap();
    let error = folder.state(Which::Last).unwrap_err();
    assert!(error.to_string().contains("index.json: damaged"), "{error}");
}

#[test]
fn a_checkpoint_that_a_crash_cut_short_is_ignored_and_replaced() {
    let (_dir, folder) = run();
    let saved = model(20, 1);
    folder.save_checkpoint(&saved, State::new(1, 1, Some(0.1))).unwrap();
    // The next epoch's folder was being written when the power went.
    let torn = folder.checkpoints().join(".epoch-2");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join("model.safetensors"), "half a file").unwrap();
    assert_eq!(folder.state(Which::Last).unwrap().epoch, 1);
    folder.save_checkpoint(&saved, State::new(2, 2, Some(0.2))).unwrap();
    assert_eq!(epochs(&folder), ["epoch-2", "index.json"]);
}

#[test]
fn a_run_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    RunFolder::create(dir.path(), Some("mine"), "x").unwrap();
    let error = RunFolder::create(dir.path(), Some("mine"), "x").unwrap_err();
    assert!(error.to_string().contains("not overwritten"), "{error}");
    for number in 1..3 {
        let folder = RunFolder::create(dir.path(), None, "food").unwrap();
        let name = format!("food-{number}");
        assert_eq!(folder.path(), dir.path().join(name));
    }
}
