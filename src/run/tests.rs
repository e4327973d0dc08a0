use std::collections::BTreeMap;

use burn::{
    module::Module,
    tensor::{Device, Distribution, Tensor, TensorData},
};
use safetensors::Dtype;

use super::*;
use crate::{
    classifier::{ClassifierConfig, Format, Initializer, Stored},
    device::Compute,
    encoder::{EncoderConfig, TransformerConfig},
    model::XmcModel,
};

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
    let classifier = ClassifierConfig::new(labels, 8).with_seed(seed);
    ModelSpec {
        encoder: EncoderConfig::bert(bert),
        embed_dropout: 0.0,
        classifier: classifier.with_head(labels / 2, Format::Bf16),
    }
}

fn model(labels: usize, seed: u64) -> XmcModel {
    spec(labels, seed).init(None, &compute()).unwrap().valid()
}

fn run() -> (tempfile::TempDir, RunFolder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path(), Some("run"), "x").unwrap();
    (dir, folder)
}

fn save(folder: &RunFolder, model: &XmcModel, state: State) -> Result<()> {
    folder.save_checkpoint(&Checkpoint { model: model.clone(), optimizer: None, state })
}

fn names(folder: &RunFolder) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.checkpoints())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_last_and_the_latest_of_the_best_stay() {
    let (_dir, folder) = run();
    let model = model(20, 1);
    fs::create_dir_all(folder.checkpoints().join("mine")).unwrap();
    for (epoch, precision) in [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1)] {
        save(&folder, &model, State::new(epoch, 10 * epoch as u64, Some(precision))).unwrap();
    }
    // A folder that is none of ours stays.
    assert_eq!(names(&folder), ["epoch-3", "epoch-4", "index.json", "mine"]);
    assert_eq!(folder.state(Which::Best).unwrap().epoch, 3);
    assert_eq!(folder.state(Which::Last).unwrap().steps, 40);
    // Interrupted before it was validated; and a better one.
    save(&folder, &model, State::new(5, 50, None)).unwrap();
    assert_eq!(folder.state(Which::Best).unwrap().epoch, 3);
    save(&folder, &model, State::new(6, 60, Some(0.6))).unwrap();
    assert_eq!(names(&folder), ["epoch-6", "index.json", "mine"]);
}

#[test]
fn a_loaded_checkpoint_is_the_saved_one() {
    let (_dir, folder) = run();
    let saved = model(20, 1);
    let device = Device::flex();
    // So that there is a compensation.
    let x = Tensor::random([4, 8], Distribution::Default, &device);
    saved.classifier.step(x, &crate::classifier::Positives::new(vec![(3, 1)]), 0.5, false);
    let optimizer: OptimizerState = [("encoder.a.moment_1", vec![1.0f32, -2.0]), ("encoder.a.time", vec![7.0])]
        .map(|(name, values)| (name.to_owned(), TensorData::from(values.as_slice())))
        .into();
    let state = State {
        progress: Some(Progress {
            schedule: 70,
            position: crate::loader::Position { epoch: 2, batch: 11 },
            counters: [("dropout".to_owned(), 5)].into(),
            metrics: serde_json::json!({ "loss": 0.25 }),
        }),
        ..State::new(2, 77, Some(0.1))
    };
    let checkpoint = Checkpoint { model: saved, optimizer: Some(optimizer.clone()), state: state.clone() };
    folder.save_checkpoint(&checkpoint).unwrap();
    // Another device has other buffers; nothing is drawn.
    let compute = Compute { segment_bytes: 8 * 3, ..compute() };
    let drawn = || crate::classifier::drawn::TIMES.with(|times| times.get());
    let before = drawn();
    let (loaded, found) = folder.load_checkpoint(&spec(20, 2), Which::Best, &compute).unwrap();
    assert_eq!(drawn(), before);
    assert_eq!(found, state);
    assert_eq!(loaded.classifier.weights(), checkpoint.model.classifier.weights());
    assert_eq!(loaded.classifier.steps(), 77);
    assert_eq!(folder.load_optimizer(Which::Last).unwrap(), Some(optimizer));

    assert_eq!(names(&folder), ["index.json", "step-000000077"]);

    // And the file of the loaded one is the file of the saved one, to the byte.
    let (_dir, other) = run();
    save(&other, &loaded, State::new(2, 77, None)).unwrap();
    let file = |folder: &RunFolder, name| fs::read(folder.checkpoints().join(name).join("model.safetensors")).unwrap();
    assert!(file(&folder, "step-000000077") == file(&other, "epoch-2"));
    assert_eq!(other.load_optimizer(Which::Last).unwrap(), None);
}

