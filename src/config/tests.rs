use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

mod reference;

fn arguments(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn load(line: &str) -> Result<Config> {
    Ok(Config::load(None, &arguments(line))?.0)
}

/// The warnings about these arguments.
fn warnings(line: &str) -> Vec<String> {
    Config::load(None, &arguments(line)).unwrap().1
}

fn load_file(text: &str, line: &str) -> Result<Config> {
    Ok(load_file_with_warnings(text, line)?.0)
}

/// Loads a file named `my.toml`, and with it these arguments.
fn load_file_with_warnings(text: &str, line: &str) -> Result<(Config, Vec<String>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), &arguments(line))
}

/// The message of a failure, without the folder of `my.toml`.
fn message(result: Result<Config>) -> String {
    let error = result.expect_err("it must be refused");
    assert!(error.is_usage());
    let message = error.to_string();
    match message.find("my.toml") {
        Some(start) => message[start..].to_owned(),
        None => message,
    }
}

#[test]
fn later_layers_win() {
    let default = load("").unwrap();
    assert_eq!(default.dataset.data.dataset, "things");
    assert_eq!(default.data_dir(), Path::new("datasets/things"));
    assert!(warnings("").is_empty());

    let preset = load("dataset=wordnet-lf").unwrap();
    assert_eq!(preset.dataset.training.epochs, 12);

    let file = "[dataset.data]\ndataset = 'wordnet-lf'\n[dataset.training]\nepochs = 5\nseed = 1";
    let config = load_file(file, "dataset.training.epochs=4 dataset.training.epochs=3").unwrap();
    assert_eq!(config.dataset.training.epochs, 3);
    assert_eq!(config.dataset.training.seed, 1);
    assert_eq!(config.dataset.training.encoder.lr, 1e-4);
    assert_eq!(config.dataset.training.xmc.momentum, 0.0);
}

#[test]
fn the_command_line_may_choose_another_data_set_than_the_file() {
    let file = "[dataset.data]\ndataset = 'wordnet-lf'\nmax_len = 48";
    let config = load_file(file, "dataset=food").unwrap();
    assert_eq!(config.dataset.data.dataset, "food");
    assert_eq!(config.dataset.data.max_len, 48);
    assert_eq!(config.dataset.training.epochs, load("dataset=food").unwrap().dataset.training.epochs);
}

#[test]
fn a_data_set_of_ones_own_is_known_by_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("mine/deep")).unwrap();
    let root = folder.path().display();
    let file = "[dataset.data]\ndataset = 'mine'";
    let config = load_file(file, &format!("dataset_path={root}")).unwrap();
    assert_eq!(config.data_dir(), folder.path().join("mine"));
    for name in ["dataset=mine", "dataset.data.dataset=mine"] {
        assert_eq!(load(&format!("{name} dataset_path={root}")).unwrap(), config);
        let in_file = format!("dataset_path = '{root}'");
        assert_eq!(load_file(&in_file, name).unwrap(), config);
    }
    let deep = load(&format!("dataset=other dataset_path={root} dataset.data.folder=mine/deep")).unwrap();
    assert_eq!(deep.data_dir(), folder.path().join("mine/deep"));
    // The file's own data set may not be there yet.
    assert!(load_file("[dataset.data]\ndataset = 'none-such'", "dataset=none-such").is_ok());

    for typed in ["dataset", "dataset.data.dataset"] {
        let refused = message(load(&format!("{typed}=mime dataset_path={root}")));
        assert!(refused.starts_with(&format!("command line: `{typed}`: expected one of things, ")), "{refused}");
        assert!(refused.contains("did you mean `mine`?"), "{refused}");
        let refused = message(load(&format!("{typed}=a/b dataset_path={root}")));
        assert!(refused.starts_with(&format!("command line: `{typed}`: expected a name")), "{refused}");
    }
}

#[test]
fn an_unknown_data_set_is_refused_with_the_nearest() {
    for line in ["dataset=fod", "dataset.data.dataset=fod"] {
        let refused = message(load(line));
        assert!(refused.contains("did you mean `food`?"), "{refused}");
        assert!(refused.contains("wiki500k"), "{refused}");
    }
}

