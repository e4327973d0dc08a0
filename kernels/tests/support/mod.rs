//! Cases that all tests of the kernels share, and the rule for low precision.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use elmo_kernels::{
    Format, Head, Initializer, KernelPath, Positives, Segment, Step, cpu, initial_words, random, reference, stored,
};

/// Labels, features, batch: nothing that a tile divides, and less than a tile.
pub const SHAPES: [(usize, usize, usize); 8] = [
    (252, 123, 7),
    (507, 48, 33),
    (123, 252, 64),
    (1, 1, 1),
    (40, 17, 1),
    (5, 768, 130),
    (391, 136, 200),
    (203, 290, 300),
];

/// One segment, one batch, and what is to be done.
#[derive(Clone)]
pub struct Case {
    pub segment: Segment,
    pub step: Step,
    pub words: Vec<u32>,
    pub compensation: Vec<u32>,
    pub x: Vec<f32>,
    pub positives: Positives,
}

/// What a step changes and reports.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub loss: f64,
    pub non_finite: u64,
    pub words: Vec<u32>,
    pub compensation: Vec<u32>,
    pub gradient: Vec<f32>,
}

/// Random numbers in [-1, 1) that depend on `at` alone.
pub fn noise(at: usize) -> f32 {
    random::hash(at as u32 ^ 0x5eed) as f32 / 2_147_483_648.0 - 1.0
}

/// A case with random weights, features and positives.
pub fn case(
    precision: Format,
    operands: Format,
    (labels, dim, batch): (usize, usize, usize),
    head: Option<Head>,
) -> Case {
    let segment = Segment { first_label: 1000, labels, dim, precision, head };
    let pair = |i: usize| {
        let label = 1000 + (i * 7919) % labels;
        (label as u32, ((i * 31) % batch) as u32)
    };
    Case {
        step: Step {
            operands,
            chunk: Some(100),
            weight_bytes: 4 * segment.words() as u64,
            learning_rate: 0.05,
            weight_decay: 0.01,
            rounding_key: Step::rounding_key(1, 9),
            loss: true,
            kernels: KernelPath::default(),
        },
        words: initial_words(&segment, Initializer::Uniform { bound: 0.2 }, 4),
        compensation: vec![0; segment.compensation_words()],
        x: (0..batch * dim).map(noise).collect(),
        positives: Positives::new((0..batch * 2).map(pair).collect()),
        segment,
    }
}

impl Case {
    /// The step on the CPU.
    pub fn on_cpu(&self) -> Outcome {
        let (mut words, mut compensation) = (self.words.clone(), self.compensation.clone());
        let mut gradient = vec![0.0; self.x.len()];
        let report = cpu::step(
            &self.segment,
            &self.step,
            &mut words,
            &mut compensation,
            &self.x,
            &self.positives,
            &mut gradient,
        );
        Outcome { loss: report.loss, non_finite: report.non_finite, words, compensation, gradient }
    }

    /// The step in F64; see [`reference::step_with`].
    pub fn exact(&self, multiplied: Format) -> reference::Outcome {
        reference::step_with(
            multiplied,
            &self.segment,
            &self.step,
            &self.words,
            &self.compensation,
            &self.x,
            &self.positives,
        )
    }

    /// The weights that `before_rounding` become when they are stored.
    pub fn stored(&self, before_rounding: impl IntoIterator<Item = f32>) -> Vec<f32> {
        let Segment { first_label, dim, precision, .. } = self.segment;
        (before_rounding.into_iter().enumerate())
            .map(|(i, value)| {
                let label = first_label + (i / dim) as u64;
                stored(precision, value, self.step.rounding_key, label, i % dim)
            })
            .collect()
    }
}

/// A step computed plainly in F32: every sum term by term, one rounding after each operation.
pub struct Plain {
    pub loss: f64,
    /// `[batch, dim]`
    pub input_gradient: Vec<f32>,
    /// `[labels, dim]`
    pub before_rounding: Vec<f32>,
}

