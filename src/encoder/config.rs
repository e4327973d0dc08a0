//! Which encoder it is, and how large.

use burn::{nn::LinearConfig, tensor::Device};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

use super::{Activations, Encoder, Output, family::Family, sizes::TransformerConfig};

/// The description of an encoder. Written as one JSON object: `model_type`, and the fields of [`TransformerConfig`] and
/// [`Output`].
///
/// Reading such an object back, a key that is missing has the family's default, but for the sizes, which every version
/// wrote; a key that is not known is an error.
/// The `config.json` of a Hugging Face folder is read by [`from_pretrained`](Self::from_pretrained).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EncoderConfig {
    /// Its family.
    #[serde(rename = "model_type")]
    pub family: Family,
    /// Its sizes.
    #[serde(flatten)]
    pub transformer: TransformerConfig,
    /// What comes behind its layers.
    #[serde(flatten)]
    pub output: Output,
}

impl EncoderConfig {
    /// A BERT of these sizes.
    pub fn bert(transformer: TransformerConfig) -> Self {
        Self { family: Family::Bert, transformer, output: Output::default() }
    }

    /// An encoder with fresh weights: normal(0, `initializer_range`), biases 0, norms 1 and 0; those of the bottleneck
    /// layer uniform within the inverse square root of its inputs.
    ///
    /// # Panics
    /// Unless [`check`](Self::check) says that it is possible.
    pub fn init(&self, device: &Device) -> Encoder {
        let transformer = self.transformer.init(self.family.facts().switches, device);
        let pooled = self.output.pooled(&self.transformer);
        let bottleneck = self.output.bottleneck_size.map(|size| LinearConfig::new(pooled, size).init(device));
        Encoder::new(transformer, self.output, bottleneck)
    }

    /// The first field that no encoder can be made of: its name, what was expected, what is there.
    ///
    /// # Errors
    /// These three, if there is one.
    pub fn check(&self) -> Result<(), (&'static str, String, String)> {
        let fault = self.transformer.violation(self.family.facts().switches);
        fault.or_else(|| self.output.violation(&self.transformer)).map_or(Ok(()), Err)
    }

    /// The width of the embedding.
    pub fn dim(&self) -> usize {
        self.output.bottleneck_size.unwrap_or(self.output.pooled(&self.transformer))
    }

    /// The number of token ids that it can embed.
    pub fn vocab_size(&self) -> usize {
        self.transformer.vocab_size
    }

    /// The longest text, in tokens.
    pub fn max_tokens(&self) -> usize {
        let offset = self.transformer.position_offset(self.family.facts().switches);
        self.transformer.max_position_embeddings.saturating_sub(offset)
    }

    /// The number of weights.
    pub fn parameters(&self) -> u64 {
        let shapes = self.transformer.shapes(self.family.facts().switches);
        let sizes = (shapes.iter()).map(|parameter| parameter.shape.iter().map(|size| *size as u64).product::<u64>());
        let bottleneck = self
            .output
            .bottleneck_size
            .map_or(0, |size| (self.output.pooled(&self.transformer) as u64 + 1) * size as u64);
        sizes.sum::<u64>() + bottleneck
    }

    /// Numbers that it holds of a batch of `tokens` tokens: what one layer works on, and of all layers what is `kept` for
    /// the way back.
    pub fn activations(&self, tokens: usize, kept: Option<Activations>) -> u64 {
        let TransformerConfig { hidden_size, intermediate_size, num_hidden_layers, .. } = self.transformer;
        let (h, i) = (hidden_size as u64, intermediate_size as u64);
        let work = 10 * h + 3 * i;
        let all = 6 * h + i;
        let layers = num_hidden_layers as u64;
        let kept = match kept {
            None => 0,
            // The input, queries, keys, values, two sums and the wide layer.
            Some(Activations::Balanced) => layers * all,
            Some(Activations::Least) => layers * h + all,
        };
        tokens as u64 * (work + kept)
    }
}

impl<'de> Deserialize<'de> for EncoderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let family = match fields.remove("model_type") {
            // The first version knew BERT only, and did not say so.
            None => Family::Bert,
            Some(name) => Family::deserialize(&name).map_err(|_| {
                let read = Family::READ;
                D::Error::custom(format!("`model_type`: expected one of {read}, found {name}"))
            })?,
        };
        let output = Output::KEYS.into_iter().filter_map(|key| Some((key.to_owned(), fields.remove(key)?))).collect();
        let output = Output::deserialize(Value::Object(output)).map_err(D::Error::custom)?;
        let known = (family.facts().defaults)().to_fields();
        let unknown = fields.keys().find(|key| !known.contains_key(*key));
        if let Some(key) = unknown {
            return Err(D::Error::custom(format!("`{key}`: not a key that this version knows; a newer one wrote it")));
        }
        let missing = TransformerConfig::SIZES.iter().find(|size| !fields.contains_key(**size));
        if let Some(size) = missing {
            return Err(D::Error::custom(format!("`{size}`: missing")));
        }
        let transformer = TransformerConfig::from_fields(known, |field| fields.remove(field));
        let transformer = transformer.map_err(|wrong| {
            let (field, expected, found) = wrong;
            D::Error::custom(format!("`{field}`: expected {expected}, found {found}"))
        })?;
        let config = Self { family, transformer, output };
        match config.check() {
            Ok(()) => Ok(config),
            Err((field, expected, found)) => {
                Err(D::Error::custom(format!("`{field}`: expected {expected}, found {found}")))
            }
        }
    }
}
