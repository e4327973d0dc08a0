//! How a classifier's description is written to `model.json`: under the names that users know, and without what depends
//! on the device (the size of buffers and chunks).

use elmo_kernels::{Compensation, Initializer, Operands, Precision};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::classifier::ClassifierConfig;

#[derive(Serialize, Deserialize)]
struct Saved {
    labels: usize,
    dim: usize,
    #[serde(with = "PrecisionName")]
    precision: Precision,
    #[serde(with = "OperandsName")]
    operands: Operands,
    compensated: Option<Compensated>,
    #[serde(with = "InitializerName")]
    initializer: Initializer,
    weight_decay: f64,
    seed: u64,
}

/// The first labels, which keep a compensation.
#[derive(Serialize, Deserialize)]
struct Compensated {
    labels: usize,
    #[serde(with = "CompensationName")]
    precision: Compensation,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Precision", rename_all = "lowercase")]
enum PrecisionName {
    E4m3,
    Bf16,
    F32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Operands", rename_all = "lowercase")]
enum OperandsName {
    E4m3,
    Bf16,
    F32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Compensation", rename_all = "lowercase")]
enum CompensationName {
    Bf16,
    E5m2,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Initializer", rename_all = "lowercase")]
enum InitializerName {
    Normal { standard_deviation: f32 },
    Uniform { bound: f32 },
}

pub(super) fn serialize<S: Serializer>(config: &ClassifierConfig, serializer: S) -> Result<S::Ok, S::Error> {
    Saved {
        labels: config.labels,
        dim: config.dim,
        precision: config.precision,
        operands: config.operands,
        compensated: (config.head).map(|(labels, precision)| Compensated { labels, precision }),
        initializer: config.initializer,
        weight_decay: config.weight_decay,
        seed: config.seed,
    }
    .serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClassifierConfig, D::Error> {
    let saved = Saved::deserialize(deserializer)?;
    // Labels are numbered by 32 bits with a sign; the width is that of an encoder.
    if !(1..=i32::MAX as usize).contains(&saved.labels) || !(1..=1 << 24).contains(&saved.dim) {
        let message = format!("no classifier has {} labels and {} features", saved.labels, saved.dim);
        return Err(serde::de::Error::custom(message));
    }
    let config = ClassifierConfig::new(saved.labels, saved.dim);
    Ok(ClassifierConfig {
        precision: saved.precision,
        operands: saved.operands,
        head: saved.compensated.map(|first| (first.labels, first.precision)),
        initializer: saved.initializer,
        weight_decay: saved.weight_decay,
        seed: saved.seed,
        ..config
    })
}
