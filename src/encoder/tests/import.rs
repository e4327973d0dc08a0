//! Weights and descriptions from Hugging Face folders: every form that is read, and a word on every other.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{pytorch::fixtures, *};

/// A folder that a case may change before it is read.
struct Folder(tempfile::TempDir);

impl Folder {
    /// The tiny encoder, with tensors changed before they are written.
    fn tiny(change: impl FnOnce(&mut Weights)) -> Self {
        let (config, mut weights) = tiny();
        change(&mut weights);
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config, &weights, "", Dtype::F32);
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> crate::Result<Encoder> {
        from_pretrained(self.0.path(), &Device::flex()).map(|(encoder, _)| encoder)
    }

    fn error(&self) -> String {
        self.load().expect_err("a folder that cannot be read").to_string()
    }
}

fn embed(encoder: &Encoder) -> Vec<f32> {
    values(encoder.forward(batch(&ROWS, &Device::flex())))
}

/// All names changed by `name`.
fn renamed(name: impl Fn(&str) -> String) -> impl Fn(&mut Weights) {
    move |weights| *weights = std::mem::take(weights).into_iter().map(|(old, tensor)| (name(&old), tensor)).collect()
}

fn add(weights: &mut Weights, name: &str) {
    weights.insert(name.into(), (vec![1], vec![0.0]));
}

#[test]
fn the_encoder_is_found_under_any_names_and_beside_anything() {
    let control = embed(&Folder::tiny(|_| ()).load().unwrap());
    let prefixes = [
        "bert.",
        "model.",
        "module.",
        "module.bert.",
        "0.auto_model.",
        "_orig_mod.module.text_model.encoder.",
        "encoder.",
        "embeddings.",
    ];
    type Change = Box<dyn Fn(&mut Weights)>;
    let mut changes: Vec<Change> = Vec::new();
    for prefix in prefixes {
        changes.push(Box::new(renamed(move |name| format!("{prefix}{name}"))));
        // With a head, and something beside the encoder under the same prefix.
        changes.push(Box::new(move |weights| {
            renamed(|name| format!("{prefix}{name}"))(weights);
            add(weights, &format!("{prefix}pooler.dense.weight"));
            add(weights, &format!("{prefix}embeddings.position_ids"));
            add(weights, "my_own_head.0.weight");
            add(weights, "logit_scale");
        }));
    }
    changes.push(Box::new(|weights| {
        for name in ["pooler.dense.weight", "cls.predictions.bias", "classifier.weight", "qa_outputs.bias"] {
            add(weights, name);
        }
        add(weights, "embeddings.position_ids");
        // A second, smaller encoder is none of this one's.
        add(weights, "image_model.embeddings.word_embeddings.weight");
    }));
    changes.push(Box::new(renamed(|name| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    })));
    for (number, change) in changes.iter().enumerate() {
        let encoder = Folder::tiny(change).load().unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(embed(&encoder), control, "{number}");
    }
}

