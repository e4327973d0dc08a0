//! The encoder as a whole: against a plain implementation in F64, against PyTorch, and its import.

use std::{collections::BTreeMap, fs, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Gradients, Tensor, TensorData, Tolerance},
};
use half::f16;
use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::Error;

mod reference;

use reference::{Weights, tiny};

/// The encoder of a Hugging Face folder, and its configuration.
fn from_pretrained(dir: &Path, device: &Device) -> crate::Result<(Encoder, BertConfig)> {
    let config = EncoderConfig::from_pretrained(dir)?;
    let encoder = config.load_pretrained(dir, device)?;
    let EncoderConfig::Bert(bert) = config;
    Ok((encoder, bert))
}

fn scratch(config: &BertConfig, device: &Device) -> Encoder {
    EncoderConfig::Bert(config.clone()).init(device)
}

/// A batch whose padding holds real ids, so that one that leaks shows.
fn batch(rows: &[(&[i32], usize)], device: &Device) -> Inputs {
    let width = rows[0].0.len();
    let ids: Vec<i32> = rows.iter().flat_map(|(ids, _)| ids.to_vec()).collect();
    let lengths: Vec<u32> = rows.iter().map(|&(_, real)| real as u32).collect();
    Inputs::padded(ids, &lengths, width, device)
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap()
}

/// Writes a Hugging Face folder; names get `prefix`.
fn write(dir: &Path, config: &BertConfig, weights: &Weights, prefix: &str, dtype: Dtype) {
    let mut json = serde_json::to_value(config).unwrap();
    json["model_type"] = "bert".into();
    fs::write(dir.join("config.json"), serde_json::to_string_pretty(&json).unwrap()).unwrap();
    let bytes: BTreeMap<_, _> = weights
        .iter()
        .map(|(name, (shape, values))| {
            let bytes: Vec<u8> = match dtype {
                Dtype::F32 => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
                Dtype::F16 => values.iter().flat_map(|&v| f16::from_f64(v).to_le_bytes()).collect(),
                other => panic!("{other:?}"),
            };
            (format!("{prefix}{name}"), (shape.clone(), bytes))
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
}

/// The tiny model through a folder, changed before it is written.
fn load_changed(change: impl FnOnce(&mut Weights)) -> crate::Result<(Encoder, BertConfig)> {
    let (config, mut weights) = tiny();
    change(&mut weights);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &config, &weights, "", Dtype::F32);
    from_pretrained(dir.path(), &Device::flex())
}

fn message(result: crate::Result<(Encoder, BertConfig)>) -> String {
    match result.unwrap_err() {
        error @ Error::Weights { .. } => error.to_string(),
        other => panic!("not about weights: {other}"),
    }
}

const ROWS: [(&[i32], usize); 3] = [(&[2, 5, 7, 9, 3], 5), (&[2, 10, 3, 4, 8], 3), (&[6, 1, 1, 1, 1], 1)];

#[test]
fn agrees_with_a_plain_implementation() {
    let (config, weights) = tiny();
    for (activation, prefix) in [(Activation::Gelu, ""), (Activation::Relu, "bert.")] {
        let config = BertConfig {
            hidden_act: activation,
            ..config.clone()
        };
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config, &weights, prefix, Dtype::F32);
        let device = Device::flex();
        let (encoder, read) = from_pretrained(dir.path(), &device).unwrap();
        assert_eq!(read, config);
        assert_eq!(encoder.dim(), config.hidden_size);
        // All but the pooler's.
        let count: usize = weights.values().map(|(_, values)| values.len()).sum();
        assert_eq!(encoder.parameter_count(), count);

        let inputs = batch(&ROWS, &device);
        let expected: Vec<f64> = ROWS
            .iter()
            .flat_map(|&(ids, real)| reference::encode(&config, &weights, &ids[..real]))
            .collect();
        TensorData::new(values(encoder.forward(inputs)), [expected.len()]).assert_approx_eq(
            &TensorData::new(expected.clone(), [expected.len()]).convert::<f32>(),
            Tolerance::<f32>::absolute(2e-5),
        );
    }
}

