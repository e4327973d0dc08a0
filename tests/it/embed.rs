//! `elmo embed`: the vectors that the classifier sees.

use std::{fs, path::Path};

use half::f16;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::{assert_fails, cases, elmo, succeeds, train_tiny};

/// The type, the rows and the numbers of an array.
fn read(path: &Path) -> (String, Vec<Vec<f32>>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8(bytes[10..start].to_vec()).unwrap();
    let descr = header.split('\'').nth(3).unwrap().to_owned();
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape: Vec<usize> = shape.split(", ").map(|axis| axis.parse().unwrap()).collect();
    let body = &bytes[start..];
    let numbers: Vec<f32> = match descr.as_str() {
        "<f4" => body.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect(),
        "<f2" => body.chunks(2).map(|bytes| f16::from_le_bytes(bytes.try_into().unwrap()).to_f32()).collect(),
        other => panic!("{other}"),
    };
    assert_eq!(numbers.len(), shape[0] * shape[1]);
    (descr, numbers.chunks(shape[1]).map(<[f32]>::to_vec).collect())
}

#[test]
fn embeddings_times_weights_are_the_scores_of_predict() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    let settings = ["log_fname=r", "dataset.model.xmc.implementation=chunked", "dataset.model.xmc.dtype=float32"];
    train_tiny(here, &cases().join("toy")).args(settings).assert().success();
    let texts = "piston engine\nlion and tiger\n\ngalaxy star planet\nbread\n";
    fs::write(here.join("texts"), texts).unwrap();
    let embed = ["embed", "runs/r", "--checkpoint", "last", "--input"];
    let (_, warnings) = succeeds(elmo(here).args(embed).args(["texts", "--output", "x.npy"]));
    assert!(warnings.contains("texts:3: no text, so its embedding is 0"), "{warnings}");
    let (descr, embeddings) = read(&here.join("x.npy"));
    assert_eq!((descr.as_str(), embeddings.len()), ("<f4", 5));
    assert!(embeddings[2].iter().all(|value| *value == 0.0));

    let file = fs::read(here.join("runs/r/checkpoint/epoch-2/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let weights = tensors.tensor("classifier.weights").unwrap();
    let dim = weights.shape()[1];
    let numbers: Vec<f32> =
        weights.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(embeddings[0].len(), dim);
    let predict = ["predict", "runs/r", "--checkpoint", "last", "--top-k", "8", "--input", "texts"];
    let (answers, _) = succeeds(elmo(here).args(predict));
    let mut compared = 0;
    for (answer, embedding) in answers.lines().zip(&embeddings) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        for label in answer["labels"].as_array().unwrap() {
            // Without label_sort, and with every label in the data, outputs are ids.
            let row = label["id"].as_u64().unwrap() as usize * dim;
            let logit: f32 = embedding.iter().zip(&numbers[row..row + dim]).map(|(x, w)| x * w).sum();
            let (score, expected) = (label["score"].as_f64().unwrap(), 1.0 / (1.0 + f64::from(-logit).exp()));
            assert!((score - expected).abs() < 1e-5, "{label}: {expected}");
            compared += 1;
        }
    }
    assert_eq!(compared, 4 * 8);

    let pipe = ["-", "--dtype", "f16", "--output", "half.npy"];
    succeeds(elmo(here).args(embed).args(pipe).write_stdin(texts));
    let (descr, rounded) = read(&here.join("half.npy"));
    assert_eq!(descr, "<f2");
    let expected: Vec<Vec<f32>> =
        embeddings.iter().map(|row| row.iter().map(|value| f16::from_f32(*value).to_f32()).collect()).collect();
    assert_eq!(rounded, expected);

    assert_fails(elmo(here).args(embed).args(["texts", "--output", "x.npy"]), 1, &["x.npy", "exist"]);
    assert_fails(elmo(here).args(embed).args(["texts", "--output", "-"]), 2, &["expected a new file"]);
    assert_fails(elmo(here).args(embed).args(["nowhere", "--output", "y.npy"]), 1, &["nowhere"]);
    fs::write(here.join("cut.gz"), b"\x1f\x8b\x08\x00").unwrap();
    assert_fails(elmo(here).args(embed).args(["cut.gz", "--output", "y.npy"]), 1, &["gzip"]);
    assert!(!here.join("y.npy").exists());
}
