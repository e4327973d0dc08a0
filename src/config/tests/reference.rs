//! What the reference's eight configurations and its command lines say, and what they are here.

use super::*;

/// The data sets, in the order of [`DIFFERENT`].
const NAMES: [&str; 8] = [
    "amazon3m",
    "amazon670k",
    "amazontitles670k",
    "lfamazontitles1.3m",
    "lfamazontitles131k",
    "lfpaper2keywords",
    "lfwikiseealso320k",
    "wiki500k",
];

/// What every one of them has.
const SAME: [(&str, &str); 16] = [
    ("model.encoder.pool_mode", "last_hidden_avg"),
    ("model.encoder.feature_layers", "1"),
    ("model.encoder.dtype", "bfloat16"),
    ("model.bottleneck.use_bottleneck_layer", "False"),
    ("model.bottleneck.bottleneck_size", "64"),
    ("model.xmc.dtype", "bfloat16"),
    ("training.seed", "42"),
    ("training.loss_fn", "bce"),
    ("training.encoder.optimizer", "adam"),
    ("training.encoder.lr_scheduler", "CosineScheduleWithWarmup"),
    ("training.encoder.grad_accum_step", "1"),
    ("training.xmc.optimizer", "sgd"),
    ("training.xmc.lr_scheduler", "CosineScheduleWithWarmup"),
    ("training.xmc.simulated_fp8", "False"),
    ("training.FP8.use_fp8_encoder", "False"),
    ("training.FP8.head_ratio", "0.2"),
];

/// What each of them has.
// One line a key, as a table is read.
#[rustfmt::skip]
const DIFFERENT: [(&str, [&str; 8]); 20] = [
    ("data.dataset", ["amazon3m", "amazon670k", "amazontitles670k", "lfamazontitles1.3m", "lfamazontitles131k", "lfpaper2keywords", "lfwikiseealso320k", "wiki500k"]),
    ("data.augment_label_data", ["False", "False", "False", "True", "True", "True", "True", "False"]),
    ("data.use_filter_eval", ["False", "False", "False", "True", "True", "False", "True", "False"]),
    ("data.num_labels", ["2812281", "670091", "670091", "1305265", "131073", "8623847", "312330", "501070"]),
    ("data.max_len", ["128", "128", "32", "32", "32", "128", "128", "256"]),
    ("data.batch_size", ["128", "64", "256", "512", "512", "128", "128", "128"]),
    ("data.test_batch_size", ["128", "64", "256", "512", "512", "128", "128", "128"]),
    ("data.label_sort", ["False", "False", "False", "True", "True", "False", "False", "False"]),
    ("model.encoder.encoder_model", [BERT, BERT, BERT, MSMARCO, MSMARCO, PARAPHRASE, PARAPHRASE, BERT]),
    ("model.encoder.embed_dropout", ["0.65", "0.75", "0.7", "0.7", "0.85", "0.75", "0.75", "0.65"]),
    ("model.encoder.use_ngame_encoder_weights", ["False", "False", "False", "True", "False", "False", "False", "False"]),
    ("model.xmc.implementation", ["chunked", "chunked", "fp8chunked", "chunked", "chunked", "fp8chunked", "chunked", "chunked"]),
    ("training.epochs", ["60", "55", "101", "101", "101", "101", "101", "35"]),
    ("training.encoder.lr", ["5e-05", "1e-05", "5e-05", "5e-06", "1e-05", "1e-05", "1e-05", "2e-05"]),
    ("training.encoder.wd", ["0.001", "0.01", "0.01", "0.01", "0.01", "0.01", "0.01", "0.01"]),
    ("training.encoder.warmup_steps", ["10000", "1000", "1000", "15000", "5000", "5000", "5000", "1000"]),
    ("training.xmc.lr", ["0.05", "0.01", "0.05", "0.05", "0.05", "0.05", "0.02", "0.05"]),
    ("training.xmc.warmup_steps", ["10000", "1000", "1000", "15000", "5000", "5000", "5000", "1000"]),
    ("training.evaluation.A", ["0.6", "0.6", "0.6", "0.6", "0.6", "0.5", "0.5", "0.5"]),
    ("training.evaluation.B", ["2.6", "2.6", "2.6", "2.6", "2.6", "0.4", "0.4", "0.4"]),
];

