use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::SgdConfig,
    tensor::{Device, Tensor},
};
use tempfile::TempDir;

use super::{
    learner::{EncoderUpdate, Rate, optimizer},
    *,
};
use crate::{
    classifier::ClassifierConfig,
    config::{self, Course},
    data::Split,
    encoder::{EncoderConfig, TransformerConfig},
    eval::{Cutoffs, Propensity, Scoring},
    loader::TrainBatch,
    optim::Schedule,
};

/// A tiny model without dropout, with random weights.
fn model() -> XmcModel {
    let bert = TransformerConfig {
        vocab_size: 30,
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        max_position_embeddings: 8,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        initializer_range: 0.5,
        ..TransformerConfig::default()
    };
    let device = Device::flex().autodiff();
    XmcModel {
        encoder: EncoderConfig::bert(bert).init(&device),
        classifier: ClassifierConfig::new(20, 8).init(&device),
    }
}

fn split(rows: u32) -> Arc<Split> {
    let tokens: Vec<_> = (0..rows).map(|row| vec![1, 2 + row % 28, 29 - row % 9]).collect();
    let labels: Vec<_> = (0..rows).map(|row| vec![row % 20]).collect();
    Arc::new(Split::from_rows(&tokens, &labels))
}

fn constant(peak: f64) -> Rate {
    Rate { peak, schedule: Schedule::Constant, plateau: None }
}

/// Every parameter of the encoder with its path.
fn parameters(model: &XmcModel) -> BTreeMap<String, Vec<f32>> {
    #[derive(Default)]
    struct Reader {
        path: Vec<String>,
        values: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().iter().collect();
            self.values.insert(self.path.join("."), values);
        }
    }
    let mut reader = Reader::default();
    model.encoder.visit(&mut reader);
    reader.values
}

/// How far plain gradient descent moves every parameter.
fn moved(model: &XmcModel, batches: &[(TrainBatch, usize)], accumulation: usize) -> BTreeMap<String, Vec<f32>> {
    moved_within(model, batches, accumulation, None)
}

/// The same with a limit to the norm of gradients.
fn moved_within(
    model: &XmcModel,
    batches: &[(TrainBatch, usize)],
    accumulation: usize,
    max_norm: Option<f64>,
) -> BTreeMap<String, Vec<f32>> {
    let learning = Learning {
        optimizer: EncoderUpdate::Any(SgdConfig::new().init()),
        encoder_rate: constant(1e-3),
        classifier_rate: constant(0.0),
        loss_every: 0,
        accumulation,
        max_norm,
    };
    let before = parameters(model);
    // The classifier, which clones share, does not move at a rate of 0.
    let mut learner = Learner::new(model.clone(), learning);
    for (batch, left) in batches {
        learner.step(batch.clone(), *left);
    }
    let mut moved = parameters(learner.model());
    for (name, values) in &mut moved {
        for (value, before) in values.iter_mut().zip(&before[name]) {
            *value -= before;
        }
    }
    moved
}

#[test]
fn accumulated_batches_are_the_mean_of_the_large_batch_also_in_a_short_last_group() {
    let batches = |batch_size| {
        let loader = Loader::training(split(20), batch_size, 3, Device::flex().autodiff());
        let mut batches = loader.from(Position::default());
        let mut all = Vec::new();
        while let Some(batch) = batches.next() {
            all.push((batch, batches.left()));
        }
        all
    };
    let model = model();
    let large = moved(&model, &batches(20), 1);
    // One group of 5 batches, also where a group could be larger.
    let small = batches(4);
    assert_eq!(small.len(), 5);
    for accumulation in [5, 7] {
        let small = moved(&model, &small, accumulation);
        assert_eq!(small.len(), large.len());
        for (name, large) in &large {
            for (small, large) in small[name].iter().zip(large) {
                assert!((small * 5.0 - large).abs() < 1e-5 + 1e-3 * large.abs(), "{name}: {small} {large}");
            }
        }
    }
    // The last group alone: as if its batches were all of the epoch.
    for (accumulation, last) in [(3, 2), (2, 1)] {
        let alone = moved(&model, &small[5 - last..], accumulation);
        let whole = moved(&model, &small[5 - last..], last);
        assert_eq!(alone, whole, "{accumulation}");
    }
}

