//! The encoder in training: parts of a batch, what decays, the switches of families.

use burn::{
    optim::GradientsParams,
    store::{ModuleSnapshot, bridge},
    tensor::Distribution,
};

use super::*;
use crate::encoder::sizes::Switches;

type Gradient = (String, Vec<usize>, Vec<f32>);

/// The gradient of every parameter: path, shape, values.
pub fn gradients(encoder: &Encoder, gradients: &GradientsParams) -> Vec<Gradient> {
    struct Visit<'a>(Vec<String>, &'a GradientsParams, Vec<Gradient>);
    impl ModuleVisitor for Visit<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.1.get::<D>(param.id).expect("a gradient for every parameter");
            let shape = gradient.dims().to_vec();
            self.2.push((self.0.join("."), shape, gradient.into_data().try_into_vec().unwrap()));
        }
    }
    let mut visit = Visit(Vec::new(), gradients, Vec::new());
    encoder.visit(&mut visit);
    visit.2
}

/// The values of a tensor; a vector as one row.
fn matrix(stored: &burn::store::burn_pack::Tensor) -> TensorData {
    let data = bridge::to_data(stored).unwrap();
    let shape = match *data.shape().to_vec() {
        [width] => [1, width],
        [rows, width] => [rows, width],
        _ => panic!("neither a vector nor a matrix"),
    };
    TensorData::new(data.try_into_vec::<f32>().unwrap(), shape)
}

fn close(ours: &[f32], theirs: &[f32], tolerance: f32, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: off by {worst}");
}

#[test]
fn a_pass_has_the_gradients_of_its_embedding() {
    let device = Device::flex().autodiff();
    let encoder = scratch(&tiny().0, &device).with_embedding_dropout(0.5);
    let rows: Vec<Vec<u32>> =
        (0..19).map(|row| [2, row % 11, 7, (3 * row) % 11, 3][..row as usize % 6].to_vec()).collect();
    let inputs = Inputs::of_texts(&rows, &device);
    let upstream = Tensor::<2>::random([19, 8], Distribution::Normal(0.0, 1.0), &Device::flex());

    let whole = encoder.forward_dropped(inputs.clone(), 5);
    let surrogate = (whole.clone() * Tensor::from_inner(upstream.clone())).sum();
    let expected = GradientsParams::from_grads(surrogate.backward(), &encoder);
    let pass = encoder.forward_train(inputs, 5);
    close(&values(pass.embedding.clone()), &values(whole.inner()), 0.0, "embedding");
    let ours = gradients(&encoder, &pass.backward(upstream));
    for ((path, _, ours), (_, _, theirs)) in ours.iter().zip(gradients(&encoder, &expected)) {
        close(ours, &theirs, 0.0, path);
    }
}

#[test]
fn what_is_kept_changes_no_bit() {
    let device = Device::flex().autodiff();
    let config = TransformerConfig { hidden_dropout_prob: 0.2, attention_probs_dropout_prob: 0.3, ..tiny().0 };
    let encoder = scratch(&config, &device).with_embedding_dropout(0.25);
    let upstream = Tensor::<2>::random([3, 8], Distribution::Normal(0.0, 1.0), &Device::flex());
    let learned = |activations| {
        let encoder = encoder.clone().with_activations(activations);
        let pass = encoder.forward_train(batch(&ROWS, &device), 9);
        (values(pass.embedding.clone()), gradients(&encoder, &pass.backward(upstream.clone())))
    };
    assert!(learned(Activations::Balanced) == learned(Activations::Least));
}

/// The whole way back, against differences of the way there.
#[test]
fn gradients_are_slopes() {
    check_slopes(Output::default());
}

#[test]
fn gradients_are_slopes_for_every_pooling_and_through_a_bottleneck() {
    check_slopes(Output { pool_mode: PoolMode::LastHiddenWeightedAvg, ..Output::default() });
    check_slopes(Output { pool_mode: PoolMode::LastNhiddenConlast, feature_layers: 3, bottleneck_size: Some(5) });
}

