//! Against PyTorch: `tests/fixtures/encoder` says with what each file was made.

use std::path::PathBuf;

use serde::{Deserialize, de::DeserializeOwned};

use super::*;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder")
}

fn json<T: DeserializeOwned>(path: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Expected {
    ids: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    means: Vec<Vec<f32>>,
    upstream: Vec<Vec<f32>>,
}

fn off(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_tiny_bert_and_its_gradients_agree_with_pytorch() {
    let dir = fixtures().join("tiny-bert");
    let expected: Expected = json(&dir.join("expected.json"));
    let device = Device::flex().autodiff();
    let (encoder, _) = from_pretrained(&dir, &device).unwrap();
    let rows: Vec<_> = (expected.ids.iter()).zip(expected.lengths).map(|(ids, length)| &ids[..length]).collect();
    let pass = encoder.forward_train(batch(&rows, &device), 0);
    let means: Vec<f32> = expected.means.concat();
    let worst = off(&values(pass.embedding.clone()), &means);
    assert!(worst < 5e-6, "off by {worst}");

    let upstream = TensorData::new(expected.upstream.concat(), pass.embedding.dims());
    let ours = pass.backward(Tensor::from_data(upstream, &Device::flex()));
    let file = fs::read(dir.join("gradients.safetensors")).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&file).unwrap();
    let names = &Family::Bert.facts().names;
    let mut compared = 0;
    for (path, shape, ours) in training::gradients(&encoder, &ours) {
        let theirs = theirs.tensor(&names.in_file(path.strip_prefix("bert.").unwrap())).unwrap();
        let values: Vec<f32> =
            (theirs.data().chunks_exact(4)).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        let theirs = Tensor::<1>::from_data(TensorData::new(values, [ours.len()]), &Device::flex());
        // Linear layers: PyTorch keeps [out, in].
        let theirs = match (shape.as_slice(), path.starts_with("bert.layers.")) {
            (&[input, output], true) => theirs.reshape([output, input]).transpose().flatten(0, 1),
            _ => theirs,
        };
        let theirs: Vec<f32> = theirs.into_data().try_into_vec().unwrap();
        let largest = theirs.iter().fold(1.0, |largest: f32, x| largest.max(x.abs()));
        let worst = off(&ours, &theirs);
        assert!(worst < 1e-5 * largest, "{path}: off by {worst}, largest {largest}");
        compared += 1;
    }
    assert_eq!(compared, theirs.len());
}

/// Of a family beside BERT: `make_tiny_family.py` says what is what.
#[derive(Deserialize)]
struct OfFamily {
    ids: Vec<Vec<u32>>,
    mean: Vec<Vec<f32>>,
    weighted: Vec<Vec<f32>>,
    first: Vec<Vec<f32>>,
}

#[test]
fn a_tiny_distilbert_and_a_tiny_roberta_agree_with_pytorch() {
    for (folder, family, positions) in
        [("tiny-distilbert", Family::DistilBert, 12), ("tiny-roberta", Family::Roberta, 12)]
    {
        let dir = fixtures().join(folder);
        let config = EncoderConfig::from_pretrained(&dir).unwrap();
        assert_eq!((config.family, config.max_tokens()), (family, positions), "{folder}");
        let device = Device::flex();
        let (encoder, _) = from_pretrained(&dir, &device).unwrap();
        assert_eq!(config.parameters(), encoder.parameter_count() as u64, "{folder}");

        let expected: OfFamily = json(&dir.join("expected.json"));
        let rows: Vec<&[u32]> = expected.ids.iter().map(Vec::as_slice).collect();
        let worst = off(&values(encoder.forward(batch(&rows, &device))), &expected.mean.concat());
        assert!(worst < 5e-6, "{folder}: off by {worst}");
        for (pool_mode, feature_layers, expected) in [
            (PoolMode::LastHiddenWeightedAvg, 1, &expected.weighted),
            (PoolMode::LastNhiddenConlast, 2, &expected.first),
        ] {
            let config =
                EncoderConfig { output: Output { pool_mode, feature_layers, bottleneck_size: None }, ..config.clone() };
            let encoder = config.load_pretrained(&dir, &device).unwrap();
            assert_eq!((encoder.dim(), config.dim()), (16 * feature_layers, 16 * feature_layers));
            let worst = off(&values(encoder.forward(batch(&rows, &device))), &expected.concat());
            assert!(worst < 5e-6, "{folder}, {pool_mode:?}: off by {worst}");
        }

        // The same weights as PyTorch's own file, in which tied ones stand twice.
        let pickled = config.load_pretrained(&dir.join("pytorch_model.bin"), &device).unwrap();
        assert_eq!(values(pickled.forward(batch(&rows, &device))), values(encoder.forward(batch(&rows, &device))));

        // A run keeps the description under its own names.
        let stored = serde_json::to_value(&config).unwrap();
        assert_eq!(serde_json::from_value::<EncoderConfig>(stored).unwrap(), config, "{folder}");
    }
}

#[test]
#[ignore = "needs encoders/minilm-l6, 90 MB that are not in the repository"]
fn minilm_agrees_with_pytorch() {
    #[derive(Deserialize)]
    struct Golden {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        input_ids: Vec<u32>,
        attention_mask: Vec<i32>,
        mean_pool: Vec<f32>,
    }

    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("encoders/minilm-l6");
    let golden: Golden = json(&fixtures().join("minilm-l6.json"));
    let device = Device::flex();
    let (encoder, _) = from_pretrained(&dir, &device).unwrap();
    let rows: Vec<_> = golden
        .items
        .iter()
        .map(|item| {
            let real = item.attention_mask.iter().filter(|&&m| m == 1).count();
            &item.input_ids[..real]
        })
        .collect();
    let inputs = batch(&rows, &device);
    let ours = values(encoder.forward(inputs));
    let theirs: Vec<f32> = golden.items.into_iter().flat_map(|i| i.mean_pool).collect();
    let worst = off(&ours, &theirs);
    assert!(worst < 1e-4, "off by {worst}");
}