#[test]
fn gradients_are_clipped_together() {
    let model = model();
    let batches: Vec<_> = {
        let loader = Loader::training(split(4), 4, 3, Device::flex().autodiff());
        loader.from(Position::default()).map(|batch| (batch, 0)).collect()
    };
    let norm_of = |moved: &BTreeMap<String, Vec<f32>>| {
        moved.values().flatten().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
    };
    let free = moved(&model, &batches, 1);
    // At a rate of 1e-3, and rounding aside.
    let norm = norm_of(&free) / 1e-3;
    let limited = moved_within(&model, &batches, 1, Some(norm / 4.0));
    for (name, free) in &free {
        for (limited, free) in limited[name].iter().zip(free) {
            assert!((4.0 * limited - free).abs() < 1e-5 + 1e-3 * free.abs(), "{name}: {limited} {free}");
        }
    }
    assert!(norm > 0.1, "{norm}");
    assert_eq!(moved_within(&model, &batches, 1, Some(2.0 * norm)), free);
}

#[test]
fn the_rate_falls_when_the_model_gets_no_better() {
    let course = Course { schedule: config::Schedule::Plateau, gamma: 0.5, patience: 1, ..Course::CONSTANT };
    let learning = Learning {
        optimizer: EncoderUpdate::Any(SgdConfig::new().init()),
        encoder_rate: Rate::new(0.1, course, 100),
        classifier_rate: Rate::new(1.0, Course::CONSTANT, 100),
        loss_every: 0,
        accumulation: 1,
        max_norm: None,
    };
    let mut learner = Learner::new(model(), learning);
    let rates: Vec<_> = [0.2, 0.3, 0.3, 0.1, 0.4]
        .into_iter()
        .map(|progress| {
            learner.see(progress);
            (learner.learning().encoder_rate.at(7), learner.learning().classifier_rate.at(7))
        })
        .collect();
    assert_eq!(rates, [(0.1, 1.0), (0.1, 1.0), (0.1, 1.0), (0.05, 1.0), (0.05, 1.0)]);
}

