//! The program on a GPU through wgpu; software Vulkan will do.
#![cfg(feature = "wgpu")]

use std::{convert::Infallible, path::Path};

use assert_cmd::Command;
use burn::tensor::{DType, Distribution, Tensor};
use elmo::{
    classifier::{Classifier, ClassifierConfig, Format, Positives, Stored},
    device::Compute,
    encoder::{EncoderConfig, Inputs},
};
use serde_json::Value;

fn elmo(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::cargo_bin("elmo").unwrap().current_dir(dir).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_model_trained_on_a_gpu_learns_and_is_the_same_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let datasets = format!("dataset_path={}/datasets", env!("CARGO_MANIFEST_DIR"));
    let printed = elmo(
        dir.path(),
        &[
            "train",
            "--device",
            "wgpu",
            "dataset=food",
            &datasets,
            "log_fname=gpu",
            "dataset.training.epochs=3",
            "dataset.training.xmc.lr=0.3",
            "dataset.data.max_len=16",
            "dataset.model.encoder.scratch.hidden_size=32",
            "dataset.model.encoder.scratch.intermediate_size=64",
            "dataset.model.encoder.scratch.num_hidden_layers=1",
            "dataset.model.encoder.scratch.vocab_size=2000",
        ],
    );
    let metrics = |device: &str| -> Value {
        let arguments = ["evaluate", "runs/gpu", "--json", "--device", device];
        serde_json::from_str(&elmo(dir.path(), &arguments)).unwrap()
    };
    let gpu = metrics("wgpu");
    let at_1 = format!("{:.2}", gpu["P@1"].as_f64().unwrap());
    assert!(printed.lines().last().unwrap().contains(&at_1), "{printed}");
    // The most frequent label alone reaches 11.4.
    assert!(gpu["P@1"].as_f64().unwrap() > 14.0, "{gpu}");
    let cpu = metrics("cpu");
    for key in ["P@1", "P@3", "P@5"] {
        let difference = gpu[key].as_f64().unwrap() - cpu[key].as_f64().unwrap();
        // Of 236 rows, two may have a label on the edge.
        assert!(difference.abs() < 1.0, "{key}: {gpu} {cpu}");
    }
}

/// Weights, a tenth of that, and 64 MiB: what the classifier may take of a GPU.
#[test]
fn a_step_and_a_search_take_little_beside_the_weights() {
    let compute = Compute::open(Some("wgpu"), false, 0).unwrap();
    let device = &compute.device;
    let reserved = || {
        device.sync().unwrap();
        device.memory_pool_usage().unwrap().bytes_reserved
    };
    let before = reserved();
    // 80 MiB of weights.
    let mut config = ClassifierConfig::new(20_480, 4096);
    config.segment_bytes = compute.segment_bytes;
    let classifier = config.init(device);
    let random = (device, DType::F32);
    let x = Tensor::<2>::random([4, 4096], Distribution::Default, random);
    for label in 0..2 {
        classifier.step(x.clone(), &Positives::new(vec![(label, 0)]), 0.05, true);
    }
    classifier.top_k(x, 5);
    let taken = reserved() - before;
    let allowed = config.bytes() + config.bytes() / 10 + (64 << 20);
    assert!(taken <= allowed, "{taken} of {allowed} bytes");
}

/// Weights of several pieces, in buffers of their own and a tenth of a gigabyte in all.
#[test]
fn a_loaded_classifier_lies_where_a_fresh_one_does() {
    let compute = Compute::open(Some("wgpu"), false, 0).unwrap();
    let device = &compute.device;
    let reserved = || {
        device.sync().unwrap();
        device.memory_pool_usage().unwrap().bytes_reserved
    };
    let mut config = ClassifierConfig::new(20_000, 4096).with_head(4000, Format::Bf16);
    config.segment_bytes = compute.segment_bytes.min(48 << 20);
    let words = |classifier: &Classifier| {
        Stored::ALL.map(|stored| {
            let mut all = Vec::new();
            let Ok(()) = classifier.save(stored, |_, words| {
                all.extend_from_slice(words);
                Ok::<_, Infallible>(())
            });
            all
        })
    };
    let fresh = config.init(device);
    let saved = words(&fresh);
    let after_init = reserved();
    drop(fresh);
    let Ok(loaded) = config.load(device, |stored, rows, words| {
        let [_, width] = config.stored_shape(stored);
        words.copy_from_slice(&saved[stored as usize][rows.start * width..rows.end * width]);
        Ok::<_, Infallible>(())
    });
    // The memory that the fresh one has left is memory for weights, and is all that the loaded one takes.
    assert_eq!(reserved(), after_init);
    assert!(words(&loaded) == saved);
}

/// Dropout is drawn from the step's key, so that a step can be repeated on any device.
#[test]
fn a_step_drops_on_a_gpu_what_it_drops_on_the_cpu() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder/tiny-bert");
    let mut config = EncoderConfig::from_pretrained(&dir).unwrap();
    config.transformer.hidden_dropout_prob = 0.3;
    config.transformer.attention_probs_dropout_prob = 0.2;
    let [cpu, gpu] = ["cpu", "wgpu"].map(|name| {
        let device = Compute::open(Some(name), false, 0).unwrap().device.autodiff();
        let encoder = config.load_pretrained(&dir, &device).unwrap().with_embedding_dropout(0.5);
        let inputs =
            Inputs::of_texts(&[vec![0, 1, 2, 3, 4], vec![5, 6], vec![10, 11, 12, 13], vec![15, 16, 17]], &device);
        let data = encoder.forward_train(inputs, 11).embedding.into_data();
        data.try_into_vec::<f32>().unwrap()
    });
    assert_eq!(cpu.len(), gpu.len());
    assert!(cpu.contains(&0.0));
    for (cpu, gpu) in cpu.iter().zip(&gpu) {
        assert_eq!(*cpu == 0.0, *gpu == 0.0);
        assert!((cpu - gpu).abs() < 1e-4, "{cpu} {gpu}");
    }
}