fn check_slopes(output: Output) {
    let device = Device::flex().autodiff();
    let transformer = TransformerConfig { hidden_dropout_prob: 0.2, attention_probs_dropout_prob: 0.3, ..tiny().0 };
    let config = EncoderConfig { output, ..EncoderConfig::bert(transformer) };
    let encoder = config.init(&device).with_embedding_dropout(0.25);
    let texts = || batch(&[&[], ROWS[0], &[], ROWS[1], ROWS[2], &[]], &device);
    let upstream = Tensor::<2>::random([6, config.dim()], Distribution::Normal(0.0, 1.0), &Device::flex());
    let gradients = gradients(&encoder, &encoder.forward_train(texts(), 9).backward(upstream.clone()));
    let directions: std::collections::HashMap<String, Vec<f32>> = (gradients.iter())
        .map(|(path, _, values)| {
            (path.clone(), (0..values.len()).map(|at| ((at * 7 + 3) % 11) as f32 / 11.0 - 0.5).collect())
        })
        .collect();
    // The loss where every parameter has gone `by` in its direction.
    let loss = |only: &str, by: f32| {
        struct Go<'a>(Vec<String>, &'a str, f32, &'a std::collections::HashMap<String, Vec<f32>>);
        impl burn::module::ModuleMapper for Go<'_> {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.0.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.0.pop();
            }
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let path = self.0.join(".");
                if path != self.1 {
                    return param;
                }
                let direction = self.3[&path].clone();
                let by = self.2;
                param.map(|value| {
                    let shape = value.shape();
                    let device = value.device();
                    let step = Tensor::<D>::from_data(TensorData::new(direction, shape), &device.without_autodiff());
                    (value + Tensor::from_inner(step * by)).detach().require_grad()
                })
            }
        }
        let moved = encoder.clone().map(&mut Go(Vec::new(), only, by, &directions));
        (moved.forward_train(texts(), 9).embedding * upstream.clone()).sum().into_scalar::<f32>() as f64
    };
    for (path, _, values) in &gradients {
        let expected: f64 = values.iter().zip(&directions[path]).map(|(a, b)| f64::from(a * b)).sum();
        let step = 2e-3;
        let slope = (loss(path, step) - loss(path, -step)) / (2.0 * f64::from(step));
        let tolerance = 2e-2 * expected.abs().max(0.1);
        assert!((slope - expected).abs() < tolerance, "{path}: {slope} {expected}");
    }
}

#[test]
fn a_key_repeats_a_pass() {
    let device = Device::flex().autodiff();
    let encoder = scratch(&tiny().0, &device).with_embedding_dropout(0.5);
    let rows: Vec<&[u32]> = (0..18).map(|_| ROWS[0]).collect();
    let pass = |key| values(encoder.forward_train(batch(&rows, &device), key).embedding);
    assert_eq!(pass(3), pass(3));
    assert_ne!(pass(3), pass(4));
}

#[test]
fn biases_and_norms_do_not_decay_and_all_else_does() {
    let output = Output { bottleneck_size: Some(3), ..Output::default() };
    let encoder = EncoderConfig { output, ..EncoderConfig::bert(tiny().0) }.init(&Device::flex());
    let decays = |path: &str| !Encoder::WITHOUT_DECAY.iter().any(|part| path.contains(part));
    let mut decaying = parameters(&encoder, |path, _| Some(path.to_owned()).filter(|path| decays(path)));
    decaying.retain(Option::is_some);
    let layer = ["attention.query", "attention.key", "attention.value", "attention.output", "intermediate", "output"];
    let mut expected: Vec<_> =
        ["word", "position", "token_type"].map(|name| format!("embeddings.{name}.weight")).into();
    expected.extend((0..2).flat_map(|number| layer.map(|name| format!("layers.{number}.{name}.weight"))));
    let expected: Vec<_> = expected.into_iter().map(|path| Some(format!("bert.{path}"))).collect();
    assert_eq!(decaying, expected);
}

/// Their names stand in every checkpoint.
#[test]
fn the_list_of_parameters_is_that_of_the_module() {
    let output = Output { bottleneck_size: Some(3), ..Output::default() };
    let config = EncoderConfig { output, ..EncoderConfig::bert(tiny().0) };
    let device = Device::flex();
    let listed = config.transformer.shapes(config.family.facts().switches);
    let listed: Vec<_> = (listed.into_iter())
        .map(|parameter| (format!("bert.{}", parameter.path), parameter.shape.iter().product::<usize>()))
        .chain([("bottleneck.weight".into(), 8 * 3), ("bottleneck.bias".into(), 3)])
        .collect();
    let encoder = config.init(&device);
    let mut there = parameters(&encoder, |path, values| (path.to_owned(), values.dims()[0]));
    assert_eq!(config.parameters(), encoder.parameter_count() as u64);
    let sorted = |mut list: Vec<_>| {
        list.sort();
        list
    };
    there = sorted(there);
    assert_eq!(there, sorted(listed));
}