#[test]
fn values_are_read_as_the_type_of_their_key() {
    let config = load(
        "log_fname=123 dataset.data.label_sort=True dataset.data.use_filter_eval=false dataset.model.xmc.num_chunks=4 \
         dataset.training.encoder.lr=5e-5 dataset.training.xmc.lr=1 dataset.model.xmc.dtype=float32",
    )
    .unwrap();
    assert_eq!(config.log_fname.as_deref(), Some("123"));
    assert!(config.dataset.data.label_sort);
    assert!(!config.dataset.data.use_filter_eval);
    assert_eq!(config.dataset.model.xmc.num_chunks, Some(4));
    assert_eq!(config.dataset.model.xmc.dtype, elmo_kernels::Format::F32);
    assert_eq!(config.dataset.training.encoder.lr, 5e-5);
    assert_eq!(config.dataset.training.xmc.lr, 1.0);

    let config = load("dataset=wiki500k dataset.model.xmc.num_chunks=None log_fname=none").unwrap();
    assert_eq!(config.dataset.model.xmc.num_chunks, None);
    assert_eq!(config.log_fname, None);
}

#[test]
fn wrong_types_say_what_was_expected_and_found() {
    assert_eq!(
        message(load_file("\n[dataset.training]\nepochs = 'many'", "")),
        "my.toml:3: `dataset.training.epochs`: expected a whole number from 1 to 1000000, found \"many\""
    );
    for (line, expected) in [
        ("dataset.data.label_sort=yes", "expected true or false, found yes"),
        ("dataset.training.encoder.lr=fast", "expected a finite number, 0 or more, found fast"),
        ("dataset.model.xmc.num_chunks=", "expected a whole number from 1 to 2147483647, or none, found nothing"),
        ("dataset.model.xmc.implementation=full", "expected one of `chunked`, `fp8chunked`, `fp8chunkedheadkahan`"),
        ("dataset.training.encoder.optimizer=Adam", "did you mean `adam`?"),
        ("dataset.model.encoder.dtype=float16", "float16 is not available"),
        ("dataset.training.xmc.lr_scheduler=multistep", "`MultiStepLR`, `ReduceLROnPlateau`"),
        ("dataset.training.evaluation.ks=1,x", "expected whole numbers from 1 to 65535, found 1,x"),
        ("dataset.training.xmc.milestones=half", "milestones=0.5,0.75"),
        ("dataset.training=3", "expected a section, found 3"),
        ("train", "expected key=value, found no `=`"),
        ("--seed", "expected key=value, found a flag"),
        ("device=cpu", "--device cpu"),
        ("config=my.cfg", "--config my.cfg"),
    ] {
        let refused = message(load(line));
        assert!(refused.contains(expected), "{refused}");
    }
    let refused = message(load_file("dataset = 'food'", ""));
    assert!(refused.starts_with("my.toml:1: `dataset`: expected a section"), "{refused}");
}

#[test]
fn unknown_keys_name_the_nearest() {
    for (typed, meant) in [
        ("dataste=food", "`dataset`"),
        ("log_fnam=x", "`log_fname`"),
        ("dataset.trainin.epochs=3", "`dataset.training.epochs`"),
        ("dataset.training.encoder.lrr=3", "`dataset.training.encoder.lr`"),
        ("dataset.training.fp8.use_fp8_encodr=True", "`dataset.training.FP8.use_fp8_encoder`"),
        ("epoch=3", "`dataset.training.epochs`"),
        ("lr=3", "`dataset.training.encoder.lr` or `dataset.training.xmc.lr`"),
    ] {
        let refused = message(load(typed));
        assert!(refused.starts_with("command line: unknown key"), "{refused}");
        assert!(refused.contains(&format!("did you mean {meant}")), "{refused}");
    }
    assert!(message(load("qqqqqqqq=1")).contains("config/default.toml lists every key"));

    let refused = message(load_file("# mine\n\n[dataset.training]\nseed = 2\nepoch = 3\n", ""));
    assert_eq!(
        refused,
        "my.toml:5: unknown key `dataset.training.epoch`\n  help: did you mean `dataset.training.epochs`?"
    );
    assert!(message(load_file("[dataset.trainin]\n", "")).starts_with("my.toml:1: unknown key `dataset.trainin`"));
    assert!(load_file("[dataset.training]\n", "").is_ok());
}