#[test]
fn the_encoder_is_loaded_without_a_random_draw() {
    let (_dir, folder) = run();
    save(&folder, &model(20, 1), State::new(1, 1, None)).unwrap();
    let compute = compute();
    let next = |load: bool| {
        compute.device.seed(3);
        if load {
            folder.load_checkpoint(&spec(20, 2), Which::Best, &compute).unwrap();
        }
        Tensor::<1>::random([8], Distribution::Default, &compute.device).into_data()
    };
    // Other tests draw from the same generator meanwhile; sooner or later they have ended.
    assert!((0..1000).any(|_| {
        let equal = next(true) == next(false);
        if !equal {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        equal
    }));
}

/// Damage to the files of a checkpoint is told by the file's name, whichever bit it is.
#[test]
fn attacks_on_a_checkpoint_are_named() {
    let (_dir, folder) = run();
    save(&folder, &model(20, 1), State::new(1, 1, Some(0.5))).unwrap();
    let checkpoints = folder.checkpoints();
    let load = |spec: &ModelSpec| {
        folder.state(Which::Best)?;
        folder.load_checkpoint(spec, Which::Last, &compute()).map(drop)
    };
    load(&spec(20, 1)).unwrap();
    for file in ["epoch-1/model.safetensors", "epoch-1/state.json", "index.json"] {
        let path = checkpoints.join(file);
        let intact = fs::read(&path).unwrap();
        let end = intact.len();
        let mut attacks: Vec<(String, Vec<u8>)> = [0, 1, 7, 8, 9, end / 2, end - 1]
            .map(|length| (format!("cut at {length}"), intact[..length].to_vec()))
            .into();
        attacks.push(("longer".into(), [&intact[..], b"x"].concat()));
        // All bits of the small files, one of every fifth byte of the large one.
        let small = end < 2000;
        for byte in (0..end).step_by(if small { 1 } else { 5 }) {
            for bit in if small { 0..8 } else { byte as u32 % 8..byte as u32 % 8 + 1 } {
                let mut flipped = intact.clone();
                flipped[byte] ^= 1 << bit;
                // Another whitespace is no damage.
                if !(intact[byte].is_ascii_whitespace() && flipped[byte].is_ascii_whitespace()) {
                    attacks.push((format!("bit {bit} of byte {byte}"), flipped));
                }
            }
        }
        for (attack, bytes) in attacks {
            fs::write(&path, bytes).unwrap();
            let Err(error) = load(&spec(20, 1)) else {
                // Without its last byte, the end of the line, JSON is whole.
                assert!(attack == format!("cut at {}", end - 1) && file == "index.json", "{file}: {attack}");
                continue;
            };
            let name = if file == "index.json" { "checkpoint" } else { file };
            assert!(error.to_string().contains(name), "{file}: {attack}: {error}");
        }
        fs::remove_file(&path).unwrap();
        let error = load(&spec(20, 1)).unwrap_err().to_string();
        assert!(error.contains(&format!("{file}: missing")), "{file}: {error}");
        fs::write(&path, intact).unwrap();
    }
    // Of another model.
    let error = load(&spec(21, 1)).unwrap_err().to_string();
    assert!(error.contains("classifier.weights") && error.contains("21"), "{error}");
    let index = fs::read_to_string(checkpoints.join("index.json")).unwrap();
    for (folder, part) in [
        ("epoch-9", "epoch-9/state.json: missing"),
        ("../../elsewhere", "not the name of a checkpoint"),
        ("step-1", "not the name of a checkpoint"),
        ("epoch-01", "not the name of a checkpoint"),
        ("/epoch-1", "not the name of a checkpoint"),
    ] {
        fs::write(checkpoints.join("index.json"), index.replace("epoch-1", folder)).unwrap();
        let error = load(&spec(20, 1)).unwrap_err().to_string();
        assert!(error.contains(part), "{folder}: {error}");
    }
}

/// Files that are whole, with the right fingerprint, and of another model.
#[test]
fn tensors_that_do_not_belong_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    weights::save(&model(20, 1), &path).unwrap();
    let intact = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&intact).unwrap();
    type Change = fn(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);
    let attacks: [(&str, Change); 9] = [
        ("`classifier.weights` is missing", |t| drop(t.remove("classifier.weights"))),
        ("`classifier.compensation` is missing", |t| drop(t.remove("classifier.compensation"))),
        ("expected [20, 4] of U32", |t| {
            t.get_mut("classifier.weights").unwrap().1 = vec![10, 8];
        }),
        ("is [20, 4] of F32", |t| {
            t.get_mut("classifier.weights").unwrap().0 = Dtype::F32;
        }),
        ("`classifier.weights` is not finite", |t| {
            t.get_mut("classifier.weights").unwrap().2[17] = 0x7f;
        }),
        ("is not part of the model", |t| {
            t.insert("extra".into(), (Dtype::U8, vec![1], vec![0]));
        }),
        ("`encoder.extra` is not part of the model", |t| {
            t.insert("encoder.extra".into(), (Dtype::F32, vec![1], vec![0; 4]));
        }),
        ("is of type I32", |t| {
            t.values_mut().filter(|t| t.0 == Dtype::F32).for_each(|t| t.0 = Dtype::I32);
        }),
        ("is not finite: it holds infinities or NaN", |t| {
            let tensor = t.iter_mut().find(|(name, _)| name.starts_with("encoder.")).unwrap();
            tensor.1.2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }),
    ];
    for (part, change) in attacks {
        let mut changed: BTreeMap<_, _> = (tensors.iter())
            .map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
            .collect();
        change(&mut changed);
        let sources = changed.into_iter().map(|(name, (dtype, shape, bytes))| {
            let write = Box::new(move |sink: tensors::Sink| sink(&bytes));
            (name, tensors::Source { dtype, shape, write })
        });
        tensors::write(&path, sources.collect()).unwrap();
        let file = fs::read(&path).unwrap();
        let error = weights::load(&spec(20, 1), &path, &file, weights::rows, &compute()).unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_not_saved() {
    let (_dir, folder) = run();
    let good = model(20, 1);
    save(&folder, &good, State::new(1, 1, None)).unwrap();
    struct Spoil;
    impl burn::module::ModuleMapper for Spoil {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            param.map(|tensor| tensor * f32::INFINITY)
        }
    }
    let spoiled = XmcModel { encoder: good.encoder.clone().map(&mut Spoil), classifier: good.classifier.clone() };
    let error = save(&folder, &spoiled, State::new(2, 2, None)).unwrap_err();
    assert!(error.to_string().contains("the numbers are not finite any more"), "{error}");
    let spec = ModelSpec { classifier: ClassifierConfig::new(20, 8).with_precision(Format::F32), ..spec(20, 1) };
    let classifier = spec.classifier.load(&Device::flex(), |_, _, words| {
        words.fill(1.0f32.to_bits());
        words[3] = f32::NEG_INFINITY.to_bits();
        Ok::<_, ()>(())
    });
    let spoiled = XmcModel { encoder: good.encoder, classifier: classifier.unwrap() };
    let error = save(&folder, &spoiled, State::new(2, 2, None)).unwrap_err();
    assert!(error.to_string().contains("`classifier.weights` holds infinities"), "{error}");
    assert_eq!(names(&folder), ["epoch-1", "index.json"]);
}

