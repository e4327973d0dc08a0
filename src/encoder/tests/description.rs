//! The `config.json` of a Hugging Face folder: what is read of it, and what is refused.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_folder_without_a_description_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = || EncoderConfig::from_pretrained(dir.path()).unwrap_err().to_string();
    assert!(error().contains("an empty folder"), "{}", error());
    fs::create_dir(dir.path().join("0_Transformer")).unwrap();
    fs::write(dir.path().join("modules.json"), "[]").unwrap();
    assert!(error().contains("no config.json in it; it holds `0_Transformer`, `modules.json`"), "{}", error());
    fs::write(dir.path().join("0_Transformer/config.json"), "{}").unwrap();
    assert!(error().contains("name that folder"), "{}", error());
}

#[test]
fn a_description_that_does_not_do_is_located() {
    let dir = tempfile::tempdir().unwrap();
    let read = |key: &str, value: &Value| {
        let mut json = json!({ "model_type": "bert", "transformers_version": "9" });
        json[key] = value.clone();
        let text = serde_json::to_string_pretty(&json).unwrap();
        let line = text.lines().position(|line| line.contains(key)).unwrap() + 1;
        fs::write(dir.path().join("config.json"), text).unwrap();
        (EncoderConfig::from_pretrained(dir.path()), line)
    };
    for (key, value, expected) in [
        ("model_type", json!("electra"), "expected `bert`, `distilbert` or `roberta`, found `electra`"),
        ("model_type", json!("mpnet"), "found `mpnet`\n  help: MPNet adds a bias for the distance"),
        ("model_type", json!(null), "expected `bert`, `distilbert` or `roberta`, found nothing"),
        (
            "hidden_act",
            json!("quick_gelu"),
            "expected one of `gelu`, `gelu_python` (the same), `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast` (the same), \
             `relu`, found \"quick_gelu\"",
        ),
        ("hidden_act", json!("silu"), "found \"silu\""),
        ("hidden_size", json!("wide"), "expected a whole number, 0 or more, found \"wide\""),
        ("hidden_size", json!(1.5), "expected a whole number, 0 or more, found 1.5"),
        ("hidden_size", json!(-1), "expected a whole number, 0 or more, found -1"),
        ("hidden_size", json!([768]), "expected a whole number, 0 or more, found [768]"),
        ("vocab_size", json!(u64::MAX), "expected at most 16777216"),
        ("num_hidden_layers", json!(1_000_000), "expected at most 1024, found 1000000"),
        ("num_attention_heads", json!(7), "expected a divisor of the hidden size, 768, found 7"),
        ("vocab_size", json!(0), "expected a positive number, found 0"),
        ("hidden_dropout_prob", json!(1.0), "expected a probability"),
        ("hidden_dropout_prob", json!("0.1"), "expected a number, found \"0.1\""),
        ("layer_norm_eps", json!(-1.0), "expected 0 or more, found -1"),
        ("position_embedding_type", json!("relative_key"), "expected `absolute`, found `relative_key`"),
        ("is_decoder", json!(true), "expected `false`, found `true`"),
    ] {
        let (read, line) = read(key, &value);
        let error = read.unwrap_err().to_string();
        let place = format!("config.json:{line}: `{key}`: expected ");
        assert!(error.contains(&place) && error.contains(expected), "{error}");
    }
    for (key, value) in [
        ("hidden_act", json!("gelu_python")),
        ("hidden_act", json!("gelu_new")),
        ("hidden_act", json!("gelu_pytorch_tanh")),
        ("pad_token_id", json!(null)),
        ("position_embedding_type", json!("absolute")),
        ("layer_norm_eps", json!(0)),
    ] {
        read(key, &value).0.unwrap_or_else(|error| panic!("{error}"));
    }
    fs::write(dir.path().join("config.json"), "\u{feff}{\"model_type\": \"bert\"}").unwrap();
    EncoderConfig::from_pretrained(dir.path()).unwrap();
}
