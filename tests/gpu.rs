//! The program on a GPU through wgpu; software Vulkan will do.
#![cfg(feature = "wgpu")]

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn elmo(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::cargo_bin("elmo")
        .unwrap()
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap();
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
