//! The layer on the CPU against the operations in F64.

use super::{
    super::{
        problem::{Activation, Activations, Dropout, LayerCall},
        reference,
        texts::PackedTexts,
    },
    Texts,
    layer::{Affine, Layer, Norm, Weights},
};
use crate::{
    gemm::InstructionSet,
    path::KernelPath,
    random::{pair_bits, row_key},
};

fn values(count: usize, seed: u32, size: f32) -> Vec<f32> {
    (0..count).map(|at| (pair_bits(row_key(seed, 1), at as u32) as f32 / u32::MAX as f32 - 0.5) * 2.0 * size).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn assert_close(what: &str, ours: &[f32], truth: &[f64]) {
    assert_eq!(ours.len(), truth.len(), "{what}");
    let largest = truth.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (at, (ours, truth)) in ours.iter().zip(truth).enumerate() {
        let error = (f64::from(*ours) - truth).abs();
        assert!(error <= 2e-5 * largest + 1e-6, "{what}, {at}: {ours}, {truth}, of at most {largest}");
    }
}

fn from_array(weights: [Vec<f32>; 16]) -> Weights<'static> {
    let [qw, qb, kw, kb, vw, vb, ow, ob, ag, ab, uw, ub, dw, db, ng, nb] = weights;
    let affine = |weight: Vec<f32>, bias: Vec<f32>| Affine { weight: weight.into(), bias: bias.into() };
    Weights {
        query: affine(qw, qb),
        key: affine(kw, kb),
        value: affine(vw, vb),
        output: affine(ow, ob),
        attention_norm: Norm { gamma: ag.into(), beta: ab.into() },
        up: affine(uw, ub),
        down: affine(dw, db),
        norm: Norm { gamma: ng.into(), beta: nb.into() },
    }
}

/// With the number of threads: the result, without anything kept, and all gradients.
fn run(threads: usize, layer: &Layer, gradient: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<Vec<f32>>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    pool.install(|| {
        let (y, kept) = layer.forward();
        let call = LayerCall { keep: false, ..*layer.call };
        let (alone, nothing) = Layer { call: &call, ..*layer }.forward();
        assert_eq!(nothing.len(), 1);
        let (x, weights) = layer.backward(gradient, &kept);
        (y, alone, [x].into_iter().chain(weights.into_array().map(|values| values.into_owned())).collect())
    })
}

#[test]
fn a_layer_and_its_gradients_are_the_references() {
    let packed = PackedTexts::new(&[vec![1; 17], vec![], vec![1], vec![1; 130]]);
    let (layout, texts) = (packed.layout, Texts::new(packed.words.clone(), &packed.layout));
    let activations = [Activation::Gelu, Activation::GeluTanh, Activation::Relu];
    for ((dim, heads, wider), activation) in [(8, 2, 12), (48, 3, 100), (123, 3, 77)].into_iter().zip(activations) {
        for probability in [0.0, 0.2] {
            let site = |site| Dropout::new(5, site, probability);
            let call = LayerCall {
                texts: layout,
                dim,
                heads,
                wide: wider,
                activation,
                epsilon: 1e-5,
                probabilities: site(0),
                attention: site(1),
                feed_forward: site(2),
                keep: true,
                activations: Activations::Balanced,
                kernels: KernelPath::default(),
            };
            let square = dim * dim;
            let sizes = [
                square,
                dim,
                square,
                dim,
                square,
                dim,
                square,
                dim,
                dim,
                dim,
                dim * wider,
                wider,
                wider * dim,
                dim,
                dim,
                dim,
            ];
            let weights = std::array::from_fn(|at| values(sizes[at], 10 + at as u32, 0.3));
            let truth: reference::Layer = weights.each_ref().map(|weight| wide(weight));
            let weights = from_array(weights);
            let x = values(layout.rows() * dim, 1, 1.0);
            let gradient = values(layout.rows() * dim, 2, 1.0);
            let layer = Layer { x: &x, weights: &weights, texts: &texts, call: &call, set: InstructionSet::detect() };

            let (y, alone, gradients) = run(1, &layer, &gradient);
            assert!(run(4, &layer, &gradient) == (y.clone(), alone.clone(), gradients.clone()), "threads");
            assert_eq!(y, alone, "without anything kept");
            assert_close("y", &y, &reference::layer(&wide(&x), &truth, &packed, &call));
            let (d_x, d_weights) = reference::layer_backward(&wide(&gradient), &wide(&x), &truth, &packed, &call);
            for (at, (ours, truth)) in gradients.iter().zip([d_x].iter().chain(&d_weights)).enumerate() {
                assert_close(&format!("{dim} {activation:?} {probability}: gradient {at}"), ours, truth);
            }
        }
    }
}