#[test]
fn values_out_of_range_name_where_they_were_set() {
    for line in [
        "log_fname=",
        "log_fname=.",
        "log_fname=..",
        "log_fname=a/b",
        "log_fname=.cache",
        "log_fname=.Cache",
        r"log_fname=a\b",
        "dataset.training.epochs=0",
        "dataset.training.epochs=1000001",
        "dataset.training.encoder.lr=-1",
        "dataset.training.encoder.lr=nan",
        "dataset.training.xmc.wd=inf",
        "dataset.training.xmc.momentum=0.9",
        "dataset.training.encoder.grad_accum_step=0",
        "dataset.training.encoder.momentum=1",
        "dataset.training.encoder.max_grad_norm=-1",
        "dataset.training.encoder.milestones=0.5,1",
        "dataset.training.encoder.gamma=1.1",
        "dataset.training.evaluation.ks=0,1",
        "dataset.training.evaluation.ks=65536",
        "dataset.training.evaluation.train_evaluate_every=0",
        "dataset.training.FP8.head_ratio=1.5",
        "dataset.training.evaluation.A=0",
        "dataset.training.evaluation.B=101",
        "dataset.data.num_labels=2147483648",
        "dataset.data.max_len=4097",
        "dataset.data.batch_size=0",
        "dataset.data.batch_size=65536",
        "dataset.data.test_batch_size=65536",
        "dataset.data.validation_fraction=1",
        "dataset.data.folder=",
        "dataset.model.encoder.embed_dropout=1.0",
        "dataset.model.encoder.pool_mode=cls",
        "dataset.model.encoder.feature_layers=2",
        "dataset.model.encoder.feature_layers=257",
        "dataset.model.encoder.use_ngame_encoder_weights=True",
        "dataset.model.encoder.scratch.vocab_size=99",
        "dataset.model.encoder.scratch.num_hidden_layers=0",
        "dataset.model.encoder.scratch.hidden_size=130",
        "dataset.model.encoder.scratch.intermediate_size=65537",
        "dataset.model.bottleneck.bottleneck_size=0",
        "dataset.model.xmc.num_chunks=0",
        "dataset.model.xmc.chunk_size=16777217",
        "dataset.model.xmc.using_dropout=True",
    ] {
        let key = line.split_once('=').unwrap().0;
        let refused = message(load(line));
        assert!(refused.starts_with(&format!("command line: `{key}`: expected ")), "{refused}");
    }
    let refused = message(load_file("[dataset.data]\nmax_len = 4", ""));
    assert!(refused.starts_with("my.toml:2: `dataset.data.max_len`"), "{refused}");
    for name in ["", ".", "..", "a/b"] {
        let refused = message(load_file(&format!("[dataset.data]\ndataset = '{name}'"), ""));
        assert!(refused.starts_with("my.toml:2: `dataset.data.dataset`: expected a name"), "{refused}");
    }
}

/// A key with a range says it for whatever is not in it, and takes both of its ends.
#[test]
fn every_number_has_one_range() {
    let mut ranges = 0;
    for key in keys::KEYS {
        let words = key.to_string();
        let bounds: Vec<u64> = words.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        let (whole, number) = (words.contains("whole number"), words.contains("number"));
        let mut wrong = vec!["many", "nan", "inf", "-1"];
        let beyond = bounds.get(1).map(|most| (most + 1).to_string());
        let below = bounds.first().filter(|least| **least > 0).map(|least| (least - 1).to_string());
        if whole {
            wrong.extend(["1.5", "1e3", "18446744073709551616"]);
            wrong.extend(beyond.as_deref());
            wrong.extend(below.as_deref());
        }
        if !number {
            continue;
        }
        ranges += 1;
        for value in wrong {
            let refused = message(load(&format!("{}={value}", key.name)));
            let start = format!("command line: `{}`: expected {words}, found {value}", key.name);
            assert!(refused.starts_with(&start), "{refused}");
            let section = key.name.rsplit_once('.').unwrap();
            if value.parse::<i64>().is_ok() {
                let refused = message(load_file(&format!("[{}]\n{} = {value}", section.0, section.1), ""));
                assert!(refused.contains(&format!("expected {words}, found {value}")), "{refused}");
            }
        }
        // The end of a range that is at odds with another key's default says so.
        for end in bounds.iter().filter(|_| whole) {
            if let Err(error) = load(&format!("{}={end}", key.name)) {
                let error = error.to_string();
                let conflicts = ["a multiple of num_attention_heads", "1 with pool_mode = last_hidden_avg"];
                assert!(conflicts.iter().any(|conflict| error.contains(conflict)), "{error}");
            }
        }
    }
    assert!(ranges > 25, "{ranges}");
    let seed = format!("dataset.training.seed={}", i64::MAX);
    assert_eq!(load(&seed).unwrap().dataset.training.seed, i64::MAX as u64);
}

#[test]
fn comments_of_the_default_give_the_ranges_that_are_checked() {
    let mut section = String::new();
    for line in presets::DEFAULT.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.split(']').next().unwrap().to_owned() + ".";
        }
        let (Some((name, _)), Some((_, limit))) = (line.split_once(" ="), line.split_once(", at most ")) else {
            continue;
        };
        let key = keys::Key::named(&format!("{section}{name}")).unwrap();
        let limit: String = limit.chars().take_while(char::is_ascii_digit).collect();
        assert!(key.to_string().contains(&format!("to {limit}")), "{line}: {key}");
    }
}