/// The plain computation in the precision of a device that rounds the operands of the products with the gradient to
/// `multiplied`; F32 leaves them as they are.
pub fn plain(case: &Case, multiplied: Format) -> Plain {
    let Segment { labels, dim, .. } = case.segment;
    let batch = case.x.len() / dim;
    let weights = case.segment.decode(&case.words);
    let compensation = case.segment.decode_compensation(&case.compensation);
    let pairs = case.positives.in_labels(case.segment.first_label, labels);
    let scale = if multiplied == Format::F16 { 32_768.0 } else { 1.0 };
    let x: Vec<f32> = case.x.iter().map(|x| case.step.operands.round(*x)).collect();
    let rounded_x: Vec<f32> = case.x.iter().map(|x| multiplied.round(*x)).collect();

    let mut loss = 0.0;
    let mut input_gradient = vec![0.0f32; batch * dim];
    let mut weight_gradient = vec![0.0f32; labels * dim];
    for l in 0..labels {
        let w = &weights[l * dim..][..dim];
        for b in 0..batch {
            let z = w.iter().zip(&x[b * dim..]).fold(0.0f32, |sum, (w, x)| sum + w * x);
            let label = (case.segment.first_label + l as u64) as u32;
            let y = f32::from(pairs.binary_search(&(label, b as u32)).is_ok());
            let exact = f64::from(z);
            loss += exact.max(0.0) - exact * f64::from(y) + (-exact.abs()).exp().ln_1p();
            let g = multiplied.round((1.0 / (1.0 + (-z).exp()) - y) * scale) / scale;
            for d in 0..dim {
                input_gradient[b * dim + d] += g * w[d];
                weight_gradient[l * dim + d] += g * rounded_x[b * dim + d];
            }
        }
    }
    let before_rounding = (0..labels * dim)
        .map(|i| {
            let c = compensation.get(i).copied().unwrap_or(0.0);
            let gradient = weight_gradient[i] + case.step.weight_decay * weights[i];
            weights[i] + c - case.step.learning_rate * gradient
        })
        .collect();
    Plain { loss, input_gradient, before_rounding }
}

/// The distance between a value and its neighbours in the format.
pub fn gap(format: Format, value: f32) -> f32 {
    match format {
        Format::E4m3 => (value.abs() / 8.0).max(1.0 / 512.0),
        Format::Bf16 => value.abs() / 128.0 + 1e-6,
        _ => value.abs() / 8_388_608.0 + 1e-6,
    }
}

/// The largest distance between two lists of numbers.
pub fn furthest(found: impl IntoIterator<Item = f32>, exact: &[f64]) -> f64 {
    (found.into_iter().zip(exact)).fold(0.0, |most, (found, exact)| most.max((f64::from(found) - exact).abs()))
}

/// The rule for low precision: against F64 the error is at most that of a plain computation in the same precision, plus
/// a tolerance: `factor` times the plain error, and some units in the last place of F32 of the largest number.
pub fn assert_as_good_as_plain(name: &str, found: f64, plain: f64, largest: f64, factor: f64) {
    let tolerance = (factor - 1.0) * plain + 8.0 * largest / 8_388_608.0;
    assert!(found <= plain + tolerance, "{name}: error {found:e}, plainly computed {plain:e}, of {largest:e}");
}

/// How near stored weights must be to the exact ones.
pub struct WeightRule<'a> {
    pub exact: &'a reference::Outcome,
    pub plain: &'a Plain,
    /// The share of all weights by which found neighbours may be more than twice those of a plain computation.
    pub share: f64,
    /// How far a value may be off before it is rounded.
    pub room: f32,
}

/// The same rule for stored weights. Both found and plain ones are what values near the exact ones were rounded to:
/// each is that of the exact value or a neighbour, and not many more of them are neighbours than a plain computation
/// makes.
pub fn assert_weights_as_good_as_plain(name: &str, case: &Case, found: &[f32], rule: WeightRule) {
    let WeightRule { share, room, .. } = rule;
    let exact = &rule.exact.before_rounding;
    let expected = case.stored(exact.iter().map(|value| *value as f32));
    let plainly = case.stored(rule.plain.before_rounding.iter().copied());
    let format = case.segment.precision;
    let others = |weights: &[f32]| {
        let mut count = 0;
        for (weight, expected) in weights.iter().zip(&expected) {
            let room = 1.02 * gap(format, expected.abs().max(weight.abs())) + 1e-5 + room;
            assert!((weight - expected).abs() <= room, "{name}: W {weight}, exactly {expected}");
            count += usize::from(weight != expected);
        }
        count
    };
    if format != Format::F32 {
        let (found, plain) = (others(found), others(&plainly));
        let allowed = 2 * plain + 2 + (share * expected.len() as f64) as usize;
        assert!(found <= allowed, "{name}: {found} of {} weights, plainly computed {plain}", expected.len());
        return;
    }
    let (found, plain) = (furthest(found.iter().copied(), exact), furthest(plainly, exact));
    let largest = exact.iter().fold(0.0f64, |most, w| most.max(w.abs()));
    assert_as_good_as_plain(name, found, plain, largest, 4.0);
}
