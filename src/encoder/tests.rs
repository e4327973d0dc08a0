//! The encoder as a whole: against a plain implementation in F64 and against PyTorch, its training, and its import.

use std::{collections::BTreeMap, fs, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Gradients, Tensor, TensorData, Tolerance},
};
use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};

use super::*;

mod description;
mod import;
mod pytorch;
mod reference;
mod training;

use reference::{Weights, tiny};

/// The encoder of a Hugging Face folder, and its sizes.
fn from_pretrained(dir: &Path, device: &Device) -> crate::Result<(Encoder, TransformerConfig)> {
    let config = EncoderConfig::from_pretrained(dir)?;
    // Whatever is wrong with the weights is to be seen without reading them.
    let checked = config.check_weights(dir).map_err(|error| error.to_string());
    let loaded = config.load_pretrained(dir, device);
    assert_eq!(checked.err(), loaded.as_ref().err().map(|error| error.to_string()));
    Ok((loaded?, config.transformer))
}

fn scratch(config: &TransformerConfig, device: &Device) -> Encoder {
    EncoderConfig::bert(config.clone()).init(device)
}

/// Every parameter's path in the encoder, with what `f` makes of it.
fn parameters<R>(encoder: &Encoder, f: impl FnMut(&str, Tensor<1>) -> R) -> Vec<R> {
    struct Visit<F, R>(Vec<String>, F, Vec<R>);
    impl<F: FnMut(&str, Tensor<1>) -> R, R> ModuleVisitor for Visit<F, R> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = (self.1)(&self.0.join("."), param.val().flatten(0, D - 1));
            self.2.push(value);
        }
    }
    let mut visit = Visit(Vec::new(), f, Vec::new());
    encoder.visit(&mut visit);
    visit.2
}

/// A batch of texts.
fn batch(rows: &[&[u32]], device: &Device) -> Inputs {
    Inputs::of_texts(rows, device)
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap()
}

/// Writes a Hugging Face folder; names get `prefix`.
fn write(dir: &Path, config: &TransformerConfig, weights: &Weights, prefix: &str, dtype: Dtype) {
    let mut json = serde_json::to_value(config).unwrap();
    json["model_type"] = "bert".into();
    fs::write(dir.join("config.json"), serde_json::to_string_pretty(&json).unwrap()).unwrap();
    let bytes: BTreeMap<_, _> = weights
        .iter()
        .map(|(name, (shape, values))| {
            let bytes: Vec<u8> = match dtype {
                Dtype::F64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Dtype::F32 => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
                Dtype::F16 => values.iter().flat_map(|&v| f16::from_f64(v).to_le_bytes()).collect(),
                Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f64(v).to_le_bytes()).collect(),
                Dtype::I32 => values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
                other => panic!("{other:?}"),
            };
            (format!("{prefix}{name}"), (shape.clone(), bytes))
        })
        .collect();
    let views =
        bytes.iter().map(|(name, (shape, bytes))| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
}

const ROWS: [&[u32]; 3] = [&[2, 5, 7, 9, 3], &[2, 10, 3], &[6]];

#[test]
fn agrees_with_a_plain_implementation() {
    let (config, weights) = tiny();
    for (activation, prefix) in [(Activation::Gelu, ""), (Activation::GeluTanh, ""), (Activation::Relu, "bert.")] {
        let config = TransformerConfig { hidden_act: activation, ..config.clone() };
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
        let expected: Vec<f64> = ROWS.iter().flat_map(|ids| reference::encode(&config, &weights, ids)).collect();
        TensorData::new(values(encoder.forward(inputs)), [expected.len()]).assert_approx_eq(
            &TensorData::new(expected.clone(), [expected.len()]).convert::<f32>(),
            Tolerance::<f32>::absolute(2e-5),
        );
    }
}

#[test]
fn an_embedding_does_not_depend_on_the_batch() {
    let device = Device::flex();
    let encoder = scratch(&tiny().0, &device);
    let alone = {
        let inputs = batch(&[&[2, 10, 3]], &device);
        values(encoder.forward(inputs))
    };
    let inputs = batch(&ROWS, &device);
    assert_eq!(values(encoder.forward(inputs).narrow(0, 1, 1)), alone);
}

#[test]
fn a_row_without_tokens_is_zero_and_harmless() {
    let device = Device::flex().autodiff();
    let encoder = scratch(&tiny().0, &device);
    let inputs = batch(&[&[], &[2, 5, 3]], &device);
    let x = encoder.forward(inputs);
    assert!(values(x.clone().inner().narrow(0, 0, 1)).iter().all(|&v| v == 0.0));
    Check(&x.powf_scalar(2.0).sum().backward(), Vec::new()).run(&encoder);
}

#[test]
fn gradients_reach_every_parameter() {
    let (config, _) = tiny();
    let config = TransformerConfig { hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1, ..config };
    let device = Device::flex().autodiff();
    let encoder = scratch(&config, &device);
    let inputs = batch(&ROWS, &device);
    let weights =
        Tensor::<2>::random([ROWS.len(), config.hidden_size], burn::tensor::Distribution::Normal(0.0, 1.0), &device);
    let gradients = (encoder.forward_dropped(inputs, 1) * weights).sum().backward();
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
    let config = TransformerConfig {
        vocab_size: 2000,
        hidden_size: 64,
        num_attention_heads: 4,
        num_hidden_layers: 1,
        intermediate_size: 256,
        initializer_range: 0.02,
        ..TransformerConfig::default()
    };
    parameters(&scratch(&config, &Device::flex()), |path, values| {
        let mean_square = values.powf_scalar(2.0).mean().into_scalar::<f32>();
        let expected = match path.rsplit('.').next().unwrap() {
            "gamma" => 1.0,
            "beta" | "bias" => 0.0,
            // Two rows of 64 are too few to say more.
            _ if path.contains("token_type") => return,
            _ => 0.02,
        };
        assert!((mean_square.sqrt() - expected).abs() < 1e-3, "{path}");
    });
}

#[test]
#[should_panic(expected = "a text has 9 tokens, and the encoder 8 positions")]
fn too_long_a_text_panics() {
    let device = Device::flex();
    let inputs = batch(&[&[1; 9]], &device);
    scratch(&tiny().0, &device).forward(inputs);
}