/// Skips itself where the weights are not: `encoders/minilm-l6` is too large for the repository.
#[test]
fn minilm_agrees_with_pytorch() {
    #[derive(Deserialize)]
    struct Golden {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        input_ids: Vec<i32>,
        attention_mask: Vec<i32>,
        mean_pool: Vec<f32>,
    }

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("encoders/minilm-l6");
    if !dir.exists() {
        eprintln!("skipped: no {}", dir.display());
        return;
    }
    let golden = fs::read_to_string(root.join("tests/fixtures/encoder/minilm-l6.json")).unwrap();
    let golden: Golden = serde_json::from_str(&golden).unwrap();
    let device = Device::flex();
    let (encoder, _) = from_pretrained(&dir, &device).unwrap();
    let rows: Vec<_> = golden
        .items
        .iter()
        .map(|item| {
            let real = item.attention_mask.iter().filter(|&&m| m == 1).count();
            (item.input_ids.as_slice(), real)
        })
        .collect();
    let inputs = batch(&rows, &device);
    let ours = values(encoder.forward(inputs));
    let theirs: Vec<f32> = golden.items.into_iter().flat_map(|i| i.mean_pool).collect();
    assert_eq!(ours.len(), theirs.len());
    let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "off by {worst}");
}

#[test]
fn padding_does_not_change_an_embedding() {
    let device = Device::flex();
    let (encoder, _) = load_changed(|_| ()).unwrap();
    let alone = {
        let inputs = batch(&[(&[2, 10, 3], 3)], &device);
        values(encoder.forward(inputs))
    };
    let inputs = batch(&ROWS, &device);
    let padded = values(encoder.forward(inputs).narrow(0, 1, 1));
    for (a, b) in alone.iter().zip(&padded) {
        assert!((a - b).abs() < 1e-6, "{alone:?} {padded:?}");
    }
}

#[test]
fn a_row_without_tokens_is_zero_and_harmless() {
    let device = Device::flex().autodiff();
    let encoder = scratch(&tiny().0, &device);
    let inputs = batch(&[(&[0, 0, 0], 0), (&[2, 5, 3], 3)], &device);
    let x = encoder.forward(inputs);
    assert!(values(x.clone().inner().narrow(0, 0, 1)).iter().all(|&v| v == 0.0));
    Check(&x.powf_scalar(2.0).sum().backward(), Vec::new()).run(&encoder);
}

#[test]
fn gradients_reach_every_parameter() {
    let (config, _) = tiny();
    let config = BertConfig {
        hidden_dropout_prob: 0.1,
        attention_probs_dropout_prob: 0.1,
        ..config
    };
    let device = Device::flex().autodiff();
    let encoder = scratch(&config, &device);
    let inputs = batch(&ROWS, &device);
    let weights = Tensor::<2>::random(
        [ROWS.len(), config.hidden_size],
        burn::tensor::Distribution::Normal(0.0, 1.0),
        &device,
    );
    let gradients = (encoder.forward(inputs) * weights).sum().backward();
    let zero = Check(&gradients, Vec::new()).run(&encoder);
    // A key's bias adds the same to all the scores of a query, and softmax takes that out.
    assert!(zero.iter().all(|name| name.ends_with("key.bias")), "{zero:?}");
}

/// Sees that every parameter has a finite gradient; gathers those that are zero throughout.
struct Check<'a>(&'a Gradients, Vec<String>);

impl Check<'_> {
    fn run(mut self, encoder: &Encoder) -> Vec<String> {
        struct Visit<'a, 'b>(&'a mut Check<'b>, Vec<String>);
        impl ModuleVisitor for Visit<'_, '_> {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.1.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.1.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let name = self.1.join(".");
                let gradient = param.val().grad(self.0.0);
                let gradient = gradient.unwrap_or_else(|| panic!("no gradient for {name}"));
                let largest = gradient.abs().max().into_scalar::<f32>();
                assert!(largest.is_finite(), "{name}: {largest}");
                if largest < 1e-9 {
                    self.0.1.push(name);
                }
            }
        }
        encoder.visit(&mut Visit(&mut self, Vec::new()));
        self.1
    }
}

#[test]
fn fresh_weights_have_the_configured_spread() {
    let config = BertConfig {
        vocab_size: 2000,
        hidden_size: 64,
        num_attention_heads: 4,
        num_hidden_layers: 1,
        intermediate_size: 256,
        initializer_range: 0.02,
        ..BertConfig::default()
    };
    struct Visit(Vec<String>);
    impl ModuleVisitor for Visit {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mean_square = param.val().powf_scalar(2.0).mean().into_scalar::<f32>();
            let expected = match self.0.last().unwrap().as_str() {
                "gamma" => 1.0,
                "beta" | "bias" => 0.0,
                // Two rows of 64 are too few to say more.
                _ if self.0.contains(&"token_type".to_owned()) => return,
                _ => 0.02,
            };
            assert!((mean_square.sqrt() - expected).abs() < 1e-3, "{:?}", self.0);
        }
    }
    scratch(&config, &Device::flex()).visit(&mut Visit(Vec::new()));
}

