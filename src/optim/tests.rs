//! Against torch-optimi's own numbers (`tests/fixtures/optimizer`), and against what Adam is.

use std::{collections::BTreeMap, fs};

use burn::{
    module::ParamGroup,
    nn::LinearConfig,
    optim::{GradientsParams, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource},
    tensor::{DType, Device, Tensor, TensorData},
};
use half::bf16;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Fixture {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    defaults: Arguments,
    p0_bf16_bits_i16: Vec<i16>,
    grads: Vec<Vec<i16>>,
    params: Vec<Vec<i16>>,
    kahan_comp: Vec<Vec<i16>>,
}

#[derive(Deserialize)]
struct Arguments {
    lr: f64,
    weight_decay: f64,
    decouple_wd: bool,
    momentum: Option<f64>,
    // SGD has none of these.
    beta1: Option<f64>,
    beta2: Option<f64>,
    eps: Option<f64>,
}

impl Arguments {
    fn adam(&self) -> Option<KahanAdam> {
        Some(KahanAdam {
            beta_1: self.beta1?,
            beta_2: self.beta2?,
            epsilon: self.eps?,
            weight_decay: self.weight_decay,
            decoupled: self.decouple_wd,
            kahan: true,
        })
    }
}

/// Steps an optimizer through a run; its parameters and compensations are those of torch-optimi.
fn replay<O: Optimizer>(run: &Run, optimizer: &O, compensation: impl Fn(&O::State<1>) -> Tensor<1>) {
    let (mut param, mut state) = (from_bits(&run.p0_bf16_bits_i16), None);
    for (step, grad) in run.grads.iter().enumerate() {
        (param, state) = optimizer.step(run.defaults.lr, param, from_bits(grad), state);
        let lost = compensation(state.as_ref().unwrap());
        assert_eq!(to_bits(&param), run.params[step], "{}, {step}", run.name);
        assert_eq!(to_bits(&lost), run.kahan_comp[step], "{}, {step}", run.name);
    }
}

fn from_bits(bits: &[i16]) -> Tensor<1> {
    let values: Vec<bf16> = bits.iter().map(|&b| bf16::from_bits(b as u16)).collect();
    let data = TensorData::new(values, [bits.len()]);
    Tensor::from_data(data, (&Device::flex(), DType::BF16))
}

fn to_bits(tensor: &Tensor<1>) -> Vec<i16> {
    let data = tensor.to_data();
    let values = data.as_slice::<bf16>().unwrap();
    values.iter().map(|v| v.to_bits() as i16).collect()
}

fn filled(value: f32, dtype: DType) -> Tensor<1> {
    Tensor::from_data([value; 3], (&Device::flex(), dtype))
}

fn values(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.clone().cast(DType::F32).into_data().try_to_vec().unwrap()
}

#[test]
fn equals_torch_optimi_bit_for_bit() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/optimizer/optimi_bf16.json");
    let fixture: Fixture = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (mut adams, mut sgds) = (0, 0);
    for run in fixture.runs {
        if let Some(adam) = run.defaults.adam() {
            replay(&run, &adam, |state: &KahanAdamState<1>| state.compensation.clone().unwrap());
            adams += 1;
        } else {
            let momentum = run.defaults.momentum.unwrap();
            let sgd = KahanSgd { momentum, weight_decay: run.defaults.weight_decay, kahan: true };
            replay(&run, &sgd, |state: &KahanSgdState<1>| state.compensation.clone().unwrap());
            sgds += 1;
        }
    }
    assert_eq!((adams, sgds), (3, 1), "Adam, AdamW, Adam without weight decay; SGD with momentum");
}