#[test]
fn the_limit_of_a_text_depends_on_the_encoder() {
    let config = load("dataset.data.max_len=4096").unwrap();
    assert_eq!(config.dataset.data.max_len, 4096);
    let pretrained = "dataset.model.encoder.encoder_model=bert";
    assert!(load(&format!("{pretrained} dataset.data.max_len=512")).is_ok());
    let refused = message(load(&format!("{pretrained} dataset.data.max_len=513")));
    assert!(refused.contains("from 8 to 512, found 513"), "{refused}");
}

#[test]
fn a_conflict_names_the_setting_that_brought_it() {
    assert_eq!(
        message(load("dataset.model.encoder.scratch.num_attention_heads=3")),
        "command line: `dataset.model.encoder.scratch.hidden_size`: expected a multiple of num_attention_heads = 3, \
         found 128\n  help: every attention head takes an equal part of the width"
    );
    let head = "dataset.model.xmc.implementation=fp8chunkedheadkahan";
    let refused = ": `dataset.data.label_sort`: expected true with implementation=fp8chunkedheadkahan, found false\n  \
                   help: the compensation belongs to the most frequent labels, which must come first";
    assert_eq!(message(load(head)), format!("command line{refused}"));
    assert_eq!(message(load_file("[dataset.data]\nlabel_sort = false", head)), format!("my.toml:2{refused}"));
    let sorted = load(&format!("{head} dataset.data.label_sort=True")).unwrap();
    assert!(sorted.dataset.data.label_sort);
    assert!(warnings(&format!("{head} dataset.data.label_sort=True")).is_empty());
}

#[test]
fn every_preset_loads_and_survives_its_run_folder() {
    for name in presets() {
        let line = format!("dataset={name} log_fname=x dataset_path=Datasets");
        let (config, warnings) = Config::load(None, &arguments(&line)).unwrap();
        assert_eq!(config.dataset.data.dataset, name);
        assert!(warnings.is_empty(), "{warnings:?}");
        let text = config.to_toml();
        assert_eq!(Config::from_toml(&text, "config.toml").unwrap(), config);
    }
}

#[test]
fn a_preset_says_its_own_name() {
    for name in presets() {
        let settings = settings::from_toml(presets::preset(name).unwrap(), name).unwrap();
        let said = settings.iter().find(|setting| setting.key == NAME).unwrap();
        assert_eq!(said.text(), Some(name));
    }
}

#[test]
fn the_default_lists_every_key_and_no_ignored_one() {
    let keys = |text: &str| -> BTreeSet<String> {
        let settings = settings::from_toml(text, "").unwrap();
        settings.into_iter().map(|setting| setting.key).collect()
    };
    let listed = keys(presets::DEFAULT);
    assert_eq!(listed, keys(&load("").unwrap().to_toml()));
    assert!(keys::KEYS.iter().all(|key| listed.contains(key.name)));
    assert_eq!(listed.len(), keys::KEYS.len());
    for ignored in ignored::names() {
        assert!(!listed.contains(ignored), "{ignored}");
    }
}

#[test]
fn a_resolved_configuration_is_checked_too() {
    let refused = message(Config::from_toml("[dataset.training]\nepochs = 0", "my.toml"));
    assert!(refused.starts_with("my.toml:2: `dataset.training.epochs`"), "{refused}");
}

#[test]
fn keys_without_effect_warn() {
    let said = warnings("dataset.data.num_workers=8 dataset.training.verbose.wandb_runname=none");
    assert_eq!(said.len(), 2);
    assert!(said[0].starts_with("command line: `dataset.data.num_workers` has no effect: "));

    let file = "[dataset.model.encoder.scratch]\nhidden_size = 64\n";
    let line = "dataset=wiki500k dataset.training.xmc.simulated_fp8=True";
    let said = load_file_with_warnings(file, line).unwrap().1;
    assert_eq!(said.len(), 2);
    let said = said.join("\n");
    assert!(said.contains("my.toml:2: `dataset.model.encoder.scratch.hidden_size`"), "{said}");
    assert!(said.contains("command line: `dataset.training.xmc.simulated_fp8`"), "{said}");

    let said = warnings(
        "dataset.training.encoder.kahan=True dataset.model.encoder.encoder_tokenizer=bert \
         dataset.model.encoder.scratch.vocab_size=500",
    );
    assert_eq!(said.len(), 2);
    let said = said.join("\n");
    assert!(said.contains("weights are float32"), "{said}");
    assert!(said.contains("encoder_tokenizer is set"), "{said}");
}