#[test]
#[should_panic(expected = "a batch is 9 tokens wide, and the encoder has 8 positions")]
fn too_wide_a_batch_panics() {
    let device = Device::flex();
    let inputs = batch(&[(&[1; 9], 9)], &device);
    scratch(&tiny().0, &device).forward(inputs);
}

#[test]
fn half_precision_weights_are_converted() {
    let (config, mut weights) = tiny();
    // Round first, so that nothing is lost on the way and the two must be equal.
    for (_, values) in weights.values_mut() {
        values.iter_mut().for_each(|v| *v = f16::from_f64(*v).to_f64());
    }
    let device = Device::flex();
    let [half, full] = [Dtype::F16, Dtype::F32].map(|dtype| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config, &weights, "", dtype);
        let (encoder, _) = from_pretrained(dir.path(), &device).unwrap();
        let inputs = batch(&ROWS, &device);
        values(encoder.forward(inputs))
    });
    assert_eq!(half, full);
}

#[test]
fn heads_and_old_names_are_understood() {
    load_changed(|weights| {
        weights.insert("pooler.dense.weight".into(), (vec![1], vec![0.0]));
        weights.insert("cls.predictions.bias".into(), (vec![1], vec![0.0]));
        weights.insert("embeddings.position_ids".into(), (vec![1], vec![0.0]));
        for (new, old) in [("weight", "gamma"), ("bias", "beta")] {
            let tensor = weights.remove(&format!("embeddings.LayerNorm.{new}")).unwrap();
            weights.insert(format!("embeddings.LayerNorm.{old}"), tensor);
        }
    })
    .unwrap();
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let text = message(load_changed(|weights| {
        let bias = weights.remove("encoder.layer.1.output.dense.bias").unwrap();
        weights.insert("encoder.layer.2.output.dense.bias".into(), bias);
        weights.get_mut("embeddings.word_embeddings.weight").unwrap().0 = vec![8, 11];
    }));
    for part in [
        "model.safetensors: missing tensors: `encoder.layer.1.output.dense.bias`;",
        "unknown tensors: `encoder.layer.2.output.dense.bias`;",
        "unfit tensors: `embeddings.word_embeddings.weight of shape [8, 11], expected [11, 8]`",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn many_tensors_are_not_all_listed() {
    let text = message(load_changed(|weights| weights.clear()));
    assert!(text.contains("`embeddings.LayerNorm.bias`, "), "{text}");
    assert!(text.contains(" and 29 more"), "{text}");
}

#[test]
fn a_cut_file_is_an_error() {
    let (config, weights) = tiny();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &config, &weights, "", Dtype::F32);
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let text = message(from_pretrained(dir.path(), &Device::flex()));
        assert!(text.contains("not a complete safetensors file"), "{text}");
    }
}

#[test]
fn absent_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let load = || from_pretrained(dir.path(), &Device::flex()).unwrap_err();
    let absent = |error| match error {
        Error::Io { path, .. } => path.file_name().unwrap().to_owned(),
        other => panic!("{other}"),
    };
    assert_eq!(absent(load()), "config.json");
    fs::write(dir.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    assert_eq!(absent(load()), "model.safetensors");
}

#[test]
fn a_bad_config_is_located() {
    let dir = tempfile::tempdir().unwrap();
    let check = |key: &str, value: serde_json::Value, expected: &str| {
        let mut json = json!({ "model_type": "bert" });
        json[key] = value;
        let text = serde_json::to_string_pretty(&json).unwrap();
        let line = 1 + text.lines().position(|line| line.contains(key)).unwrap();
        fs::write(dir.path().join("config.json"), text).unwrap();
        let error = from_pretrained(dir.path(), &Device::flex()).unwrap_err();
        assert!(
            matches!(&error, Error::Data { place, .. } if place.line == Some(line)),
            "{error}"
        );
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        "model_type",
        json!("roberta"),
        "`model_type`: expected `bert`, found `roberta`",
    );
    check("hidden_act", json!("gelu_new"), "unknown variant `gelu_new`");
    check("hidden_size", json!("wide"), "invalid type: string \"wide\"");
    check(
        "num_attention_heads",
        json!(7),
        "expected a divisor of the hidden size, 768, found 7",
    );
    check(
        "vocab_size",
        json!(0),
        "`vocab_size`: expected a positive number, found 0",
    );
    check(
        "hidden_dropout_prob",
        json!(1.0),
        "`hidden_dropout_prob`: expected a probability",
    );
}