const BERT: &str = "bert-base-uncased";
const MSMARCO: &str = "sentence-transformers/msmarco-distilbert-base-v4";
const PARAPHRASE: &str = "sentence-transformers/paraphrase-distilroberta-base-v2";

/// The value of a key, as text.
fn value(config: &Config, key: &str) -> String {
    let tree: toml::Value = toml::from_str(&config.to_toml()).unwrap();
    let found = key.split('.').fold(&tree["dataset"], |tree, part| &tree[part]);
    match found {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Python writes `False` and `5e-05`.
fn same(ours: &str, theirs: &str) -> bool {
    match (ours.parse::<f64>(), theirs.parse::<f64>()) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        _ => ours.eq_ignore_ascii_case(theirs),
    }
}

#[test]
fn presets_have_the_values_of_the_reference() {
    for (column, name) in NAMES.into_iter().enumerate() {
        let config = load(&format!("dataset={name}")).unwrap();
        let different = DIFFERENT.iter().map(|(key, values)| (*key, values[column]));
        for (key, theirs) in SAME.into_iter().chain(different) {
            let ours = value(&config, key);
            assert!(same(&ours, theirs), "{name}: {key}: {ours}, the reference has {theirs}");
        }
        // The reference has 1e-3 or 1e-4 and does not apply it.
        assert_eq!(config.dataset.training.xmc.wd, 0.0, "{name}");
    }
}

#[test]
fn the_command_lines_of_the_reference_work() {
    let bf16 = load(
        "dataset=amazontitles670k log_fname=log_bf16_at670k dataset_path=Datasets \
         dataset.model.xmc.implementation=chunked",
    )
    .unwrap();
    assert_eq!(bf16.dataset.model.xmc.implementation, Implementation::Chunked);
    assert_eq!(bf16.log_fname.as_deref(), Some("log_bf16_at670k"));
    assert_eq!(bf16.data_dir(), Path::new("Datasets/AmazonTitles-670K"));

    let (fp8_encoder, warnings) = Config::load(
        None,
        &arguments(
            "dataset=amazontitles670k log_fname=log_fp8_at670k dataset_path=Datasets \
             dataset.model.xmc.implementation=fp8chunked dataset.training.FP8.use_fp8_encoder=True",
        ),
    )
    .unwrap();
    assert_eq!(fp8_encoder.dataset.model.encoder.dtype, elmo_kernels::Format::Bf16);
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("`dataset.training.FP8.use_fp8_encoder` has no effect"), "{warning}");
    assert!(warning.contains("one in FP8 is not available"), "{warning}");

    let simulated = load(
        "dataset=amazontitles670k log_fname=log_sfp8_at670k dataset_path=Datasets \
         dataset.model.xmc.implementation=fp8chunked dataset.training.FP8.use_fp8_encoder=False \
         dataset.training.xmc.simulated_fp8=True",
    )
    .unwrap();
    assert_eq!(simulated.dataset.model.xmc.implementation, Implementation::Fp8Chunked);
    assert!(simulated.dataset.training.xmc.simulated_fp8);

    let fp8 = load(
        "dataset=amazontitles670k log_fname=log_fp8_fp8enc_at670k dataset_path=Datasets \
         dataset.model.xmc.implementation=fp8chunked dataset.training.FP8.use_fp8_encoder=False",
    )
    .unwrap();
    assert!(!fp8.dataset.training.xmc.simulated_fp8);
}

#[test]
fn the_readme_lists_every_key_without_effect() {
    let readme = include_str!("../../../config/README.md");
    for name in ignored::names() {
        let short = name.strip_prefix("dataset.").unwrap();
        assert!(readme.contains(&format!("`{short}`")), "{name}");
    }
}

#[test]
fn a_setting_of_a_part_that_is_not_there_warns() {
    let ngame = "dataset.model.encoder.ngame_checkpoint=a.pt";
    let size = "dataset.model.bottleneck.bottleneck_size=32";
    for (line, part) in [
        (ngame, "`dataset.model.encoder.ngame_checkpoint` has no effect: use_ngame_encoder_weights is false"),
        (size, "`dataset.model.bottleneck.bottleneck_size` has no effect: use_bottleneck_layer is false"),
    ] {
        let said = warnings(line);
        assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
    }
    let set = "dataset.model.bottleneck.use_bottleneck_layer=True dataset=wiki500k \
               dataset.model.encoder.use_ngame_encoder_weights=True";
    assert!(warnings(&format!("{set} {ngame} {size}")).is_empty());
}