#[test]
fn f32_is_sgd_as_the_textbook_has_it() {
    for (momentum, weight_decay) in [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.9, 0.1)] {
        let sgd = KahanSgd { momentum, weight_decay, kahan: true };
        let (mut param, mut state) = (filled(0.5, DType::F32), None);
        let (mut expected, mut sum) = (0.5_f64, 0.0);
        for t in 1..=40 {
            let g = f64::from(t).sin();
            (param, state) = sgd.step(1e-2, param, filled(g as f32, DType::F32), state);
            sum = momentum * sum + g + weight_decay * expected;
            expected -= 1e-2 * sum;
            for value in values(&param) {
                assert!((f64::from(value) - expected).abs() < 1e-5, "step {t}: {value} {expected}");
            }
        }
        let state = state.unwrap();
        assert_eq!((state.sum.is_some(), state.compensation.is_some()), (momentum != 0.0, false));
    }
}

#[test]
fn a_recorded_state_of_sgd_goes_on_as_the_original() {
    for (momentum, dtype) in [(0.9, DType::BF16), (0.0, DType::BF16), (0.0, DType::F32)] {
        let sgd = KahanSgd { momentum, weight_decay: 0.01, kahan: true };
        let (param, state) = sgd.step(1e-3, filled(0.3, dtype), filled(0.7, dtype), None);
        let mut sink = StateSink::default();
        state.as_ref().unwrap().state_flatten("p", &mut sink);
        let mut source = StateSource::new(sink.scalars.into_iter().collect::<BTreeMap<_, _>>());
        for (name, data) in sink.tensors {
            source.insert_tensor(name, data);
        }
        let restored = KahanSgdState::<1>::state_unflatten("p", &mut source, &Device::flex());
        assert!(restored.is_some());
        let (original, _) = sgd.step(1e-3, param.clone(), filled(-0.2, dtype), state);
        let (resumed, _) = sgd.step(1e-3, param, filled(-0.2, dtype), restored);
        assert_eq!(values(&original), values(&resumed));
    }
}

#[test]
fn f32_is_adam_as_the_textbook_has_it() {
    for adam in [KahanAdam::adam(), KahanAdam::adamw()] {
        let KahanAdam { beta_1, beta_2, epsilon, weight_decay, .. } = adam;
        let lr = 1e-2;
        let (mut param, mut state) = (filled(0.5, DType::F32), None);
        let (mut expected, mut m, mut v) = (0.5_f64, 0.0, 0.0);
        for t in 1..=40 {
            let g = f64::from(t).sin();
            (param, state) = adam.step(lr, param, filled(g as f32, DType::F32), state);

            m = beta_1 * m + (1.0 - beta_1) * g;
            v = beta_2 * v + (1.0 - beta_2) * g * g;
            let m_hat = m / (1.0 - beta_1.powi(t));
            let v_hat = v / (1.0 - beta_2.powi(t));
            expected -= lr * (weight_decay * expected + m_hat / (v_hat.sqrt() + epsilon));
            for value in values(&param) {
                assert!((f64::from(value) - expected).abs() < 1e-6, "step {t}");
            }
        }
        let state = state.unwrap();
        assert_eq!(state.moment_1.dtype(), DType::F32);
        assert!(state.compensation.is_none(), "F32 needs none");
    }
}

#[test]
fn compensation_saves_what_rounding_would_lose() {
    let after = |adam: KahanAdam| {
        let (mut param, mut state) = (filled(1.0, DType::BF16), None);
        for _ in 0..1000 {
            (param, state) = adam.step(1e-4, param, filled(1.0, DType::BF16), state);
        }
        values(&param)[0]
    };
    let without = KahanAdam { kahan: false, ..KahanAdam::adam() };
    assert_eq!(after(without), 1.0, "1e-4 is far below the spacing of 2^-8");
    assert!((after(KahanAdam::adam()) - 0.9).abs() < 0.01);
}