#[test]
fn what_a_crash_left_is_ignored_and_replaced() {
    let (_dir, folder) = run();
    let saved = model(20, 1);
    save(&folder, &saved, State::new(1, 1, Some(0.1))).unwrap();
    // The next checkpoint was being written when the power went; or it had its name, and the index did not know it yet.
    for torn in [".epoch-2", "epoch-2"] {
        let torn = folder.checkpoints().join(torn);
        fs::create_dir(&torn).unwrap();
        fs::write(torn.join("model.safetensors"), "half a file").unwrap();
    }
    assert_eq!(folder.state(Which::Last).unwrap().epoch, 1);
    save(&folder, &saved, State::new(2, 2, Some(0.2))).unwrap();
    assert_eq!(names(&folder), ["epoch-2", "index.json"]);
    // The same step again, whose checkpoint the index needs until the new one is there.
    save(&folder, &saved, State::new(2, 2, Some(0.3))).unwrap();
    assert_eq!(names(&folder), ["epoch-2-2", "index.json"]);
    let (_, state) = folder.load_checkpoint(&spec(20, 1), Which::Last, &compute()).unwrap();
    assert_eq!(state.validation, Some(0.3));
}

#[test]
fn a_description_comes_back_and_what_is_wrong_in_it_is_named() {
    let full = ModelSpec {
        embed_dropout: 0.25,
        classifier: ClassifierConfig {
            precision: Format::Bf16,
            operands: Format::F32,
            initializer: Initializer::Normal { standard_deviation: 0.02 },
            weight_decay: 1e-4,
            ..spec(20, u64::MAX).classifier
        },
        ..spec(20, 1)
    };
    for spec in [spec(20, 1), full] {
        let json = serde_json::to_value(&spec).unwrap();
        assert_eq!(ModelSpec::from_json(&json), Ok(spec));
    }
    let json = serde_json::to_value(spec(20, 1)).unwrap();
    let older = |path: &str| {
        let mut json = json.clone();
        let (section, key) = path.rsplit_once('/').unwrap();
        json.pointer_mut(section).unwrap().as_object_mut().unwrap().remove(key).unwrap();
        ModelSpec::from_json(&json)
    };
    // Not in the files of an older version.
    assert_eq!(older("/encoder/initializer_range"), Ok(spec(20, 1)));
    for key in ["/encoder/hidden_size", "/encoder/num_attention_heads", "/classifier/labels"] {
        let error = older(key).unwrap_err();
        assert!(error.contains(key.rsplit('/').next().unwrap()), "{key}: {error}");
    }
    for (path, value, part) in [
        ("/encoder/hidden_size", serde_json::json!(0), "hidden_size"),
        ("/encoder/hidden_size", serde_json::json!(16), "16 features"),
        ("/encoder/vocab_size", serde_json::json!(u64::MAX), "vocab_size"),
        ("/encoder/model_type", serde_json::json!("gpt"), "gpt"),
        ("/classifier/labels", serde_json::json!(0), "0 labels"),
        ("/classifier/dim", serde_json::json!(1u64 << 60), "no classifier has"),
        ("/classifier/precision", serde_json::json!("int4"), "int4"),
        ("/embed_dropout", serde_json::json!(2), "embed_dropout"),
        ("/encoder", serde_json::json!({"model_type": "bert"}), "vocab_size"),
    ] {
        let mut json = json.clone();
        *json.pointer_mut(path).unwrap() = value;
        let error = ModelSpec::from_json(&json).unwrap_err();
        assert!(error.contains(part), "{path}: {error}");
    }
    let mut newer = json.clone();
    newer["classifier"]["bias"] = true.into();
    let error = ModelSpec::from_json(&newer).unwrap_err();
    assert!(error.contains("classifier.bias") && error.contains("newer"), "{error}");
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

/// In version 1 a classifier's rows lay in one tensor a buffer.
#[test]
fn the_buffers_of_version_1_are_joined() {
    let tensors = |parts: &[(&str, usize)]| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut next = 0u8;
        let sources = parts.iter().map(|(name, words)| {
            let bytes: Vec<u8> = (0..4 * words)
                .map(|_| {
                    next = next.wrapping_add(1);
                    next
                })
                .collect();
            let write = Box::new(move |sink: tensors::Sink| sink(&bytes));
            let source = tensors::Source { dtype: Dtype::U32, shape: vec![*words], write };
            ((*name).to_owned(), source)
        });
        tensors::write(&path, sources.collect()).unwrap();
        fs::read(&path).unwrap()
    };
    let rows = |file: &[u8], stored, shape| {
        let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
        migrate::rows(&tensors, stored, shape).map(|rows| {
            let mut words = vec![0u32; 4];
            assert!(rows.read(1..3, &mut words, Dtype::U32));
            words
        })
    };
    let file = tensors(&[("classifier.weights.0", 4), ("classifier.weights.1", 2)]);
    let words = rows(&file, Stored::Weights, [3, 2]).unwrap();
    assert_eq!(words[0].to_le_bytes(), [9, 10, 11, 12]);
    assert_eq!(words[3].to_le_bytes(), [21, 22, 23, 24]);
    for (shape, part) in
        [([4, 2], "classifier.weights.2` is missing"), ([2, 2], "0 bytes at most"), ([2, 3], "whole rows")]
    {
        let error = rows(&file, Stored::Weights, shape).unwrap_err();
        assert!(error.contains(part), "{shape:?}: {error}");
    }
    // Buffers of nothing had a word.
    let file = tensors(&[("classifier.compensation.0", 1), ("classifier.compensation.1", 1)]);
    rows(&file, Stored::Compensation, [0, 0]).unwrap();
}
