//! How a classifier's description is written to `model.json`: under the names that users know, and without what depends
//! on the device (the size of buffers and chunks).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::classifier::{ClassifierConfig, Format, Initializer};

#[derive(Serialize, Deserialize)]
struct Saved {
    labels: usize,
    dim: usize,
    precision: Format,
    operands: Format,
    compensated: Option<Compensated>,
    initializer: Initializer,
    weight_decay: f64,
    seed: u64,
}

/// The first labels, which keep a compensation.
#[derive(Serialize, Deserialize)]
struct Compensated {
    labels: usize,
    precision: Format,
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
        return Err(D::Error::custom(message));
    }
    let formats = [
        ("precision", Some(saved.precision), &Format::WEIGHTS[..]),
        ("operands", Some(saved.operands), &Format::WEIGHTS),
        ("compensated.precision", saved.compensated.as_ref().map(|first| first.precision), &Format::COMPENSATIONS),
    ];
    for (field, format, possible) in formats {
        if let Some(format) = format.filter(|format| !possible.contains(format)) {
            return Err(D::Error::custom(format_args!("`{field}` cannot be {format}")));
        }
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