#[test]
fn a_recorded_state_goes_on_as_the_original() {
    let adam = KahanAdam::adamw();
    for dtype in [DType::BF16, DType::F32] {
        let (param, state) = adam.step(1e-3, filled(0.3, dtype), filled(0.7, dtype), None);
        let state = state.unwrap();

        let mut sink = StateSink::default();
        state.state_flatten("p", &mut sink);
        let mut source = StateSource::new(sink.scalars.into_iter().collect::<BTreeMap<_, _>>());
        for (name, data) in sink.tensors {
            source.insert_tensor(name, data);
        }
        let device = Device::flex();
        let restored = KahanAdamState::<1>::state_unflatten("p", &mut source, &device).unwrap();
        assert_eq!(restored.compensation.is_some(), dtype == DType::BF16);
        assert_eq!(restored.moment_2.dtype(), dtype);

        let grad = || filled(-0.2, dtype);
        let (original, _) = adam.step(1e-3, param.clone(), grad(), Some(state));
        let (resumed, _) = adam.step(1e-3, param, grad(), Some(restored));
        assert_eq!(values(&original), values(&resumed));

        let again = KahanAdamState::<1>::state_unflatten("p", &mut source, &device);
        assert!(again.is_none(), "the tensors were taken");
    }
}

#[test]
fn a_group_of_its_own_does_not_decay() {
    let device = Device::flex().autodiff();
    let linear = LinearConfig::new(2, 2).init(&device);
    let bias_id = linear.bias.as_ref().unwrap().id;
    let (weight, bias) = (linear.weight.val(), linear.bias.as_ref().unwrap().val());
    let mut optimizer = ModuleOptimizer::from(KahanAdam::adamw()).with_group(
        ParamGroup::from_ids(vec![bias_id]),
        KahanAdam::adam(),
        None,
    );

    // A gradient of 0 everywhere leaves decay alone to act.
    let loss = linear.forward(Tensor::<2>::ones([1, 2], &device)).sum() * 0.0;
    let grads = GradientsParams::from_grads(loss.backward(), &linear);
    let linear = optimizer.step(0.5, linear, grads);

    let decayed = (weight * (1.0 - 0.5 * 0.01)).into_data();
    linear.weight.val().into_data().assert_eq(&decayed, true);
    let unchanged = bias.into_data();
    linear.bias.unwrap().val().into_data().assert_eq(&unchanged, true);
}

#[test]
fn all_at_once_is_one_after_the_other_to_the_bit() {
    use burn::module::{Module, ModuleVisitor, Param};

    /// As many parameters as make a batch and some more, of one and of two dimensions.
    #[derive(Module, Debug)]
    struct Layers {
        layers: Vec<burn::nn::Linear>,
        unused: burn::nn::Linear,
    }

    struct Values(Vec<f32>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().convert::<f32>().iter::<f32>());
        }
    }
    let values = |layers: &Layers| {
        let mut values = Values(Vec::new());
        layers.visit(&mut values);
        values.0
    };

    let device = Device::flex().autodiff();
    device.seed(5);
    let linear = |size| LinearConfig::new(size, size).init(&device);
    let layers = Layers { layers: (0..7).map(|_| linear(6)).collect(), unused: linear(3) };
    let gradients = |model: &Layers, step: usize| {
        let x = Tensor::<2>::ones([4, 6], &device) * (step as f64 + 0.5);
        let y = model.layers.iter().fold(x, |x, layer| layer.forward(x).tanh());
        GradientsParams::from_grads(y.powi_scalar(2).mean().backward(), model)
    };
    let plain = KahanAdam { weight_decay: 0.0, ..KahanAdam::adamw() };
    let biases = || ParamGroup::from_any_predicates(vec!["bias"]);
    let mut one_by_one = ModuleOptimizer::from(KahanAdam::adamw()).with_group(biases(), plain.clone(), None);
    let mut together = ModuleAdam::new(KahanAdam::adamw()).with_group(biases(), plain);
    let before = values(&layers);
    let (mut a, mut b) = (layers.clone(), layers);
    for step in 0..4 {
        let (by_a, by_b) = (gradients(&a, step), gradients(&b, step));
        a = one_by_one.step(0.01, a, by_a);
        b = together.step(0.01, b, by_b);
        assert_eq!(values(&a), values(&b), "step {step}");
    }
    let after = values(&b);
    let unused = 3 * 3 + 3;
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(changed, before.len() - unused);
    // It learns on.
    let gradients = gradients(&b, 4);
    assert!(b.layers[0].weight.is_require_grad() && gradients.get::<2>(b.layers[0].weight.id).is_some());
}