/// As above for the families with names of their own, whose fixtures have a head and the family's prefix.
#[test]
fn other_families_are_found_under_any_prefix_too() {
    for (fixture, usual) in [("tiny-distilbert", "distilbert."), ("tiny-roberta", "roberta.")] {
        let fixture = fixtures().join(fixture);
        let config = EncoderConfig::from_pretrained(&fixture).unwrap();
        let control = embed(&config.load_pretrained(&fixture, &Device::flex()).unwrap());
        let bytes = fs::read(fixture.join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        for prefix in ["", "bert.", "model.", "encoder.", "transformer.", "0.auto_model.", "module.student."] {
            let renamed = tensors.iter().map(|(name, tensor)| {
                let own = name.strip_prefix(usual).map(|own| format!("{prefix}{own}"));
                (own.unwrap_or_else(|| name.to_owned()), tensor)
            });
            safetensors::serialize_to_file(renamed, None, &file).unwrap();
            let encoder = config.load_pretrained(&file, &Device::flex()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(embed(&encoder), control, "{prefix}");
        }
    }
}

/// NGAME keeps its encoder for labels beside that for texts, which may be a copy; both in one file of no folder.
#[test]
fn the_encoder_of_ngame_is_read_from_its_file() {
    let control = embed(&Folder::tiny(|_| ()).load().unwrap());
    let folder = Folder::tiny(|weights| {
        let encoder = std::mem::take(weights);
        for (name, (shape, values)) in encoder {
            weights.insert(format!("embedding_docs.encoder.transformer.0.auto_model.{name}"), {
                (shape.clone(), values.iter().map(|value| value * 2.0).collect())
            });
            weights.insert(format!("embedding_labels.encoder.transformer.0.auto_model.{name}"), (shape, values));
        }
        add(weights, "embedding_labels.encoder.transformer.0.auto_model.pooler.dense.weight");
        add(weights, "transform_docs.weight");
    });
    let config = EncoderConfig::from_pretrained(folder.0.path()).unwrap();
    let file = folder.path("state_dict.safetensors");
    fs::rename(folder.path("model.safetensors"), &file).unwrap();
    config.check_weights(&file).unwrap();
    assert_eq!(embed(&config.load_pretrained(&file, &Device::flex()).unwrap()), control);

    let bare = fixtures().join("tiny-bert");
    let config = EncoderConfig::from_pretrained(&bare).unwrap();
    let file = folder.path("state_dict.pt");
    fs::copy(bare.join("pytorch_model.bin"), &file).unwrap();
    let control = embed(&config.load_pretrained(&bare, &Device::flex()).unwrap());
    assert_eq!(embed(&config.load_pretrained(&file, &Device::flex()).unwrap()), control);
    let error = config.check_weights(&folder.path("absent.pt")).unwrap_err().to_string();
    assert!(error.contains("absent.pt"), "{error}");
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let moved = |weights: &mut Weights| {
        let bias = weights.remove("encoder.layer.1.output.dense.bias").unwrap();
        weights.insert("encoder.layer.2.output.dense.bias".into(), bias);
        weights.get_mut("embeddings.word_embeddings.weight").unwrap().0 = vec![8, 11];
    };
    let twice = |weights: &mut Weights| {
        let copy = weights.clone();
        *weights = (copy.iter().map(|(name, tensor)| (format!("query.{name}"), tensor.clone())))
            .chain(copy.iter().map(|(name, tensor)| (format!("passage.{name}"), tensor.clone())))
            .collect();
    };
    type Change<'a> = &'a dyn Fn(&mut Weights);
    let cases: [(Change, &[&str]); 5] = [
        (
            &moved,
            &[
                "model.safetensors: missing tensors: `encoder.layer.1.output.dense.bias`;",
                "unknown tensors: `encoder.layer.2.output.dense.bias`;",
                "unfit tensors: `embeddings.word_embeddings.weight of shape [8, 11], expected [11, 8]`",
                "config.json and the weights must be of the same model",
            ],
        ),
        (
            &|weights| {
                moved(weights);
                renamed(|name| format!("bert.{name}"))(weights);
            },
            &[
                "missing tensors: `bert.encoder.layer.1.output.dense.bias`;",
                "unknown tensors: `bert.encoder.layer.2.output.dense.bias`;",
            ],
        ),
        (&|weights| add(weights, "embeddings.extra.weight"), &["unknown tensors: `embeddings.extra.weight`"]),
        (&|weights| weights.clear(), &["`embeddings.LayerNorm.bias`, ", " and 29 more"]),
        (&twice, &["several encoders, whose names begin with `passage.`, `query.`"]),
    ];
    for (change, parts) in cases {
        let error = Folder::tiny(change).error();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    for value in [f64::NAN, f64::INFINITY] {
        let folder = Folder::tiny(|weights| {
            weights.get_mut("encoder.layer.1.output.dense.bias").unwrap().1[0] = value;
        });
        let config = EncoderConfig::from_pretrained(folder.0.path()).unwrap();
        let error = config.load_pretrained(folder.0.path(), &Device::flex()).unwrap_err().to_string();
        let parts =
            ["model.safetensors: tensor `encoder.layer.1.output.dense.bias` is not finite", "download it again"];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn every_type_of_float_is_converted() {
    let (config, mut weights) = tiny();
    // Powers of two, so that no type loses anything and all must be equal.
    for (_, values) in weights.values_mut() {
        values.iter_mut().for_each(|v| *v = (v.abs().max(0.01).log2().round()).exp2() * v.signum());
    }
    let loaded = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16].map(|dtype| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config, &weights, "", dtype);
        embed(&Folder(dir).load().unwrap())
    });
    assert!(loaded.iter().all(|values| *values == loaded[1]));

    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &config, &weights, "", Dtype::I32);
    let error = Folder(dir).error();
    assert!(error.contains("embeddings.LayerNorm.bias of type I32"), "{error}");
}

/// The committed encoder of PyTorch, with `files` of it under these names.
fn from_pytorch(files: &[(&str, &str)]) -> Folder {
    let folder = Folder(tempfile::tempdir().unwrap());
    for (from, to) in files.iter().chain(&[("config.json", "config.json")]) {
        fs::copy(fixtures().join("tiny-bert").join(from), folder.path(to)).unwrap();
    }
    folder
}

#[test]
fn files_of_pytorch_hold_what_those_of_safetensors_hold() {
    let control = embed(&from_pytorch(&[("model.safetensors", "model.safetensors")]).load().unwrap());
    let weights = "pytorch_model.bin";
    for name in [weights, "legacy.bin"] {
        assert_eq!(embed(&from_pytorch(&[(name, weights)]).load().unwrap()), control, "{name}");
    }
    let both = from_pytorch(&[("model.safetensors", "model.safetensors")]);
    fs::write(both.path(weights), "nonsense").unwrap();
    assert_eq!(embed(&both.load().unwrap()), control);

    // In one part, by an index.
    let parts = from_pytorch(&[(weights, "pytorch_model-00001-of-00001.bin")]);
    let index = json!({ "weight_map": { "embeddings.LayerNorm.bias": "pytorch_model-00001-of-00001.bin" } });
    fs::write(parts.path("pytorch_model.bin.index.json"), index.to_string()).unwrap();
    assert_eq!(embed(&parts.load().unwrap()), control);

    let bytes = fs::read(fixtures().join("tiny-bert").join(weights)).unwrap();
    for length in [1, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(parts.path("pytorch_model-00001-of-00001.bin"), &bytes[..length]).unwrap();
        let error = parts.error();
        assert!(error.contains("00001.bin: cannot be read"), "{error}");
        assert!(error.contains("download it again"), "{error}");
    }
}

/// The tiny encoder in two parts, and their index.
fn parted() -> (Folder, Value) {
    let (config, weights) = tiny();
    let folder = Folder::tiny(|_| ());
    fs::remove_file(folder.path("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for part in 0..2 {
        let weights: Weights = (weights.iter().enumerate())
            .filter(|(number, _)| number % 2 == part)
            .map(|(_, (name, tensor))| (name.clone(), tensor.clone()))
            .collect();
        let file = format!("model-{part}.safetensors");
        map.extend(weights.keys().map(|name| (name.clone(), file.clone().into())));
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config, &weights, "", Dtype::F32);
        fs::copy(dir.path().join("model.safetensors"), folder.path(&file)).unwrap();
    }
    (folder, json!({ "metadata": { "total_size": 1 }, "weight_map": map }))
}

#[test]
fn weights_in_parts_are_read_by_their_index() {
    const INDEX: &str = "model.safetensors.index.json";
    let (folder, index) = parted();
    fs::write(folder.path(INDEX), index.to_string()).unwrap();
    assert_eq!(embed(&folder.load().unwrap()), embed(&Folder::tiny(|_| ()).load().unwrap()));

    type Change = fn(&Folder, &mut Value);
    let cases: [(Change, &[&str]); 6] = [
        (
            |folder, _| fs::remove_file(folder.path("model-1.safetensors")).unwrap(),
            &["index.json: of the files that it names, `model-1.safetensors` are missing", "download them"],
        ),
        (
            |folder, _| fs::write(folder.path("model-0.safetensors"), "").unwrap(),
            &["model-0.safetensors: expected the weights", "an empty file", "download it again"],
        ),
        (
            |_, index| index["weight_map"]["embeddings.LayerNorm.bias"] = "model-1.safetensors".into(),
            &["of the tensors that it names, `embeddings.LayerNorm.bias` are not in their files"],
        ),
        (
            |_, index| index["weight_map"]["embeddings.LayerNorm.bias"] = "../model-0.safetensors".into(),
            &["expected the name of a file beside it, found `../model-0.safetensors`"],
        ),
        (|_, index| *index = json!({}), &["`weight_map`: expected the file of every tensor"]),
        (|_, index| *index = json!([]), &["index.json:1: expected an object in JSON"]),
    ];
    for (change, parts) in cases {
        let (folder, mut index) = parted();
        change(&folder, &mut index);
        fs::write(folder.path(INDEX), index.to_string()).unwrap();
        let error = folder.error();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn a_folder_says_what_it_holds_and_what_is_read() {
    let weights = "model.safetensors";
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:6a\nsize 90868376\n";
    let read = "read are model.safetensors and pytorch_model.bin";
    for (file, content, parts) in [
        ("tf_model.h5", "", ["holds TensorFlow weights only, `tf_model.h5`", "from_tf=True", read]),
        ("flax_model.msgpack", "", ["holds Flax weights only", "from_flax=True", read]),
        ("bert_model.ckpt.index", "", ["holds TensorFlow weights only", "from_tf=True", read]),
        ("model.onnx", "", ["holds ONNX weights only, `model.onnx`", "download", read]),
        ("model.gguf", "", ["holds GGUF weights only", "download", read]),
        ("readme", "", ["holds no weights; it holds `config.json`, `readme`", "download", read]),
        (
            "model-00001-of-00002.safetensors",
            "",
            ["in parts", "`model-00001-of-00002.safetensors`", "download `model.safetensors.index.json`"],
        ),
        (
            "pytorch_model-00001-of-00002.bin",
            "",
            ["in parts", "without their index", "download `pytorch_model.bin.index.json`"],
        ),
        (weights, pointer, ["expected the weights of an encoder", "found a git-lfs pointer", "git lfs pull"]),
        (weights, "", ["model.safetensors: expected", "an empty file", "download it again"]),
        (weights, "<!DOCTYPE html><html>", ["model.safetensors", "a web page", "download the file itself"]),
        (weights, "not what it should be", ["model.safetensors", "not a safetensors file", "download it again"]),
        ("pytorch_model.bin", pointer, ["pytorch_model.bin", "a git-lfs pointer", "git lfs pull"]),
        ("pytorch_model.bin", "nonsense", ["pytorch_model.bin", "cannot be read", "download it again"]),
        ("config.json", pointer, ["config.json", "a git-lfs pointer", "git lfs pull"]),
        ("config.json", "", ["config.json", "an empty file", "download it again"]),
        ("config.json", "{\"model_type\": ", ["config.json:1", "its beginning only", "download it again"]),
        ("config.json", "[1]", ["config.json:1", "expected an object in JSON", "found something else in JSON"]),
    ] {
        let folder = Folder::tiny(|_| ());
        fs::remove_file(folder.path(weights)).unwrap();
        fs::write(folder.path(file), content).unwrap();
        let error = folder.error();
        assert!(parts.iter().all(|part| error.contains(part)), "{file}: {error}");
    }

    let folder = Folder::tiny(|_| ());
    let bytes = fs::read(folder.path(weights)).unwrap();
    for length in [1, 7, 100, bytes.len() - 1] {
        fs::write(folder.path(weights), &bytes[..length]).unwrap();
        let error = folder.error();
        assert!(error.contains("model.safetensors: incomplete"), "{length}: {error}");
        assert!(error.contains("download it again"), "{length}: {error}");
    }
}