#[test]
fn milestones_are_shares_of_all_steps() {
    let course =
        Course { schedule: config::Schedule::MultiStep, gamma: 0.5, milestones: &[0.5, 0.75], ..Course::CONSTANT };
    let rate = Rate::new(1.0, course, 50);
    let rates: Vec<f64> = [0, 24, 25, 36, 37, 49].into_iter().map(|step| rate.at(step)).collect();
    assert_eq!(rates, [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
}

#[test]
fn biases_and_norms_do_not_decay() {
    for name in ["adam", "adamw", "sgd"] {
        check_decay(name);
    }
}

fn check_decay(name: &str) {
    let (Config { dataset, .. }, _) =
        Config::load(None, &[format!("dataset.training.encoder.optimizer={name}")]).unwrap();
    let encoder = config::EncoderTraining { wd: 0.1, ..dataset.training.encoder };
    let model = model();
    let before = parameters(&model);
    let batch = Loader::training(split(4), 4, 3, Device::flex().autodiff()).from(Position::default()).next().unwrap();
    let pass = model.encoder.forward_train(batch.inputs, 0);
    let gradients = pass.backward(Tensor::zeros([4, 8], &Device::flex()));
    // All gradients are 0, so whatever moves decays.
    let after = parameters(&optimizer(&encoder).step(0.5, model, gradients));
    let mut decayed = 0;
    for (name, before) in before {
        let is_exempt = ["bias", "gamma", "beta"].iter().any(|part| name.ends_with(part));
        let after = &after[&name];
        match is_exempt {
            true => assert_eq!(*after, before, "{name}"),
            // Parameters that no path leads to, such as the pooler's, have no gradient and are not touched.
            false if *after == before => {}
            false => {
                decayed += 1;
                let shrunk = after.iter().zip(&before).all(|(after, before)| (after - 0.95 * before).abs() < 1e-6);
                // Adam divides what decays by its size.
                assert!(shrunk || encoder.optimizer == config::EncoderOptimizer::Adam, "{name}");
            }
        }
    }
    assert!(decayed > 8, "{decayed} tensors decay");
}

/// Runs 3 epochs of 5 steps, 2 batches of validation and 2 of test each. `watch` may stop them.
fn train(
    classifier_rate: f64,
    watch: impl Fn(&Event, &Interrupter) + Send + Sync + 'static,
) -> (Result<()>, RunFolder, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path(), Some("run"), "x").unwrap();
    let device = Device::flex();
    let interrupter = Interrupter::default();
    let handle = interrupter.clone();
    let epochs = Epochs {
        epochs: 3,
        train: Loader::training(split(20), 4, 1, device.clone().autodiff()),
        valid: Loader::evaluation(split(8), 4, device.clone()),
        test: Loader::evaluation(split(8), 4, device.clone()),
        test_every: 1,
        learned: Loader::evaluation(split(20), 4, device.clone()),
        train_every: 2,
        scoring: Scoring {
            cutoffs: Arc::new(Cutoffs::new(&[1])),
            propensity: Some(Arc::new(Propensity::new(&[1; 20], 20, 0.55, 1.5))),
            groups: None,
        },
        folder: folder.clone(),
        device,
        observer: Arc::new(move |event| watch(event, &handle)),
        interrupter,
    };
    let learning = Learning {
        optimizer: EncoderUpdate::Any(SgdConfig::new().init()),
        encoder_rate: constant(1e-3),
        classifier_rate: constant(classifier_rate),
        loss_every: 2,
        accumulation: 2,
        max_norm: None,
    };
    let result = epochs.run(&mut Learner::new(model(), learning), Position::default());
    (result, folder, dir)
}

#[test]
fn a_stop_keeps_complete_epochs_and_says_so() {
    // Stopped at the so-manieth event of a kind; the last epoch on disk then, and whether it has validation metrics.
    type Is = fn(&Event) -> bool;
    let step: Is = |event| matches!(event, Event::Step(_));
    let validation: Is = |event| matches!(event, Event::Ranked(event) if event.of == Rows::Validation);
    let test: Is = |event| matches!(event, Event::Ranked(event) if event.of == Rows::Test);
    let epoch: Is = |event| matches!(event, Event::Epoch(_));
    for (is, at, expected) in [
        (step, 1, None),
        (step, 5, None),
        (step, 6, Some((1, true))),
        (step, 13, Some((2, true))),
        (validation, 1, Some((1, false))),
        (validation, 2, Some((1, true))),
        (validation, 3, Some((2, false))),
        (test, 1, Some((1, true))),
        (epoch, 2, Some((2, true))),
        (epoch, 3, Some((3, true))),
    ] {
        let seen = Mutex::new(0);
        let (result, folder, _dir) = train(0.1, move |event, interrupter| {
            if is(event) {
                let mut seen = seen.lock().unwrap();
                *seen += 1;
                if *seen == at {
                    interrupter.stop();
                }
                assert!(*seen <= at, "it goes on");
            }
        });
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&folder.path().display().to_string()), "{text}");
        let state = folder.state(Which::Last).ok();
        let found = state.map(|state| (state.epoch, state.validation.is_some()));
        assert_eq!(found, expected, "{text}");
        assert_eq!(text.contains("no epoch was complete"), expected.is_none(), "{text}");
        assert!(!folder.result_path().exists());
    }
}

#[test]
fn training_rows_are_evaluated_every_so_many_epochs() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let epochs = seen.clone();
    let (result, folder, _dir) = train(0.1, move |event, _| {
        if let Event::Epoch(event) = event {
            epochs.lock().unwrap().push((event.train.as_ref().map(|metrics| metrics.rows), event.test.is_some()));
        }
    });
    result.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(None, true), (Some(20), true), (None, true)]);
    let lines = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"train\":{")).count(), 1);
}

#[test]
fn losses_are_told_where_they_are_computed_and_a_diverging_classifier_is_warned_of() {
    for (rate, diverges) in [(0.01, false), (1e9, true)] {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let (seen, warned) = (steps.clone(), warnings.clone());
        let (result, ..) = train(rate, move |event, _| match event {
            Event::Step(event) => seen.lock().unwrap().push(event.step_loss.is_some()),
            Event::Warning(warning) => warned.lock().unwrap().push(warning.clone()),
            _ => {}
        });
        result.unwrap();
        let expected: Vec<bool> = (0..15).map(|step| step % 2 == 0).collect();
        assert_eq!(*steps.lock().unwrap(), expected);
        let warnings = warnings.lock().unwrap();
        assert_eq!(warnings.len(), usize::from(diverges), "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains("dataset.training.xmc.lr")), "{warnings:?}");
    }
}