#[test]
fn lists_are_typed_as_in_a_file_or_with_commas() {
    let evaluation = |config: Config| config.dataset.training.evaluation.ks;
    assert_eq!(evaluation(load("").unwrap()), [1, 3, 5]);
    for line in ["ks=1,100", "ks=[1,100]"] {
        assert_eq!(evaluation(load(&format!("dataset.training.evaluation.{line}")).unwrap()), [1, 100]);
    }
    assert_eq!(evaluation(load("dataset.training.evaluation.ks=7").unwrap()), [7]);
    let file = "[dataset.training]\nevaluation.ks = [2, 9]\nxmc.milestones = [0.25, 0.5]\n\
                xmc.lr_scheduler = 'MultiStepLR'\n";
    let config = load_file(file, "dataset.training.encoder.milestones=0.1").unwrap();
    let training = config.dataset.training;
    assert_eq!((training.evaluation.ks, training.xmc.milestones), (vec![2, 9], vec![0.25, 0.5]));
    assert_eq!((training.encoder.milestones, training.xmc.lr_scheduler), (vec![0.1], Schedule::MultiStep));
    assert!(load_file("[dataset.training]\nevaluation.ks = []\n", "").is_err());
}

#[test]
fn a_plateau_needs_something_to_watch() {
    let plateau = "dataset.training.xmc.lr_scheduler=ReduceLROnPlateau dataset.training.xmc.patience=2";
    let load = |more: &str| load(&format!("{plateau} {more}"));
    assert!(load("").is_ok() && load("dataset.data.validation_fraction=0").is_ok());
    let refused = message(load("dataset.data.validation_fraction=0 dataset.training.loss_every=0"));
    assert!(refused.contains("no rows are held out and no loss"), "{refused}");
    assert!(refused.contains("`dataset.training.xmc.lr_scheduler`"), "{refused}");
    let said = warnings("dataset.training.encoder.gamma=0.5 dataset.training.encoder.momentum=0.9").join("\n");
    assert!(said.contains("only MultiStepLR and ReduceLROnPlateau multiply"), "{said}");
    assert!(said.contains("Adam has no momentum to set"), "{said}");
}

#[test]
fn what_is_always_done_cannot_be_switched() {
    for key in [
        "dataset.data.tokenized_loading",
        "dataset.training.use_checkpoint",
        "dataset.training.evaluation.eval_psp",
        "dataset.training.evaluation.eval_recall",
        "dataset.training.evaluation.eval_ndcg",
        "dataset.training.evaluation.eval_psr",
    ] {
        for value in ["True", "False"] {
            let line = format!("{key}={value}");
            assert_eq!(load(&line).unwrap(), load("").unwrap());
            assert_eq!(warnings(&line).len(), 1);
        }
    }
    assert!(load("dataset.model.xmc.using_dropout=False").is_ok());
}

/// Keys that exist, that nearly do, and that do not.
fn any_key() -> impl Strategy<Value = String> {
    let known: Vec<String> = settings::from_toml(presets::DEFAULT, "")
        .unwrap()
        .into_iter()
        .map(|setting| setting.key)
        .chain(ignored::names().map(str::to_owned))
        .chain(["dataset", "dataset.training", "", "."].map(str::to_owned))
        .collect();
    prop_oneof![
        4 => prop::sample::select(known),
        1 => "[a-z.]{0,20}",
        1 => any::<String>(),
    ]
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        prop::sample::select(vec!["True", "false", "none", "food", "0", "1", "nan", ""]).prop_map(str::to_owned),
    ]
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for text in [
        format!("{}x = 1", "a.".repeat(100_000)),
        format!("[{}x]", "a.".repeat(100_000)),
        format!("log_fname = {}", "[".repeat(100_000)),
        format!("log_fname = {}", "{a=".repeat(100_000)),
    ] {
        assert!(Config::from_toml(&text, "my.toml").is_err());
    }
}

proptest! {
    #[test]
    fn no_argument_panics(key in any_key(), value in any_value()) {
        if let Ok((config, _)) = Config::load(None, &[format!("{key}={value}")]) {
            prop_assert_eq!(&Config::from_toml(&config.to_toml(), "config.toml").unwrap(), &config);
        }
    }

    #[test]
    fn no_file_panics(key in any_key(), value in any_value()) {
        let _ = Config::from_toml(&format!("{key} = {value}"), "my.toml");
    }
}