#[test]
fn a_family_may_do_without_segments_and_begin_its_positions_later() {
    let device = Device::flex();
    let (config, _) = tiny();
    let with = |token_types, positions_after_padding| Switches { token_types, positions_after_padding };
    let bert = config.init(with(true, false), &device);
    let later =
        TransformerConfig { max_position_embeddings: config.max_position_embeddings + 2, pad_token_id: 1, ..config };
    let mut other = later.init(with(false, true), &device);

    // The other one's weights are BERT's: with the segment in its words, and two rows before its positions.
    let mut stored: BTreeMap<_, _> = (bert.collect(None, None, false).into_iter())
        .map(|stored| (stored.name.clone(), Tensor::<2>::from_data(matrix(&stored), &device)))
        .collect();
    let segments = stored.remove("embeddings.token_type.weight").unwrap();
    let words = stored.get_mut("embeddings.word.weight").unwrap();
    *words = words.clone() + segments.narrow(0, 0, 1);
    let positions = stored.get_mut("embeddings.position.weight").unwrap();
    *positions = Tensor::cat(vec![positions.clone().narrow(0, 0, 2) * 9.0, positions.clone()], 0);
    let tensors = stored.into_iter().map(|(name, tensor)| {
        let vector = tensor.dims()[0] == 1;
        let data = match vector {
            true => tensor.flatten::<1>(0, 1).into_data(),
            false => tensor.into_data(),
        };
        bridge::from_data(data, name, None)
    });
    let result = other.apply(tensors.collect(), None, None, false);
    assert!(result.missing.is_empty() && result.errors.is_empty(), "{result}");

    let inputs = batch(&ROWS, &device);
    let manner =
        Manner { dropouts: Dropouts::NONE, kernels: KernelPath::default(), activations: Activations::Balanced };
    let hidden = |transformer: &Transformer| values(transformer.forward(&inputs, manner, 1).remove(0));
    close(&hidden(&other), &hidden(&bert), 1e-5, "hidden states");
}

#[test]
fn a_stored_description_is_read_by_later_and_named_by_earlier_versions() {
    let config = EncoderConfig::bert(tiny().0);
    let stored = serde_json::to_value(&config).unwrap();
    assert_eq!(stored["model_type"], "bert");
    let read = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut stored = stored.clone();
        change(stored.as_object_mut().unwrap());
        serde_json::from_value::<EncoderConfig>(stored).map_err(|error| error.to_string())
    };
    assert_eq!(read(&|_| ()), Ok(config.clone()));
    // The first version knew one family, and did not say so.
    let absent = |stored: &mut serde_json::Map<_, _>| drop(stored.remove("model_type"));
    assert_eq!(read(&absent), Ok(config.clone()));
    // Pooling came later, and the default is not written.
    assert!(stored.get("pool_mode").is_none());
    let output = Output { pool_mode: PoolMode::LastNhiddenConlast, feature_layers: 2, bottleneck_size: Some(4) };
    let with_output = EncoderConfig { output, ..config.clone() };
    assert_eq!(
        serde_json::from_value::<EncoderConfig>(serde_json::to_value(&with_output).unwrap()).unwrap(),
        with_output
    );
    let later = read(&|stored| drop(stored.remove("initializer_range"))).unwrap();
    assert_eq!(later.transformer.initializer_range, 0.02);
    let cut = read(&|stored| drop(stored.remove("num_hidden_layers"))).unwrap_err();
    assert_eq!(cut, "`num_hidden_layers`: missing");
    for (key, value, parts) in [
        ("feature_layers", serde_json::json!(2), ["`feature_layers`: expected 1", "found 2"]),
        ("pool_mode", serde_json::json!("cls"), ["unknown variant `cls`", "last_nhidden_conlast"]),
        ("rope_theta", serde_json::json!(1.0), ["`rope_theta`", "a newer one wrote it"]),
        ("model_type", serde_json::json!("mpnet"), ["`bert`", "\"mpnet\""]),
        ("hidden_size", serde_json::json!(-1), ["`hidden_size`: expected a whole number", "found -1"]),
        ("hidden_size", serde_json::json!(0), ["`hidden_size`: expected a positive number", "found 0"]),
        ("hidden_act", serde_json::json!("mish"), ["`gelu`", "\"mish\""]),
    ] {
        let error = read(&|stored| drop(stored.insert(key.into(), value.clone()))).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
